"""All distances at a glance: how well each tells groups apart, and how well learning time does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kntrace.analysis import Analysis
from kntrace.figures.base import OfAnalysis
from kntrace.figures.labels import LINE, fitted
from kntrace.figures.sizes import size_now
from kntrace.figures.style import (
    INK,
    PALE,
    SMALL,
    drawing,
    legend,
    new_figure,
    settle,
    tidy,
)

__all__ = ["Forest"]

_BASELINE, _HUB = "probability_curve", "hub"
_ENDS = ("low", "high", "chance_low", "chance_high")
_ROW, _REST, _WIDE = 4.6, 30.0, 120.0
_PLAIN, _CONFOUND = "#0072B2", "#D55E00"
_DASHES = (0, (3, 1.5))


@dataclass(frozen=True)
class Forest(OfAnalysis):
    """Forest plot of the area under the curve of every distance, and of the verdict.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    """

    name: str = "forest"
    title: str = "How well each distance tells the groups apart"
    how_to_read: str = (
        "The AUC is how often a pair of the same group is nearer than a pair of different groups; "
        "0.5 is nothing. Bars are 95 % intervals over words; a mark beyond its grey band is more "
        "than shuffled labels give. The dashed line is the confound: what the curves of P(answer) "
        "alone reach, which know when a word is learnt and nothing of neurons. A distance that "
        "does no better than this line shows no more than that. Rings have those curves "
        "regressed out, which removes much but not all of learning time; open squares are "
        "without word effects (some words are near to all others), open triangles without what "
        "was given of the words, such as their frequency. The diamonds are what the verdict "
        "rests on, and their scale can pass 1."
    )

    def prepare(self, analysis: Analysis) -> pd.DataFrame:
        """One row a mark, from top to bottom.

        Returns
        -------
        pd.DataFrame
            `distance`; `kind`: baseline, plain, corrected or verdict (the adjusted AUC of a
            wording); `given`: what a corrected one has taken out, `probability_curve` (the
            baseline, its ranks regressed out), `hub` (word effects) or covariates; `auc`;
            `low`, `high`: its 95 % interval over words, or the 90 % interval of a verdict;
            `chance_low`, `chance_high`: middle 95 % under permuted labels, NaN of a verdict;
            `p`, one-sided.
        """
        rows: list[tuple[object, ...]] = []
        for name in sorted(analysis.distances, key=lambda name: name != _BASELINE):
            kind = "baseline" if name == _BASELINE else "plain"
            rows.append((name, kind, "", *_mark(analysis, name)))
            for full in analysis.contrasts:
                of, bar, given = full.partition(" | ")
                if bar and of == name:
                    rows.append((name, "corrected", given, *_mark(analysis, full)))
        for wording, found in analysis.verdicts.items():
            ends = (found.low, found.high, np.nan, np.nan)
            rows.append((wording, "verdict", "", found.adjusted_auc, *ends, found.p))
        columns = ["distance", "kind", "given", "auc", *_ENDS, "p"]
        return pd.DataFrame(rows, columns=columns)

    def draw(self, table: pd.DataFrame) -> Figure:
        """Draw one row a mark, the baseline's AUC being a line through all of them."""
        with drawing(table["distance"]):
            width, height = size_now().narrow, _REST + _ROW * len(table)
            height = max(min(height, size_now().tallest), _REST + LINE * len(table))
            figure = new_figure(width, height, spaced=True)
            ax = figure.add_subplot()
            for place, row in enumerate(_rows(table)):
                _draw_row(ax, place, row)
            for first in np.flatnonzero(_begins(table)):
                ax.axhline(float(first) - 0.5, color=PALE, linewidth=0.5)
            ax.axvline(0.5, color=INK, linewidth=0.6)
            for auc in table.loc[table["kind"] == "baseline", "auc"]:
                ax.axvline(float(auc), color=_CONFOUND, linewidth=0.9, linestyle=_DASHES)
            _finish(ax, table)
            return settle(figure)

    def describe(self, table: pd.DataFrame) -> str:
        """Every mark with its AUC and p."""
        said = {
            "baseline": "baseline, P(answer) curves alone",
            "plain": "{}",
            "corrected": "{} without {}",
            "verdict": "verdict on the {} wording, adjusted",
        }
        parts = [
            f"{said[row['kind']].format(row['distance'], _given(row['given']))} "
            f"{row['auc']:.2f} (p = {row['p']:.3f})"
            for row in _rows(table)
        ]
        return f"Area under the curve, 0.5 being nothing: {'; '.join(parts)}."


def _mark(analysis: Analysis, name: str) -> tuple[float, ...]:
    found = analysis.contrasts[name].overall
    ends = ("auc_low", "auc_high", "auc_chance_low", "auc_chance_high")
    return found["auc"], *(found[end] for end in ends), found["p"]


def _given(name: str) -> str:
    """What was taken out, in words."""
    return name.replace(_BASELINE, "the curves").replace(_HUB, "word effects").replace("_", " ")


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _begins(table: pd.DataFrame) -> list[bool]:
    """Whether a row is the first of its distance, or of the verdicts."""
    keys = [row["kind"] if row["kind"] == "verdict" else row["distance"] for row in _rows(table)]
    return [place > 0 and keys[place] != keys[place - 1] for place in range(len(keys))]


def _draw_row(ax: Axes, place: int, row: Mapping[str, Any]) -> None:
    kind, auc = row["kind"], row["auc"]
    if kind != "verdict":
        chance = row["chance_high"] - row["chance_low"]
        ax.barh(place, chance, left=row["chance_low"], height=0.6, color=PALE, linewidth=0)
    colour = {"verdict": INK, "baseline": _CONFOUND}.get(kind, _PLAIN)
    # A few words have no interval, and so no bar.
    ax.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=1.0, solid_capstyle="butt")
    ax.plot(auc, place, **_look(kind, row["given"]))
    p = row["p"]
    written = "–" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
    ax.annotate(
        f"{auc:.2f}   p {written}",
        (1.0, place),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center_baseline",
        size=SMALL,
        annotation_clip=False,
    )


def _look(kind: str, given: str = "") -> dict[str, Any]:
    """The mark of a row: filled as it is, open once something was taken out."""
    if kind == "verdict":
        return {"color": INK, "marker": "D", "markersize": 4, "linestyle": ""}
    colour = _CONFOUND if kind == "baseline" else _PLAIN
    marker, size = {"": ("o", 4.2), _BASELINE: ("o", 4.2), _HUB: ("s", 3.8)}.get(given, ("^", 4.4))
    inside = "white" if kind == "corrected" else colour
    look = {"marker": marker, "markersize": size, "markeredgewidth": 1.0, "linestyle": ""}
    return {**look, "color": colour, "markerfacecolor": inside}


def _finish(ax: Axes, table: pd.DataFrame) -> None:
    names = {"verdict": "verdict, {}", "baseline": "P(answer) curves", "corrected": "without {1}"}
    labels = [
        names.get(row["kind"], "{}").format(row["distance"], _given(row["given"]))
        for row in _rows(table)
    ]
    labels = [fitted(label, 34.0) for label in labels]
    ax.set_yticks(range(len(table)), labels)
    ax.set_ylim(len(table) - 0.4, -0.6)
    numbers = table[["auc", *_ENDS]].to_numpy(dtype=np.float64)
    ax.set_xlim(min(0.4, np.nanmin(numbers) - 0.03), max(0.7, np.nanmax(numbers) + 0.03))
    tidy(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("AUC: same-group pair nearer than other-group pair", labelpad=2)
    given = set(table["given"])
    shown = {"": "distance", _BASELINE: "curves regressed out", _HUB: "without word effects"}
    marks = [
        Line2D([], [], label=label, **_look("corrected" if name else "plain", name))
        for name, label in shown.items()
        if name in given
    ]
    if given - shown.keys():
        marks.append(Line2D([], [], label="without covariates", **_look("corrected", "another")))
    handles = [
        *marks,
        Line2D([], [], label="verdict, 90 % interval", **_look("verdict")),
        Line2D([], [], color=_CONFOUND, ls=_DASHES, linewidth=0.9, label="learning time alone"),
        Patch(color=PALE, linewidth=0, label="95 % of permutations"),
    ]
    wide = size_now().narrow >= _WIDE
    legend(ax, handles, (0.0 if wide else -0.3, 1.01), columns=3 if wide else 2)
