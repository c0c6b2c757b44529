"""Does the model know it yet? The answers' probability through training, by group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.analysis import Analysis
from kntrace.figures.base import OfAnalysis
from kntrace.figures.labels import longest, number, wrapped
from kntrace.figures.matrix import blocks_of
from kntrace.figures.sizes import size_now
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import (
    INK,
    MUTED,
    SMALL,
    TEXT,
    Look,
    drawing,
    group_looks,
    legend,
    new_figure,
    settle,
    tidy,
)
from kntrace.wording import read_wording

__all__ = ["ProbabilityCurves", "panels", "probability_axis"]

_Floats = npt.NDArray[np.float64]

_QUARTILES = (0.25, 0.75)
_TOP = 40.0
# Up to so many groups: whether a column will do, width of a panel, height of a row (mm).
_SHAPES = (
    (4, True, 42.0, 25.0),
    (16, False, 42.0, 25.0),
    (36, False, 28.0, 21.0),
    (math.inf, False, 21.0, 18.0),
)
_LOWEST = 13.0
# More groups than looks are not told apart by a legend, only by the names of their panels.
_NAMED = 24


@dataclass(frozen=True)
class ProbabilityCurves(OfAnalysis):
    """Curves of P(answer): all groups' medians together, then every group's words.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    """

    name: str = "probability"
    title: str = "Probability of the answer through training"
    how_to_read: str = (
        "When the model comes to know the words: the mean probability of the answer over a "
        "word's prompts. Above, the groups' medians; below, every group with its words (thin), "
        "the middle half of them (band) and the median (thick; dashed in another wording). "
        "Where groups rise at different times, every distance between formation processes sees "
        "groups for that reason alone. A word that stays low is not known, and its knowledge "
        "neurons are of something else."
    )

    def prepare(self, analysis: Analysis) -> xr.DataArray:
        """Mean P(answer) over prompts, (wording, checkpoint, word), words group by group.

        The main wording comes first; of the others, those that were judged, if the analysis
        is of a run folder that can be read.
        """
        curves = {analysis.wording: analysis.probability}
        if analysis.run is not None:
            for name in analysis.verdicts:
                if name not in curves:
                    curves[name] = read_wording(analysis.run.scores, name).probability()
        order = [word for members in analysis.groups.values() for word in members]
        table = xr.concat(
            [curve.sel(word=order) for curve in curves.values()],
            dim=xr.Variable("wording", list(curves)),
            coords="minimal",
            compat="override",
            combine_attrs="drop",
        )
        return table.transpose("wording", "checkpoint", "word").assign_attrs(unit="probability")

    def draw(self, table: xr.DataArray) -> Figure:
        """Draw in a column up to 4 groups, else on a page."""
        groups = [str(group) for group in table["group"].values]
        names = list(dict.fromkeys(groups))
        with drawing([*names, *(str(name) for name in table["wording"].values)]):
            width, columns, row = panels(len(names))
            rows = math.ceil(len(names) / columns)
            legend = 3.4 * math.ceil((min(len(names), _NAMED) + 2) / (width / 34))
            most = (size_now().tallest - legend - 6 - _TOP) / rows
            row = max(min(row, most), _LOWEST)
            figure = new_figure(width, _TOP + legend + rows * row + 6, spaced=True)
            grid = figure.add_gridspec(
                *(1 + rows, columns), height_ratios=[_TOP + legend, *[row] * rows]
            )
            axis = StepAxis.of(table)
            top = figure.add_subplot(grid[0, :])
            _draw_medians(top, table, axis, width)
            axis.apply(top, width * 0.8)
            blocks = blocks_of(groups)
            for place, block in enumerate(blocks):
                ax = figure.add_subplot(grid[1 + place // columns, place % columns])
                part = table.isel(word=slice(block.start, block.stop))
                _draw_group(ax, part, axis, group_looks(names)[block.group])
                lowest = place + columns >= len(blocks)
                axis.apply(ax, width * 0.75 / columns, label=lowest)
                ax.set_xlabel("training step" if lowest and axis.known else "")
                if place % columns:
                    ax.set_yticklabels([])
                    ax.set_ylabel("")
                title = wrapped(block.group, width * 0.85 / columns, 2, TEXT)
                ax.set_title("\n".join(title), loc="left", pad=2, size=TEXT)
            return settle(figure)

    def describe(self, table: xr.DataArray) -> str:
        """Final medians, and when the median first passes one half."""
        main = table.isel(wording=0)
        axis = StepAxis.of(table)
        groups = main["group"].values
        parts = []
        for name in dict.fromkeys(groups):
            median = np.median(main.values[:, groups == name], axis=1)
            passed = np.flatnonzero(median >= 0.5)
            when = f"above one half from {axis.labels[passed[0]]}" if passed.size else "never half"
            parts.append(f"{name} {number(float(median[-1]), 2)} ({when})")
        return (
            "Curves of the answer's probability over training steps. Median over words at the "
            f"last checkpoint: {'; '.join(parts)}."
        )


def panels(groups: int) -> tuple[float, int, float]:
    """Width of the figure, panels in a row, and height of a row, for so many groups."""
    column, panel, row = next(shape[1:] for shape in _SHAPES if groups <= shape[0])
    width = size_now().narrow if column else size_now().wide
    # On a wide sheet few groups have wide panels.
    return width, max(1, min(int(width / panel), groups if groups > 2 else 2)), row


def _draw_medians(ax: Axes, table: xr.DataArray, axis: StepAxis, width: float) -> None:
    groups = table["group"].values
    looks = group_looks(str(group) for group in groups)
    others = len(table["wording"]) > 1
    for name, look in looks.items():
        members = table.isel(word=np.flatnonzero(groups == name)).values
        median = np.median(members, axis=2)
        ax.plot(axis.places, median[0], color=look.colour, linestyle=look.dashes, **_points(axis))
        for curve in median[1:]:
            ax.plot(axis.places, curve, color=look.colour, linestyle=look.dashes, lw=0.6, alpha=0.7)
    handles = (
        []
        if len(looks) > _NAMED
        else [
            Line2D([], [], color=look.colour, linestyle=look.dashes, label="\n".join(label))
            for name, look in looks.items()
            for label in [wrapped(name, 34, 2)]
        ]
    )
    if others:
        wordings = [str(name) for name in table["wording"].values]
        handles.append(Line2D([], [], color=INK, lw=1.0, label=f"thick: {wordings[0]} wording"))
        handles.append(Line2D([], [], color=INK, lw=0.5, label=f"thin: {', '.join(wordings[1:])}"))
    columns = int(width * 0.85 / (min(longest(looks), 34.0) + 11))
    legend(ax, handles, (0.0, 1.01), columns=max(1, min(columns, 5)))
    probability_axis(ax)


def _draw_group(ax: Axes, part: xr.DataArray, axis: StepAxis, look: Look) -> None:
    main = part.values[0]
    strength = max(0.12, min(0.6, 4.0 / main.shape[1]))
    ax.plot(axis.places, main, color=look.colour, linewidth=0.4, alpha=strength)
    low, high = np.quantile(main, _QUARTILES, axis=1)
    ax.fill_between(axis.places, low, high, color=look.colour, alpha=0.22, linewidth=0)
    ax.plot(axis.places, np.median(main, axis=1), color=look.colour, lw=1.3, **_points(axis))
    for other in part.values[1:]:
        ax.plot(axis.places, np.median(other, axis=1), color=INK, lw=0.7, ls=(0, (2, 1.2)))
    ax.text(
        *(0.03, 0.95, f"n = {main.shape[1]}"),
        transform=ax.transAxes,
        va="top",
        size=SMALL,
        color=MUTED,
    )
    probability_axis(ax)


def _points(axis: StepAxis) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3} if axis.places.size == 1 else {}


def probability_axis(ax: Axes) -> None:
    """Show P(answer) from 0 to 1 on the y axis."""
    tidy(ax, grid="y")
    ax.set_ylim(-0.02, 1.02)
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_ylabel("P(answer)", labelpad=2)
    ax.spines[:].set_color(MUTED)
