"""What figures are drawn for: a column or a page of a paper, or a slide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from kntrace.errors import SettingsError

__all__ = ["SIZES", "Size", "find_size", "size_now", "sized"]


@dataclass(frozen=True)
class Size:
    """Room for a figure.

    Attributes
    ----------
    name
        Its name in `SIZES`.
    narrow, wide
        Width in mm of a figure that a column would do for, and of one that needs a page.
    tallest
        Height in mm that a figure keeps to if what it shows stays legible.
    scale
        By how much all of it is enlarged after it was laid out, text and lines included. Widths
        and heights here are those before.
    """

    name: str
    narrow: float
    wide: float
    tallest: float
    scale: float = 1.0


# Text has 7 points, its smallest 6.2. A slide of 339 mm x 190 mm (16:9) is laid out at half its
# size: so text on it has 14 and 12.4 points, and is what a slide can hold.
_KNOWN = (
    Size("paper", 85.0, 170.0, 240.0),
    Size("column", 85.0, 85.0, 240.0),
    Size("wide", 170.0, 170.0, 240.0),
    Size("slide", 169.0, 169.0, 95.0, scale=2.0),
)
SIZES: dict[str, Size] = {size.name: size for size in _KNOWN}
"""By name: `paper` is a column or a page, whichever the figure needs."""

_NOW: ContextVar[Size] = ContextVar("size of figures", default=SIZES["paper"])


def find_size(name: str) -> Size:
    """Find a size by its name.

    Raises
    ------
    SettingsError
        If there is none of this name.
    """
    if name not in SIZES:
        raise SettingsError.unknown("size", name, SIZES)
    return SIZES[name]


def size_now() -> Size:
    """Return the size that figures are drawn at here: `paper` outside of `sized`."""
    return _NOW.get()


@contextmanager
def sized(name: str) -> Iterator[Size]:
    """Draw figures at another size.

    Raises
    ------
    SettingsError
        If there is none of this name.
    """
    token = _NOW.set(find_size(name))
    try:
        yield _NOW.get()
    finally:
        _NOW.reset(token)
