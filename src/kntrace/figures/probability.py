"""The answer's probability over training: does the model know the word yet?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kntrace.analysis import Analysis
from kntrace.figures.style import COLUMN, group_colours, new_figure, step_axis

__all__ = ["ALT", "TITLE", "draw", "prepare"]

TITLE = "Probability of the answer over training"
ALT = (
    "Curves of the answer's mean probability against the training step, one thin line a word and "
    "one thick line a group; shaded from the lower to the upper quartile of the group's words."
)


def prepare(analysis: Analysis) -> pd.DataFrame:
    """One row a checkpoint and word: `step`, `group`, `word`, `probability`."""
    curves = analysis.probability
    steps = _steps(curves["step"].values)
    return pd.DataFrame(
        {
            "step": np.repeat(steps, curves.sizes["word"]),
            "group": np.tile(curves["group"].values, curves.sizes["checkpoint"]),
            "word": np.tile(curves["word"].values, curves.sizes["checkpoint"]),
            "probability": curves.transpose("checkpoint", "word").values.ravel(),
        }
    )


def draw(table: pd.DataFrame) -> Figure:
    """Draw the curves at column width."""
    figure = new_figure(COLUMN * 1.35, COLUMN * 0.85)
    ax = figure.add_subplot()
    groups = list(dict.fromkeys(table["group"]))
    for group, (colour, style) in group_colours(groups).items():
        own = table[table["group"] == group].pivot_table(
            index="step", columns="word", values="probability"
        )
        ax.plot(own.index, own.to_numpy(), color=colour, lw=0.4, alpha=0.35)
        ax.fill_between(
            own.index, own.quantile(0.25, axis=1), own.quantile(0.75, axis=1),
            color=colour, alpha=0.15, lw=0,
        )  # fmt: skip
        ax.plot(own.index, own.median(axis=1), color=colour, ls=style, lw=1.6, label=group)
    step_axis(ax, table["step"].to_numpy())
    ax.set_ylim(0, 1)
    ax.set_ylabel("P(answer)")
    figure.legend(loc="outside right upper")
    return figure


def _steps(steps: NDArray[Any]) -> NDArray[Any]:
    """Steps, or where a series has none the places of its checkpoints."""
    return np.arange(len(steps)) if (steps < 0).any() else steps
