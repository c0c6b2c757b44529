"""The statistics of many labellings of the same words at once.

Most pairs of words are of different groups, and most of what a labelling's statistics need of
them is the same for every labelling. So what can be is counted once: for every word, how many of
its distances lie below any given one. What is left for each labelling are the pairs within its
groups, a few per cent of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kntrace.labels import ABSENT, members_of

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

# Rounding of sums must not decide which of two equal numbers is the larger.
ROUNDING = 1e-12
# Values held at once while permuting: 32 MB of float64.
_AT_ONCE = 4_000_000
# A group of so many words that its trios outnumber all pairs by this is counted pair by pair.
_PASSES = 6


@dataclass(frozen=True)
class Pairs:
    """The distances of words, and what of them does not depend on groups.

    Attributes
    ----------
    values
        (word, word), symmetric, with zero diagonal.
    level
        (word, word) place of a distance among the different values that there are.
    first, second, start, end
        The pairs in ascending order of distance, and where runs of equal ones lie.
    """

    values: Floats
    level: npt.NDArray[np.int32]
    first: Codes
    second: Codes
    start: Codes
    end: Codes

    @classmethod
    def of(cls, values: Floats) -> Pairs:
        """Sort the pairs of a symmetric matrix; its diagonal is not used."""
        ends = np.triu_indices(len(values), 1)
        pairs = values[ends]
        order = np.argsort(pairs, kind="stable")
        ascending = pairs[order]
        hollow = values.copy()
        np.fill_diagonal(hollow, 0.0)
        level = np.zeros(values.shape, dtype=np.int32)
        level[ends] = np.unique(pairs, return_inverse=True)[1]
        return cls(
            hollow,
            level + level.T,
            ends[0][order],
            ends[1][order],
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

    @cached_property
    def nearer(self) -> Floats:
        """(level,) how many pairs lie below it, equal ones, itself among them, counting half."""
        upper = self.level[np.triu_indices(len(self.level), 1)]
        counts = np.bincount(upper, minlength=self.levels)
        return counts.cumsum() - counts / 2

    @cached_property
    def rows(self) -> Floats:
        """(word, word) every word's distances in ascending order; first, in place of its own."""
        rows = self.values.copy()
        np.fill_diagonal(rows, -np.inf)
        return np.sort(rows, axis=1)

    def below(self, word: int) -> npt.NDArray[np.int32]:
        """(level,) twice how many of a word's distances lie below it, equal ones counting half."""
        levels, counts = np.unique(np.delete(self.level[word], word), return_counts=True)
        passed = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
        steps = np.diff(levels, prepend=0, append=self.levels)
        below = np.repeat(2 * passed, steps)
        below[levels] -= counts.astype(np.int32)
        return below

    @cached_property
    def levels(self) -> int:
        """Number of different distances."""
        return int(self.level.max()) + 1


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


def statistics(pairs: Pairs, codes: Codes, groups: int) -> Statistics:
    """Compute all group statistics of the labellings `codes`, (labelling, word).

    Words labelled `ABSENT`, one in every labelling or none in any, are as if they were not
    there.
    """
    counts = np.zeros((3, len(codes), groups + 1))
    auc = np.full((len(codes), groups + 1), np.nan)
    gone = codes == ABSENT
    absent = gone.argmax(axis=1) if gone.any() else None
    blocks = [_Block(pairs, absent, *members) for members in members_of(codes, groups)]
    for block, found in zip(blocks, _shares(pairs, codes.shape, blocks), strict=True):
        counts[:, block.rows, block.group] = found
    counts[..., -1] = counts[..., :-1].sum(axis=-1)
    nearer = _nearer(pairs, len(codes), blocks)
    for block in blocks:
        if block.counted:
            auc[block.rows, block.group] = _by_trios(pairs, block)
        else:
            auc[block.rows, block.group] = _pair_by_pair(pairs, codes[block.rows], block.group)
    within = np.zeros(len(codes))
    for block in blocks:
        within[block.rows] += block.level.shape[1]
    words = len(pairs.values) - (absent is not None)
    couples = within * (words * (words - 1) / 2 - within)
    # Mann and Whitney's ranks; pairs within groups are nearer than one another in half the cases.
    auc[:, -1] = _divided(couples - (nearer - within**2 / 2), couples)
    return Statistics(counts[0], counts[1], counts[2], auc)


class _Block:
    """One group in the labellings in which it has the same size.

    Attributes
    ----------
    group, rows, words
        See `Members`.
    different
        `words` without repetition, where all rows have the same: so it is of most groups when
        one word after the other is left out. What is counted of them is counted once.
    absent
        (row,) the word left out of each labelling, or None.
    present
        Words there are in each labelling.
    level
        (row, pair) levels of the pairs within the group.
    counted
        Whether the group is small enough to be counted by trios of its words.
    trios
        (different row,) twice the number of trios (pair within the group, word of it, any other
        word) in which the word is nearer to the other one than the pair is to each other; equal
        distances count half.
    """

    def __init__(
        self, pairs: Pairs, absent: Codes | None, group: int, rows: Codes, words: Codes
    ) -> None:
        self.group, self.rows, self.words = group, rows, words
        self.absent = None if absent is None else absent[rows]
        self.present = len(pairs.values) - (absent is not None)
        self.different = words[:1] if (words == words[0]).all() else words
        one, two = np.triu_indices(words.shape[1], 1)
        level = pairs.level[self.different[:, one], self.different[:, two]]
        self.level = np.broadcast_to(level, (len(rows), len(one)))
        self.counted = self.size * len(one) <= _PASSES * len(pairs.first)
        self.trios = np.zeros(len(self.different), dtype=np.int64)

    @property
    def size(self) -> int:
        """Words of the group."""
        return int(self.words.shape[1])

    @property
    def couples(self) -> int:
        """Pairs within the group, times pairs of its words with others."""
        return int(self.level.shape[1]) * self.size * (self.present - self.size)

    def near(self, pairs: Pairs) -> Floats:
        """(row, member, member) distances within the group."""
        near: Floats = pairs.values[self.words[:, :, None], self.words[:, None, :]]
        return near

    def limits(self, pairs: Pairs) -> Floats:
        """(row, member) what a distance has to pass: the mean to the mates, and its rounding."""
        near, mates = self.near(pairs), max(self.size - 1, 1)
        slack = ROUNDING * (np.abs(near).sum(axis=2) / mates)
        limits: Floats = near.sum(axis=2) / mates + slack
        return limits


def _shares(pairs: Pairs, shape: tuple[int, ...], blocks: Sequence[_Block]) -> Iterator[Floats]:
    """For every block, (3, row): distances above the threshold, distances, and thresholds.

    A word alone in its group has no threshold: none above of none.
    """
    limits = np.full(shape, np.inf)
    for block in blocks:
        limits[block.rows[:, None], block.words] = block.limits(pairs)
    # Counted in the whole row, whoever the others are; the group's own are taken off below.
    above = np.stack(
        [
            shape[1] - np.searchsorted(row, limits[:, word], side="right")
            for word, row in enumerate(pairs.rows)
        ],
        axis=1,
    )
    for block in blocks:
        if block.size < 2:
            yield np.zeros((3, len(block.rows)))
            continue
        limit = limits[block.rows[:, None], block.words]
        beyond = block.near(pairs) > limit[:, :, None]
        diagonal = np.arange(block.size)
        beyond[:, diagonal, diagonal] = False
        found = above[block.rows[:, None], block.words] - beyond.sum(axis=2)
        if block.absent is not None:
            found -= pairs.values[block.words, block.absent[:, None]] > limit
        rows = np.empty((3, len(block.rows)))
        rows[0] = found.sum(axis=1)
        rows[1:] = np.array([[block.size * (block.present - block.size)], [block.size]])
        yield rows


def _nearer(pairs: Pairs, labellings: int, blocks: Sequence[_Block]) -> Floats:
    """Count, for every labelling, the pairs nearer than those within groups; equal ones half.

    Counts the trios of every block too. Both take tables that are made of one word's distances
    and hold for all labellings, so that they are made once, and only one of them is held.
    """
    nearer = np.zeros(labellings)
    members = [_Places.of(block.different) for block in blocks]
    left_out = [None if b.absent is None else _Places.of(b.absent[:, None]) for b in blocks]
    for block in blocks:
        nearer[block.rows] += pairs.nearer[block.level[: len(block.different)]].sum(axis=1)
    for word in range(len(pairs.values)):
        below = pairs.below(word)
        for block, places, gone in zip(blocks, members, left_out, strict=True):
            if block.counted:
                rows = places.rows(word)
                block.trios[rows] += below[block.level[rows]].sum(axis=1)
            if gone is not None:
                rows = gone.rows(word)
                nearer[block.rows[rows]] -= below[block.level[rows]].sum(axis=1) / 2
    return nearer


def _by_trios(pairs: Pairs, block: _Block) -> Floats:
    """AUC of a small group.

    What is nearer to a word of the group than a pair within it is a word of another group, one
    that is left out, or, counted from both its ends, another pair within the group.
    """
    twice = np.broadcast_to(block.trios, len(block.rows)).copy()
    if block.absent is not None:
        gone = pairs.level[block.words, block.absent[:, None]]
        for member in gone.T[:, :, None]:
            twice -= (member < block.level).sum(axis=1) + (member <= block.level).sum(axis=1)
    couples = np.full(len(twice), block.couples)
    return _divided(couples - (twice / 2 - block.level.shape[1] ** 2), couples)


def _pair_by_pair(pairs: Pairs, codes: Codes, group: int) -> Floats:
    """AUC of a large group, by one pass through all pairs."""
    left, right = codes[:, pairs.first], codes[:, pairs.second]
    there = (left != ABSENT) & (right != ABSENT)
    touching = ((left == group) | (right == group)) & there
    same = left == right
    return pairs.auc(same & touching, ~same & touching)


@dataclass(frozen=True)
class _Places:
    """In which rows of a table of members a word stands."""

    order: Codes
    start: Codes
    size: int

    @classmethod
    def of(cls, words: Codes) -> _Places:
        flat = words.ravel()
        order = np.argsort(flat, kind="stable")
        start = np.searchsorted(flat[order], np.arange(int(flat.max()) + 2))
        return cls(order, start, words.shape[1])

    def rows(self, word: int) -> Codes:
        """Rows with the word; it stands in each of them once."""
        if word + 1 >= len(self.start):
            return self.order[:0]
        return self.order[self.start[word] : self.start[word + 1]] // self.size


def dealt_out(codes: Codes, permutations: int, rng: np.random.Generator) -> Iterator[Codes]:
    """Yield the permuted labels in batches that fit the memory."""
    for size in _batches(permutations, codes):
        yield rng.permuted(np.tile(codes, (size, 1)), axis=1)


def one_left_out(codes: Codes) -> Iterator[Codes]:
    """Yield the labels without each word in turn, in batches that fit the memory."""
    done = 0
    for size in _batches(codes.size, codes, alike=True):
        batch = np.tile(codes, (size, 1))
        batch[np.arange(size), done + np.arange(size)] = ABSENT
        done += size
        yield batch


def _batches(labellings: int, codes: Codes, *, alike: bool = False) -> Iterator[int]:
    """Sizes of batches of labellings whose tables of pairs fit the memory.

    Labellings that are `alike` differ in few groups, and share the tables of the others.
    """
    sizes = np.bincount(codes)
    within, all_pairs = sizes * (sizes - 1) // 2, codes.size * (codes.size - 1) // 2
    if (sizes * within > _PASSES * all_pairs).any():
        held = codes.size**2
    else:
        tables = within.max() if alike else within.sum()
        held = int(max(tables, np.square(sizes).max(), codes.size))
    most = max(1, _AT_ONCE // held)
    for done in range(0, labellings, most):
        yield min(most, labellings - done)


def _divided(counts: npt.NDArray[Any], by: npt.NDArray[Any]) -> Floats:
    """Divide, giving NaN where there is nothing to divide by."""
    quotient: Floats = np.where(by > 0, counts / np.where(by > 0, by, 1), np.nan)
    return quotient
