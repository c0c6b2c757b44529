"""Pairs of words in several processes: the same numbers, and failures that say what they are."""

from __future__ import annotations

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
    raise AnalysisError("refused by a worker", where="here")


def killed(first: Any, second: Any) -> float:
    os._exit(1)


@pytest.mark.usefixtures("worthwhile")
@pytest.mark.parametrize(
    ("between", "kind", "said"),
    [(refused, AnalysisError, "here: refused by a worker"), (killed, KntraceError, "was killed")],
)
def test_what_fails_in_a_process_is_said_in_this_one(
    between: pairs.Between, kind: type[KntraceError], said: str
) -> None:
    sets = [np.zeros((2, 2)), np.ones((2, 2))]
    with pytest.raises(kind, match=said):
        pairs.measure_pairs(
            between, sets, [(0, 1)], ["a", "b"], stage="s", progress=silent, workers=2
        )


def test_a_process_needs_no_torch() -> None:
    program = "import sys, kntrace.distance.pairs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
