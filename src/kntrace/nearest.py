"""The known name that is closest to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

__all__ = ["nearest", "nearest_name"]

# Names may come from strangers' files; comparing takes time that grows with their square.
_LONGEST_NAME = 100
_MOST_NAMES = 10_000


def nearest(found: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return "Did you mean …?" with the known name that is closest, if one is close."""
    close = nearest_name(found, known, cutoff=cutoff)
    return None if close is None else f"Did you mean {close!r}?"


def nearest_name(found: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that is closest, whatever its case, if one is close."""
    if len(found) > _LONGEST_NAME:
        return None
    by_lower = {
        name.lower(): name for name in islice(known, _MOST_NAMES) if len(name) <= _LONGEST_NAME
    }
    close = difflib.get_close_matches(found.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None
