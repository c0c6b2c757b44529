"""Which runs are compared, what they are called, and what words they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from kntrace.analysis import Analysis, load_analysis
from kntrace.archive import Run, is_url, open_run, url_of
from kntrace.archive.folder import SCORES
from kntrace.archive.identity import shortlist
from kntrace.errors import AnalysisError, KntraceError, RunError

__all__ = ["Member", "Shared", "find_runs", "load_members", "share_words"]

FEWEST_WORDS = 4
"""Fewer words have no pairs worth a correlation."""


@dataclass(frozen=True)
class Member:
    """One run of several: what it is called beside the others, and its saved analysis."""

    label: str
    run: Run
    analysis: Analysis

    def matrix(self, name: str, words: Sequence[str]) -> xr.DataArray:
        """One distance of these words, in their order."""
        found = (self.analysis.distances | self.analysis.corrected)[name]
        return found.sel(word=list(words), other_word=list(words))


@dataclass(frozen=True)
class Shared:
    """Words that all runs have, and what only some of them have.

    Attributes
    ----------
    groups
        Common words of every group, in the order of the first run.
    left_out
        By run, its words that another run lacks.
    """

    groups: dict[str, tuple[str, ...]]
    left_out: dict[str, tuple[str, ...]]

    @property
    def words(self) -> tuple[str, ...]:
        """All common words, group by group."""
        return tuple(word for members in self.groups.values() for word in members)


def find_runs(places: Iterable[str | Path | Run] | str | Path | Run) -> list[Run]:
    """Open runs, in folders or at URLs; a folder that is none stands for the runs in it, by name.

    Raises
    ------
    RunError
        If a folder is no run and holds none, if a run cannot be opened, or if one is given
        twice.
    AnalysisError
        If there are fewer than two.
    """
    if isinstance(places, str | Path | Run):
        places = [places]
    runs: list[Run] = []
    for place in places:
        if isinstance(place, Run):
            runs.append(place)
        else:
            runs += [open_run(one) for one in ([place] if is_url(place) else _folders(place))]
    seen: set[Path] = set()
    for run in runs:
        if (path := run.path.resolve()) in seen:
            raise RunError("this run is given twice", where=run.path, expected="each run once")
        seen.add(path)
    if len(runs) < 2:
        raise AnalysisError(
            f"{len(runs)} run to compare", expected="two or more, or a folder that holds them"
        )
    return runs


def load_members(runs: Sequence[Run]) -> list[Member]:
    """Load every run's saved analysis, and give the runs names that tell them apart.

    Raises
    ------
    AnalysisError
        If a run has no finished analysis.
    """
    labels = _labels([Path(url_of(run.path) or run.path.resolve()) for run in runs])
    return [Member(*pair, load_analysis(pair[1])) for pair in zip(labels, runs, strict=True)]


def share_words(members: Sequence[Member]) -> Shared:
    """Find the words that all runs have.

    Raises
    ------
    AnalysisError
        If a word is in another group in another run, or if fewer than four words are common.
    """
    groups = [_group_of(member.analysis) for member in members]
    first = groups[0]
    common = [word for word in first if all(word in other for other in groups)]
    for word in common:
        for member, other in zip(members, groups, strict=True):
            if other[word] != first[word]:
                raise AnalysisError(
                    f"the word {word!r} is in the group {first[word]!r} in "
                    f"{members[0].label!r} and in {other[word]!r} in {member.label!r}",
                    expected="runs of the same words in the same groups",
                )
    left_out = {
        member.label: tuple(word for word in other if word not in set(common))
        for member, other in zip(members, groups, strict=True)
    }
    if len(common) < FEWEST_WORDS:
        only = [f"{label}: {shortlist(words)}" for label, words in left_out.items() if words]
        raise AnalysisError(
            f"the runs have {len(common)} words in common ({'; '.join(only)})",
            expected=f"at least {FEWEST_WORDS} common words",
            fix="Compare runs of one study.",
        )
    names = dict.fromkeys(first[word] for word in common)
    return Shared(
        {name: tuple(word for word in common if first[word] == name) for name in names}, left_out
    )


def _group_of(analysis: Analysis) -> dict[str, str]:
    return {word: name for name, words in analysis.groups.items() for word in words}


def _folders(place: str | Path) -> list[Path]:
    path = Path(place)
    try:
        if (path / SCORES).exists() or not path.is_dir():
            return [path]
        found = [inside for inside in path.iterdir() if (inside / SCORES).is_dir()]
    except (OSError, ValueError) as error:
        raise RunError(f"cannot be read: {error}", where=path, expected="a run folder") from None
    if not found:
        raise RunError("no run, and no folder that holds one", where=path, expected="run folders")
    return sorted(found, key=lambda one: _natural(one.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """So that seed2 comes before seed10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _labels(paths: Sequence[Path]) -> list[str]:
    """Names of the folders, with as many of the folders above as tell all of them apart."""
    deepest = max(len(path.parts) for path in paths)
    for depth in range(1, deepest + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return _without_common_end(labels)
    raise KntraceError("runs that cannot be told apart")  # pragma: no cover - refused before


def _without_common_end(labels: list[str]) -> list[str]:
    """Leave out what all end in: `seed0/run` and `seed1/run` are `seed0` and `seed1`."""
    parts = [label.split("/") for label in labels]
    while min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]


def codes_of(shared: Shared) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """For every common word the number of its group."""
    sizes = [len(words) for words in shared.groups.values()]
    return np.repeat(np.arange(len(sizes), dtype=np.intp), sizes)
