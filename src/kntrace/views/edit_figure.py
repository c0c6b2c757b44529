"""How edits are drawn: what they do to their own word, and to others."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.figures.style import INK, drawing, settle, tidy
from kntrace.views.base import Found
from kntrace.views.layout import lay_out

__all__ = ["ROWS", "WHOSE", "draw_edits"]

WHOSE: dict[str, str] = {
    "own": "the word's own neurons",
    "other": "another group's word's neurons",
    "random": "random neurons of the same layers",
    "anywhere": "random neurons of any layer",
}
"""Whose value vectors are moved."""

ROWS = {"unembedding": "o", "embedding": "s"}
_COLOURS = {"own": "#D55E00", "other": "#009E73", "random": INK, "anywhere": "#CC79A7"}


def draw_edits(found: Found) -> Figure:
    """Draw the edits of the last checkpoint."""
    with drawing():
        laid = lay_out(("abc",), (46.0,), _handles(found.facts["rows"]))
        table = found.main
        last = table[table["checkpoint"] == found.facts["last_checkpoint"]]
        panels = {
            "share of prompts": ("success", "forgotten"),
            "change of log-odds": ("log_odds", "log_odds_old"),
            "rise of log-perplexity (nats)": ("same_group", "other_groups"),
        }
        for ax, (label, measures) in zip(laid.axes.values(), panels.items(), strict=True):
            _draw(ax, last, measures, label)
        return settle(laid.figure, passes=2)


def _handles(rows: list[str]) -> list[Line2D]:
    shown = [
        Line2D([], [], color=_COLOURS[whose], label=name, linewidth=1.2)
        for whose, name in WHOSE.items()
    ]
    return shown + [
        Line2D([], [], color="#6b6b6b", marker=ROWS[by], linestyle="", markersize=3.5,
               label=f"rows of the {'input ' if by == 'embedding' else ''}{by}")
        for by in rows
    ]  # fmt: skip


_SHORT = {
    "success": "new answer\nfirst",
    "forgotten": "old answer\nno longer first",
    "log_odds": "new answer",
    "log_odds_old": "old answer",
    "same_group": "same group",
    "other_groups": "other groups",
}


def _draw(ax: Axes, last: pd.DataFrame, measures: tuple[str, ...], label: str) -> None:
    rows = list(dict.fromkeys(last["rows"]))
    for place, measure in enumerate(measures):
        for turn, whose in enumerate(WHOSE):
            for column, by in enumerate(rows):
                some = last[
                    (last["measure"] == measure) & (last["whose"] == whose) & (last["rows"] == by)
                ]
                middle = (len(WHOSE) - 1) / 2
                x = place + 0.22 * (turn - middle) + 0.08 * (column - (len(rows) - 1) / 2)
                value = float(some["value"].iloc[0])
                ax.vlines(x, some["low"], some["high"], color=_COLOURS[whose], linewidth=0.9)
                ax.plot(x, value, marker=ROWS[by], color=_COLOURS[whose], markersize=3.2)
    ax.axhline(0, color=INK, linewidth=0.5)
    ax.set_xticks(range(len(measures)), [_SHORT[measure] for measure in measures])
    ax.set_xlim(-0.5, len(measures) - 0.5)
    ax.set_ylabel(label, labelpad=2)
    tidy(ax, grid="y")
