"""Knowledge neurons that two words have in common: the paper's figure 5, against chance."""

from __future__ import annotations

import numpy as np
import xarray as xr
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

TITLE = "Knowledge neurons in common"
ALT = "Heat map of how many knowledge neurons every two words share, words ordered by group."


def prepare(analysis: Analysis) -> xr.DataArray:
    """Sizes of the intersections (word, other_word), the diagonal masked as NaN."""
    overlap = analysis.overlap
    matrix = overlap.matrix.astype("float64")
    values = matrix.values.copy()
    np.fill_diagonal(values, np.nan)
    group = {word: name for name, words in analysis.groups.items() for word in words}
    names = [group[str(word)] for word in matrix["word"].values]
    return (
        matrix.copy(data=values)
        .assign_coords(group=("word", names))
        .assign_attrs(
            k=analysis.k,
            expected=overlap.expected,
            within=overlap.within,
            between=overlap.between,
            total=overlap.total_neurons,
        )
    )


def draw(table: xr.DataArray) -> Figure:
    """Draw the heat map at page width; chance is marked on the colour bar."""
    figure = new_figure(PAGE, PAGE * 0.9)
    ax = figure.add_subplot()
    image = ax.imshow(table.values, cmap=colour_map("viridis"), vmin=0, interpolation="nearest")
    words, groups = [str(word) for word in table["word"].values], list(table["group"].values)
    word_ticks(ax, words, PAGE * 0.75)
    dividers(ax, groups)
    brackets(ax, groups)
    given = table.attrs
    bar = figure.colorbar(image, ax=ax, shrink=0.75, pad=0.02)
    bar.set_label(f"neurons in common, of each word's {given['k']}")
    bar.ax.axhline(given["expected"], color="white", lw=1.5)
    bar.ax.axhline(given["expected"], color="black", lw=0.7, ls="--")
    ax.set_xlabel(
        f"mean within groups {given['within']:.1f}, between {given['between']:.1f}; two random "
        f"sets of {given['k']} out of {given['total']:,} share {given['expected']:.1f} (dashed)",
        labelpad=6,
    )
    return figure
