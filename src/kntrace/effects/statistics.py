"""Estimates over words, with intervals from leaving words out.

A word is asked for with its own neurons changed, and its neurons are changed while others are
asked for; so each word is left out in both parts at once (a jackknife). Prompts of one word are
no new words: their mean is taken first.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

__all__ = [
    "LEVEL",
    "Estimate",
    "jackknife",
    "mean_over_sources",
    "over_words",
    "ratio_over_words",
]

LEVEL = 0.95

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; all three are NaN where nothing was measured.

    The interval is NaN with fewer than three words.
    """

    value: float
    low: float
    high: float

    def within(self, least: float, most: float) -> Estimate:
        """The same of a number that has bounds, which the interval of a few words would pass."""
        low, high = (float(np.clip(end, least, most)) for end in (self.low, self.high))
        return Estimate(self.value, low, high)


def mean_over_sources(values: npt.ArrayLike) -> _Floats:
    """Mean over the words whose neurons were changed, with each word left out in turn.

    Parameters
    ----------
    values
        (word asked for, word whose neurons were changed), NaN where not measured. A single
        column says that no other word's neurons were.

    Returns
    -------
    numpy.ndarray
        (1 + word, word asked for): first with all words; row 1 + w without word w, which is
        NaN there itself.
    """
    matrix = np.asarray(values, dtype=np.float64)
    words, columns = matrix.shape
    seen = np.isfinite(matrix)
    total, count = np.where(seen, matrix, 0.0).sum(axis=1), seen.sum(axis=1)
    sums = np.tile(total, (words + 1, 1))
    counts = np.tile(count, (words + 1, 1))
    if columns > 1:
        sums[1:] -= np.where(seen, matrix, 0.0).T
        counts[1:] -= seen.T
    means: _Floats = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    means[1 + np.arange(words), np.arange(words)] = np.nan
    return means


def over_words(replicates: _Floats) -> Estimate:
    """Mean over words of what `mean_over_sources` gave, or of a difference of two."""
    return _jackknife(_mean(replicates), replicates)


def ratio_over_words(above: _Floats, below: _Floats) -> Estimate:
    """Sum over words of one quantity over the sum of another, over words that have both."""
    both = np.isfinite(above) & np.isfinite(below)
    top, bottom = (np.where(both, part, 0.0).sum(axis=1) for part in (above, below))
    ratio = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return _jackknife(ratio, np.where(both, above, np.nan))


def _mean(replicates: _Floats) -> _Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing are NaN
        return np.asarray(np.nanmean(replicates, axis=1))


def _jackknife(found: _Floats, replicates: _Floats) -> Estimate:
    """Interval from the replicates of the words that were measured."""
    value, rest = float(found[0]), found[1:]
    rest = rest[np.isfinite(replicates[0])]
    return jackknife(value, rest[np.isfinite(rest)])


def jackknife(value: float, rest: npt.ArrayLike) -> Estimate:
    """Interval (Student) of a number from what it is with each of its parts left out.

    Parameters
    ----------
    value
        With all parts.
    rest
        (part,) with each of them left out in turn. With fewer than three, or where one is not
        a number, there is no interval.
    """
    rest = np.asarray(rest, dtype=np.float64)
    count = len(rest)
    if count < 3 or not np.isfinite(rest).all():
        return Estimate(value, float("nan"), float("nan"))
    variance = (count - 1) / count * float(((rest - rest.mean()) ** 2).sum())
    half = float(student.ppf((1 + LEVEL) / 2, count - 1)) * variance**0.5
    return Estimate(value, value - half, value + half)
