"""Every distance's AUC at a glance, with the baseline that a finding must leave behind."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kntrace.analysis import Analysis
from kntrace.figures.style import COLUMN, new_figure

__all__ = ["ALT", "TITLE", "draw", "prepare"]

TITLE = "How well each distance tells same-group pairs from other-group pairs"
ALT = (
    "Points at each distance's AUC with its permutation mean as an open mark; filled where the "
    "permutation p-value is .05 or less. The baseline, P(answer) curves alone, is set apart."
)

_BASELINE = "probability_curve"


def prepare(analysis: Analysis) -> pd.DataFrame:
    """One row a contrast: `distance`, `auc`, `chance`, `p`, `kind`.

    `kind` is `plain`, `baseline`, or `corrected` where the baseline's ranks are regressed out.
    """
    rows: list[dict[str, Any]] = [
        {
            "distance": name,
            "auc": found.overall["auc"],
            "chance": found.overall["auc_chance"],
            "p": found.overall["p"],
            "kind": "baseline" if name == _BASELINE else "corrected" if "|" in name else "plain",
        }
        for name, found in analysis.contrasts.items()
    ]
    kinds = ("baseline", "plain", "corrected")
    return pd.DataFrame([row for kind in kinds for row in rows if row["kind"] == kind])


def draw(table: pd.DataFrame) -> Figure:
    """Draw the points at column width, with p beside them."""
    figure = new_figure(COLUMN * 1.5, 0.5 + 0.24 * len(table))
    ax = figure.add_subplot()
    colours = {"baseline": "#D55E00", "plain": "#0072B2", "corrected": "#009E73"}
    marks = {"baseline": "D", "plain": "o", "corrected": "s"}
    rows: list[dict[Any, Any]] = table.to_dict("records")
    for place, row in enumerate(rows):
        colour, auc, chance = colours[row["kind"]], row["auc"], row["chance"]
        ax.plot([chance, auc], [place, place], color=colour, lw=0.8)
        ax.plot(chance, place, "|", color="#606060", ms=7)
        filled = colour if row["p"] <= 0.05 else "white"
        ax.plot(auc, place, marks[row["kind"]], color=colour, mfc=filled, ms=5)
        ax.annotate(
            f"{auc:.2f}   p = {row['p']:.3f}",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=6.5,
        )
    names = [
        f"{row['distance']} (baseline)"
        if row["kind"] == "baseline"
        else str(row["distance"]).replace(" | probability_curve", "\nbaseline regressed out")
        for row in rows
    ]
    ax.set_yticks(range(len(table)), names)
    ax.set_ylim(len(table) - 0.5, -0.5)
    low = min(0.3, table["auc"].min() - 0.03)
    ax.set_xlim(low, 1)
    ax.axvline(0.5, color="#909090", lw=0.6, ls="--")
    ax.set_xlabel("AUC (0.5: nothing; bar: mean of the permutations)")
    return figure
