"""Where the panels of a view lie: beside each other on a page, below each other in a column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kntrace.figures.labels import LINE, longest
from kntrace.figures.sizes import size_now
from kntrace.figures.style import legend, new_figure

__all__ = ["Layout", "lay_out"]

# What surrounds panels in mm: margins of the sheet, the numbers and the name of an x axis, and
# what is left of a panel's share of the width beside those of its y axis.
_EDGES, _AXIS, _INSIDE = 3.0, 8.0, 0.8
# A legend's line beside its text, with the space to the next one, in mm.
_KEY = 8.5
_NARROW = 120.0
# Panels of a column are lower than those of a page, as they are narrower.
_LOWER = 0.8


@dataclass(frozen=True)
class Layout:
    """An empty figure with its panels; `widths` and `heights` are theirs in mm, roughly."""

    figure: Figure
    axes: dict[str, Axes]
    widths: dict[str, float]
    heights: dict[str, float]


def lay_out(rows: Sequence[str], heights: Sequence[float], handles: Sequence[Artist]) -> Layout:
    """Make a figure of panels with a legend above them, at the size that figures now have.

    Parameters
    ----------
    rows
        Names of the panels, a letter each, as they lie on a page: `("aa", "bc")` has one above
        two. In a column they come below each other.
    heights
        Height of every row in mm, which is less where there is no room for it.
    handles
        Of the legend, which has as many columns as its texts allow.
    """
    size = size_now()
    width = size.wide
    names = list(dict.fromkeys("".join(rows)))
    tall = {
        name: sum(tall for row, tall in zip(rows, heights, strict=True) if name in row)
        for name in names
    }
    if width < _NARROW:
        tall = {name: min(tall[name], max(heights)) * _LOWER for name in names}
        rows, heights = names, list(tall.values())
    text = longest(str(handle.get_label()) for handle in handles) + _KEY
    columns = max(1, min(len(handles), int(width / text)))
    head = LINE * math.ceil(len(handles) / columns)
    rest = head + _EDGES + _AXIS * len(rows)
    shrunk = min(1.0, (size.tallest - rest) / sum(heights))
    figure = new_figure(width, rest + shrunk * sum(heights), spaced=True)
    grid = figure.add_gridspec(
        1 + len(rows), len(rows[0]), height_ratios=[head, *(shrunk * tall for tall in heights)]
    )
    top = figure.add_subplot(grid[0, :])
    top.set_axis_off()
    legend(top, handles, (0.0, 0.0), columns=columns)
    axes, widths = {}, {}
    for name in names:
        down = [place for place, row in enumerate(rows) if name in row]
        across = [place for place, letter in enumerate(rows[down[0]]) if letter == name]
        here = grid[1 + down[0] : 2 + down[-1], across[0] : across[-1] + 1]
        axes[name] = figure.add_subplot(here)
        widths[name] = _INSIDE * width * len(across) / len(rows[0])
    return Layout(figure, axes, widths, {name: shrunk * tall[name] for name in names})
