"""How erasing is drawn: by the number of neurons at the last checkpoint, and through training."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.figures.style import INK, MUTED, TEXT, drawing, settle, tidy
from kntrace.views.base import Found
from kntrace.views.drawing import shade_unknown, step_axis
from kntrace.views.layout import lay_out

__all__ = ["ORDERS", "draw_erased"]

ORDERS: dict[str, str] = {
    "frequency": "in most of the group's words' sets",
    "specific": "more in the group's than in other words' sets",
    "random": "random ones of the same layers as the most frequent",
    "anywhere": "random ones of any layer",
}
"""In which order a group's neurons are erased."""

_COLOURS = {"frequency": "#D55E00", "specific": "#0072B2", "random": INK, "anywhere": "#CC79A7"}
_ASKED: dict[str, tuple[str, Any]] = {
    "own": ("the group's words", "-"),
    "other": ("words of other groups", (0, (4, 1.5))),
}


def draw_erased(found: Found) -> Figure:
    """Draw accuracy and log-odds by dose, and below them through training."""
    with drawing():
        effects = found.main
        several = len(set(effects["checkpoint"])) > 1
        rows, heights = (("ab", "cd"), (46.0, 42.0)) if several else (("ab",), (46.0,))
        laid = lay_out(rows, heights, _handles())
        last = effects[effects["checkpoint"] == found.facts["last_checkpoint"]]
        for column, measure in enumerate(("accuracy", "log_odds")):
            _draw_doses(laid.axes["ab"[column]], last, measure)
            if several:
                letter = "cd"[column]
                ax, width = laid.axes[letter], laid.widths[letter]
                _draw_steps(ax, effects, measure, found.tables["lines"], width)
        return settle(laid.figure, passes=2)


def _handles() -> list[Line2D]:
    shown = [
        Line2D([], [], color=_COLOURS[order], label=name, linewidth=1.2)
        for order, name in ORDERS.items()
    ]
    return shown + [
        Line2D([], [], color=MUTED, linestyle=dashes, label=name)
        for name, dashes in _ASKED.values()
    ]


_LABELS = {"accuracy": "accuracy", "log_odds": "change of log-odds"}


def _draw_doses(ax: Axes, last: pd.DataFrame, measure: str) -> None:
    what = "change" if measure == "log_odds" else "after"
    part = last[last["measure"] == measure]
    for order, colour in reversed(_COLOURS.items()):
        for asked, (_, dashes) in _ASKED.items():
            rows = part[(part["order"] == order) & (part["asked"] == asked)]
            shift = rows[what] - rows["change"]
            ax.plot(rows["dose"], rows[what], color=colour, linestyle=dashes, marker="o",
                    markersize=2.2)  # fmt: skip
            ax.fill_between(
                *(rows["dose"], rows["low"] + shift, rows["high"] + shift),
                color=colour, alpha=0.12, linewidth=0,
            )  # fmt: skip
            bars = (rows["prompts_low"] + shift, rows["prompts_high"] + shift)
            ax.vlines(rows["dose"], *bars, color=colour, linewidth=0.7)
    start = part["before"].dropna()
    if what == "after" and len(start):
        ax.axhline(float(start.iloc[0]), color=MUTED, linestyle=":", linewidth=0.8)
        ax.set_ylim(-0.02, 1.02)
    doses = sorted(part["dose"].unique())
    ax.set_xscale("log")
    ax.set_xticks(doses, [f"{dose:.0f}" for dose in doses])
    ax.minorticks_off()
    ax.set_xlabel("neurons erased", labelpad=2)
    ax.set_ylabel(_LABELS[measure], labelpad=2)
    ax.set_title(f"at {last['checkpoint'].iloc[0]}", loc="left", pad=3, size=TEXT)
    tidy(ax, grid="y")


def _draw_steps(
    ax: Axes, effects: pd.DataFrame, measure: str, lines: pd.DataFrame, width: float
) -> None:
    axis = step_axis(lines)
    place = dict(zip(axis.labels, axis.places, strict=True))
    what = "change" if measure == "log_odds" else "after"
    most = effects["dose"].max()
    part = effects[(effects["measure"] == measure) & (effects["dose"] == most)]
    for order, colour in reversed(_COLOURS.items()):
        for asked, (_, dashes) in _ASKED.items():
            rows = part[(part["order"] == order) & (part["asked"] == asked)]
            x = [place[str(label)] for label in rows["checkpoint"]]
            ax.plot(x, rows[what], color=colour, linestyle=dashes, marker="o", markersize=2.2)
    axis.apply(ax, width)
    shade_unknown(ax, lines, axis)
    ax.set_ylabel(_LABELS[measure], labelpad=2)
    ax.set_title(f"{most:.0f} neurons erased, through training", loc="left", pad=3, size=TEXT)
    tidy(ax, grid="y")
