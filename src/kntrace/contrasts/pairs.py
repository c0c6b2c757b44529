"""The statistics of many labellings of the same words at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "ABSENT",
    "ROUNDING",
    "Bools",
    "Codes",
    "Floats",
    "Pairs",
    "Statistics",
    "dealt_out",
    "one_left_out",
    "statistics",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.intp]

# The label of a word that is left out: it is in no group, and in no pair.
ABSENT = -1

# Rounding of sums must not decide which of two equal numbers is the larger.
ROUNDING = 1e-12
# Values held at once while permuting: 32 MB of float64.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Pairs:
    """The pairs of words in ascending order of distance, and where runs of equal ones lie."""

    first: Codes
    second: Codes
    start: Codes
    end: Codes

    @classmethod
    def of(cls, values: Floats) -> Pairs:
        """Sort the pairs of a symmetric matrix."""
        first, second = np.triu_indices(len(values), 1)
        order = np.argsort(values[first, second], kind="stable")
        ascending = values[first, second][order]
        return cls(
            first[order],
            second[order],
            np.searchsorted(ascending, ascending, side="left"),
            np.searchsorted(ascending, ascending, side="right"),
        )

    def auc(self, within: Bools, between: Bools) -> Floats:
        """Share of (within, between) couples in which the former is closer, ties counting half.

        Both are (labelling, pair) in the order of distance; the result is (labelling,).
        """
        zero = np.zeros((len(between), 1), dtype=np.int64)
        passed = np.concatenate([zero, between.cumsum(axis=1)], axis=1)
        beyond = passed[:, -1:] - (passed[:, self.start] + passed[:, self.end]) / 2
        couples = within.sum(axis=1) * passed[:, -1]
        return _divided(np.where(within, beyond, 0.0).sum(axis=1), couples)


@dataclass(frozen=True)
class Statistics:
    """Statistics of some labellings: one row a labelling, one column a group, then overall.

    `rows` counts the words that have a threshold.
    """

    above: Floats
    others: Floats
    rows: Floats
    auc: Floats

    @property
    def share(self) -> Floats:
        """Share above."""
        return _divided(self.above, self.others)

    @property
    def share_with_self(self) -> Floats:
        """Share above as the paper counts it: every word's own cell is one more miss."""
        return _divided(self.above, np.where(self.others > 0, self.others + self.rows, 0))


def statistics(values: Floats, pairs: Pairs, codes: Codes, groups: int) -> Statistics:
    """Compute all group statistics of the labellings `codes`, (labelling, word).

    Words labelled `ABSENT` are as if they were not there.
    """
    above, others, _ = _rows(values, codes)
    counts = np.zeros((3, len(codes), groups + 1))
    auc = np.empty((len(codes), groups + 1))
    left, right = codes[:, pairs.first], codes[:, pairs.second]
    there = (left != ABSENT) & (right != ABSENT)
    same = (left == right) & there
    different = ~same & there
    for group in range(groups):
        member = codes == group
        for count, value in zip(counts, (above, others, others > 0), strict=True):
            count[:, group] = np.where(member, value, 0).sum(axis=1)
        touching = (left == group) | (right == group)
        auc[:, group] = pairs.auc(same & touching, different & touching)
    counts[..., -1] = counts[..., :-1].sum(axis=-1)
    auc[:, -1] = pairs.auc(same, different)
    return Statistics(counts[0], counts[1], counts[2], auc)


def _rows(values: Floats, codes: Codes) -> tuple[Floats, Floats, Floats]:
    """For every word of every labelling: distances above, distances there are, threshold.

    A word alone in its group has no threshold: none above of none, and NaN.
    """
    there = codes != ABSENT
    same = codes[:, :, None] == codes[:, None, :]
    diagonal = np.arange(values.shape[0])
    other = ~same & there[:, :, None] & there[:, None, :]
    same &= there[:, :, None]
    same[:, diagonal, diagonal] = False
    mates = same.sum(axis=2)
    threshold = _divided(np.where(same, values, 0.0).sum(axis=2), mates)
    slack = ROUNDING * _divided(np.where(same, np.abs(values), 0.0).sum(axis=2), mates)
    beyond = other & (values > (threshold + slack)[:, :, None])
    others = np.where(mates > 0, other.sum(axis=2), 0)
    return beyond.sum(axis=2).astype(np.float64), others.astype(np.float64), threshold


def dealt_out(codes: Codes, permutations: int, rng: np.random.Generator) -> Iterator[Codes]:
    """Yield the permuted labels in batches that fit the memory."""
    for size in _batches(permutations, codes.size):
        yield rng.permuted(np.tile(codes, (size, 1)), axis=1)


def one_left_out(codes: Codes) -> Iterator[Codes]:
    """Yield the labels without each word in turn, in batches that fit the memory."""
    done = 0
    for size in _batches(codes.size, codes.size):
        batch = np.tile(codes, (size, 1))
        batch[np.arange(size), done + np.arange(size)] = ABSENT
        done += size
        yield batch


def _batches(labellings: int, words: int) -> Iterator[int]:
    """Sizes of batches of labellings whose tables of pairs fit the memory."""
    most = max(1, _AT_ONCE // words**2)
    for done in range(0, labellings, most):
        yield min(most, labellings - done)


def _divided(counts: npt.NDArray[Any], by: npt.NDArray[Any]) -> Floats:
    """Divide, giving NaN where there is nothing to divide by."""
    quotient: Floats = np.where(by > 0, counts / np.where(by > 0, by, 1), np.nan)
    return quotient
