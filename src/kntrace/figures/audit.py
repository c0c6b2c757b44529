"""The suite's checkpoints in a row, and what an audit of their weights found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.analysis import Analysis
from kntrace.archive import Run, audit_run, read_prints
from kntrace.audit.finding import SEVERITIES
from kntrace.figures.base import OfRun
from kntrace.figures.labels import LINE, fitted, longest, spread
from kntrace.figures.sizes import size_now
from kntrace.figures.steps import step_name
from kntrace.figures.style import (
    MUTED,
    PALE,
    drawing,
    legend,
    new_figure,
    settle,
    tidy,
)

__all__ = ["AuditStrip"]

_ROW, _REST, _LABEL = 5.2, 13.0, 16.0
_READ = "weights read"
# How much is known of a checkpoint's weights, from most to nothing.
_KNOWN = ("every tensor", "only whether equal", "nothing yet")
_LOOKS: dict[str, dict[str, Any]] = {
    "error": {"marker": "X", "color": "#D55E00"},
    "warning": {"marker": "^", "color": "#E69F00"},
    "note": {"marker": "o", "color": "#0072B2"},
    _KNOWN[0]: {"marker": "s", "color": MUTED},
    _KNOWN[1]: {"marker": "s", "color": MUTED, "markerfacecolor": "white"},
    _KNOWN[2]: {"marker": "_", "color": MUTED},
}
_SAYS = {
    "repeated": "the same weights",
    "shared": "tensors of another",
    "untrained": "tensors that never change",
    "missing": "tensors missing",
    "unexpected": "tensors too many",
    "not-finite": "not finite",
    "shape": "another shape",
    "dtype": "another format",
    "order": "out of order",
    "config": "configuration changes",
    "tokenizer": "tokenizer changes",
    "unreadable": "unreadable",
    "unread": "not read",
}


@dataclass(frozen=True)
class AuditStrip(OfRun):
    """Strip of the checkpoints with a row for every kind of finding.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    """

    name: str = "audit"
    title: str = "The checkpoints and what is wrong with their weights"
    how_to_read: str = (
        "The checkpoints in the order of training, evenly spaced. The first row says how much of "
        "their weights is known: the prints of every tensor, one print of the whole (then only "
        "repeated checkpoints can be found), or nothing. Below, a row for every kind of finding "
        "with a mark at each checkpoint that it is about: a cross is an error (scores would be of "
        "other weights than the label says), a triangle a warning, a dot a note. No row below "
        "the first means that nothing was found in what was read."
    )

    def prepare(self, analysis: Analysis) -> pd.DataFrame:
        """One row a mark.

        Returns
        -------
        pd.DataFrame
            `row` (`weights read`, or the kind of a finding), `mark` (how much is known, or the
            finding's severity), `place` (of the checkpoint, from 0), `checkpoint`, `step` (-1:
            not known). Attribute `findings`, how many there are of each severity.

        Raises
        ------
        ValueError
            If the analysis is of no run folder.
        """
        if analysis.run is None:
            raise ValueError("the analysis is of no run folder")
        return audit_table(analysis.run)

    def draw(self, table: pd.DataFrame) -> Figure:
        """Draw a row for every kind of finding."""
        rows = list(dict.fromkeys(table["row"]))
        labels = table[table["row"] == _READ]
        with drawing(labels["checkpoint"]):
            now = size_now()
            width = now.narrow if len(labels) <= 40 else now.wide
            names = _names(labels)
            high = _REST + longest(names) + _ROW * len(rows)
            figure = new_figure(width, high, spaced=True)
            ax = figure.add_subplot()
            size = 3.6 if len(labels) <= 60 else 2.2
            for place, row in enumerate(rows):
                ax.axhline(place, color=PALE, linewidth=0.5, zorder=0)
                part = table[table["row"] == row]
                for mark in dict.fromkeys(part["mark"]):
                    mine = part[part["mark"] == mark]
                    x = mine["place"].to_numpy(dtype=np.float64)
                    look = {"linestyle": "", "markersize": size, **_LOOKS[mark]}
                    ax.plot(x, np.full(x.size, float(place)), clip_on=False, **look)
            ax.set_yticks(range(len(rows)), [_SAYS.get(row, row) for row in rows])
            ax.set_ylim(len(rows) - 0.5, -0.5)
            _name_checkpoints(ax, names, _known_steps(labels), width * 0.62)
            tidy(ax)
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
            marks = [mark for mark in (*_KNOWN, *SEVERITIES) if mark in set(table["mark"])]
            handles = [
                Line2D([], [], linestyle="", markersize=3.6, **_LOOKS[mark], label=mark)
                for mark in marks
            ]
            legend(ax, handles, (0.0, 1.02), columns=3 if width < 120 else 6)
            return settle(figure)

    def describe(self, table: pd.DataFrame) -> str:
        """How many findings there are, and which checkpoints the errors are about."""
        read = table[table["row"] == _READ]
        found = table.attrs["findings"]
        head = (
            f"Strip of {len(read)} checkpoints; of {int((read['mark'] == _KNOWN[0]).sum())} every "
            f"tensor was read. "
        )
        if not any(found.values()):
            return f"{head}Nothing wrong was found in what was read."
        said = ", ".join(f"{count} of severity {name}" for name, count in found.items() if count)
        rows = [
            f"{_SAYS.get(str(row), row)}: {_listed(part['checkpoint'])}"
            for row, part in table[table["row"] != _READ].groupby("row", sort=False)
        ]
        return f"{head}Findings: {said}. {'; '.join(rows)}."


def audit_table(run: Run) -> pd.DataFrame:
    """Make the table of `AuditStrip.prepare` from a run's folder."""
    prints, found = read_prints(run), audit_run(run)
    place = {checkpoint.label: at for at, checkpoint in enumerate(run.suite)}
    known = dict.fromkeys(place.values(), _KNOWN[2])
    for one in prints:
        if one.whole is not None:
            known[one.place] = _KNOWN[0] if one.tensors else _KNOWN[1]
    rows: list[tuple[str, str, int]] = [(_READ, known[at], at) for at in sorted(known)]
    for finding in found:
        for label in finding.checkpoints:
            rows.append((finding.kind, finding.severity, place[label]))
    steps = [-1 if one.step is None else one.step for one in run.suite]
    labels = [one.label for one in run.suite]
    table = pd.DataFrame(
        [(*row, labels[row[2]], steps[row[2]]) for row in dict.fromkeys(rows)],
        columns=["row", "mark", "place", "checkpoint", "step"],
    )
    table.attrs["findings"] = {
        name: sum(finding.severity == name for finding in found) for name in SEVERITIES
    }
    return table


def _listed(labels: pd.Series[str]) -> str:
    names = list(dict.fromkeys(str(label) for label in labels))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _known_steps(labels: pd.DataFrame) -> bool:
    return bool((labels["step"] >= 0).all()) and bool(labels["step"].is_unique)


def _names(labels: pd.DataFrame) -> list[str]:
    """Names of the checkpoints: their steps where all are known."""
    known = _known_steps(labels)
    return [
        step_name(float(step)) if known else fitted(str(label), _LABEL)
        for step, label in zip(labels["step"], labels["checkpoint"], strict=True)
    ]


def _name_checkpoints(ax: Axes, names: list[str], known: bool, width: float) -> None:
    """Name as many checkpoints as have room."""
    many = len(names)
    shown = spread([place * width / many for place in range(many)], LINE)
    ax.set_xticks(shown, [names[place] for place in shown], rotation=90)
    ax.set_xlim(-0.7, many - 0.3)
    ax.set_xlabel("training step" if known else "checkpoint", labelpad=2)
