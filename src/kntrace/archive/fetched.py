"""The list of what a run fetched and has to delete again, which outlives a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from kntrace.archive import folder

__all__ = ["read_fetched", "write_fetched"]


def read_fetched(run: Path) -> dict[str, set[str]]:
    """Read which commits, by repository, the run in `run` fetched; none if that is not known."""
    try:
        listed = json.loads((run / folder.FETCHED).read_text(encoding="utf-8"))
        return {str(name): {str(commit) for commit in commits} for name, commits in listed.items()}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        # What cannot be told to be the run's own is not deleted.
        return {}


def write_fetched(run: Path, fetched: Mapping[str, AbstractSet[str]]) -> None:
    """Write the list, or remove it where nothing is left on it."""
    listed = {name: sorted(commits) for name, commits in sorted(fetched.items()) if commits}
    if listed:
        folder.write_text(run / folder.FETCHED, json.dumps(listed, indent=2) + "\n")
    else:
        (run / folder.FETCHED).unlink(missing_ok=True)
