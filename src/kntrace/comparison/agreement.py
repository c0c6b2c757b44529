"""Do two runs' distances agree, and in more than that groups differ?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from kntrace.comparison.members import Member, Shared, codes_of
from kntrace.contrasts import mantel
from kntrace.progress import Progress

__all__ = ["AGREEMENT_COLUMNS", "OVER", "agreement", "blockwise"]

OVER = ("all", "same group", "other groups", "within blocks")
"""Which pairs of words: all; those of one group; those of different groups; or both kinds, each
ranked by itself, so that the difference between the kinds does not count."""

AGREEMENT_COLUMNS = (
    *("distance", "first", "second", "over", "pairs"),
    *("rho", "chance", "p", "ceiling", "corrected"),
)

_Floats = npt.NDArray[np.float64]
_Codes = npt.NDArray[np.intp]
_ROUNDING = 1e-12
# Values held at once while permuting: 32 MB of float64.
_AT_ONCE = 4_000_000
_STAGE = "agreement"


def agreement(
    members: Sequence[Member],
    shared: Shared,
    names: Sequence[str],
    *,
    permutations: int,
    seed: int,
    progress: Progress,
) -> pd.DataFrame:
    """Compare every two runs by every distance.

    Returns
    -------
    pd.DataFrame
        One row a distance, two runs, and entry of `OVER`: number of `pairs` of words;
        Spearman's correlation `rho` over them; `chance`, its mean when words change places: any
        words for all pairs (then it is 0), words of one group in the other three; `p`,
        one-sided, Mantel's test or the same test with words that stay in their group;
        `ceiling`, the largest correlation that the noise of both runs' prompts leaves, the root
        of the product of their split-half reliabilities, and `corrected`, rho / ceiling, which
        noise can take past 1. The last two are known for all pairs only.
    """
    rows: list[tuple[object, ...]] = []
    words, codes = shared.words, codes_of(shared)
    done, total = 0, len(names) * math.comb(len(members), 2)
    for name in names:
        for one, two in combinations(members, 2):
            progress(_STAGE, done, total, f"{name}: {one.label} · {two.label}")
            done += 1
            first, second = one.matrix(name, words), two.matrix(name, words)
            rho, p = mantel(first, second, permutations=permutations, seed=seed)
            ceiling = math.sqrt(_reliability(one, name) * _reliability(two, name))
            corrected = rho / ceiling if ceiling > 0 else math.nan
            pairs = math.comb(len(words), 2)
            head = (name, one.label, two.label)
            rows.append((*head, OVER[0], pairs, rho, 0.0, p, ceiling, corrected))
            found = blockwise(first.values, second.values, codes, permutations, seed)
            rows += [(*head, over, *found[over], math.nan, math.nan) for over in OVER[1:]]
    progress(_STAGE, total, total)
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def blockwise(
    first: _Floats, second: _Floats, codes: _Codes, permutations: int, seed: int
) -> dict[str, tuple[int, float, float, float]]:
    """Agreement of two matrices apart from what groups as such explain.

    Parameters
    ----------
    first, second
        (word, word), symmetric.
    codes
        (word,) number of its group.
    permutations, seed
        Of the words of `second`, each staying in its group: what two matrices share because
        whole groups lie near or far is then in the chance level.

    Returns
    -------
    dict
        By the last three of `OVER`: number of pairs, rho, its mean under permutation, and its
        one-sided p. NaN where there are fewer than three pairs, or no two differ.
    """
    ends = np.triu_indices(len(codes), 1)
    same = codes[ends[0]] == codes[ends[1]]
    # Which block a pair is in does not change when words change places within their groups, so
    # that ranks are taken once.
    one, two = (_scores(values[ends], same) for values in (first, second))
    table = np.zeros(first.shape)
    table[ends] = two
    table += table.T
    weights = np.stack([one * same, one * ~same, one])
    sizes = np.array([same.sum(), (~same).sum(), same.size])
    null = np.concatenate([weights @ part for part in _exchanged(table, ends, codes, permutations,
                                                                 seed)], axis=1)  # fmt: skip
    found = weights @ two
    results: dict[str, tuple[int, float, float, float]] = {}
    for place, over in enumerate(OVER[1:]):
        # A block without variation has scores of zero, and has no part in the sum of both.
        counted = _counted(one, two, same, over)
        if counted < 3:
            results[over] = (int(sizes[place]), math.nan, math.nan, math.nan)
            continue
        beyond = null[place] >= found[place] - _ROUNDING * counted
        p = float((1 + beyond.sum()) / (1 + permutations))
        rho, chance = found[place] / counted, null[place].mean() / counted
        results[over] = (int(sizes[place]), float(rho), float(chance), p)
    return results


def _scores(values: _Floats, same: npt.NDArray[np.bool_]) -> _Floats:
    """Standardized ranks, those of each block by themselves; 0 where a block has no order."""
    scores = np.zeros(len(values))
    for block in (same, ~same):
        if block.sum() > 2:
            ranks = rankdata(values[block])
            spread = ranks.std()
            scores[block] = (ranks - ranks.mean()) / spread if spread > 0 else 0.0
    return scores


def _counted(one: _Floats, two: _Floats, same: npt.NDArray[np.bool_], over: str) -> int:
    """Pairs in blocks where both matrices have an order."""
    blocks = {OVER[1]: (same,), OVER[2]: (~same,), OVER[3]: (same, ~same)}[over]
    return sum(int(block.sum()) for block in blocks if one[block].any() and two[block].any())


def _exchanged(
    table: _Floats, ends: tuple[_Codes, _Codes], codes: _Codes, permutations: int, seed: int
) -> Iterator[_Floats]:
    """(pair, permutation) entries of a matrix whose words changed places within their groups."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    most = max(1, _AT_ONCE // len(ends[0]))
    for start in range(0, permutations, most):
        count = min(most, permutations - start)
        places = np.tile(np.arange(len(codes)), (count, 1))
        for group in members:
            places[:, group] = rng.permuted(np.tile(group, (count, 1)), axis=1)
        yield table[places[:, ends[0]], places[:, ends[1]]].T


def _reliability(member: Member, name: str) -> float:
    known: Any = member.analysis.reliability.set_index("distance")["reliability"]
    return float(known.get(name, math.nan))
