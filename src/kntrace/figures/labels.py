"""Text in figures: how long it is, what fits, and numbers in words that fit too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kntrace.figures.style import SMALL

__all__ = ["LINE", "fitted", "longest", "number", "per_cent", "spread", "width_of", "wrapped"]

_MM_PER_POINT = 25.4 / 72
# Height of a line of small text, with the space to the next, in mm.
LINE = 1.2 * SMALL * _MM_PER_POINT

# Rooms are sums and differences of widths: rounding must not shorten a word.
_SLACK = 0.01

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def width_of(text: str, size: float = SMALL) -> float:
    """Width of one line of text in mm, in the fonts now in use."""
    return _width(text, size, tuple(mpl.rcParams["font.family"]))


@lru_cache(maxsize=10_000)
def _width(text: str, size: float, families: tuple[str, ...]) -> float:
    figure = Figure(figsize=(1, 1), dpi=72)
    FigureCanvasAgg(figure)
    drawn = figure.text(0, 0, text, size=size, family=list(families))
    return float(drawn.get_window_extent().width) * _MM_PER_POINT


def fitted(text: str, room: float, size: float = SMALL) -> str:
    """Shorten `text` to `room` mm, with an ellipsis where something was left out."""
    text = " ".join(text.split())
    room += _SLACK
    if width_of(text, size) <= room:
        return text
    low, high = 0, len(text)
    while low + 1 < high:
        middle = (low + high) // 2
        if width_of(text[:middle].rstrip() + "…", size) <= room:
            low = middle
        else:
            high = middle
    return text[:low].rstrip() + "…"


def wrapped(text: str, room: float, lines: int, size: float = SMALL) -> list[str]:
    """Break `text` at its spaces into at most `lines` lines that fit `room` mm."""
    rows: list[str] = []
    rest = text.split()
    while rest:
        taken = len(rest)
        if len(rows) + 1 < lines:
            while taken > 1 and width_of(" ".join(rest[:taken]), size) > room:
                taken -= 1
        rows.append(fitted(" ".join(rest[:taken]), room, size))
        rest = rest[taken:]
    return rows


def spread(places: Sequence[float] | npt.NDArray[np.float64], gap: float) -> list[int]:
    """Pick positions at least `gap` apart: as many as fit, evenly where places are even.

    Returns
    -------
    list of int
        Indices into `places`, which must ascend; the first is always among them.
    """
    if len(places) < 2:
        return list(range(len(places)))
    steps = np.diff(places)
    if np.allclose(steps, steps[0]):
        every = max(1, math.ceil(gap / max(float(steps[0]), 1e-9) - 1e-9))
        return list(range(0, len(places), every))
    chosen = [0]
    for index in range(1, len(places)):
        if places[index] - places[chosen[-1]] >= gap - 1e-9:
            chosen.append(index)
    return chosen


def number(value: float, digits: int = 3) -> str:
    """Write a number with `digits` significant digits, powers of ten raised."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -4 < power < 5:
        shown = f"{value:.{max(0, digits - 1 - power)}f}"
        shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
        return shown.replace("-", "−")
    mantissa = f"{value / 10.0**power:.{digits - 1}f}".rstrip("0").rstrip(".")
    factor = {"1": "", "-1": "−"}.get(mantissa, mantissa.replace("-", "−") + "×")
    return f"{factor}10{str(power).translate(_RAISED)}"


def per_cent(share: float, digits: int = 0) -> str:
    """Write a fraction as a percentage; a dash where it is undefined."""
    return "–" if math.isnan(share) else f"{share:.{digits}%}".replace("%", " %")


def longest(texts: Iterable[str], size: float = SMALL) -> float:
    """Width in mm of the widest text, 0 where there is none."""
    return max((width_of(text, size) for text in texts), default=0.0)
