"""Analysis of more words than fit into memory: the same numbers, and no more held."""

from __future__ import annotations

import errno
import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from kntrace.distance import NeuronIdentity, pairwise_distances, rows
from kntrace.distance.rows import Rows
from kntrace.emergence import early
from kntrace.errors import AnalysisError
from kntrace.formation import knowledge_neurons
from kntrace.overlap import neuron_overlap
from kntrace.progress import silent
from kntrace.testing import synthetic_scores
from kntrace.wording import Wording

Floats = npt.NDArray[np.float64]
LITTLE = 4096


def test_rows_are_the_same_in_memory_and_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((7, 101))
    with Rows(7, 101) as held:
        for place, row in enumerate(values):
            held.put(place, row)
        (whole,) = list(held.slabs())
    np.testing.assert_array_equal(whole, values)
    monkeypatch.setattr(rows, "_MOST", LITTLE)
    with Rows(7, 101) as filed:
        for place in (3, 0, 6, 1, 2, 4, 5, 0):
            filed.put(place, values[place])
        slabs = [slab.copy() for slab in filed.slabs()]
    assert len(slabs) > 1
    np.testing.assert_array_equal(np.concatenate(slabs, axis=1), values)


@pytest.mark.parametrize("name", ["identity", "cosine"])
def test_identity_is_the_same_from_the_disk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = synthetic_scores(checkpoints=3, layers=2, width=40, structure=0.5)
    expected = pairwise_distances(data, name)
    monkeypatch.setattr(rows, "_MOST", LITTLE)
    np.testing.assert_allclose(pairwise_distances(data, name), expected, rtol=0, atol=1e-12)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rows, "_MOST", LITTLE)
    monkeypatch.setattr(os, "pwrite", full)
    data = synthetic_scores(checkpoints=1, layers=2, width=40)
    with pytest.raises(AnalysisError, match=r"No space left.*room for.*TMPDIR"):
        pairwise_distances(data, "identity")


@dataclass(frozen=True)
class _Made(Wording):
    """Scores that are made when they are asked for."""

    words_there: int = 0
    neurons: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.words_there)))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        return ("one", "two")

    def mean(self, checkpoint: int, word: int) -> Floats:
        rng = np.random.default_rng((checkpoint, word))
        return rng.standard_normal((2, self.neurons // 2))


def _peak(words: int, neurons: int) -> int:
    sizes = xr.Dataset(coords={"layer": np.arange(2), "neuron": np.arange(neurons // 2)})
    view = _Made("main", sizes, np.ones((words, 1), bool), words_there=words, neurons=neurons)
    tracemalloc.start()
    NeuronIdentity().pairwise(view, silent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_of_identity_does_not_grow_with_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rows, "_MOST", 2**20)
    neurons = 20_000
    few, many = _peak(20, neurons), _peak(160, neurons)
    one_checkpoint = 160 * neurons * 8
    assert many < one_checkpoint / 4
    assert many - few < 5 * 160**2 * 8 + 2**20


def test_sets_of_neurons_are_no_table_of_words_by_neurons() -> None:
    groups = {name: [f"{name}{place}" for place in range(30)] for name in "ab"}
    data = synthetic_scores(groups=groups, checkpoints=1, prompts=1, layers=2, width=10_000)
    chosen = knowledge_neurons(data, 5)
    # Shapes are those of the table, what is held is one number a knowledge neuron.
    final = early._final(data, chosen)
    assert (final.shape, final.nnz) == ((60, 20_000), 60 * 5)
    tracemalloc.start()
    found = neuron_overlap(chosen, groups, total_neurons=20_000, permutations=9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * 20_000
    np.testing.assert_array_equal(np.diag(found.matrix), np.full(60, 5))
