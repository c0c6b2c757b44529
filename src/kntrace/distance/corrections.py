"""Distances with something else taken out of them.

A correction says what it knows of every pair of words, in one or more columns of numbers, and
on which scale of the distances these numbers add up; `correct` takes out, by least squares, what
the columns explain. There are two scales. Effects of words multiply a distance, so they are
additive in its logarithm: in ranks, which are bounded, two near words together would look less
near than the sum of both says, and a group of near words would come out as one of far words. Of
covariates nothing is known but that more should mean farther, so ranks are regressed on ranks.
Word effects come first, then all covariates in one fit: the order given does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import xarray as xr

from kntrace.distance.base import Matrix
from kntrace.errors import AnalysisError

__all__ = [
    "Correction",
    "HubCorrection",
    "PairCovariate",
    "WordCovariate",
    "correct",
    "regress_out",
]

Scale = Literal["log", "rank"]

# Units of distances that are differences already, and may be negative.
_DIFFERENCES = {"log": "log ratio", "rank": "ranks"}
# Residuals equal up to rounding are equal: ties must not be broken by noise in the last digit.
_DIGITS = 9
# With so few, effects of words explain everything, and it is said so.
_WORDS_FOR_EFFECTS = 3


class Correction(Protocol):
    """Something that is known of pairs of words, and is to be taken out of a distance."""

    @property
    def name(self) -> str:
        """Name under which it is written down."""

    @property
    def description(self) -> str:
        """What is taken out, in one line for tables."""

    @property
    def scale(self) -> Scale:
        """On which scale of the distances its columns add up."""

    def columns(self, words: tuple[str, ...]) -> Matrix:
        """What it knows of the pairs of these words: (pair, column).

        Pairs in the order of `numpy.triu_indices(len(words), 1)`. Raises `AnalysisError` if it
        does not know a word.
        """


@dataclass(frozen=True)
class HubCorrection:
    """Effects of words: what makes a word near to all others, or far from all.

    A few hub words can dominate a matrix of distances. Each word gets an effect of its own, and
    the logarithm of a pair's distance the sum of both. A distance of zero has no logarithm, and
    counts as half the smallest that is not zero; distances that are corrected already are taken
    as they are.

    Attributes
    ----------
    name, description, scale
        See `Correction`.
    """

    name: str = "hub"
    description: str = "how near each word is to all others"
    scale: Scale = "log"

    def columns(self, words: tuple[str, ...]) -> Matrix:
        """One column a word: 1 for the pairs that it is in."""
        first, second = np.triu_indices(len(words), 1)
        columns = np.zeros((len(first), len(words)))
        columns[np.arange(len(first)), first] = 1
        columns[np.arange(len(first)), second] = 1
        return columns


@dataclass(frozen=True)
class WordCovariate:
    """A number that every word has, such as its frequency: the difference of a pair's enters.

    Attributes
    ----------
    name
        See `Correction`.
    values
        One finite number a word; further words do no harm.
    description, scale
        See `Correction`; the description is made of the name unless given.
    """

    name: str
    values: Mapping[str, float]
    description: str = ""
    scale: Scale = "rank"

    def __post_init__(self) -> None:
        if not self.description:
            object.__setattr__(self, "description", f"difference in {self.name}")

    def columns(self, words: tuple[str, ...]) -> Matrix:
        """Ranks of the absolute differences.

        Raises
        ------
        AnalysisError
            If a word has no number, or none that is finite, or if all words have the same.
        """
        absent = [word for word in words if word not in self.values]
        if absent:
            raise AnalysisError(
                f"no value for {len(absent)} of {len(words)} words: {_listed(absent)}",
                where=f"covariate {self.name!r}",
                expected="one number for every word",
            )
        values = np.array([float(self.values[word]) for word in words])
        for place in np.flatnonzero(~np.isfinite(values)):
            raise AnalysisError(
                f"{values[place]} for the word {words[place]!r}",
                where=f"covariate {self.name!r}",
                expected="a finite number",
            )
        if len(words) > 1 and (values == values[0]).all():
            raise AnalysisError(
                f"{values[0]:g} for every word",
                where=f"covariate {self.name!r}",
                expected="numbers that differ; there is nothing to take out",
            )
        first, second = np.triu_indices(len(words), 1)
        return _ranks(np.abs(values[first] - values[second]))[:, None]


@dataclass(frozen=True)
class PairCovariate:
    """A number that every pair of words has, such as another distance: its ranks enter.

    Attributes
    ----------
    name
        See `Correction`.
    matrix
        (word, other_word) symmetric and finite; its diagonal is not used.
    description, scale
        See `Correction`; the description is the name unless given.
    """

    name: str
    matrix: xr.DataArray = field(repr=False)
    description: str = ""
    scale: Scale = "rank"

    def __post_init__(self) -> None:
        if not self.description:
            object.__setattr__(self, "description", self.name)

    def columns(self, words: tuple[str, ...]) -> Matrix:
        """Ranks of the pairs' numbers.

        Raises
        ------
        AnalysisError
            If it is for other words, or if a number is not finite or not the same in both
            directions.
        """
        if tuple(str(word) for word in self.matrix["word"].values) != words:
            raise AnalysisError(
                "a baseline for other words, or in another order",
                where=self.name,
                expected="the words of the distance it is taken out of",
            )
        return _ranks(_upper(self.matrix, self.name))[:, None]


def correct(distances: xr.DataArray, *corrections: Correction) -> xr.DataArray:
    """Take out of a distance what corrections explain of it.

    Parameters
    ----------
    distances
        (word, other_word), as `pairwise_distances` or `correct` gives them.
    corrections
        One or more, in any order.

    Returns
    -------
    xr.DataArray
        (word, other_word), symmetric, with zero diagonal: what the corrections do not explain,
        of either sign, the smaller the nearer; of logarithms if all corrections are of that
        scale, of ranks otherwise. Attribute `distance` is, for instance, "emd | hub, length",
        and `given` says in words what was taken out.

    Raises
    ------
    AnalysisError
        If no correction is given, if one does not know the words, if a distance is not finite,
        is negative, or differs between directions, or if there are so few words that nothing
        is left.

    Notes
    -----
    Cost: one or two least-squares problems of W (W - 1) / 2 rows; word effects have a formula.
    """
    name = str(distances.attrs.get("distance"))
    if not corrections:
        raise AnalysisError("no correction to make", expected="one or more")
    words = tuple(str(word) for word in distances["word"].values)
    values, unit = _upper(distances, name), str(distances.attrs.get("unit", ""))
    scales: dict[Scale, Callable[[Matrix, str, str], Matrix]] = {"log": _logarithms, "rank": _ranks}
    for scale, rescaled in scales.items():
        chosen = [correction for correction in corrections if correction.scale == scale]
        if chosen:
            values = _residuals(rescaled(values, unit, name), words, chosen, name)
            unit = _DIFFERENCES[scale]
    matrix = np.zeros(distances.shape)
    matrix[np.triu_indices(len(words), 1)] = values
    names = ", ".join(correction.name for correction in corrections)
    what = "residual ranks" if unit == "ranks" else "residual logarithms"
    return distances.copy(data=matrix + matrix.T).assign_attrs(
        distance=f"{name} | {names}",
        description=f"{what} of {name} given {names}",
        given="; ".join(correction.description for correction in corrections),
        unit=unit,
        metric=False,
    )


def regress_out(distances: xr.DataArray, *baselines: xr.DataArray) -> xr.DataArray:
    """Take out of a distance what a straight line in other distances' ranks explains.

    The same as `correct` with a `PairCovariate` for every baseline.

    Parameters
    ----------
    distances, baselines
        (word, other_word), as `pairwise_distances` gives them, over the same words.

    Returns
    -------
    xr.DataArray
        (word, other_word), symmetric, with zero diagonal; attribute `distance` is, for
        instance, "emd | probability_curve".

    Raises
    ------
    AnalysisError
        If no baseline is given, or one for other words.

    Notes
    -----
    Taking out the curves of P(answer) in this way removes much, but not all, of what learning
    time does to a distance: on grown suites whose groups meant nothing but were learnt one
    after the other, the identity distance so corrected was still called significant in 13 of
    21. Judge by `kntrace.verdict`.
    """
    if not baselines:
        raise AnalysisError("no baseline to regress out", expected="one distance or more")
    return correct(
        distances,
        *(PairCovariate(str(baseline.attrs.get("distance")), baseline) for baseline in baselines),
    )


def _residuals(
    values: Matrix, words: tuple[str, ...], corrections: Sequence[Correction], name: str
) -> Matrix:
    """What least squares on a constant and the columns leave."""
    if len(words) > _WORDS_FOR_EFFECTS and all(isinstance(c, HubCorrection) for c in corrections):
        return np.round(_without_effects(values, len(words)), _DIGITS)
    columns = [correction.columns(words) for correction in corrections]
    design = np.hstack([np.ones((len(values), 1)), *columns])
    coefficients, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    if rank >= len(values):
        names = ", ".join(correction.name for correction in corrections)
        raise AnalysisError(
            f"{len(words)} words are too few to take {names} out: nothing would be left",
            where=f"distance {name!r}",
            expected=f"more than {rank} pairs of words",
        )
    residuals: Matrix = np.round(values - design @ coefficients, _DIGITS)
    return residuals


def _without_effects(values: Matrix, words: int) -> Matrix:
    """What least squares on word effects leaves, without the W² / 2 x W table of the columns.

    The normal equations say of every word i, with r_i the sum of its pairs' values, that
    (W - 2) a_i + sum(a) = r_i; added up, sum(a) = sum(r) / (2 W - 2). A constant is half an
    effect of every word, and adds nothing.
    """
    first, second = np.triu_indices(words, 1)
    sums = np.bincount(first, values, words) + np.bincount(second, values, words)
    effects = (sums - sums.sum() / (2 * words - 2)) / (words - 2)
    left: Matrix = values - effects[first] - effects[second]
    return left


def _ranks(values: Matrix, unit: str = "", name: str = "") -> Matrix:
    # Here, since it takes a second to load and every process that computes distances would.
    from scipy.stats import rankdata

    ranks: Matrix = rankdata(values)
    return ranks


def _logarithms(values: Matrix, unit: str, name: str) -> Matrix:
    if unit in _DIFFERENCES.values():
        return values
    if (values < 0).any():
        raise AnalysisError(
            f"a negative distance, {values.min():g}", where=name, expected="none below zero"
        )
    positive = values > 0
    if not positive.any():
        return np.zeros_like(values)
    logarithms: Matrix = np.log(values, where=positive, out=np.full_like(values, np.inf))
    return np.where(positive, logarithms, logarithms.min() - np.log(2))


def _upper(matrix: xr.DataArray, name: str) -> Matrix:
    """Values of the pairs, each once."""
    words = [str(word) for word in matrix["word"].values]
    values = matrix.transpose("word", "other_word").values.astype(np.float64)
    upper = np.triu_indices(len(words), 1)
    pairs: Matrix = values[upper]
    for kind, wrong in (
        ("not a finite number", ~np.isfinite(pairs)),
        ("not the same in both directions", pairs != values.T[upper]),
    ):
        for place in np.flatnonzero(wrong):
            i, j = upper[0][place], upper[1][place]
            raise AnalysisError(
                f"the value for {words[i]!r} and {words[j]!r} is {kind}",
                where=name,
                expected="finite, symmetric numbers",
            )
    return pairs


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more
