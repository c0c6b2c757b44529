"""Large runs: what planning, listing, checking and resuming read and hold, block by block.

Nothing here is timed. Files that are opened and folders that are listed are counted as Python's
audit events report them, and memory as tracemalloc does; `benchmarks/scale.py` has the seconds.
"""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import kntrace
from kntrace.archive import Block, convergence, create_run, source_state, status
from kntrace.archive.chunks import block_chunks
from kntrace.archive.variables import BLOCK_VARIABLES
from kntrace.lint import check_study
from kntrace.progress import silent
from kntrace.study import Study, Word

LAYERS, WIDTH, PROMPTS = 1, 4, 2

_counting: list[Counter] = []


def _audit(event: str, arguments: tuple) -> None:
    if _counting and event in ("open", "os.scandir", "os.listdir"):
        for counter in _counting:
            counter[event, str(arguments[0])] += 1


sys.addaudithook(_audit)  # for good, but silent outside `counted`


@contextmanager
def counted() -> Iterator[Counter]:
    """Count what is opened and listed inside, by event and path."""
    counter: Counter = Counter()
    _counting.append(counter)
    try:
        yield counter
    finally:
        _counting.remove(counter)


def opened(counter: Counter, variable: str) -> int:
    """How many chunks of a variable were opened."""
    return sum(
        number
        for (event, path), number in counter.items()
        if event == "open" and f"/scores.zarr/{variable}/c." in path
    )


def listed(counter: Counter) -> int:
    """How often a folder of blocks was listed."""
    return sum(
        number
        for (event, path), number in counter.items()
        if event != "open" and path.endswith(tuple(f"/scores.zarr/{n}" for n in BLOCK_VARIABLES))
    )


@contextmanager
def peak() -> Iterator[list[int]]:
    """The most bytes that Python held at once inside, beyond what it held before."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def study_of(words: int) -> Study:
    return Study(
        name="large",
        words=tuple(
            Word(
                text=f"w{place}",
                group=f"g{place * 4 // words}",
                prompts={"main": tuple(f"thing {place} of kind {k} is" for k in range(PROMPTS))},
            )
            for place in range(words)
        ),
    )


def make(home: Path, *, words: int, checkpoints: int) -> kntrace.archive.Run:
    """A finished run, whose blocks are names of one block's files."""
    for place in range(checkpoints):
        folder = home / "suite" / f"step{place}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    suite = kntrace.load_suite(home / "suite")
    settings = kntrace.Settings()
    run = create_run(home / "run", study_of(words), suite, settings, layers=LAYERS, width=WIDTH)
    for place in range(checkpoints):
        run.write_fingerprint(place, f"{place:064x}")
    files = {one.label: {"files": source_state(one)} for one in suite}
    run.update_provenance({"checkpoints": files})
    shape = (PROMPTS, LAYERS, WIDTH)
    block = Block(
        np.ones(shape, np.float32),
        np.zeros(shape[:2], np.float32),
        np.full(PROMPTS, 0.5, np.float32),
        np.zeros(PROMPTS, np.int32),
        np.full(shape[:2], 3, np.int32),
        np.ones(shape[:2], np.int8),
        np.ones(shape, np.float32),
    )
    run.write_block(0, 0, block)
    first = block_chunks(run.path / "scores.zarr", 0, 0)
    for checkpoint, word in np.ndindex(checkpoints, words):
        if checkpoint or word:
            for file, name in zip(
                first, block_chunks(run.path / "scores.zarr", checkpoint, word), strict=True
            ):
                os.link(file, name)
    return run


SMALL, LARGE = (50, 4), (400, 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By size: 200 and 1,600 blocks."""
    return {
        size: make(tmp_path_factory.mktemp("runs"), words=size[0], checkpoints=size[1])
        for size in (SMALL, LARGE)
    }


def test_opening_a_run_reads_no_block_and_lists_no_folder_of_blocks(runs):
    opens = {}
    for size, run in runs.items():
        with counted() as counter:
            kntrace.open_run(run.path)
        assert not any(opened(counter, name) for name in BLOCK_VARIABLES)
        assert not listed(counter)
        # Whatever is opened or listed, and how often, is the same however many blocks there are.
        opens[size] = {
            (event, path.removeprefix(str(run.path))): count
            for (event, path), count in counter.items()
            if str(run.path) in path
        }
    assert opens[LARGE] == opens[SMALL]


def test_missing_blocks_cost_one_listing_a_variable(runs):
    for run in runs.values():
        with counted() as counter:
            assert run.missing() == []
        assert listed(counter) == len(BLOCK_VARIABLES)
        assert not any(opened(counter, name) for name in BLOCK_VARIABLES)


def test_verifying_opens_every_chunk_once(runs):
    for (words, checkpoints), run in runs.items():
        with counted() as counter:
            assert run.damaged() == []
        for name in BLOCK_VARIABLES:
            assert opened(counter, name) == words * checkpoints
        assert listed(counter) == len(BLOCK_VARIABLES)


def test_a_quick_status_opens_no_chunk_and_a_full_one_no_score_twice(runs):
    run = runs[LARGE]
    with counted() as counter:
        assert status(run.path, verify=False).complete
    assert not any(opened(counter, name) for name in BLOCK_VARIABLES)
    with counted() as counter:
        assert status(run.path).complete
    assert opened(counter, "score") == 1600
    assert opened(counter, "nodes") == opened(counter, "converged") == 2 * 1600


def test_paths_are_counted_without_scores(runs):
    with counted() as counter:
        found = convergence(runs[LARGE])
    assert found.total == 1600 * PROMPTS * LAYERS
    assert opened(counter, "nodes") == opened(counter, "converged") == 1600
    assert not opened(counter, "score")


@pytest.mark.parametrize("verify", [False, True])
def test_resuming_a_finished_run_reads_each_block_at_most_once_and_no_weights(runs, verify):
    run = runs[LARGE]
    with counted() as counter:
        again = kntrace.run(
            run.study, run.suite, run.path, settings=run.settings, progress=silent, verify=verify
        )
    assert again.missing() == []
    assert opened(counter, "score") == (1600 if verify else 0)
    assert not any("model.safetensors" in path for _, path in counter)
    # A few listings of each folder of blocks, however many blocks there are.
    assert listed(counter) < 80


def test_scores_are_opened_without_reading_and_read_block_by_block(runs):
    run = runs[LARGE]
    with counted() as counter:
        scores = run.scores
        assert scores.sizes["word"] == 400
    assert not any(opened(counter, name) for name in BLOCK_VARIABLES)
    with counted() as counter:
        scores["score"].isel(checkpoint=-1, word=7).to_numpy()
    assert opened(counter, "score") == 1


def test_memory_stays_flat_while_blocks_are_verified_and_counted(runs):
    """Eight times the blocks take less than twice the memory, and little for each of them."""
    for work in (lambda run: run.damaged(), lambda run: status(run, verify=False)):
        held = {}
        for size, run in runs.items():
            work(run)  # what is kept from the first time on is not what a block costs
            with peak() as found:
                work(run)
            (held[size],) = found
        more = held[LARGE] - held[SMALL]
        assert more / (1600 - 200) < 250, held


def test_resuming_holds_no_list_of_what_is_done(runs):
    run = runs[LARGE]
    with peak() as found:
        kntrace.run(
            run.study, run.suite, run.path, settings=run.settings, progress=silent, verify=True
        )
    assert found[0] < 4e6


def test_a_suite_of_many_checkpoints_is_listed_with_few_looks(tmp_path):
    looks = {}
    for size in (20, 154):
        folder = tmp_path / str(size)
        for place in range(size):
            (folder / f"step{place}").mkdir(parents=True)
            (folder / f"step{place}" / "config.json").write_text("{}")
        with counted() as counter:
            assert len(kntrace.load_suite(folder)) == size
        looks[size] = sum(counter.values())
    assert looks[154] <= 8 * looks[20]


def test_words_are_loaded_and_checked_in_memory_of_their_number(tmp_path):
    held = {}
    for words in (100, 800):
        file = tmp_path / f"{words}.yaml"
        file.write_text(study_of(words).to_yaml())
        kntrace.load_study(file)
        with peak() as found:
            check_study(file)
        (held[words],) = found
    assert held[800] < 10 * held[100]
