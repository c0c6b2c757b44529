"""Several runs: how far their distances agree, and what AUC each of them and all of them have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.comparison import Comparison
from kntrace.figures.labels import LINE, fitted, longest, spread
from kntrace.figures.matrix import colour_map
from kntrace.figures.style import (
    INK,
    MUTED,
    PAGE,
    PALE,
    SMALL,
    drawing,
    legend,
    new_figure,
    tidy,
)

__all__ = ["SeveralRuns"]

_BASELINE = "probability_curve"
# What the forest shows of every run, by the name of what was compared.
_KINDS = ("plain", "corrected", "baseline")
_NORMAL = 1.96
_PLAIN, _CONFOUND = "#0072B2", "#D55E00"
_SHIFT = {"plain": -0.2, "corrected": 0.0, "baseline": 0.2}
# Sizes in mm.
_EDGE, _GAP, _LONGEST = 1.5, 1.2, 26.0
_CELL, _SMALLEST_CELL, _LARGEST_SIDE = 8.0, 2.2, 72.0
_TOP, _FOOT, _BETWEEN, _RIGHT, _BAR = 9.0, 11.0, 5.0, 29.0, 2.4

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeveralRuns:
    """Matrix of the agreement of runs, and forest plot of their AUC.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    distance
        The one shown; where it was not compared, the first that was.
    """

    name: str = "runs"
    title: str = "Do several runs agree?"
    how_to_read: str = (
        "Left: Spearman's correlation, over pairs of words, of two runs' distances; below the "
        "diagonal over all pairs, above it with same-group and other-group pairs ranked apart. "
        "Runs that agree below and not above agree that the groups differ, and in nothing of "
        "single words. Right: how often a same-group pair is nearer than an other-group pair, "
        "mean over groups, with 95 % intervals over words; rings have the curves of P(answer) "
        "regressed out, squares are these curves alone. Below the line: all runs together, and, "
        "thin, where another run is to be expected."
    )
    distance: str = "identity"

    def prepare(self, comparison: Comparison) -> xr.Dataset:
        """All numbers that are drawn.

        Returns
        -------
        xr.Dataset
            `rho` (run, other_run): agreement over all pairs below the diagonal, within blocks
            above; NaN on it. `auc`, `low`, `high` (kind, run), with kinds plain, corrected (the
            baseline regressed out) and baseline. `pooled`, `pooled_low`, `pooled_high`,
            `next_low`, `next_high` (kind). NaN where there is none.
        """
        known = list(dict.fromkeys(comparison.agreement["distance"]))
        name = self.distance if self.distance in known else str(known[0])
        labels = list(comparison.labels)
        kinds = {"plain": name, "corrected": f"{name} | {_BASELINE}", "baseline": _BASELINE}
        estimates = comparison.estimates.set_index(["distance", "run"])
        pooled = comparison.pooled.set_index("distance")
        auc, error = (
            np.array([[_at(estimates, (of, run), what) for run in labels] for of in kinds.values()])
            for what in ("auc", "se")
        )
        ends = ("auc", "low", "high", "next_low", "next_high")
        over = {end: [_at(pooled, of, end) for of in kinds.values()] for end in ends}
        names = {"auc": "pooled", "low": "pooled_low", "high": "pooled_high"}
        return xr.Dataset(
            {
                "rho": (("run", "other_run"), _agreement(comparison, name)),
                "auc": (("kind", "run"), auc),
                "low": (("kind", "run"), np.maximum(auc - _NORMAL * error, 0.0)),
                "high": (("kind", "run"), np.minimum(auc + _NORMAL * error, 1.0)),
                **{names.get(end, end): ("kind", values) for end, values in over.items()},
            },
            coords={"run": labels, "other_run": labels, "kind": list(kinds)},
            attrs={"distance": name, "verdict": comparison.said},
        )

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw the matrix to the left, the forest to the right in the same rows."""
        labels = [str(label) for label in table["run"].values]
        with drawing(labels):
            names = min(longest(labels), _LONGEST) + _GAP
            cell = max(_SMALLEST_CELL, min(_CELL, _LARGEST_SIDE / len(labels)))
            side = cell * len(labels)
            below = max(names + _GAP + _BAR + 4 * LINE, 1.5 * cell + _FOOT)
            height = _TOP + side + below + _EDGE
            figure = new_figure(PAGE, height)

            def axes(x: float, y: float, width: float, tall: float) -> Axes:
                return figure.add_axes((x / PAGE, y / height, width / PAGE, tall / height))

            left, bottom = _EDGE + names, below + _EDGE
            cells = axes(left, bottom, side, side)
            rest = left + side + _BETWEEN
            forest = axes(rest, bottom - 1.5 * cell, PAGE - rest - _RIGHT, side + 1.5 * cell)
            bar = axes(left, bottom - names - _GAP - _BAR, max(side, 22.0), _BAR)
            _draw_matrix(cells, bar, table, labels, cell, names - _GAP)
            _draw_forest(forest, table)
            return figure

    def describe(self, table: xr.Dataset) -> str:
        """Medians of the agreement, the AUC over runs, and what the verdicts say together."""
        values, count = table["rho"].values, table.sizes["run"]
        below = float(np.nanmedian(values[np.tril_indices(count, -1)]))
        above = _median(values[np.triu_indices(count, 1)])
        plain = table.sel(kind="plain")
        pooled = float(plain["pooled"])
        over = (
            "no AUC over all runs"
            if math.isnan(pooled)
            else f"AUC over all runs {pooled:.2f} (95 % interval "
            f"{float(plain['pooled_low']):.2f} to {float(plain['pooled_high']):.2f})"
        )
        return (
            f"{count} runs, compared by {table.attrs['distance']}: median agreement of two runs "
            f"{below:.2f} over all pairs of words, {above} with the groups ranked apart; {over}. "
            f"{table.attrs['verdict']}"
        )


def _at(table: Any, row: Any, column: str) -> float:
    return float(table.loc[row, column]) if row in table.index else math.nan


def _median(values: _Floats) -> str:
    known = values[~np.isnan(values)]
    return f"{float(np.median(known)):.2f}" if known.size else "unknown"


def _agreement(comparison: Comparison, name: str) -> _Floats:
    place = {label: at for at, label in enumerate(comparison.labels)}
    values = np.full((len(place), len(place)), np.nan)
    table = comparison.agreement[comparison.agreement["distance"] == name]
    for row in table.to_dict("records"):
        first, second = place[row["first"]], place[row["second"]]
        if row["over"] == "all":
            values[max(first, second), min(first, second)] = row["rho"]
        elif row["over"] == "within blocks":
            values[min(first, second), max(first, second)] = row["rho"]
    return values


def _draw_matrix(
    ax: Axes, bar: Axes, table: xr.Dataset, labels: list[str], cell: float, room: float
) -> None:
    values = table["rho"].values
    count = len(values)
    norm = Normalize(-1, 1)
    image = ax.imshow(
        np.ma.masked_invalid(values),
        cmap=colour_map("RdBu_r"),
        norm=norm,
        interpolation="nearest",
        aspect="auto",
    )
    if cell >= 6:
        for row, column in np.argwhere(~np.isnan(values)):
            value = float(values[row, column])
            ax.text(
                *(column, row, f"{value:.2f}".replace("-", "−")),
                ha="center",
                va="center_baseline",
                size=SMALL,
                color="white" if abs(value) > 0.65 else INK,
            )
    shown = spread([cell * place for place in range(count)], LINE)
    names = [fitted(labels[place], room) for place in shown]
    ax.set_xticks(shown, names, rotation=90)
    ax.set_yticks(shown, names)
    tidy(ax)
    ax.tick_params(length=0, pad=1.5)
    ax.spines[:].set_visible(False)
    ax.set_title("above: groups apart", loc="left", pad=2, size=SMALL, color=MUTED)
    drawn = ax.figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[-1, 0, 1])
    drawn.outline.set_linewidth(0.4)
    drawn.set_label(f"Spearman, {table.attrs['distance']}", labelpad=1, loc="left")
    tidy(bar)


def _draw_forest(ax: Axes, table: xr.Dataset) -> None:
    count = table.sizes["run"]
    ax.set_ylim(count + 0.98, -0.5)
    ax.axvline(0.5, color=INK, linewidth=0.6)
    for kind in _KINDS:
        part = table.sel(kind=kind)
        look = _look(kind)
        for place in range(count):
            at = place + _SHIFT[kind]
            ax.plot(
                [float(part["low"][place]), float(part["high"][place])],
                [at, at],
                color=look["markeredgecolor"],
                linewidth=0.8,
            )
            ax.plot(float(part["auc"][place]), at, **look)
        at = count + 0.25 + _SHIFT[kind]
        for ends, width in (("next_", 0.5), ("pooled_", 1.6)):
            ax.plot(
                [float(part[f"{ends}low"]), float(part[f"{ends}high"])],
                [at, at],
                color=look["markeredgecolor"],
                linewidth=width,
                solid_capstyle="butt",
            )
        ax.plot(float(part["pooled"]), at, **{**look, "marker": "D"})
    ax.axhline(count - 0.35, color=MUTED, linewidth=0.5)
    for place in range(1, count):
        ax.axhline(place - 0.5, color=PALE, linewidth=0.4)
    ax.set_yticks([])
    tidy(ax, grid="x")
    ax.spines["left"].set_visible(False)
    _limits(ax, table)
    _numbers(ax, table)
    ax.set_xlabel("AUC, mean of groups: same-group pair nearer than other-group pair", labelpad=2)
    lines = {
        "plain": table.attrs["distance"],
        "corrected": "curves regressed out",
        "baseline": "curves of P(answer) alone",
    }
    handles = [Line2D([], [], label=lines[kind], **_look(kind)) for kind in _KINDS]
    handles += [Line2D([], [], label="all runs", **{**_look("plain"), "marker": "D"})]
    handles += [Line2D([], [], label="another run", color=_PLAIN, linewidth=0.5)]
    legend(ax, handles, (0.0, 1.02), columns=5)


def _look(kind: str) -> dict[str, Any]:
    colour = _CONFOUND if kind == "baseline" else _PLAIN
    return {
        "marker": "s" if kind == "baseline" else "o",
        "markersize": 3.6,
        "markeredgewidth": 0.9,
        "markeredgecolor": colour,
        "markerfacecolor": "white" if kind == "corrected" else colour,
        "linestyle": "",
    }


def _limits(ax: Axes, table: xr.Dataset) -> None:
    """Show all marks but where another run is to be expected, which may be anywhere."""
    names = ("auc", "low", "high", "pooled", "pooled_low", "pooled_high")
    values = np.concatenate([table[name].values.ravel() for name in names])
    values = values[~np.isnan(values)]
    low, high = min(0.4, float(values.min())), max(0.7, float(values.max()))
    ax.set_xlim(low - 0.02, high + 0.02)


def _numbers(ax: Axes, table: xr.Dataset) -> None:
    """Write the plain distance's numbers beside its row."""
    plain, count = table.sel(kind="plain"), table.sizes["run"]
    rows = [
        (place, *(float(plain[name][place]) for name in ("auc", "low", "high")))
        for place in range(count)
    ]
    step = max(1, math.ceil(LINE / (_row_height(ax) + 1e-9)))
    rows = rows[::step]
    rows.append((count + 0.25, *(float(plain[f"pooled{end}"]) for end in ("", "_low", "_high"))))
    for at, auc, low, high in rows:
        text = "–" if math.isnan(auc) else f"{auc:.2f} [{low:.2f}, {high:.2f}]"
        ax.annotate(
            text,
            (1.0, at),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center_baseline",
            size=SMALL,
            annotation_clip=False,
        )


def _row_height(ax: Axes) -> float:
    """Height of one row in mm."""
    figure = ax.get_figure(root=True)
    tall = ax.get_position().height * float(figure.get_figheight()) * 25.4 if figure else 0.0
    low, high = ax.get_ylim()
    return tall / abs(high - low)
