"""Pairs of words in several processes: the same numbers, and failures that say what they are."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import xarray as xr

from kntrace.distance import DISTANCES, pairs, pairwise_distances
from kntrace.errors import AnalysisError, KntraceError
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.progress import silent
from kntrace.testing import synthetic_scores

GROUPS = {"A": ("ant", "bat", "cat"), "B": ("blue", "red")}


@pytest.fixture(scope="module")
def paths() -> xr.DataArray:
    data = synthetic_scores(groups=GROUPS, checkpoints=4, layers=2, width=40, seed=3)
    return formation_processes(data, knowledge_neurons(data, 30))


@pytest.fixture
def worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start processes for however little work."""
    monkeypatch.setattr(pairs, "_WORTHWHILE", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("worthwhile")
def test_any_number_of_workers_gives_the_same_bits(paths: xr.DataArray) -> None:
    alone = pairwise_distances(paths, "emd")
    calls: list[tuple[Any, ...]] = []
    shared = pairwise_distances(paths, "emd", workers=3, progress=lambda *call: calls.append(call))
    xr.testing.assert_identical(shared, alone)
    done = [call[1] for call in calls if call[0] == "emd"]
    assert done == sorted(done)
    assert done[-1] == 10


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_every_distance_takes_workers(name: str, paths: xr.DataArray) -> None:
    data = synthetic_scores(groups=GROUPS, checkpoints=3, layers=2, width=10)
    given = data if DISTANCES[name].needs == "scores" else paths
    xr.testing.assert_identical(
        pairwise_distances(given, name, workers=2), pairwise_distances(given, name)
    )


def test_small_work_starts_no_process(paths: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(pairs, "ProcessPoolExecutor", refuse)
    pairwise_distances(paths, "emd", workers=8)


def test_workers_below_one_are_refused(paths: xr.DataArray) -> None:
    with pytest.raises(AnalysisError, match="0 workers"):
        pairwise_distances(paths, "emd", workers=0)


def refused(first: Any, second: Any) -> float:
    if multiprocessing.parent_process() is not None:
        raise AnalysisError("refused by a worker", where="here")
    return 0.0


def killed(first: Any, second: Any) -> float:
    if multiprocessing.parent_process() is not None:
        os._exit(1)
    return 0.0


@pytest.mark.usefixtures("worthwhile")
@pytest.mark.parametrize(
    ("between", "kind", "said"),
    [(refused, AnalysisError, "here: refused by a worker"), (killed, KntraceError, "was killed")],
)
def test_what_fails_in_a_process_is_said_in_this_one(
    between: pairs.Between,
    kind: type[KntraceError],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What was given away is left to whom it was given.
    monkeypatch.setattr(pairs, "_taken_back", lambda given: None)
    sets = [np.zeros((2, 2)), np.ones((2, 2))]
    job = pairs.Job(between, np.array([(0, 1), (1, 0)]), "s")
    with pytest.raises(kind, match=said):
        pairs.measure_pairs([job], sets, ["a", "b"], progress=silent, workers=2)


def difference(first: Any, second: Any) -> float:
    return float((first - second).sum())


def process(first: Any, second: Any) -> float:
    return float(os.getpid())


@pytest.mark.usefixtures("worthwhile")
def test_jobs_are_shared_and_told_of_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_taken_back", lambda given: None)
    monkeypatch.setattr(pairs, "_PORTION", 1)
    sets = [np.full((1, 1), float(place)) for place in range(9)]
    every = pairs.all_pairs(9)
    jobs = [
        pairs.Job(process, every[:3], "first", weight=6),
        pairs.Job(process, every[:0], "none"),
        pairs.Job(difference, every, "then"),
        pairs.Job(process, every, "last"),
    ]
    calls: list[tuple[Any, ...]] = []
    mine, nothing, found, theirs = pairs.measure_pairs(
        jobs, sets, list("abcdefghi"), progress=lambda *call: calls.append(call), workers=2
    )
    assert mine[0] == os.getpid() != theirs[-1]
    assert nothing.size == 0
    np.testing.assert_array_equal(found, every[:, 0] - every[:, 1])
    stages = [call[0] for call in calls]
    assert stages == sorted(stages, key=["first", "none", "then", "last"].index)
    for stage, total in (("first", 3), ("none", 0), ("then", 36), ("last", 36)):
        done = [call[1] for call in calls if call[0] == stage]
        assert done == sorted(done)
        assert done[-1] == total


@pytest.mark.parametrize(("count", "work", "workers"), [(1, 9.0, 4), (703, 7e8, 2), (50, 1.0, 3)])
def test_portions_hold_every_pair_once(count: int, work: float, workers: int) -> None:
    portions = list(pairs._portions(5, count, work, workers))
    places = [pair for _, some in portions for pair in range(some.start, some.stop)]
    assert places == list(range(count))
    assert {place for place, _ in portions} == {5}
    assert len(portions) >= min(count, workers)
    assert max(some.stop - some.start for _, some in portions) <= -(-count // len(portions))


def test_a_process_needs_no_torch() -> None:
    program = "import sys, kntrace.distance.pairs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
