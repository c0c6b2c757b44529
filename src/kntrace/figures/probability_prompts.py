"""How far the prompts by themselves move P(answer)."""

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
from matplotlib.patches import Patch

from kntrace.analysis import Analysis
from kntrace.figures.base import OfRun
from kntrace.figures.labels import number, width_of, wrapped
from kntrace.figures.probability import panels, probability_axis
from kntrace.figures.sizes import size_now
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import (
    MUTED,
    SMALL,
    TEXT,
    Look,
    drawing,
    group_looks,
    legend,
    new_figure,
    settle,
)
from kntrace.wording import read_wording

__all__ = ["PromptBands"]

_Floats = npt.NDArray[np.float64]

_DRAWS, _BAND, _MOST = 500, (0.025, 0.975), (0.1, 0.9)
_REST, _LOWEST = 14.0, 13.0


@dataclass(frozen=True)
class PromptBands(OfRun):
    """Curves of the mean P(answer) of every group, with bands over prompts.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    """

    name: str = "probability_prompts"
    title: str = "Probability of the answer, prompt by prompt"
    how_to_read: str = (
        "The line is the mean P(answer) of a group's words. The dark band is how far the prompts "
        "that happened to be asked move it: 95 % of the means if each word's prompts are drawn "
        "anew. The pale band holds the middle 80 % of single prompts. A pale band from top to "
        "bottom says that some questions are answered and others are not, and that the mean is "
        "of two kinds of prompts. Neither band is about other words or another training."
    )

    def prepare(self, analysis: Analysis) -> xr.Dataset:
        """Means and bands of every group.

        Returns
        -------
        xr.Dataset
            `mean`, `low`, `high` (of_group, checkpoint): mean over words of the mean over
            prompts, and its 95 % interval over 500 bootstrap samples of each word's prompts;
            `lowest`, `highest`: 10 % and 90 % quantiles of all prompts. `prompts`, `words`
            (of_group). Of the main wording.

        Raises
        ------
        ValueError
            If the analysis is of no run folder.
        """
        if analysis.run is None:
            raise ValueError("the analysis is of no run folder")
        view = read_wording(analysis.run.scores, analysis.wording)
        array = view.scores["probability"].transpose("word", "prompt", "checkpoint")
        values = array.values.astype(np.float64)
        place = {word: at for at, word in enumerate(view.words)}
        rng = np.random.default_rng(analysis.seed)
        found: dict[str, list[_Floats]] = {name: [] for name in _NAMES[1:]}
        counts = []
        for members in analysis.groups.values():
            prompts = [values[place[word], view.asked[place[word]]] for word in members]
            drawn = np.zeros((_DRAWS, values.shape[2]))
            for mine in prompts:
                rows = rng.integers(len(mine), size=(_DRAWS, len(mine)))
                drawn += mine[rows].mean(axis=1) / len(prompts)
            single = np.concatenate(prompts)
            found["mean"].append(np.mean([mine.mean(axis=0) for mine in prompts], axis=0))
            for names, of, ends in (
                (("low", "high"), drawn, _BAND),
                (("lowest", "highest"), single, _MOST),
            ):
                for name, row in zip(names, np.quantile(of, ends, axis=0), strict=True):
                    found[name].append(row)
            counts.append(len(single))
        dims = ("of_group", "checkpoint")
        return xr.Dataset(
            {
                **{name: (dims, np.array(rows)) for name, rows in found.items()},
                "prompts": ("of_group", counts),
                "words": ("of_group", [len(members) for members in analysis.groups.values()]),
            },
            coords={
                "of_group": list(analysis.groups),
                "checkpoint": array["checkpoint"],
                "step": array["step"],
            },
            attrs={"unit": "probability", "wording": view.name, "draws": _DRAWS},
        )

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw a panel for every group."""
        names = [str(name) for name in table["of_group"].values]
        with drawing(names):
            width, columns, row = panels(len(names))
            rows = math.ceil(len(names) / columns)
            row = max(min(row, (size_now().tallest - _REST) / rows), _LOWEST)
            figure = new_figure(width, rows * row + _REST, spaced=True)
            grid = figure.add_gridspec(1 + rows, columns, height_ratios=[6.0, *[row] * rows])
            axis, looks = StepAxis.of(table), group_looks(names)
            _legend(figure.add_subplot(grid[0, :]))
            for place, name in enumerate(names):
                ax = figure.add_subplot(grid[1 + place // columns, place % columns])
                _draw_group(
                    ax, table.isel(of_group=place), axis, looks[name], width * 0.7 / columns
                )
                lowest = place + columns >= len(names)
                axis.apply(ax, width * 0.75 / columns, label=lowest)
                ax.set_xlabel("training step" if lowest and axis.known else "")
                if place % columns:
                    ax.set_yticklabels([])
                    ax.set_ylabel("")
                title = wrapped(name, width * 0.85 / columns, 2, TEXT)
                ax.set_title("\n".join(title), loc="left", pad=2, size=TEXT)
            return settle(figure)

    def describe(self, table: xr.Dataset) -> str:
        """Means at the last checkpoint, with both bands."""
        last = table.isel(checkpoint=-1)
        parts = [
            f"{name} {number(mean, 2)} ({number(low, 2)} to {number(high, 2)}; single prompts "
            f"{number(lowest, 2)} to {number(highest, 2)})"
            for name, mean, low, high, lowest, highest in zip(
                *(last[name].values.tolist() for name in _NAMES), strict=True
            )
        ]
        return (
            "Curves of the mean probability of the answer over training steps with bands over "
            f"prompts. At the last checkpoint: {'; '.join(parts)}."
        )


_NAMES = ("of_group", "mean", "low", "high", "lowest", "highest")


def _draw_group(ax: Axes, row: xr.Dataset, axis: StepAxis, look: Look, room: float) -> None:
    x, many = axis.places, axis.places.size
    single: dict[str, Any] = {"linewidth": 0, "color": look.colour}
    marker = "o" if many == 1 else None
    ax.fill_between(x, row["lowest"].values, row["highest"].values, alpha=0.16, **single)
    ax.fill_between(x, row["low"].values, row["high"].values, alpha=0.45, **single)
    ax.plot(x, row["mean"].values, color=look.colour, linewidth=1.2, marker=marker, markersize=3)
    if many == 1:
        ax.vlines(x, row["low"].values, row["high"].values, color=look.colour, linewidth=1.0)
    counts = f"{int(row['prompts'])} prompts, {int(row['words'])} words"
    shown = counts if width_of(counts, SMALL) <= room else counts.replace(", ", ",\n")
    ax.text(*(0.03, 0.95, shown), transform=ax.transAxes, va="top", size=SMALL, color=MUTED)
    probability_axis(ax)


def _legend(ax: Axes) -> None:
    ax.set_axis_off()
    handles = [
        Line2D([], [], color=MUTED, linewidth=1.2, label="mean"),
        Patch(color=MUTED, alpha=0.5, linewidth=0, label="95 %, other prompts"),
        Patch(color=MUTED, alpha=0.18, linewidth=0, label="80 % of prompts"),
    ]
    legend(ax, handles, (0.0, 0.0), columns=3)
