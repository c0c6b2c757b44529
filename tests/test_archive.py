"""The run folder: what is in it, when a block is done, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr

from kntrace.archive import (
    VARIABLES,
    Block,
    Run,
    chunks,
    convergence,
    create_run,
    load_array,
    open_run,
    resume_run,
    save_array,
    status,
    writing,
)
from kntrace.archive.chunks import chunk_name, read_chunks
from kntrace.archive.variables import BLOCK_VARIABLES, COORDINATES
from kntrace.errors import RunError
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite
from kntrace.testing import synthetic_run, synthetic_scores

LAYERS, WIDTH, PROMPTS = 2, 5, 3
FINGERPRINT = "0f" * 32

# Words that would escape, collide or break if they were ever part of a path.
WORDS = ("../up", "a/b", "CON", "naïve 色", ".", "Cat", "cat", "x" * 300)


def study(**changes: str | None) -> Study:
    words = tuple(
        Word(
            text=text,
            group="odd" if place < 4 else "plain",
            answer=f"answer {place}",
            prompts={
                "main": (f"first {place}", f"second {place}"),
                "neutral": (f"third {place}",),
            },
        )
        for place, text in enumerate(WORDS)
    )
    return Study(name="odd names", template="Q {question}", words=words).model_copy(update=changes)


def suite() -> Suite:
    places = (("start", 0), ("step 5/…", 5), ("end", 70))
    return Suite(
        "toy", tuple(Checkpoint(label, step, None, f"/no/{step}", None) for label, step in places)
    )


def random_block(seed: int) -> Block:
    rng = np.random.default_rng(seed)
    return Block(
        rng.standard_normal((PROMPTS, LAYERS, WIDTH)).astype(np.float32),
        rng.standard_normal((PROMPTS, LAYERS)).astype(np.float32),
        rng.random(PROMPTS).astype(np.float32),
        rng.integers(0, 50, PROMPTS).astype(np.int32),
        rng.integers(3, 90, (PROMPTS, LAYERS)).astype(np.int32),
        rng.integers(0, 2, (PROMPTS, LAYERS)).astype(np.int8),
    )


MEAN = Settings(baseline="mean")


def make(path: Path, fill: bool = True, settings: Settings | None = None) -> Run:
    settings = settings or Settings()
    run = create_run(path, study(), suite(), settings, layers=LAYERS, width=WIDTH)
    for checkpoint, word in run.missing() if fill else []:
        run.write_fingerprint(checkpoint, FINGERPRINT)
        run.write_block(checkpoint, word, random_block(100 * checkpoint + word))
    return run


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("master") / "run").path


@pytest.fixture
def run(tmp_path: Path, master: Path) -> Run:
    """A finished run that the test may do anything to."""
    shutil.copytree(master, tmp_path / "run")
    return open_run(tmp_path / "run")


def chunk(run: Run, variable: str, checkpoint: int, word: int) -> Path:
    return run.path / "scores.zarr" / variable / chunk_name(variable, checkpoint, word)


# What is in it


def test_round_trip_of_every_block(run: Run) -> None:
    scores = open_run(run.path).scores
    for checkpoint in range(3):
        for word in range(len(WORDS)):
            expected = random_block(100 * checkpoint + word)
            cell = scores.isel(checkpoint=checkpoint, word=word)
            for name in BLOCK_VARIABLES:
                value = getattr(expected, name)
                np.testing.assert_array_equal(cell[name].values, value)
                assert cell[name].dtype == value.dtype


def test_labels(run: Run) -> None:
    scores = open_run(run.path).scores
    assert list(scores.data_vars) == list(VARIABLES)
    assert set(scores.coords) == set(COORDINATES)
    for name, variable in VARIABLES.items():
        dims = tuple(dim for dim in variable.dims if dim != "byte")
        assert scores[name].dims == dims
        assert scores[name].attrs["description"] == variable.description
    assert scores["checkpoint"].values.tolist() == ["start", "step 5/…", "end"]
    assert scores["step"].values.tolist() == [0, 5, 70]
    assert scores["word"].values.tolist() == list(WORDS)
    assert scores["group"].values.tolist() == ["odd"] * 4 + ["plain"] * 4
    assert scores["wording"].values.tolist() == ["main", "main", "neutral"]
    assert scores["neuron"].values.tolist() == list(range(WIDTH))
    assert scores["fingerprint"].values.tolist() == [FINGERPRINT] * 3
    cell = scores["score"].sel(checkpoint="end", word="cat", prompt=2, layer=1, neuron=4)
    assert float(cell) == random_block(206).score[2, 1, 4]


def test_the_archive_explains_itself_to_plain_xarray(run: Run) -> None:
    plain = xr.open_zarr(run.path / "scores.zarr", consolidated=False, chunks=None)
    assert plain["word"].values.tolist() == list(WORDS)
    assert plain["score"].attrs["unit"] == "probability"
    assert plain["group"].values.tolist() == run.scores["group"].values.tolist()
    np.testing.assert_array_equal(plain["score"].values, run.scores["score"].values)


def test_a_run_names_what_it_was_made_from(run: Run) -> None:
    again = open_run(run.path)
    assert again.study == study()
    assert again.suite == suite()
    assert again.settings == Settings()
    assert (again.layers, again.width, again.shape) == (LAYERS, WIDTH, (3, len(WORDS)))
    assert "2 layers x 5 neurons" in repr(again)


def test_one_chunk_a_block_with_a_checksum(run: Run) -> None:
    for name in BLOCK_VARIABLES:
        array = zarr.open_array(run.path / "scores.zarr" / name, mode="r")
        assert array.chunks[:2] == (1, 1)
        assert array.chunks[2:] == array.shape[2:]
        assert [type(codec).__name__ for codec in array.compressors] == ["ZstdCodec", "Crc32cCodec"]
        files = list((run.path / "scores.zarr" / name).glob("c.*"))
        assert len(files) == 3 * len(WORDS)


def test_nothing_is_read_before_it_is_used(run: Run) -> None:
    for file in (run.path / "scores.zarr" / "score").glob("c.*"):
        file.write_bytes(b"")
    scores = open_run(run.path).scores
    assert scores["score"].shape == (3, len(WORDS), PROMPTS, LAYERS, WIDTH)
    with pytest.raises(RunError, match=r"damaged.*kntrace run"):
        scores["score"].isel(checkpoint=0, word=0).load()


def test_a_moved_folder_opens(run: Run, tmp_path: Path) -> None:
    before = run.scores.load()
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(run.path, moved)
    shutil.rmtree(run.path)
    xr.testing.assert_identical(open_run(moved).scores.load(), before)


def test_run_and_suite_can_be_moved_together(tmp_path: Path) -> None:
    home = tmp_path / "home"
    places = Suite("s", (Checkpoint("a", 1, None, str(home / "suite" / "a"), None),))
    create_run(home / "run", study(), places, Settings(), layers=1, width=1)
    home.rename(tmp_path / "new")
    (only,) = open_run(tmp_path / "new" / "run").suite
    assert Path(only.source) == tmp_path / "new" / "suite" / "a"


def test_a_synthetic_run_holds_what_was_drawn(tmp_path: Path) -> None:
    drawn = synthetic_scores(groups={"a": ["x", "y"], "b": ["z"]}, wordings=("main", "other"))
    drawn["rank"][:, 1, 3] = -1
    drawn["baseline"][2] = 0.5
    made = synthetic_run(tmp_path / "run", drawn)
    scores = open_run(made.path).scores.load()
    for name in VARIABLES:
        np.testing.assert_array_equal(scores[name].values, drawn[name].values)
    for name in COORDINATES:
        assert scores[name].values.tolist() == drawn[name].values.tolist()
    assert status(made).complete
    assert [len(word.prompts["main"]) for word in made.study.words] == [4, 3, 4]


# When a block is done


def test_an_empty_run_lacks_every_block(tmp_path: Path) -> None:
    run = make(tmp_path / "run", fill=False)
    assert run.missing() == [(c, w) for c in range(3) for w in range(len(WORDS))]
    assert run.damaged() == []
    assert run.fingerprint(0) is None
    assert bool(np.isnan(run.scores["score"].values).all())
    assert run.scores["fingerprint"].values.tolist() == ["", "", ""]


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_block_is_done_whatever_it_holds(tmp_path: Path, value: float) -> None:
    run = make(tmp_path / "run", fill=False)
    run.write_fingerprint(1, FINGERPRINT)
    block = Block(
        np.full((PROMPTS, LAYERS, WIDTH), value, np.float32),
        np.full((PROMPTS, LAYERS), value, np.float32),
        np.full(PROMPTS, value, np.float32),
        np.full(PROMPTS, -1 if np.isnan(value) else 0, np.int32),
        np.zeros((PROMPTS, LAYERS), np.int32),
        np.full((PROMPTS, LAYERS), -1 if np.isnan(value) else 0, np.int8),
    )
    for opened in (run, open_run(run.path)):
        opened.write_block(1, 2, block)
        assert (1, 2) not in opened.missing()
        assert opened.damaged() == []
        chunk(run, "score", 1, 2).unlink()
        assert (1, 2) in opened.missing()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("variable", BLOCK_VARIABLES)
@pytest.mark.parametrize("damage", [truncate, flip, empty])
def test_damage_is_found_named_and_mended(
    run: Run, variable: str, damage: Callable[[Path], None]
) -> None:
    before = chunk(run, variable, 1, 5).read_bytes()
    damage(chunk(run, variable, 1, 5))
    assert run.missing() == []
    assert run.damaged() == [(1, 5)]
    with pytest.raises(RunError, match=r"1 of 24 blocks are damaged: step 5/… · Cat"):
        run.require_complete()
    with pytest.raises(RunError, match="damaged"):
        run.scores[variable].load()
    run.write_block(1, 5, random_block(105))
    assert run.damaged() == []
    assert chunk(run, variable, 1, 5).read_bytes() == before


@pytest.mark.parametrize("variable", BLOCK_VARIABLES)
def test_a_deleted_chunk_makes_its_block_missing(run: Run, variable: str) -> None:
    chunk(run, variable, 2, 0).unlink()
    assert run.missing() == [(2, 0)]
    with pytest.raises(RunError, match=r"1 of 24 blocks are missing: end · \.\./up"):
        run.require_complete()
    run.write_block(2, 0, random_block(200))
    run.require_complete()


def test_scores_come_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Run._write

    def spy(self: Run, name: str, index: tuple[int, ...], value: np.ndarray) -> None:
        written.append(name)
        write(self, name, index, value)

    monkeypatch.setattr(Run, "_write", spy)
    run.write_block(0, 0, random_block(1))
    assert sorted(written) == sorted(BLOCK_VARIABLES)
    assert written[-1] == "score"


def test_a_lost_fingerprint_makes_its_blocks_unproven(run: Run) -> None:
    flip(run.path / "scores.zarr" / "fingerprint" / chunk_name("fingerprint", 1))
    lost = [(1, word) for word in range(len(WORDS))]
    assert run.fingerprint(1) is None
    assert run.unproven() == lost
    assert run.damaged() == lost
    # Whatever weights the old blocks were of, none of them outlives the new fingerprint.
    run.write_fingerprint(1, "ab" * 32)
    assert run.missing() == lost
    assert run.fingerprint(1) == "ab" * 32


def test_other_weights_are_refused_and_change_nothing(run: Run) -> None:
    run.write_fingerprint(2, FINGERPRINT)
    with pytest.raises(RunError, match=r"weights of 'end' have changed.*another --out"):
        run.write_fingerprint(2, "ab" * 32)
    assert run.fingerprint(2) == FINGERPRINT
    run.require_complete()


def test_blocks_of_the_wrong_make_are_refused(run: Run) -> None:
    good = random_block(0)
    with pytest.raises(ValueError, match="shape"):
        run.write_block(0, 0, replace(good, score=good.score[:2]))
    with pytest.raises(ValueError, match="converged has shape"):
        run.write_block(0, 0, replace(good, converged=good.converged.T))
    with pytest.raises(ValueError, match="SHA-256"):
        make(run.path.parent / "other", fill=False).write_fingerprint(0, "abcd")
    with pytest.raises(ValueError, match="fingerprint of 'start'"):
        open_run(run.path.parent / "other").write_block(0, 0, good)


def test_status(run: Run) -> None:
    flip(chunk(run, "gap", 1, 5))
    chunk(run, "rank", 2, 0).unlink()
    calls: list[tuple[str, int, int]] = []
    found = status(
        run.path, progress=lambda stage, done, total, detail="": calls.append((stage, done, total))
    )
    assert (found.total, found.done) == (24, 22)
    assert found.missing == (("end", "../up"),)
    assert found.damaged == (("step 5/…", "Cat"),)
    assert [(row.done, row.missing, row.damaged) for row in found.checkpoints] == [
        (8, 0, 0),
        (7, 0, 1),
        (7, 1, 0),
    ]
    assert calls[0] == ("verify", 0, 23)
    assert ("verify", 23, 23) in calls
    assert calls[-1] == ("paths", 3, 3)
    assert "damaged: step 5/… · Cat" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["done"] == 22
    quick = status(run.path, verify=False)
    assert (quick.done, quick.damaged) == (23, ())
    assert quick.convergence is None
    assert quick.to_dict()["convergence"] is None


def test_status_tells_nodes_and_what_did_not_converge(run: Run) -> None:
    """Of the finished blocks only, and without a look at the scores."""
    flip(chunk(run, "converged", 1, 5))
    chunk(run, "nodes", 2, 0).unlink()
    blocks = {
        (c, w): random_block(100 * c + w)
        for c, w in np.ndindex(3, len(WORDS))
        if (c, w) not in {(1, 5), (2, 0)}
    }
    missed = np.zeros((3, LAYERS), int)
    for (checkpoint, _), block in blocks.items():
        missed[checkpoint] += (block.converged == 0).sum(axis=0)
    worst = np.unravel_index(missed.argmax(), missed.shape)
    found = status(run)
    told = found.to_dict()["convergence"]
    assert told["paths"] == 22 * PROMPTS * LAYERS
    assert told["unconverged"] == missed.sum()
    assert told["share"] == pytest.approx(missed.sum() / told["paths"])
    label, words = suite().checkpoints[worst[0]].label, len(WORDS) - (worst[0] > 0)
    assert told["worst"] == {
        "checkpoint": label,
        "layer": worst[1],
        "unconverged": missed.max(),
        "paths": words * PROMPTS,
    }
    nodes = np.stack([block.nodes for block in blocks.values()])
    assert told["nodes"] == pytest.approx(nodes.mean())
    assert told["nodes_first_layer"] == pytest.approx(nodes[..., 0].mean())
    json.dumps(found.to_dict())
    assert f"layer {worst[1]} at {label} ({missed.max()} of {words * PROMPTS})" in str(found)
    assert f"{nodes.mean():.1f} per path" in str(found)
    assert "--tolerance" in str(found)
    with pytest.raises(RunError, match=r"chunk c\.1\.5\.0\.0 of 'converged' is damaged"):
        convergence(run)
    for file in (run.path / "scores.zarr" / "score").glob("c.*"):
        file.write_bytes(b"")
    assert convergence(run, leave_out=[(1, 5)]).to_dict() == told


def test_an_empty_run_has_no_paths(tmp_path: Path) -> None:
    found = status(make(tmp_path / "run", fill=False))
    assert found.convergence is not None
    assert found.convergence.to_dict()["nodes"] is None
    assert found.convergence.worst is None
    assert "nodes" not in str(found)


@pytest.mark.parametrize("variable", BLOCK_VARIABLES)
def test_chunks_alone_read_as_zarr_reads_them(run: Run, variable: str) -> None:
    array = zarr.open_array(run.path / "scores.zarr" / variable, mode="r")
    wanted = run.path / "scores.zarr", variable, 2, [0, 7, 3], array.shape[2:]
    found = read_chunks(*wanted)
    np.testing.assert_array_equal(found, array[2][[0, 7, 3]])
    assert found.dtype == array.dtype
    short = chunk(run, variable, 2, 3)
    whole = short.read_bytes()
    short.write_bytes(whole[:-9])
    with pytest.raises(RunError, match=rf"chunk c\.2\.3\.0.* of '{variable}' is damaged"):
        read_chunks(*wanted)
    short.write_bytes(whole)
    chunk(run, variable, 2, 7).unlink()
    with pytest.raises(RunError, match=f"of '{variable}' is damaged"):
        read_chunks(*wanted)


def test_chunks_larger_than_one_read_are_checked_to_their_end(tmp_path: Path) -> None:
    """The last byte of a file of many system calls counts as well."""
    for size in ((1 << 16) - 5, (1 << 16) - 4, (1 << 16) - 3, 300_000):
        body = np.random.default_rng(size).bytes(size)
        checksum = int(google_crc32c.value(body)).to_bytes(4, "little")
        file = tmp_path / str(size)
        file.write_bytes(body + checksum)
        assert chunks.intact(file)
        file.write_bytes(body[:-1] + bytes([body[-1] ^ 1]) + checksum)
        assert not chunks.intact(file)
    assert not chunks.intact(tmp_path)
    assert not chunks.intact(tmp_path / "none")


# Baselines


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


# Creation, leftovers and the lock


def test_a_creation_cut_short_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(tmp_path / "whole", fill=False)
    path = tmp_path / "run"

    def cut(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kntrace.archive.opening.write_record", cut)
        with pytest.raises(KeyboardInterrupt):
            make(path)
    with pytest.raises(RunError, match="stopped while it was being made"):
        open_run(path)
    assert resume_run(path, study(), suite(), Settings()) is None
    run = make(path, fill=False)
    assert tree(run.path) == tree(whole.path)


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(item.relative_to(path)): item.read_bytes() for item in path.rglob("*") if item.is_file()
    }


def test_leftovers_of_killed_writers_go(run: Run) -> None:
    before = tree(run.path)
    scores = run.path / "scores.zarr"
    for leftover in (
        *(scores / "score" / "c.0.0.0.0.deadbeef.partial", scores / "gap" / "zarr.beef.partial"),
        *(run.path / "study.yaml.partial", scores / "zarr.ab.partial"),
    ):
        leftover.write_bytes(b"half")
    (run.path / "analysis" / "formation.zarr.new.partial").mkdir()
    with writing(run.path):
        assert resume_run(run.path, study(), suite(), Settings()) is not None
    assert tree(run.path) == before
    assert list((run.path / "analysis").iterdir()) == []


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with writing(path):
        with pytest.raises(RunError, match=rf"another kntrace run.*process {os.getpid()}"):
            writing(path).__enter__()
        make(path)
    with writing(path):
        pass
    assert not (path / ".lock").exists()


def test_a_lock_on_a_file_that_is_gone_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former holder leaves just between a newcomer's opening the file and locking it."""
    path, flock = tmp_path / "run", fcntl.flock

    def late(held: int, how: int) -> None:
        monkeypatch.undo()
        (path / ".lock").unlink()
        flock(held, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with writing(path), pytest.raises(RunError, match="another kntrace run"):
        writing(path).__enter__()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import sys, time; from kntrace.archive import writing\n"
        "with writing(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    ).replace("sys.argv[1]", f"__import__('pathlib').Path({str(path)!r})")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"process {holder.pid}"):
            writing(path).__enter__()
        holder.kill()
    assert (path / ".lock").exists()
    with writing(path):
        make(path)


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with writing(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with writing(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


# What is refused


def test_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "study.yaml").write_text("precious")
    for name, message in (
        ("file", "file: a file"),
        ("folder", "a folder without scores.zarr"),
        ("absent", "no such folder"),
    ):
        with pytest.raises(RunError, match=message):
            open_run(tmp_path / name)
    for name in ("file", "folder"):
        with pytest.raises(RunError, match=r"a file, not|holds 'study\.yaml'"):
            make(tmp_path / name)
        with pytest.raises(RunError, match=r"a file, not|holds 'study\.yaml'"):
            writing(tmp_path / name).__enter__()
    assert tree(tmp_path) == {"file": b"x", "folder/study.yaml": b"precious"}


@pytest.mark.parametrize("name", ["x" * 300, "nul\0"])
def test_names_that_no_folder_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="cannot be looked up"):
        open_run(tmp_path / name)
    with pytest.raises(RunError, match="cannot be looked up"):
        make(tmp_path / name)
    with pytest.raises(RunError, match="cannot be looked up"):
        writing(tmp_path / name).__enter__()


def test_a_run_is_not_made_twice(run: Run) -> None:
    before = tree(run.path)
    with pytest.raises(RunError, match="a run already"):
        make(run.path)
    assert tree(run.path) == before


@pytest.mark.parametrize("name", ["study", "suite", "settings"])
def test_changed_copies_are_refused(run: Run, name: str) -> None:
    file = run.path / f"{name}.yaml"
    text = file.read_text()
    old, new = {
        "study": ("second 3", "another 3"),
        "suite": ("step: 70", "step: 71"),
        "settings": ("nodes: 8", "nodes: 9"),
    }[name]
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=rf"{name}\.yaml: changed since the run was made"):
        open_run(run.path)
    file.write_text("[")
    with pytest.raises(RunError, match="cannot be read"):
        open_run(run.path)
    file.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        open_run(run.path)
    file.write_text(text)
    open_run(run.path)


@pytest.mark.parametrize(
    "name", ["zarr.json", "score/zarr.json", "word/zarr.json", "word/c/0", "layer/c/0"]
)
@pytest.mark.parametrize("damage", [truncate, empty, Path.unlink])
@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")
def test_a_damaged_description_is_refused(
    run: Run, name: str, damage: Callable[[Path], None]
) -> None:
    damage(run.path / "scores.zarr" / name)
    with pytest.raises(RunError, match=r"scores\.zarr|labels"):
        open_run(run.path)


def test_another_format_is_refused(run: Run) -> None:
    zarr.open_group(run.path / "scores.zarr", mode="r+").attrs["kntrace_format"] = 1
    with pytest.raises(RunError, match=r"format 1.*version of kntrace"):
        open_run(run.path)


def test_a_broken_record_is_named(run: Run) -> None:
    run.update_provenance({"device": "cpu", "note": "色"})
    assert open_run(run.path).provenance == {"device": "cpu", "note": "色"}
    (run.path / "provenance.json").write_text("{")
    with pytest.raises(RunError, match=r"provenance\.json.*Remove the file"):
        _ = run.provenance
    (run.path / "provenance.json").unlink()
    assert run.provenance == {}


def resumed_with(
    run: Run, *, words: Study | None = None, places: Suite | None = None, **settings: object
) -> str:
    with pytest.raises(RunError) as caught:
        resume_run(run.path, words or study(), places or suite(), Settings.of(**settings))
    assert "--out" in str(caught.value)
    assert "remove this folder" in str(caught.value)
    return str(caught.value)


def test_another_study_is_refused_and_named(run: Run) -> None:
    before = tree(run.path)
    words = list(study().words)
    words[5] = words[5].model_copy(
        update={"prompts": {"main": ("first 5", "changed"), "neutral": ("third 5",)}}
    )
    message = resumed_with(run, words=study().model_copy(update={"words": tuple(words)}))
    assert "study: prompt 2 (main) of 'Cat': 'second 5' -> 'changed'" in message
    message = resumed_with(run, words=study(template="A {question}"))
    assert "study: template 'Q {question}' -> 'A {question}'" in message
    fewer = study().model_copy(update={"words": study().words[1:]})
    assert "study: word '../up' is gone" in resumed_with(run, words=fewer)
    swapped = (*study().words[1::-1], *study().words[2:])
    message = resumed_with(run, words=study().model_copy(update={"words": swapped}))
    assert "study: the words come in another order" in message
    answer = (study().words[0].model_copy(update={"answer": "else"}), *study().words[1:])
    message = resumed_with(run, words=study().model_copy(update={"words": answer}))
    assert "answer of '../up': 'answer 0' -> 'else'" in message
    assert tree(run.path) == before


def test_another_suite_or_setting_is_refused_and_named(run: Run) -> None:
    shorter = Suite("toy", suite().checkpoints[:2])
    assert "suite: checkpoint end is gone" in resumed_with(run, places=shorter)
    message = resumed_with(run, nodes=9, rule="public_code")
    assert "settings: rule: adaptive -> public_code; settings: nodes: 8 -> 9" in message


def test_names_and_moved_checkpoints_are_no_change(run: Run) -> None:
    moved = Suite(
        "another name",
        tuple(Checkpoint(c.label, c.step, c.tokens, f"/else{c.source}", None) for c in suite()),
    )
    assert resume_run(run.path, study(name="renamed"), moved, Settings()) is not None


# Disks that say no


@pytest.fixture
def locked_out(tmp_path: Path) -> Iterator[Path]:
    """A folder with a finished run that this process may read but not write."""
    home = Path(tempfile.mkdtemp())
    make(home / "run")
    folders = [home, *(item for item in home.rglob("*") if item.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:  # whom no mode stops
        os.seteuid(65534)
    yield home / "run"
    if root:
        os.seteuid(0)
    for folder in folders:
        folder.chmod(0o755)
    shutil.rmtree(home)


def test_a_read_only_run_can_be_read_but_not_written(locked_out: Path) -> None:
    run = open_run(locked_out)
    assert status(run).complete
    assert run.fingerprint(0) == FINGERPRINT
    np.testing.assert_array_equal(
        run.scores["score"].isel(checkpoint=2, word=1).values, random_block(201).score
    )
    refused = r"no permission to write.*writable"
    with pytest.raises(RunError, match=refused):
        writing(locked_out).__enter__()
    with pytest.raises(RunError, match=refused):
        run.write_block(0, 0, random_block(0))
    with pytest.raises(RunError, match=refused):
        run.update_provenance({})
    with pytest.raises(RunError, match=refused):
        make(locked_out.parent / "another")
    with pytest.raises(RunError, match=refused):
        save_array(locked_out / "analysis" / "x.zarr", xr.DataArray([1.0], dims="a"))


def test_a_write_that_fails_loses_nothing(run: Run) -> None:
    """The kernel itself cuts the write, as it does when a quota is used up."""
    before = tree(run.path)
    larger = create_run(
        run.path.parent / "larger", study(), suite(), Settings(), layers=40, width=100
    )
    larger.write_fingerprint(0, FINGERPRINT)
    rng = np.random.default_rng(0)
    block = Block(
        rng.standard_normal((PROMPTS, 40, 100)).astype(np.float32),
        np.zeros((PROMPTS, 40), np.float32),
        np.zeros(PROMPTS, np.float32),
        np.zeros(PROMPTS, np.int32),
        np.full((PROMPTS, 40), 5, np.int32),
        np.ones((PROMPTS, 40), np.int8),
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match=r"could not be written: File too large.*is kept"):
            larger.write_block(0, 3, block)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (0, 3) in larger.missing()
    assert not list(larger.path.rglob("*.partial"))
    larger.write_block(0, 3, block)
    assert larger.damaged() == []
    assert tree(run.path) == before


def test_a_full_disk(tmp_path: Path) -> None:
    """On a real file system of half a megabyte, where this process may mount one."""
    code = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_archive import *
disk = Path(sys.argv[1])
run = create_run(disk / "run", study(), suite(), Settings(), layers=40, width=100)
rng = np.random.default_rng(0)
block = Block(rng.standard_normal((PROMPTS, 40, 100)).astype("f4"), np.zeros((PROMPTS, 40), "f4"),
              np.zeros(PROMPTS, "f4"), np.zeros(PROMPTS, "i4"),
              np.full((PROMPTS, 40), 5, "i4"), np.ones((PROMPTS, 40), "i1"))
done = 0
try:
    for checkpoint, word in run.missing():
        run.write_fingerprint(checkpoint, FINGERPRINT)
        run.write_block(checkpoint, word, block)
        done += 1
except RunError as error:
    assert "the disk is full" in str(error), error
else:
    raise SystemExit("never full")
try:
    run.update_provenance({"note": "x" * 10**6})
except RunError as error:
    assert "the disk is full" in str(error), error
assert run.provenance == {}
assert not list(disk.rglob("*.partial"))
assert done > 0 and len(run.missing()) == 24 - done and run.damaged() == []
print("kept", done)
"""
    mount = f"mount -t tmpfs -o size=900k none {tmp_path} && exec "
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    inside = mount + " ".join(subprocess.list2cmdline([part]) for part in ('"$@"',))
    inside = mount + '"$@"'
    result = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", inside, "sh", *command], capture_output=True, text=True
    )
    if "kept" not in result.stdout and "Traceback" not in result.stderr:
        pytest.skip(f"no mounts here: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr


def test_a_full_disk_is_said_in_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zarr.storage._local._put", full)
    with pytest.raises(RunError, match=r"the disk is full.*every finished block is kept"):
        run.write_block(0, 0, random_block(5))


# Arrays of their own


def labelled() -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((3, 4, 5))
    values[0, 1, 2] = np.nan
    return xr.DataArray(
        values,
        dims=("word", "rank", "checkpoint"),
        coords={
            "word": ["Cat", "色/", "x"],
            "group": ("word", np.array(["a", "bb", "a"], dtype=object)),
            "step": ("checkpoint", np.arange(5)),
            "layer": (("word", "rank"), np.arange(12).reshape(3, 4)),
        },
        name="formation",
        attrs={"unit": "probability", "k": 4},
    )


def test_an_array_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = labelled()
    path = save_array(tmp_path / "new" / "formation.zarr", saved)
    expected = saved.assign_coords(group=saved["group"].astype(np.str_))
    xr.testing.assert_identical(load_array(path), expected)
    save_array(path, saved * 2)
    np.testing.assert_array_equal(load_array(path).values, 2 * saved.values)
    assert [item.name for item in path.parent.iterdir()] == ["formation.zarr"]


def test_an_array_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such array"):
        load_array(tmp_path / "none.zarr")
    path = save_array(tmp_path / "a.zarr", labelled())
    file = next(item for item in (path / "formation" / "c").rglob("*") if item.is_file())
    flip(file)
    with pytest.raises(RunError, match=r"of 'formation' is damaged.*make it again"):
        load_array(path)
    truncate(path / "formation" / "zarr.json")
    with pytest.raises(RunError, match=r"cannot be read.*make it again"):
        load_array(path)
