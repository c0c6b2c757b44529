"""Which word belongs to which group, checked against the words that were measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kntrace.errors import AnalysisError

__all__ = ["group_codes"]


def group_codes(
    words: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> tuple[list[str], npt.NDArray[np.intp]]:
    """Give every word the number of its group.

    Returns
    -------
    labels, codes
        The groups' names in their order, and for every word a position in them.

    Raises
    ------
    AnalysisError
        If a word is in no group, in two, or in one but not among `words`; or if no two words
        share a group, or all do: then there is nothing to compare.
    """
    assigned = [word for members in groups.values() for word in members]
    for word, times in Counter(assigned).items():
        if times > 1:
            raise AnalysisError(f"word {word!r} is named {times} times", where="groups")
    homeless = sorted(set(words) - set(assigned))
    unknown = sorted(set(assigned) - set(words))
    if homeless or unknown:
        found = [f"in no group: {', '.join(homeless)}"] * bool(homeless)
        found += [f"not measured: {', '.join(unknown)}"] * bool(unknown)
        raise AnalysisError(
            "; ".join(found), where="groups", expected="every measured word in one group"
        )
    labels = [label for label, members in groups.items() if len(members)]
    group_of = {word: place for place, label in enumerate(labels) for word in groups[label]}
    codes = np.array([group_of[word] for word in words], dtype=np.intp)
    if len(labels) < 2:
        raise AnalysisError("all words in one group", where="groups", expected="two groups or more")
    if np.bincount(codes).max() < 2:
        raise AnalysisError(
            "no two words in the same group",
            where="groups",
            expected="at least one group of two words or more",
        )
    return labels, codes
