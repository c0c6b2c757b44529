"""Which word belongs to which group, checked against the words that were measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.errors import AnalysisError

__all__ = ["ABSENT", "Members", "between_words", "group_codes", "members_of"]

Codes = npt.NDArray[np.intp]

ABSENT = -1
"""The label of a word that is left out: it is in no group, and in no pair."""


def between_words(
    values: npt.NDArray[Any],
    words: Sequence[str] | npt.NDArray[np.str_],
    groups: Sequence[str] | npt.NDArray[np.str_],
    name: str,
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """Give a matrix (word, other_word) the words, and the group of each, on both sides."""
    of_words, of_groups = np.asarray(words, dtype=np.str_), np.asarray(groups, dtype=np.str_)
    return xr.DataArray(
        values,
        dims=("word", "other_word"),
        coords={
            "word": of_words,
            "group": ("word", of_groups),
            "other_word": of_words,
            "other_group": ("other_word", of_groups),
        },
        name=name,
        attrs=attrs,
    )


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


class Members(NamedTuple):
    """The words of one group in those of many labellings in which it has the same size.

    `rows` are the labellings, (row,), and `words` the places of its words, (row, member).
    """

    group: int
    rows: Codes
    words: Codes


def members_of(codes: Codes, groups: int) -> Iterator[Members]:
    """Yield every group's words in many labellings, one entry a group and size.

    Parameters
    ----------
    codes
        (labelling, word) number of its group, or `ABSENT`.
    groups
        Number of groups; one without words in a labelling has no entry for it.
    """
    order = np.argsort(codes, axis=1, kind="stable")
    counts = np.stack([(codes == group).sum(axis=1) for group in range(groups)], axis=1)
    start = (codes == ABSENT).sum(axis=1)[:, None] + counts.cumsum(axis=1) - counts
    for group in range(groups):
        for size in np.unique(counts[:, group]):
            rows = np.flatnonzero(counts[:, group] == size)
            if size:
                places = start[rows, group][:, None] + np.arange(size)
                yield Members(group, rows, order[rows[:, None], places])
