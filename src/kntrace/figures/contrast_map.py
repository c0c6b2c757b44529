"""Nearer or farther than the word's own group: the paper's figure 4, with by how much."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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

TITLE = "Each distance against the row word's mean distance within its group"
ALT = (
    "Heat map of the ratio of each distance to the row word's mean same-group distance: orange "
    "is farther than its own group, blue is nearer; the bars on the right give the share of "
    "other-group words that are farther."
)

# Beyond a factor of four the colour says no more.
_FARTHEST = 2.0


def prepare(analysis: Analysis, distance: str = "emd") -> xr.Dataset:
    """`ratio` = log2 of distance over the row's threshold, and `share_above` per word."""
    name = distance if distance in analysis.distances else next(iter(analysis.distances))
    matrix = analysis.distances[name]
    words = analysis.contrasts[name].words.set_index("word")
    order = [str(word) for word in matrix["word"].values]
    threshold = words.loc[order, "threshold"].to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(matrix.values / threshold[:, None])
    np.fill_diagonal(ratio, np.nan)
    share = words.loc[order, "share_above"].to_numpy(dtype=float)
    table = xr.Dataset(
        {
            "ratio": (("word", "other_word"), ratio),
            "share_above": ("word", share),
        },
        coords={"word": order, "other_word": order, "group": ("word", matrix["group"].values)},
        attrs={"distance": name},
    )
    chance = analysis.contrasts[name].groups.set_index("group")["chance"]
    return table.assign_attrs(chance={str(group): float(chance[group]) for group in chance.index})


def draw(table: xr.Dataset) -> Figure:
    """Draw the map at page width, the share per word beside it."""
    figure = new_figure(PAGE, PAGE * 0.86)
    ax, side = figure.subplots(1, 2, width_ratios=[6, 1])
    ratio = table["ratio"].values
    image = ax.imshow(
        np.clip(ratio, -_FARTHEST, _FARTHEST),
        cmap=colour_map("PuOr_r"),
        vmin=-_FARTHEST,
        vmax=_FARTHEST,
        interpolation="nearest",
    )
    words, groups = [str(word) for word in table["word"].values], list(table["group"].values)
    word_ticks(ax, words, PAGE * 0.68)
    dividers(ax, groups, "#404040")
    brackets(ax, groups)
    _outline_blocks(ax, groups)
    bar = figure.colorbar(image, ax=ax, orientation="horizontal", shrink=0.6, pad=0.02, aspect=35)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼ or less", "½", "1", "2", "4 or more"])
    bar.set_label(f"distance ({table.attrs['distance']}) / mean same-group distance of the row")
    _shares(side, table, groups)
    return figure


def _outline_blocks(ax: Axes, groups: list[str]) -> None:
    start = 0
    while start < len(groups):
        size = sum(1 for name in groups[start:] if name == groups[start])
        box = Rectangle((start - 0.5, start - 0.5), size, size, fill=False, ec="black", lw=1.1)
        ax.add_patch(box)
        start += size


def _shares(side: Axes, table: xr.Dataset, groups: list[str]) -> None:
    """Bars of the share of other-group words that are farther, and what chance gives."""
    share, places = table["share_above"].values, np.arange(len(groups))
    chance = [table.attrs["chance"].get(group, np.nan) for group in groups]
    side.barh(places, share, color="#8c6bb1", height=0.75)
    side.step(
        [*chance, chance[-1]], [*(places - 0.5), places[-1] + 0.5], color="black", lw=0.8, ls="--"
    )
    side.set(xlim=(0, 1), ylim=(len(groups) - 0.5, -0.5), yticks=[], xticks=[0, 0.5, 1])
    side.set_xticklabels(["0", "50", "100 %"])
    side.set_xlabel("farther\n(dashed: chance)")
