"""When neurons form, and whether in the order in which words are learnt."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.stats import permutation_test, rankdata, wilcoxon

from kntrace.emergence.crossing import crossing
from kntrace.errors import AnalysisError
from kntrace.notebook import Card, Shown

__all__ = ["FormationTimes", "formation_times", "half_rise"]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class FormationTimes(Shown):
    """What `formation_times` found.

    Attributes
    ----------
    neurons
        (word, rank) half-rise of every knowledge neuron, as a position among the checkpoints,
        counted from 0 and with a fraction between two. NaN: the last score is not above zero.
    words
        One row a word: `neurons`, the median half-rise of its neurons; `together`, the
        half-rise of the sum of their scores; `probability`, that of P(answer); `before`, the
        share of its neurons that half-rise before P(answer) does; and, where the checkpoints'
        steps are known, `neurons_step` and `probability_step`.
    order, order_p
        Spearman's correlation over words of `neurons` and `probability`, and its one-sided
        permutation p-value: are words whose answer comes early also those whose neurons do?
    lead, lead_p
        Median over words of `probability` minus `neurons`, in checkpoints: above zero where
        neurons come first; and the two-sided p-value of Wilcoxon's signed-rank test.
    permutations, seed
        Of the test of the order.
    """

    neurons: xr.DataArray
    words: pd.DataFrame
    order: float
    order_p: float
    lead: float
    lead_p: float
    permutations: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """All but the tables, as what JSON can express; undefined numbers become None."""
        numbers = {name: getattr(self, name) for name in ("order", "order_p", "lead", "lead_p")}
        return {
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            "permutations": self.permutations,
            "seed": self.seed,
        }

    def _card(self) -> Card:
        names = ("order", "order_p", "lead", "lead_p")
        facts = {name.replace("_", " "): getattr(self, name) for name in names}
        return Card("When neurons and answers half-rise", facts, self.words.to_dict("records"))

    def __str__(self) -> str:
        if math.isnan(self.lead):
            return "half-rise: no word rises in these checkpoints"
        side = "before" if self.lead >= 0 else "after"
        order = (
            "order of words undefined"
            if math.isnan(self.order)
            else f"order of words: Spearman {self.order:.2f} (p {_shown(self.order_p)})"
        )
        return (
            f"half-rise of a word's neurons: {abs(self.lead):.2f} checkpoints {side} P(answer)'s "
            f"in the median\n(p {_shown(self.lead_p)}); {order}"
        )


def formation_times(
    formation: xr.DataArray,
    probability: xr.DataArray,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> FormationTimes:
    """Find when the knowledge neurons of every word half-rise, and when its answer does.

    Parameters
    ----------
    formation
        (word, rank, checkpoint), of `formation_processes`.
    probability
        (checkpoint, word) mean P(answer), of the same wording.
    permutations, seed
        Of the test of the order.

    Raises
    ------
    AnalysisError
        If the two are of other words or checkpoints.

    Notes
    -----
    A layer's scores add up to what it does to P(answer), so that scores rise with P by
    construction: a correlation of the orders is no discovery by itself. What can surprise is a
    lead, or an order that does *not* follow P.

    References
    ----------
    Wilcoxon 1945; the order's test is `scipy.stats.permutation_test`.
    """
    paths = formation.transpose("word", "rank", "checkpoint")
    curves = probability.transpose("word", "checkpoint")
    for name in ("word", "checkpoint"):
        if not np.array_equal(paths[name].values, curves[name].values):
            raise AnalysisError(f"formation processes and probabilities of other {name}s")
    held = _held(paths)
    neurons = np.where(held, half_rise(paths.values), np.nan)
    answer = half_rise(curves.values)
    middle = _medians(neurons)
    risen = (~np.isnan(neurons)).sum(axis=1)
    before = (neurons < answer[:, None]).sum(axis=1) / np.where(risen > 0, risen, 1)
    words = pd.DataFrame(
        {
            "word": paths["word"].values,
            "group": paths["group"].values,
            "neurons": middle,
            "together": half_rise(_together(paths.values, held)),
            "probability": answer,
            "before": np.where((risen > 0) & ~np.isnan(answer), before, np.nan),
        }
    )
    steps = _steps(probability)
    for name in ("neurons", "probability"):
        words[f"{name}_step"] = _at(words[name].to_numpy(), steps)
    order, order_p = _order(middle, answer, permutations, seed)
    lead, lead_p = _lead(answer - middle)
    return FormationTimes(
        neurons=xr.DataArray(
            neurons,
            dims=("word", "rank"),
            coords={name: paths[name] for name in ("word", "group", "rank")},
            name="half_rise",
            attrs={"unit": "checkpoints"},
        ),
        words=words,
        order=order,
        order_p=order_p,
        lead=lead,
        lead_p=lead_p,
        permutations=int(permutations),
        seed=int(seed),
    )


def half_rise(curves: npt.NDArray[Any]) -> _Floats:
    """Place from which on a curve stays at or above half of its last value.

    Parameters
    ----------
    curves
        (…, checkpoint).

    Returns
    -------
    np.ndarray
        (…,) positions among the checkpoints, counted from 0, interpolated on a straight line
        between two of them; 0 if the curve is never below; NaN if it does not end above zero.
    """
    values = np.asarray(curves, dtype=np.float64)
    last = values.shape[-1] - 1
    half = values[..., -1:] / 2
    below = values < half
    before = np.where(below.any(axis=-1), last - below[..., ::-1].argmax(axis=-1), -1)
    place = crossing(values, np.clip(before, 0, max(last - 1, 0)), half)
    found: _Floats = np.where(values[..., -1] > 0, np.where(before < 0, 0.0, place), np.nan)
    return found


def _shown(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _held(paths: xr.DataArray) -> npt.NDArray[np.bool_]:
    """Which places hold a neuron: a word may have fewer than others, layer -1 there."""
    if "layer" not in paths.coords:
        return np.ones(paths.shape[:2], dtype=np.bool_)
    held: npt.NDArray[np.bool_] = paths["layer"].transpose("word", "rank").values >= 0
    return held


def _together(values: _Floats, held: npt.NDArray[np.bool_]) -> _Floats:
    """(word, checkpoint): sum over the word's neurons."""
    return np.stack([word[some].sum(axis=0) for word, some in zip(values, held, strict=True)])


def _medians(rows: _Floats) -> _Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows of nothing but NaN
        medians: _Floats = np.nanmedian(rows, axis=1)
    return medians


def _steps(probability: xr.DataArray) -> _Floats | None:
    """Steps of the checkpoints, if they are known and go up."""
    if "step" not in probability.coords:
        return None
    steps = probability["step"].values.astype(np.float64)
    return steps if (steps >= 0).all() and (np.diff(steps) > 0).all() else None


def _at(places: _Floats, steps: _Floats | None) -> _Floats:
    if steps is None:
        return np.full(places.shape, np.nan)
    found: _Floats = np.interp(places, np.arange(len(steps)), steps)
    return np.where(np.isnan(places), np.nan, found)


def _order(first: _Floats, second: _Floats, permutations: int, seed: int) -> tuple[float, float]:
    known = ~np.isnan(first) & ~np.isnan(second)
    one, two = first[known], second[known]
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return math.nan, math.nan
    ranks, other = rankdata(one), rankdata(two)
    other = (other - other.mean()) / other.std() / len(other)

    def correlation(dealt: _Floats, axis: int = -1) -> _Floats:
        centred: _Floats = (dealt - ranks.mean()) / ranks.std()
        return np.asarray((centred * other).sum(axis=axis))

    found = permutation_test(
        (ranks,),
        correlation,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=permutations,
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    return float(found.statistic), float(found.pvalue)


def _lead(leads: _Floats) -> tuple[float, float]:
    known = leads[~np.isnan(leads)]
    if not known.size:
        return math.nan, math.nan
    if not known.any():
        return 0.0, 1.0
    return float(np.median(known)), float(wilcoxon(known).pvalue)
