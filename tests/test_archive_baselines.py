"""Baselines kept with a run: whole, or lost with the blocks that began there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from archives import (  # noqa: F401  (fixtures)
    FINGERPRINT,
    LAYERS,
    MEAN,
    WIDTH,
    WORDS,
    copied_run,
    empty,
    flip,
    make,
    random_block,
    study,
    suite,
    tree,
    truncate,
    whole_run,
)
from kntrace.archive import (
    Run,
    open_run,
    resume_run,
    status,
)
from kntrace.archive.chunks import chunk_name
from kntrace.errors import RunError


def baseline(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((LAYERS, WIDTH)).astype(np.float32)


@pytest.fixture
def based(tmp_path: Path) -> Run:
    """A finished run whose checkpoints have baselines."""
    made = make(tmp_path / "based", fill=False, settings=MEAN)
    for checkpoint in range(3):
        made.write_fingerprint(checkpoint, FINGERPRINT)
        made.write_baseline(checkpoint, baseline(checkpoint))
    for checkpoint, word in made.missing():
        made.write_block(checkpoint, word, random_block(100 * checkpoint + word))
    return open_run(made.path)


def baseline_chunk(run: Run, checkpoint: int) -> Path:
    return run.path / "scores.zarr" / "baseline" / chunk_name("baseline", checkpoint)


def test_a_baseline_comes_back_as_it_was(based: Run) -> None:
    based.require_complete()
    for checkpoint in range(3):
        np.testing.assert_array_equal(based.baseline(checkpoint), baseline(checkpoint))
        np.testing.assert_array_equal(based.scores["baseline"][checkpoint], baseline(checkpoint))
    array = zarr.open_array(based.path / "scores.zarr" / "baseline", mode="r")
    assert array.chunks == (1, LAYERS, WIDTH)
    before = tree(based.path)
    based.write_baseline(1, baseline(1).tolist())
    assert tree(based.path) == before


def test_no_baseline_is_zero_and_costs_nothing(run: Run) -> None:
    assert [run.baseline(checkpoint) for checkpoint in range(3)] == [None] * 3
    assert [item.name for item in (run.path / "scores.zarr" / "baseline").iterdir()] == [
        "zarr.json"
    ]
    assert not run.scores["baseline"].values.any()
    run.write_fingerprint(0, FINGERPRINT)
    run.require_complete()


def test_a_baseline_of_nothing_but_zeros_is_written(tmp_path: Path) -> None:
    run = make(tmp_path / "run", fill=False)
    run.write_fingerprint(0, FINGERPRINT)
    run.write_baseline(0, np.zeros((LAYERS, WIDTH)))
    assert baseline_chunk(run, 0).exists()
    np.testing.assert_array_equal(open_run(run.path).baseline(0), np.zeros((LAYERS, WIDTH)))


def test_another_baseline_is_refused_and_changes_nothing(based: Run) -> None:
    before = tree(based.path)
    with pytest.raises(RunError, match=r"'end' were computed from another baseline.*--out"):
        based.write_baseline(2, baseline(7))
    assert tree(based.path) == before


@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink])
def test_a_lost_baseline_takes_its_blocks_with_it(
    based: Run, damage: Callable[[Path], None]
) -> None:
    before = tree(based.path)
    damage(baseline_chunk(based, 1))
    lost = [(1, word) for word in range(len(WORDS))]
    assert based.missing() == []
    assert based.unproven() == based.damaged() == lost
    assert status(based).damaged == tuple(("step 5/…", word) for word in WORDS)
    if baseline_chunk(based, 1).exists():
        for read in (lambda: based.baseline(1), based.scores["baseline"].load):
            with pytest.raises(RunError, match=r"baseline.* is damaged.*kntrace run"):
                read()
    # Whatever path the old blocks are of, none of them outlives the new baseline.
    resumed = resume_run(based.path, study(), suite(), MEAN)
    assert resumed is not None
    resumed.write_baseline(1, baseline(1))
    assert resumed.missing() == lost
    for checkpoint, word in lost:
        resumed.write_block(checkpoint, word, random_block(100 * checkpoint + word))
    resumed.require_complete()
    assert tree(based.path) == before


def test_blocks_without_the_baseline_they_should_have_are_unproven(tmp_path: Path) -> None:
    run = make(tmp_path / "run", settings=MEAN)
    assert {checkpoint for checkpoint, _ in run.unproven()} == {0, 1, 2}
    run.write_baseline(1, baseline(1))
    assert run.missing() == [(1, word) for word in range(len(WORDS))]


def test_a_baseline_goes_with_its_fingerprint(based: Run) -> None:
    flip(based.path / "scores.zarr" / "fingerprint" / chunk_name("fingerprint", 1))
    based.write_fingerprint(1, "ab" * 32)
    assert based.baseline(1) is None
    assert based.missing() == [(1, word) for word in range(len(WORDS))]
    based.write_baseline(1, baseline(9))
    np.testing.assert_array_equal(based.baseline(1), baseline(9))


def test_baselines_of_the_wrong_make_are_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "run", fill=False)
    with pytest.raises(ValueError, match="fingerprint of 'start'"):
        run.write_baseline(0, baseline(0))
    run.write_fingerprint(0, FINGERPRINT)
    with pytest.raises(ValueError, match="shape"):
        run.write_baseline(0, baseline(0).T)
    with pytest.raises(ValueError, match="not finite"):
        run.write_baseline(0, np.full((LAYERS, WIDTH), np.nan))
    assert run.baseline(0) is None


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    run = make(tmp_path / "run", fill=False)
    for checkpoint in range(3):
        run.write_fingerprint(checkpoint, FINGERPRINT)
    pairs = run.missing()

    def write(mine: list[tuple[int, int]]) -> None:
        own = open_run(run.path)
        for checkpoint, word in mine:
            own.write_block(checkpoint, word, random_block(100 * checkpoint + word))

    workers = [threading.Thread(target=write, args=(pairs[start::2],)) for start in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    run.require_complete()
    for checkpoint, word in pairs:
        cell = run.scores["score"].isel(checkpoint=checkpoint, word=word).values
        np.testing.assert_array_equal(cell, random_block(100 * checkpoint + word).score)
