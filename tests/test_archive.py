"""The run folder: what is in it, when a block is done, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr

from archives import (  # noqa: F401  (fixtures)
    FINGERPRINT,
    LAYERS,
    PROMPTS,
    WIDTH,
    WORDS,
    chunk,
    copied_run,
    empty,
    flip,
    make,
    random_block,
    study,
    suite,
    truncate,
    whole_run,
)
from kntrace.archive import (
    VARIABLES,
    Block,
    Run,
    chunks,
    convergence,
    create_run,
    open_run,
    status,
)
from kntrace.archive.chunks import chunk_name, read_chunks
from kntrace.archive.variables import BLOCK_VARIABLES, COORDINATES
from kntrace.errors import RunError
from kntrace.settings import Settings
from kntrace.suite import Checkpoint, Suite
from kntrace.testing import synthetic_run, synthetic_scores

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
        np.full((PROMPTS, LAYERS, WIDTH), value, np.float32),
    )
    for opened in (run, open_run(run.path)):
        opened.write_block(1, 2, block)
        assert (1, 2) not in opened.missing()
        assert opened.damaged() == []
        chunk(run, "score", 1, 2).unlink()
        assert (1, 2) in opened.missing()


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
