"""How views look: lines through training in one place, what is known of the words below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kntrace.figures.labels import fitted, wrapped
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import INK, MUTED, PALE, TEXT, drawing, settle, tidy
from kntrace.views.layout import lay_out

__all__ = ["LOOKS", "Beside", "draw_lines", "plot_lines", "shade_unknown", "step_axis"]

Beside = Callable[[Axes, StepAxis, float], None]
"""Draws another panel: into these axes, with this step axis, so many mm wide."""

# One look for each kind of line in all views; the same as in the dose curves where there is one.
LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "own": ("the word's own", {"color": "#D55E00", "linewidth": 1.5, "marker": "o"}),
    "same_group": ("same group", {"color": "#0072B2", "marker": "s"}),
    "other_group": (
        "other groups",
        {"color": "#009E73", "linestyle": (0, (4, 1.5)), "marker": "^"},
    ),
    "previous": ("own, with the checkpoint before", {"color": "#E69F00", "linewidth": 0.8}),
    "first": (
        "own, with the first checkpoint",
        {"color": "#CC79A7", "linestyle": (0, (5, 1.5, 1, 1.5)), "linewidth": 0.8},
    ),
    "matched": ("random, same layers", {"color": INK, "linestyle": (0, (1, 1.2))}),
    "chance": ("random", {"color": MUTED, "linestyle": (0, (5, 1.5, 1, 1.5)), "linewidth": 0.8}),
}

_NAMES = {"probability": "P(answer)", "log_odds": "log-odds"}
_TOP, _STRIP = 56.0, 20.0
_SHADE: dict[str, Any] = {"color": PALE, "alpha": 0.45, "linewidth": 0}


def step_axis(table: pd.DataFrame) -> StepAxis:
    """The checkpoints of a table of lines, in the order in which P(answer) has them all."""
    if "panel" in table:
        table = table[(table["panel"] == "probability") & (table["line"] == "own")]
    each = table.drop_duplicates("checkpoint")
    steps = each["step"].to_numpy(dtype=np.int64)
    labels = [str(label) for label in each["checkpoint"]]
    return StepAxis.of(xr.Dataset(coords={"checkpoint": labels, "step": ("checkpoint", steps)}))


def draw_lines(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    *,
    headings: Mapping[str, str] | None = None,
    beside: Beside | None = None,
    looks: Mapping[str, tuple[str, dict[str, Any]]] = LOOKS,
    texts: tuple[str, ...] = (),
) -> Figure:
    """Draw panels of lines, and below them P(answer) and its log-odds.

    Parameters
    ----------
    table
        Of `kntrace.views.lines.line_table`.
    titles
        The panels to draw, two in a row, with what their y axis shows.
    headings
        What stands above a panel.
    beside
        Draws the panel on the right, where there is only one of lines.
    looks
        Name and look of every line.
    texts
        Words that appear, so that the fonts have them.
    """
    with drawing(texts):
        axis = step_axis(table)
        names = [name for name in looks if name in set(table["line"])]
        handles = _handles(names, looks, shaded=any(_unknown(table)))
        if barred := [name for name in names if _barred(table, name)]:
            handles.insert(len(names), _bar(looks[barred[0]][1]["color"]))
        panels = ascii_lowercase[: max(2, len(titles)) if beside else len(titles)]
        strip = ascii_lowercase[len(panels) : len(panels) + len(_NAMES)]
        # The last one has its row to itself where there is none beside it.
        rows = [(panels[at : at + 2] * 2)[:2] for at in range(0, len(panels), 2)]
        laid = lay_out((*rows, strip), (*(_TOP for _ in rows), _STRIP), handles)
        for letter, (panel, label) in zip(panels, titles.items(), strict=False):
            ax = laid.axes[letter]
            plot_lines(ax, table, panel, axis, looks)
            axis.apply(ax, laid.widths[letter])
            ax.set_ylabel("\n".join(wrapped(label, laid.heights[letter], 2, TEXT)), labelpad=2)
            heading = fitted((headings or {}).get(panel, ""), laid.widths[letter], TEXT)
            ax.set_title(heading, loc="left", pad=3, size=TEXT)
        if beside is not None:
            beside(laid.axes["b"], axis, laid.widths["b"])
        for letter, panel in zip(strip, _NAMES, strict=True):
            ax = laid.axes[letter]
            plot_lines(ax, table, panel, axis, looks)
            axis.apply(ax, laid.widths[letter])
            ax.set_ylabel(_NAMES[panel], labelpad=2)
            if panel == "probability":
                ax.set_ylim(0, 1)
        return settle(laid.figure, passes=2)


def plot_lines(
    ax: Axes,
    table: pd.DataFrame,
    panel: str,
    axis: StepAxis,
    looks: Mapping[str, tuple[str, dict[str, Any]]] = LOOKS,
) -> None:
    """Draw the lines of one panel, the first look on top, and shade what is not yet known."""
    part = table[table["panel"] == panel]
    place = dict(zip(axis.labels, axis.places, strict=True))
    there = [name for name in looks if name in set(part["line"])]
    for name in reversed(there):
        rows = part[part["line"] == name]
        x = rows["checkpoint"].astype(str).map(place).to_numpy(dtype=np.float64)
        value, low, high = (
            rows[one].to_numpy(dtype=np.float64) for one in ("value", "low", "high")
        )
        look = {"linewidth": 1.0, "markersize": 2.2, **looks[name][1]}
        if len(x) == 1:
            look["marker"] = look.get("marker", "o")
        ax.plot(x, value, **look)
        if np.isfinite(low).any():
            ax.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
        if name == there[0]:
            bars = rows[["prompts_low", "prompts_high"]].to_numpy(dtype=np.float64)
            ax.vlines(x, bars[:, 0], bars[:, 1], color=look["color"], linewidth=0.7, zorder=3)
    shade_unknown(ax, table, axis)
    tidy(ax, grid="y")


def shade_unknown(ax: Axes, table: pd.DataFrame, axis: StepAxis) -> None:
    """Shade the checkpoints at which P(answer), the mean over words, is under the floor."""
    edges = axis.edges
    for place, unknown in enumerate(_unknown(table)):
        if unknown:
            ax.axvspan(edges[place], edges[place + 1], zorder=0, **_SHADE)


def _unknown(table: pd.DataFrame) -> list[bool]:
    """Of every checkpoint, whether P(answer) is under the floor."""
    known = table[(table["panel"] == "probability") & (table["line"] == "own")]
    pairs = zip(known["value"], known["floor"], strict=True)
    return [bool(value < floor) for value, floor in pairs]


def _barred(table: pd.DataFrame, name: str) -> bool:
    """Whether this line has an interval over prompts, which is drawn as bars."""
    rows = table.loc[table["line"] == name, ["prompts_low", "prompts_high"]]
    return bool(np.isfinite(rows.to_numpy(dtype=np.float64)).any())


def _bar(color: str) -> Artist:
    look: dict[str, Any] = {"color": color, "linestyle": "", "markeredgewidth": 0.7}
    return Line2D([], [], **look, marker="|", markersize=6, label="95 % over prompts")


def _handles(
    names: list[str], looks: Mapping[str, tuple[str, dict[str, Any]]], *, shaded: bool
) -> list[Artist]:
    handles: list[Artist] = [
        Line2D(
            [], [], **{"linewidth": 1.0, "markersize": 2.5, **looks[name][1]}, label=looks[name][0]
        )
        for name in names
    ]
    if shaded:
        handles.append(Patch(label="answers not known yet", **_SHADE))
    return handles
