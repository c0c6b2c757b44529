"""Super weights: single weights that a network stands on, when they come and what they carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kntrace.errors import AnalysisError
from kntrace.figures.labels import number
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import INK, MUTED, TEXT, drawing, settle, tidy
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import shade_unknown, step_axis
from kntrace.views.layout import lay_out
from kntrace.views.lines import known_lines, line_table, short
from kntrace.views.parts import Tables

__all__ = ["SuperWeights"]

# Whose weights are set to zero: what the table calls it, and how it is drawn.
_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "weight": ("the weight", {"color": "#D55E00", "linewidth": 1.5, "marker": "o"}),
    "column": ("its whole column", {"color": "#0072B2", "marker": "s"}),
    "largest": (
        "the largest weight",
        {"color": "#009E73", "linestyle": (0, (4, 1.5)), "marker": "^"},
    ),
    "random": (
        "random weights (mean)",
        {"color": INK, "linestyle": (0, (1, 1.2))},
    ),
}


@dataclass(frozen=True)
class SuperWeights(FromText):
    """The view; see `kntrace.probes.spikes`.

    Attributes
    ----------
    ratio
        How often the median of the residual stream the channel has to have there.
    persist
        In which share of the later layers it has to keep half of its largest value.
    share
        Which part of what is written has to come from the one weight.
    loss
        How much the loss has to rise when the weight is zero, in nats a token, to confirm it;
        and ten times what it does for any of the random weights.
    draws
        Random weights of the same matrix that are set to zero one at a time.
    """

    ratio: float = 50.0
    persist: float = 0.5
    share: float = 0.35
    loss: float = 0.1
    draws: int = 4
    name: str = "super_weights"
    title: str = "Super weights"
    how_to_read: str = (
        "Left: the largest input and output of every down-projection at the last checkpoint; "
        "ringed, the coordinate that comes nearest to the three criteria (massive in the "
        "residual stream, there to stay, from one weight). Right: that weight through training: "
        "its channel in the residual stream over the median (dotted: what is asked for), and "
        "below, by how much the text's loss rises when it is set to zero, beside its whole "
        "column (the neuron knocked out), the matrix's largest weight and random ones; the band "
        "is a 95 % interval over prompts. A large input or output alone is no super weight, and "
        "where no curve rises above random there is none. The first checkpoint is the control of "
        "an untrained network."
    )
    needs: tuple[str, ...] = ("probability",)

    def __post_init__(self) -> None:
        if self.ratio <= 0 or not (0 < self.persist <= 1 and 0 < self.share <= 1):
            raise AnalysisError(
                f"ratio = {self.ratio:g}, persist = {self.persist:g}, share = {self.share:g}",
                expected="a ratio above 0, and shares above 0 and at most 1",
            )
        if self.loss <= 0 or self.draws < 1:
            raise AnalysisError(
                f"loss = {self.loss:g}, draws = {self.draws}",
                expected="a loss above 0, and 1 draw or more",
            )

    def compute(self, asked: Asked) -> Found:
        """Look at every checkpoint, the last one first; tables `found`, `layers`, `lines`."""
        layers: list[pd.DataFrame] = []
        rows: list[pd.DataFrame] = []
        followed: list[tuple[int, int, int]] = []

        def measure(place: int, opened: Any) -> Tables:
            table = opened.spikes(asked.view.name)
            table.insert(0, "checkpoint", asked.view.checkpoints[place])
            table["nearness"] = self.nearness(table)
            best = table.loc[table["nearness"].idxmax()]
            # The last checkpoint comes first, and says which weight is followed.
            where = followed[0] if followed else _coordinate(best)
            return {"layers": table, "found": self._row(asked, place, opened, where, table, best)}

        def fits(kept: Tables) -> bool:
            row = kept["found"].iloc[0]
            nearest = row[[f"nearest_{name}" for name in ("layer", "row", "column")]]
            there = followed[0] if followed else tuple(int(one) for one in nearest)
            return _coordinate(row) == there

        for _, part in asked.measured(self, measure, "all", backwards=True, fits=fits):
            layers.insert(0, part["layers"])
            rows.insert(0, part["found"])
            followed = followed or [_coordinate(part["found"].iloc[0])]
        found = pd.concat(rows, ignore_index=True)
        places = found.pop("place")
        found.insert(1, "step", [int(asked.scores["step"].values[place]) for place in places])
        tables = {
            "found": found,
            "layers": pd.concat(layers, ignore_index=True),
            "lines": line_table(asked, known_lines(asked)),
        }
        facts = self._facts(found)
        return Found(tables, facts, _say(facts))

    def _row(
        self,
        asked: Asked,
        place: int,
        opened: Any,
        where: tuple[int, int, int],
        table: pd.DataFrame,
        best: pd.Series[Any],
    ) -> pd.DataFrame:
        """One row: the weight that is followed, at this checkpoint, and what came nearest."""
        there = opened.spikes(asked.view.name, where)
        there["nearness"] = self.nearness(there)
        losses = opened.losses_without(asked.view.name, where, self.draws, asked.seed)
        row = {
            "checkpoint": asked.view.checkpoints[place],
            "place": place,
            **_plain(there.iloc[0]),
            **losses,
            "candidate": int(there["nearness"].iloc[0] >= 1 and self._usual(there.iloc[0])),
            "confirmed": int(self._confirms(losses)),
            **{f"nearest_{name}": best[name] for name in ("layer", "row", "column", "nearness")},
            "candidates": int(sum(self._candidates(table))),
        }
        return pd.DataFrame([row])

    def nearness(self, table: pd.DataFrame) -> pd.Series[float]:
        """The least of the criteria, each over what is asked for; 1 and more: all are met."""
        parts = {
            "ratio": table["ratio"] / self.ratio,
            "of_largest": table["of_largest"] / _OF_LARGEST,
            "of_peak": table["of_peak"] / _OF_PEAK,
            "persists": table["persists"] / self.persist,
            "share": table["share"] / self.share,
        }
        return pd.DataFrame(parts).min(axis=1)

    @staticmethod
    def _usual(row: pd.Series[Any]) -> bool:
        return bool(row["prompts"] >= _PROMPTS)

    def _candidates(self, table: pd.DataFrame) -> list[bool]:
        return [row["nearness"] >= 1 and self._usual(row) for _, row in table.iterrows()]

    def _confirms(self, losses: dict[str, float]) -> bool:
        rise = losses["loss_weight"] - losses["loss"]
        return bool(rise >= self.loss and rise >= 10 * losses["random_most"])

    def _facts(self, found: pd.DataFrame) -> dict[str, Any]:
        last = found.iloc[-1]
        both = found[(found["candidate"] == 1) & (found["confirmed"] == 1)]
        return {
            "last_checkpoint": str(last["checkpoint"]),
            "checkpoints": len(found),
            **{name: int(last[name]) for name in ("layer", "row", "column", "weight_rank")},
            **{name: float(last[name]) for name in ("weight", "input", "output")},
            **{name: float(last[name]) for name in ("ratio", "persists", "share", "prompts")},
            **{
                name: float(last[name])
                for name in ("loss", *(f"loss_{one}" for one in _LOSSES), "random_most")
            },
            **{
                f"rise_{name}": {
                    "value": float(last[f"loss_{name}"] - last["loss"]),
                    "low": float(last[f"rise_{name}_low"]),
                    "high": float(last[f"rise_{name}_high"]),
                }
                for name in _LOSSES
            },
            **{
                f"{name}{end}": float(last[f"{name}{end}"])
                for name in ("probability", "log_odds")
                for end in ("", "_weight")
            },
            "candidate": bool(last["candidate"]),
            "confirmed": bool(last["confirmed"]),
            "needed": {
                "ratio": self.ratio,
                "persist": self.persist,
                "share": self.share,
                "loss": self.loss,
            },
            "first_seen": str(both["checkpoint"].iloc[0]) if len(both) else None,
            "seen_at": len(both),
            "candidates_anywhere": int((found["candidates"] > 0).sum()),
        }

    def draw(self, found: Found) -> Figure:
        """Draw the layers of the last checkpoint, and the weight through training."""
        with drawing():
            table = found.main
            axis = step_axis(found.tables["lines"])
            handles = [
                Line2D([], [], **{"linewidth": 1.0, "markersize": 2.5, **look}, label=name)
                for name, look in _LOSSES.values()
            ]
            laid = lay_out(("ab", "ac"), (36.0, 36.0), handles)
            _draw_layers(laid.axes["a"], found)
            above, below = laid.axes["b"], laid.axes["c"]
            x = _places(table, axis)
            above.plot(x, table["ratio"], color=INK, marker="o", markersize=2.2)
            above.axhline(float(found.facts["needed"]["ratio"]), color=MUTED, linestyle=":")
            _logarithmic(above)
            above.set_ylabel("channel / median", labelpad=2)
            above.set_title(_named(found.facts), loc="left", pad=3, size=TEXT)
            for name, (_, look) in _LOSSES.items():
                rise = table[f"loss_{name}"] - table["loss"]
                below.plot(x, rise, **{"linewidth": 1.0, "markersize": 2.2, **look})
                if name == "weight":
                    ends = (table["rise_weight_low"], table["rise_weight_high"])
                    below.fill_between(x, *ends, color=look["color"], alpha=0.18, linewidth=0)
            below.axhline(float(found.facts["needed"]["loss"]), color=MUTED, linestyle=":")
            below.set_ylabel("rise of the loss (nats)", labelpad=2)
            for ax in (above, below):
                axis.apply(ax, laid.widths["b"])
                shade_unknown(ax, found.tables["lines"], axis)
                tidy(ax, grid="y")
            return settle(laid.figure, passes=2)


# As large as this share of the largest value in the stream; written by the layer itself to this
# share of its later height; and the same coordinate in so many prompts.
_OF_LARGEST, _OF_PEAK, _PROMPTS = 0.1, 0.5, 0.5


def _coordinate(row: pd.Series[Any]) -> tuple[int, int, int]:
    return int(row["layer"]), int(row["row"]), int(row["column"])


def _plain(row: pd.Series[Any]) -> dict[str, Any]:
    whole = ("layer", "row", "column", "weight_rank")
    return {str(name): int(row[name]) if name in whole else float(row[name]) for name in row.index}


def _places(table: pd.DataFrame, axis: StepAxis) -> list[float]:
    place = dict(zip(axis.labels, axis.places, strict=True))
    return [float(place[str(label)]) for label in table["checkpoint"]]


def _named(facts: Mapping[str, Any]) -> str:
    return f"layer {facts['layer']}, row {facts['row']}, column {facts['column']}"


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    rises = {name: short(facts[f"rise_{name}"], 3) for name in _LOSSES}
    odds = f"{facts['log_odds_weight'] - facts['log_odds']:+.2f}".replace("-", "−")
    needed = facts["needed"]
    head = {
        (True, True): "There is a super weight",
        (True, False): "One weight makes a massive activation, but the loss does not confirm it",
        (False, True): "No weight meets the criteria, though the loss hangs on the nearest one",
        (False, False): "There is no super weight; the coordinate that comes nearest is",
    }[facts["candidate"], facts["confirmed"]]
    said = [
        f"{facts['last_checkpoint']}: {head}: {_named(facts)}, weight {facts['weight']:.3g} "
        f"(number {facts['weight_rank'] + 1} of its matrix by size). Its channel is "
        f"{number(facts['ratio'], 2)} times the median of the residual stream "
        f"({needed['ratio']:g} asked for), keeps half of its height in "
        f"{facts['persists']:.0%} of the later layers ({needed['persist']:.0%}), and "
        f"{facts['share']:.0%} of it comes from this weight ({needed['share']:.0%}), in "
        f"{facts['prompts']:.0%} of the prompts.",
        f"Set to zero, the text's loss of {facts['loss']:.3f} nats a token changes by "
        f"{rises['weight']}; with the whole column (the neuron) zero by {rises['column']}; the "
        f"largest weight of the matrix {rises['largest']}, random ones {rises['random']} "
        f"(intervals over prompts). Without the weight P(answer) goes from "
        f"{facts['probability']:.3f} to {facts['probability_weight']:.3f} and its log-odds change "
        f"by {odds}.",
    ]
    if facts["first_seen"] is not None:
        said.append(
            f"It meets all criteria and is confirmed at {facts['seen_at']} of "
            f"{facts['checkpoints']} checkpoints, first at {facts['first_seen']}."
        )
    else:
        said.append(
            f"Weights that meet the criteria, confirmed or not, are there at "
            f"{facts['candidates_anywhere']} of {facts['checkpoints']} checkpoints."
        )
    return tuple(said)


def _logarithmic(ax: Axes) -> None:
    """A logarithmic y axis with numbers that need no mathematics, which figures do not parse."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    # Within a few powers of ten, the twos and fives in between are written too.
    between = (1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,)
    ax.yaxis.set_major_locator(LogLocator(subs=between))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 1)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _draw_layers(ax: Axes, found: Found) -> None:
    table = found.tables["layers"]
    last = table[table["checkpoint"] == found.facts["last_checkpoint"]]
    x = last["layer"].to_numpy(dtype=np.float64)
    for name, colour, marker in (("input", "#56B4E9", "v"), ("output", "#CC79A7", "^")):
        values = last[f"largest_{name}"].to_numpy(dtype=np.float64)
        ax.plot(x, values, color=colour, marker=marker, markersize=2.6, linewidth=0.8, label=name)
    ring = last[last["layer"] == found.facts["layer"]]
    ax.scatter(ring["layer"], ring["largest_output"], s=45, facecolor="none", edgecolor=INK)
    _logarithmic(ax)
    ax.set_xlabel("layer", labelpad=2)
    ax.set_ylabel("largest absolute value", labelpad=2)
    ax.set_title(f"down-projections at {found.facts['last_checkpoint']}", loc="left", pad=3,
                 size=TEXT)  # fmt: skip
    ax.legend(loc="best")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(ax, grid="y")
