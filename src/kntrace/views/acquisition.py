"""Acquisition: when a word's answer is learnt, how much of it, and whether it stays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import spearmanr
from scipy.stats import t as student

from kntrace.emergence.crossing import crossing
from kntrace.errors import AnalysisError
from kntrace.figures.labels import LINE, fitted, spread
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import MUTED, PALE, drawing, group_looks, settle, tidy
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import step_axis
from kntrace.views.layout import lay_out
from kntrace.views.lines import log_odds

__all__ = ["Acquisition", "acquisition", "half_gain"]

_Floats = npt.NDArray[np.float64]

_LEVEL_OF_INTERVAL = 0.95
_TINY = float(np.finfo(np.float32).tiny)


def half_gain(curves: npt.ArrayLike) -> _Floats:
    """Where a curve first has half of what it ever gains over its first value.

    Parameters
    ----------
    curves
        (…, checkpoint).

    Returns
    -------
    np.ndarray
        (…,) positions among the checkpoints, on a straight line between two of them; NaN where
        a curve never rises above its first value.
    """
    values = np.asarray(curves, dtype=np.float64)
    start = values[..., :1]
    gain = values.max(axis=-1, keepdims=True) - start
    half = start + gain / 2
    first = (values >= half).argmax(axis=-1)
    place = crossing(values, np.maximum(first - 1, 0), half)
    return np.where(gain[..., 0] > 0, place, np.nan)


def acquisition(probability: npt.ArrayLike, *, level: float = 0.5) -> tuple[pd.DataFrame, _Floats]:
    """Measure one word's curves of P(answer).

    Parameters
    ----------
    probability
        (prompt, checkpoint), of the prompts that the word has.
    level
        The probability that the answer has to stay at.

    Returns
    -------
    table, halves
        One row a scale (`probability`, `log_probability`, `log_odds`, each the mean over
        prompts): `first`, `best` and `last` value; `gain`, best minus first; `half`, see
        `half_gain`, with `half_low` and `half_high`, a 95 % interval from leaving prompts out
        (NaN with fewer than three); `kept`, the share of the gain that is there at the end;
        `drop`, the largest fall below a former value; and `held`, the position from which the
        mean P(answer) stays at or above `level` to the end (NaN if it does not end there). The
        halves are those of every prompt's log-odds, (prompt,).

    References
    ----------
    Chang et al. 2024, whose measures after injecting a fact these are in the form that a series
    of checkpoints allows.
    """
    p = np.atleast_2d(np.asarray(probability, dtype=np.float64))
    scales = {
        "probability": p,
        "log_probability": np.log(np.maximum(p, _TINY)),
        "log_odds": log_odds(p),
    }
    rows = []
    for scale, values in scales.items():
        curve = values.mean(axis=0)
        gain = float(curve.max() - curve[0])
        low, high = _interval(values)
        rows.append(
            {
                "scale": scale,
                "first": curve[0],
                "best": curve.max(),
                "last": curve[-1],
                "gain": gain,
                "half": float(half_gain(curve)),
                "half_low": low,
                "half_high": high,
                "kept": float((curve[-1] - curve[0]) / gain) if gain > 0 else math.nan,
                "drop": float((np.maximum.accumulate(curve) - curve).max()),
                "held": _held(p.mean(axis=0), level),
            }
        )
    return pd.DataFrame(rows), half_gain(scales["log_odds"])


def _interval(values: _Floats) -> tuple[float, float]:
    """Jackknife over prompts of the half-gain of their mean."""
    count = len(values)
    if count < 3:
        return math.nan, math.nan
    rest = half_gain((values.sum(axis=0) - values) / (count - 1))
    if np.isnan(rest).any():
        return math.nan, math.nan
    found = float(half_gain(values.mean(axis=0)))
    sd = math.sqrt((count - 1) / count * float(((rest - rest.mean()) ** 2).sum()))
    half = float(student.ppf((1 + _LEVEL_OF_INTERVAL) / 2, count - 1)) * sd
    last = values.shape[1] - 1
    return max(found - half, 0.0), min(found + half, float(last))


def _held(curve: _Floats, level: float) -> float:
    below = np.flatnonzero(curve < level)
    if not below.size:
        return 0.0
    place = int(below[-1]) + 1
    return math.nan if place == curve.size else float(place)


@dataclass(frozen=True)
class Acquisition(FromText):
    """The view; see `acquisition`.

    Attributes
    ----------
    level
        The probability that the answer has to stay at.
    permutations
        How often groups are dealt out anew to the words.
    """

    level: float = 0.5
    permutations: int = 999
    name: str = "acquisition"
    title: str = "Acquisition of the answers"
    how_to_read: str = (
        "Every word's answer through training, on the left its probability, on the right its "
        "log-odds, which do not saturate; thick lines are medians of groups. Below, when each "
        "word first has half of what its log-odds ever gain over the first checkpoint, with a 95 "
        "% interval from leaving prompts out; the tick is where P(answer) stays at or above the "
        "level from then on (none: it does not). Words with intervals that overlap are not told "
        "apart by so few prompts. No neuron enters: whatever separates groups here separates "
        "them in every measure that follows scores through training."
    )
    needs: tuple[str, ...] = ("probability",)

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise AnalysisError(f"a level of {self.level}", expected="a probability")
        if self.permutations < 1:
            raise AnalysisError(f"{self.permutations} permutations", expected="1 or more")

    def compute(self, asked: Asked) -> Found:
        """See `acquisition`; the tables are `words` (three rows a word) and `curves`."""
        view, labels = asked.view, asked.view.checkpoints
        steps = asked.scores["step"].values
        p = view.probability().transpose("word", "checkpoint")  # refuses what is not finished
        prompts = view.scores["probability"].transpose("word", "prompt", "checkpoint").values
        tables, halves, curves = [], [], []
        for place, word in enumerate(view.words):
            held = prompts[place][view.asked[place]]
            table, own = acquisition(held, level=self.level)
            table.insert(0, "word", word)
            table.insert(1, "group", asked.groups[place])
            tables.append(table)
            halves.append(own)
            odds = log_odds(held).mean(axis=0)
            for at, label in enumerate(labels):
                curves.append(
                    {
                        "word": word,
                        "group": asked.groups[place],
                        "checkpoint": label,
                        "step": int(steps[at]),
                        "probability": float(p.values[place, at]),
                        "log_odds": float(odds[at]),
                        "floor": asked.floor,
                    }
                )
        words = pd.concat(tables, ignore_index=True)
        axis = step_axis(pd.DataFrame(curves))
        for name in ("half", "held"):
            words[f"{name}_step"] = _steps_at(words[name].to_numpy(), axis)
        facts = self._facts(words, halves, asked) | {"level": self.level}
        tables_found = {"words": words, "curves": pd.DataFrame(curves)}
        return Found(tables_found, facts, _say(facts))

    def _facts(self, words: pd.DataFrame, halves: list[_Floats], asked: Asked) -> dict[str, Any]:
        odds = words[words["scale"] == "log_odds"]
        at = odds["half"].to_numpy()
        explained, chance, p = _explained(at, asked.codes, self.permutations, asked.seed)
        return {
            "words": len(odds),
            "known": int((words[words["scale"] == "probability"]["last"] >= asked.floor).sum()),
            "floor": asked.floor,
            "held": int(odds["held"].notna().sum()),
            "half_step_quartiles": [
                float(value) for value in np.nanquantile(odds["half_step"], (0.25, 0.5, 0.75))
            ]
            if odds["half_step"].notna().any()
            else [],
            "kept": float(odds["kept"].median()),
            "largest_drop": float(words[words["scale"] == "probability"]["drop"].max()),
            "prompts_agree": _halves_agree(halves),
            "groups_explain": explained,
            "groups_explain_by_chance": chance,
            "p": p,
        }

    def draw(self, found: Found) -> Figure:
        """Draw curves on two scales, and below them when each word has half of its gain."""
        curves, words = found.tables["curves"], found.main
        odds = words[words["scale"] == "log_odds"]
        looks = group_looks(str(name) for name in curves["group"])
        rows = min(110.0, max(24.0, len(odds) * LINE))
        with drawing([*looks, *odds["word"].astype(str)]):
            axis = step_axis(curves)
            handles = [
                Line2D([], [], color=look.colour, linestyle=look.dashes, label=fitted(name, 30))
                for name, look in list(looks.items())[:24]
            ]
            laid = lay_out(("ab", "cc"), (50.0, rows), handles)
            for letter, what in (("a", "probability"), ("b", "log_odds")):
                _draw_curves(laid.axes[letter], curves, what, axis, looks)
                axis.apply(laid.axes[letter], laid.widths[letter])
            _draw_halves(laid.axes["c"], odds, axis, looks, laid.heights["c"])
            axis.apply(laid.axes["c"], laid.widths["c"])
            return settle(laid.figure, passes=2)


def _steps_at(places: _Floats, axis: StepAxis) -> _Floats:
    found = np.interp(places, np.arange(axis.places.size), axis.places)
    return np.where(np.isnan(places) | (not axis.known), np.nan, found)


def _halves_agree(halves: list[_Floats]) -> float:
    """Spearman's correlation over words of the first and the second half of their prompts."""
    pairs = [(np.mean(one[::2]), np.mean(one[1::2])) for one in halves if len(one) > 1]
    known = np.array([pair for pair in pairs if np.isfinite(pair).all()])
    if len(known) < 3 or (np.ptp(known, axis=0) == 0).any():
        return math.nan
    return float(spearmanr(known[:, 0], known[:, 1]).statistic)


def _explained(
    at: _Floats, codes: npt.NDArray[np.intp], permutations: int, seed: int
) -> tuple[float, float, float]:
    """Share of the words' spread that groups explain; its mean by chance, and a p-value."""
    held = np.isfinite(at)
    at, codes = at[held], codes[held]
    if len(at) < 3 or len(np.unique(codes)) < 2 or np.ptp(at) == 0:
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(seed)
    dealt = np.stack([at, *(rng.permutation(at) for _ in range(permutations))])
    groups = np.eye(codes.max() + 1)[codes][:, np.unique(codes)]
    means = dealt @ groups / groups.sum(axis=0)
    grand = at.mean()
    shares = ((means - grand) ** 2 * groups.sum(axis=0)).sum(axis=1) / ((at - grand) ** 2).sum()
    p = (1 + (shares[1:] >= shares[0] - 1e-12).sum()) / (1 + permutations)
    return float(shares[0]), float(shares[1:].mean()), float(p)


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    kept = (
        "No word's log-odds ever rise above their first value"
        if math.isnan(facts["kept"])
        else f"Of what the log-odds ever gain, {facts['kept']:.0%} is kept at the end (median word)"
    )
    said = [
        f"{facts['known']} of {facts['words']} words end with P(answer) at {facts['floor']:g} or "
        f"more; {facts['held']} come to {facts['level']:g} and stay there. {kept}; the largest "
        f"fall of any P(answer) below a former value is {facts['largest_drop']:.2f}."
    ]
    steps = facts["half_step_quartiles"]
    if steps:
        said.append(
            "A quarter, half and three quarters of the words have half of their gain by step "
            f"{', '.join(f'{step:.0f}' for step in steps)}."
        )
    if not math.isnan(facts["groups_explain"]):
        said.append(
            f"Groups explain {facts['groups_explain']:.0%} of the words' spread (by chance "
            f"{facts['groups_explain_by_chance']:.0%}, p = {facts['p']:.3f})."
        )
    if not math.isnan(facts["prompts_agree"]):
        said.append(
            "The order of the words repeats in the other half of their prompts with a rank "
            f"correlation of {facts['prompts_agree']:.2f} (0: noise)."
        )
    return tuple(said)


def _draw_curves(
    ax: Axes, curves: pd.DataFrame, what: str, axis: StepAxis, looks: dict[str, Any]
) -> None:
    for name, look in looks.items():
        part = curves[curves["group"] == name]
        rows = part.pivot_table(index="word", columns="checkpoint", values=what)[list(axis.labels)]
        values = rows.to_numpy()
        ax.plot(axis.places, values.T, color=look.colour, linewidth=0.35, alpha=0.5)
        marker = "o" if axis.places.size == 1 else None
        ax.plot(
            *(axis.places, np.median(values, axis=0)),
            color=look.colour,
            linestyle=look.dashes,
            linewidth=1.4,
            marker=marker,
        )
    if what == "probability":
        ax.set_ylim(0, 1)
        ax.axhspan(0, float(curves["floor"].iloc[0]), color=PALE, alpha=0.45, linewidth=0, zorder=0)
    ax.set_ylabel({"probability": "P(answer)", "log_odds": "log-odds of the answer"}[what])
    tidy(ax, grid="y")


def _draw_halves(
    ax: Axes, odds: pd.DataFrame, axis: StepAxis, looks: dict[str, Any], height: float
) -> None:
    order = {name: place for place, name in enumerate(looks)}
    rows = odds.assign(turn=odds["group"].map(order)).sort_values(["turn", "half"], kind="stable")
    y = np.arange(len(rows))
    between = np.arange(axis.places.size)
    x, low, high, held = (
        np.interp(rows[name].to_numpy(), between, axis.places, left=np.nan, right=np.nan)
        for name in ("half", "half_low", "half_high", "held")
    )
    colours = [looks[str(name)].colour for name in rows["group"]]
    ax.hlines(y, low, high, color=colours, linewidth=0.8)
    ax.scatter(x, y, s=8, color=colours, zorder=3)
    ax.scatter(held, y, s=18, marker="|", color=MUTED, linewidth=0.9)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    shown = spread(list(y * height / max(len(rows), 1)), LINE)
    ax.set_yticks(shown, [fitted(str(rows["word"].iloc[row]), 22) for row in shown])
    tidy(ax, grid="x")
    ax.tick_params(axis="y", length=0)
