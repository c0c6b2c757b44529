"""What suppressing and amplifying neurons does: dose curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from kntrace.effects import SOURCES, Ablation, read_method
from kntrace.figures.labels import spread, wrapped
from kntrace.figures.sizes import size_now
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import (
    INK,
    MUTED,
    TEXT,
    drawing,
    legend,
    new_figure,
    settle,
    tidy,
)

__all__ = ["DoseCurves"]

_Floats = npt.NDArray[np.float64]

# Colours of Okabe and Ito; dashes and marks tell the lines apart without them.
_LOOKS: dict[str, dict[str, Any]] = {
    "own": {"color": "#D55E00", "linestyle": "-", "marker": "o", "linewidth": 1.5},
    "same_group": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "other_group": {"color": "#009E73", "linestyle": (0, (4, 1.5)), "marker": "^"},
    "matched": {"color": INK, "linestyle": (0, (1, 1.2)), "marker": "D"},
    "random": {"color": MUTED, "linestyle": (0, (5, 1.5, 1, 1.5)), "marker": "v"},
}
_NAMES = {
    "own": "the word's own",
    "same_group": "same group's",
    "other_group": "other groups'",
    "matched": "random, matched",
    "random": "random",
}
_DONE = {"zero": "silenced", "mean": "set to their mean", "resample": "set to another word's"}
_ROW, _LEGEND, _REST = 44.0, 3.0, 6.0
# Lower rows, and where the two numbers do not fit beside each other.
_LOW_ROW, _NARROW = 36.0, 120.0
_SHIFT = 0.025
_NUMBERS = ("probability", "log_odds")


@dataclass(frozen=True)
class DoseCurves:
    """P(answer) and its log-odds against how many neurons are changed, and by how much.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    """

    name: str = "dose"
    title: str = "What happens when neurons are suppressed and amplified"
    how_to_read: str = (
        "Neurons are changed together while the model reads a word's prompts, and the answer is "
        "looked at: the word's own neurons, or as many of another word of its group, of words of "
        "other groups, random ones matched by layer and by size of activation, or any. Mean "
        "over words, with 95 % intervals over words of the change; the grey line is the answer as "
        "it is. "
        "Curves apart from the matched random ones are about the neurons, those apart from other "
        "words' about the word. Left in probability, which saturates; right in log-odds, which "
        "do not. Words share neurons, so another word's take some of this word's own."
    )

    def prepare(self, ablation: Ablation) -> pd.DataFrame:
        """One row a mark.

        Returns
        -------
        pd.DataFrame
            `panel` (dose: main method by number of neurons; factor: the main dose by factor;
            step: the main cell by checkpoint), `x`, `source`, `label` of x, `probability`,
            and the change of `log_odds`, with `_low` and `_high`, the interval of the change;
            attributes `before`, `method`, `dose`, `checkpoint` and `positions`.
        """
        main, summary = ablation.main, ablation.summary
        last = ablation.at(summary, checkpoint=main["checkpoint"])
        parts = []
        factors = last[(last["dose"] == main["dose"]) & last["method"].map(_is_factor)]
        if len(factors["method"].unique()) > 1:
            parts.append(_panel(factors, "factor", main))
        if len(ablation.checkpoints) > 1:
            parts.append(
                _panel(ablation.at(summary, method=main["method"], dose=main["dose"]), "step", main)
            )
        if len(ablation.settings.doses) > 1 or not parts:
            parts.insert(0, _panel(ablation.at(last, method=main["method"]), "dose", main))
        table = pd.concat(parts, ignore_index=True)
        own = ablation.at(last, source="own")
        table.attrs = {
            **{str(name): value for name, value in main.items()},
            "before": float(own["probability_before"].iloc[0]),
            "positions": ablation.settings.positions,
        }
        return table

    def draw(self, table: pd.DataFrame) -> Figure:
        """Draw a row of two panels for every kind of curve."""
        panels = list(dict.fromkeys(table["panel"]))
        with drawing():
            shape = _Shape.of(len(panels))
            figure = new_figure(size_now().wide, shape.height, spaced=True)
            heights = [shape.legend, *[shape.row] * shape.rows]
            grid = figure.add_gridspec(1 + shape.rows, shape.columns, height_ratios=heights)
            sources = list(dict.fromkeys(table["source"]))
            _legend(figure.add_subplot(grid[0, :]), sources, shape.keys)
            for place, panel in enumerate(panels):
                part = table[table["panel"] == panel]
                for which, what in enumerate(_NUMBERS):
                    row, column = shape.place(place, which)
                    ax = figure.add_subplot(grid[1 + row, column])
                    _draw_panel(ax, part, what, table.attrs, shape.panel)
            return settle(figure)

    def describe(self, table: pd.DataFrame) -> str:
        """P(answer) at the main dose, by source."""
        attrs = table.attrs
        panel = table["panel"].iloc[0]
        part = table[(table["panel"] == panel) & (table["count"] == attrs["dose"])]
        part = part[part["main"]]
        said = "; ".join(
            f"{_NAMES[row['source']]} {row['probability']:.3f}" for row in part.to_dict("records")
        )
        dose = "all chosen" if attrs["dose"] == 0 else str(attrs["dose"])
        return (
            f"P(answer) at {attrs['checkpoint']} is {attrs['before']:.3f} as it is; after "
            f"the method {attrs['method']} on {dose} neurons: {said}."
        )


def _is_factor(method: str) -> bool:
    return read_method(method)[1] is not None


def _panel(rows: pd.DataFrame, panel: str, main: dict[str, Any]) -> pd.DataFrame:
    found = rows[["source", "checkpoint", "step", "neurons"]].copy()
    found["before"] = rows["probability_before"]
    found["main"] = (rows["method"] == main["method"]) & (rows["checkpoint"] == main["checkpoint"])
    found["panel"], found["count"] = panel, rows["dose"]
    if panel == "dose":
        # All that a selection gives lies where its mean size does.
        own = rows[rows["source"] == "own"].set_index("dose")["neurons"]
        found["x"] = [own[dose] if dose == 0 else float(dose) for dose in rows["dose"]]
        found["label"] = ["all" if dose == 0 else str(dose) for dose in rows["dose"]]
    elif panel == "factor":
        found["x"] = [read_method(method)[1] for method in rows["method"]]
        found["label"] = [f"{x:g}" for x in found["x"]]
    else:
        labels = list(dict.fromkeys(rows["checkpoint"]))
        found["x"] = [float(labels.index(label)) for label in rows["checkpoint"]]
        found["label"] = rows["checkpoint"]
    for end in ("", "_low", "_high"):
        found[f"log_odds{end}"] = rows[f"log_odds{end}"]
        found[f"probability{end}"] = found["before"] + rows[f"change{end}"]
    if panel == "factor":
        found = pd.concat([found, _as_it_is(found)])
    return found.sort_values(["x"], kind="stable")


def _as_it_is(factors: pd.DataFrame) -> pd.DataFrame:
    """A point of every curve that needs no measuring: a factor of one changes nothing."""
    found = factors.drop_duplicates("source").assign(x=1.0, label="1", main=False)
    for end in ("", "_low", "_high"):
        found[f"log_odds{end}"] = 0.0
        found[f"probability{end}"] = found["before"]
    return found


def _draw_panel(
    ax: Axes, part: pd.DataFrame, what: str, attrs: dict[Any, Any], width: float
) -> None:
    panel = str(part["panel"].iloc[0])
    places = _Places.of(part)
    asked = [source for source in SOURCES if source in set(part["source"])]
    if panel == "step" and what == "probability":
        own = part.drop_duplicates("x")
        x = places.at(own["x"].to_numpy(dtype=np.float64), 0.0)
        ax.plot(x, own["before"], color=MUTED, linewidth=0.8)
    else:
        ax.axhline(attrs["before"] if what == "probability" else 0.0, color=MUTED, linewidth=0.8)
        if panel == "factor":
            ax.axvline(1.0, color=MUTED, linewidth=0.5)
    # The word's own come last, on top of the others.
    for place, source in sorted(enumerate(asked), reverse=True):
        rows = part[part["source"] == source]
        x = places.at(rows["x"].to_numpy(dtype=np.float64), place - (len(asked) - 1) / 2)
        value, low, high = (rows[what + end].to_numpy() for end in ("", "_low", "_high"))
        look = {"linewidth": 1.0, **_LOOKS[source]}
        ax.plot(x, value, markersize=3, **look)
        ax.vlines(x, low, high, color=look["color"], linewidth=0.8)
    places.apply(ax, width * 0.8)
    tidy(ax, grid="y")
    ax.set_ylabel("P(answer)" if what == "probability" else "change of log-odds", labelpad=2)
    if what == "probability":
        ax.set_ylim(bottom=min(0.0, *ax.get_ylim()) if ax.get_ylim()[0] < 0.15 else None)
    title = wrapped(_title(panel, attrs), width * 0.7, 2, TEXT)
    ax.set_title("\n".join(title), loc="left", pad=3, size=TEXT)


def _title(panel: str, attrs: dict[Any, Any]) -> str:
    dose = "all chosen" if attrs["dose"] == 0 else str(attrs["dose"])
    where = ", at every token" if attrs["positions"] == "all" else ""
    done = _DONE.get(attrs["method"], attrs["method"].replace("x", "times "))
    return {
        "dose": f"{done}, by number of neurons{where} ({attrs['checkpoint']})",
        "factor": f"{dose} neurons, by factor{where} ({attrs['checkpoint']})",
        "step": f"{dose} neurons {done}{where}, through training",
    }[panel]


@dataclass(frozen=True)
class _Places:
    """Where marks lie along x: a little apart, so that intervals do not hide one another."""

    kind: str
    x: _Floats
    labels: tuple[str, ...]
    steps: StepAxis | None

    @classmethod
    def of(cls, part: pd.DataFrame) -> _Places:
        each = part.drop_duplicates("x")
        kind, steps = str(part["panel"].iloc[0]), None
        if kind == "step":
            labels = [str(label) for label in each["label"]]
            steps = StepAxis.of(
                xr.Dataset(
                    coords={
                        "checkpoint": labels,
                        "step": ("checkpoint", each["step"].to_numpy(dtype=np.int64)),
                    }
                )
            )
        return cls(kind, each["x"].to_numpy(dtype=np.float64), tuple(each["label"]), steps)

    def at(self, x: _Floats, off: float) -> _Floats:
        if self.kind == "dose":
            return np.asarray(np.maximum(x, 0.5) * (1 + _SHIFT) ** (2 * off))
        if self.steps is not None:
            return np.asarray(self.steps.places[x.astype(int)])
        span = float(np.ptp(self.x)) or 1.0
        return np.asarray(x + _SHIFT * span * 0.3 * off)

    def apply(self, ax: Axes, width: float) -> None:
        if self.steps is not None:
            self.steps.apply(ax, width)
            return
        at = np.maximum(self.x, 0.5) if self.kind == "dose" else self.x
        if self.kind == "dose":
            ax.set_xscale("log")
            ax.set_xlim(at.min() / 1.3, at.max() * 1.3)
        drawn = np.log(at) if self.kind == "dose" else at
        span = max(float(np.ptp(drawn)), 1e-9)
        order = np.argsort(drawn, kind="stable")
        shown = [
            int(order[i]) for i in spread((drawn[order] - drawn.min()) / span * width * 0.85, 6.0)
        ]
        ax.xaxis.set_major_locator(FixedLocator([float(at[i]) for i in shown]))
        ax.xaxis.set_major_formatter(FixedFormatter([self.labels[i] for i in shown]))
        ax.xaxis.set_minor_locator(NullLocator())
        name = "neurons changed together" if self.kind == "dose" else "times what they are"
        ax.set_xlabel(name, labelpad=2)


def _legend(ax: Axes, sources: Sequence[str], columns: int) -> None:
    handles = [
        Line2D([], [], markersize=3, **{"linewidth": 1.0, **_LOOKS[source]}, label=_NAMES[source])
        for source in _ordered(sources)
    ]
    handles.append(Line2D([], [], color=MUTED, linewidth=0.8, label="nothing changed"))
    ax.set_axis_off()
    legend(ax, handles, (0.0, 0.0), columns=columns)


def _ordered(sources: Sequence[str]) -> Iterator[str]:
    return (source for source in SOURCES if source in sources)


@dataclass(frozen=True)
class _Shape:
    """How panels lie: probability and log-odds beside each other, or where there is no room not.

    Attributes
    ----------
    rows, columns
        Of panels.
    row, legend
        Height of a row, and of the legend, in mm.
    keys
        Columns of the legend.
    across
        Whether the kinds of curves lie beside each other, and the two numbers below.
    """

    rows: int
    columns: int
    row: float
    legend: float
    keys: int
    across: bool

    @classmethod
    def of(cls, panels: int) -> _Shape:
        now = size_now()
        if now.wide < _NARROW:
            return cls(2 * panels, 1, _LOW_ROW, 3 * _LEGEND, 2, False)
        row = (now.tallest - _LEGEND - _REST) / panels
        if row < _LOW_ROW:
            return cls(2, panels, (now.tallest - _LEGEND - _REST) / 2, _LEGEND, 6, True)
        return cls(panels, 2, min(_ROW, row), _LEGEND, 6, False)

    @property
    def height(self) -> float:
        """Height of the figure in mm."""
        return _REST + self.legend + self.rows * self.row

    @property
    def panel(self) -> float:
        """Width of a panel in mm."""
        return size_now().wide / self.columns

    def place(self, panel: int, number: int) -> tuple[int, int]:
        """Row and column of a panel."""
        if self.across:
            return number, panel
        return divmod(2 * panel + number, self.columns)
