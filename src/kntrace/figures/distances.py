"""Distances between the words' formation processes: the paper's figure 3."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from kntrace.analysis import Analysis
from kntrace.figures.style import (
    PAGE,
    brackets,
    colour_map,
    dividers,
    new_figure,
    word_ticks,
)

__all__ = ["ALT", "TITLE", "draw", "prepare"]

TITLE = "Distances between formation processes"
ALT = (
    "Heat map of the distance between every two words' formation processes, on a logarithmic "
    "colour scale, words ordered by group; dark is alike."
)


def prepare(analysis: Analysis, distance: str = "emd") -> xr.DataArray:
    """The matrix (word, other_word), the diagonal and distances of zero masked as NaN.

    A word's distance to itself is zero by definition and says nothing; on a logarithmic scale
    neither it nor any other zero has a colour.
    """
    name = distance if distance in analysis.distances else next(iter(analysis.distances))
    matrix = analysis.distances[name].astype("float64")
    values = matrix.values.copy()
    np.fill_diagonal(values, np.nan)
    values[values <= 0] = np.nan
    return matrix.copy(data=values)


def draw(table: xr.DataArray) -> Figure:
    """Draw the heat map at page width."""
    figure = new_figure(PAGE, PAGE * 0.9)
    ax = figure.add_subplot()
    values = table.values
    seen = values[np.isfinite(values)]
    # A pair or two far from all others must not take up the whole scale.
    low, high = np.quantile(seen, [0.01, 0.99]) if len(seen) else (1.0, 1.0)
    norm = LogNorm(low, high) if low < high else None
    image = ax.imshow(values, cmap=colour_map("cividis"), norm=norm, interpolation="nearest")
    words, groups = [str(word) for word in table["word"].values], list(table["group"].values)
    word_ticks(ax, words, PAGE * 0.75)
    dividers(ax, groups)
    brackets(ax, groups)
    unit = table.attrs.get("unit", "")
    bar = figure.colorbar(image, ax=ax, shrink=0.75, pad=0.02, extend="both")
    label = f"{table.attrs.get('distance', 'distance')}" + (f"\n({unit})" if unit else "")
    bar.set_label(label)
    return figure
