"""How many knowledge neurons words have in common: the paper's figure 5, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from kntrace.analysis import Analysis
from kntrace.figures.base import OfAnalysis
from kntrace.figures.labels import number
from kntrace.figures.matrix import Frame, colour_map, in_group_order
from kntrace.figures.style import INK, MUTED, PALE, drawing, group_looks, legend

__all__ = ["NeuronOverlap"]

_SIDE = 26.0


@dataclass(frozen=True)
class NeuronOverlap(OfAnalysis):
    """Heat map of the sizes of intersections, and each word's means beside chance.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    """

    name: str = "neuron_overlap"
    title: str = "Knowledge neurons in common"
    how_to_read: str = (
        "Cells count the knowledge neurons that two words share at the last checkpoint. To the "
        "right, a word's mean with its own group (filled) and with other groups (ring); the "
        "dashed line is what two sets drawn at random would share. Most of what lies beyond it "
        "is common to all words; only the step from ring to dot has to do with groups."
    )

    def prepare(self, analysis: Analysis) -> xr.Dataset:
        """Cells and row means of the overlap.

        Returns
        -------
        xr.Dataset
            `common` (word, other_word): neurons in both sets, NaN on the diagonal.
            `mean_same`, `mean_other` (word): means of the row over the other words of the
            group (NaN for a word alone) and over all others. Attributes: those of
            `kntrace.overlap.Overlap`, and `k`.
        """
        overlap = analysis.overlap
        matrix = in_group_order(overlap.matrix, analysis.groups).astype(np.float64)
        np.fill_diagonal(matrix.values, np.nan)
        groups = matrix["group"].values
        same = groups[:, None] == groups[None, :]
        return xr.Dataset(
            {
                "common": matrix,
                "mean_same": ("word", _row_means(matrix.values, same)),
                "mean_other": ("word", _row_means(matrix.values, ~same)),
            },
            attrs={
                "k": analysis.k,
                **{
                    name: getattr(overlap, name)
                    for name in (
                        *("expected", "expected_sd", "within", "between", "p"),
                        *("total_neurons", "permutations"),
                    )
                },
            },
        )

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw the sizes to the left; to the right the rows' means, and chance."""
        words = [str(word) for word in table["word"].values]
        groups = [str(group) for group in table["group"].values]
        with drawing([*words, *groups]):
            frame = Frame.build(words, groups, side=_SIDE)
            values = table["common"].values
            seen = values[np.isfinite(values)]
            low, high = float(seen.min()), float(seen.max())
            high = high if high > low else low + 1
            image = frame.fill(values, colour_map("cividis"), Normalize(low, high))
            locator = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10])
            ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
            frame.colour_bar(
                image,
                f"knowledge neurons in common, of {table.attrs['k']:,} per word; "
                f"by chance {number(table.attrs['expected'], 2)}",
                ticks,
            )
            _draw_means(frame, table)
            return frame.figure

    def describe(self, table: xr.Dataset) -> str:
        """Means within and between groups, and what chance gives."""
        attrs = table.attrs
        return (
            f"Two words of the same group have {number(attrs['within'])} of their {attrs['k']:,} "
            f"knowledge neurons in common on average, words of different groups "
            f"{number(attrs['between'])} (permutation p = {attrs['p']:.3f} for the former being "
            f"more). Sets drawn at random out of {attrs['total_neurons']:,} neurons would share "
            f"{number(attrs['expected'], 2)}, standard deviation "
            f"{number(attrs['expected_sd'], 2)}."
        )


def _row_means(
    values: npt.NDArray[np.float64], wanted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    chosen = wanted & np.isfinite(values)
    counts = chosen.sum(axis=1)
    total = np.where(chosen, values, 0.0).sum(axis=1)
    means: npt.NDArray[np.float64] = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return means


def _draw_means(frame: Frame, table: xr.Dataset) -> None:
    side = frame.side
    if side is None:
        raise ValueError("the frame has no panel for the means")
    groups = [str(group) for group in table["group"].values]
    looks = group_looks(groups)
    rows = np.arange(len(groups))
    inside, across = table["mean_same"].values, table["mean_other"].values
    expected, sd = table.attrs["expected"], table.attrs["expected_sd"]
    side.axvspan(max(expected - 2 * sd, 0.0), expected + 2 * sd, color=PALE, linewidth=0)
    side.axvline(expected, color=INK, linewidth=1.0, linestyle=(0, (1.5, 1.2)))
    side.hlines(rows, across, inside, color=PALE, linewidth=0.9)
    colours = [looks[group].colour for group in groups]
    small = 9 if len(rows) <= 60 else 3
    side.scatter(across, rows, s=small, facecolor="white", edgecolor=MUTED, linewidth=0.7, zorder=3)
    side.scatter(inside, rows, s=small * 1.3, c=colours, linewidth=0, zorder=4)
    for block in frame.blocks[1:]:
        side.axhline(block.start - 0.5, color=PALE, linewidth=0.5)
    top = max(expected + 2 * sd, np.nanmax([*inside, *across]))
    side.set_xlim(0, top * 1.06)
    side.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    side.set_xlabel("mean in common", labelpad=1)
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "color": MUTED}
    handles = [
        Line2D([], [], markersize=3.4, markeredgewidth=0, label="same group", **dot),
        Line2D([], [], markersize=3, markerfacecolor="white", label="other groups", **dot),
        Line2D([], [], color=INK, linewidth=1.0, linestyle=(0, (1.5, 1.2)), label="by chance"),
        Patch(color=PALE, linewidth=0, label="± 2 sd, one pair"),
    ]
    legend(frame.figure, handles, frame.foot)
