"""What the model reads last, at which its neurons are scored, and whether that tells the groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kntrace.lint.finding import Remark
from kntrace.lint.study_rules import spaced
from kntrace.lint.views import Asked, StudyView

__all__ = ["endings_tell_groups"]

# How much more often two prompts end alike within groups than between them, by share of all
# pairs, before a reader is warned; and how seldom labels dealt out anew may do as well.
_EXCESS, _P = 0.05, 0.01
_PERMUTATIONS = 999
# Rounding of sums must not decide which of two equal numbers is the larger.
_ROUNDING = 1e-12

_Codes = npt.NDArray[np.intp]

_PIECE = re.compile(r"\w+|[^\w\s]")


def endings_tell_groups(view: StudyView) -> Iterator[Remark]:
    """Prompts of one group end in the same word, so that endings alone tell the groups apart."""
    if len(view.study.groups) < 2:
        return
    for wording in view.study.wordings:
        asked = [one for one in view.asked if one.wording == wording]
        found = _Alike.of(asked)
        if found is None or found.within - found.between < _EXCESS or found.p > _P:
            continue
        among = f" in the wording {wording!r}" if len(view.study.wordings) > 1 else ""
        ending, group, inside, size = _most_telling(asked)
        yield Remark(
            f"two prompts of one group end in the same word in {found.within:.0%} of all cases, "
            f"of two groups in {found.between:.0%}{among} (p = {found.p:.3f}); most telling is "
            f"{ending!r}, the end of {inside} of the {size} prompts of {group!r}",
            fix="The neurons are scored at the last word, so groups will look alike for that "
            "alone: let prompts of all groups end in the same words, as a template does.",
        )


@dataclass(frozen=True)
class _Alike:
    """How often two prompts of two words end alike: both of one group, and of two."""

    within: float
    between: float
    p: float

    @classmethod
    def of(cls, asked: Sequence[Asked]) -> _Alike | None:
        """None where there is nothing to tell: one ending, or no pair of some kind."""
        table = _Table.of(asked)
        sizes = np.bincount(table.group)
        if table.end.max() < 1 or sizes.max() < 2 or len(sizes) < 2:
            return None
        within, between = table.alike(table.group)
        p = 1.0
        if within - between >= _EXCESS:
            rng = np.random.default_rng(0)
            pairs = (table.alike(rng.permutation(table.group)) for _ in range(_PERMUTATIONS))
            as_good = sum(one - other >= within - between - _ROUNDING for one, other in pairs)
            p = (1 + as_good) / (1 + _PERMUTATIONS)
        return cls(within, between, p)


@dataclass(frozen=True)
class _Table:
    """Which endings every word's prompts have, and which group every word is in.

    Attributes
    ----------
    word, end, share
        One entry a prompt: positions of its word and ending, and one over the number of the
        word's prompts.
    group
        Of every word.
    """

    word: _Codes
    end: _Codes
    share: npt.NDArray[np.float64]
    group: _Codes

    @classmethod
    def of(cls, asked: Sequence[Asked]) -> _Table:
        groups = {one.word.text: one.word.group for one in asked}
        number = Counter(one.word.text for one in asked)
        return cls(
            _coded(one.word.text for one in asked),
            _coded(_ending(one.prompt) for one in asked),
            np.array([1 / number[one.word.text] for one in asked]),
            _coded(groups.values()),
        )

    def alike(self, group: _Codes) -> tuple[float, float]:
        """Mean over pairs of words within and between groups: how often prompts end alike.

        For a pair it is the sum over endings of the product of the words' shares; so squared
        sums over groups hold the sum over pairs, and no table of pairs is needed.
        """
        words, ends = len(group), int(self.end.max()) + 1
        sizes = np.bincount(group)
        itself = _squares(self.word * ends + self.end, self.share)
        inside = _squares(group[self.word] * ends + self.end, self.share) - itself
        overall = _squares(self.end, self.share) - itself
        pairs = float((sizes * (sizes - 1)).sum())
        return inside / pairs, (overall - inside) / (words * (words - 1) - pairs)


def _coded(names: Iterable[str]) -> _Codes:
    """Number the names in order of their first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.intp)


def _squares(keys: _Codes, shares: npt.NDArray[np.float64]) -> float:
    """Sum of the squares of what the entries of each key add up to."""
    return float(np.square(np.bincount(keys, weights=shares)).sum())


def _most_telling(asked: Sequence[Asked]) -> tuple[str, str, int, int]:
    """The ending that is commonest in a group beyond its share elsewhere, and how common."""
    ends = [(_ending(one.prompt), one.word.group) for one in asked]
    both, sizes = Counter(ends), Counter(group for _, group in ends)
    overall = Counter(end for end, _ in ends)

    def excess(pair: tuple[str, str]) -> float:
        end, group = pair
        elsewhere = (overall[end] - both[pair]) / (len(ends) - sizes[group])
        return both[pair] / sizes[group] - elsewhere

    end, group = max(both, key=excess)
    return end, group, both[end, group], sizes[group]


def _ending(prompt: str) -> str:
    """Take the last word or mark; the last letter, in scripts written without spaces."""
    pieces = _PIECE.findall(prompt)
    last = pieces[-1].casefold() if pieces else ""
    return last if spaced(last) else last[-1]
