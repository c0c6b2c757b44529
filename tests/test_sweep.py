"""The sweep: right numbers, once each, and nothing lost whenever it is stopped."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import kntrace
from conftest import STEPS, TinySuite, save_checkpoint
from kntrace.archive import (
    Run,
    audit_run,
    convergence,
    open_run,
    read_prints,
    status,
    writing,
)
from kntrace.archive.chunks import chunk_name
from kntrace.archive.rounding import with_bits
from kntrace.archive.variables import BLOCK_VARIABLES
from kntrace.errors import ModelError, RunError, SettingsError, SuiteError
from kntrace.formation import prompt_mean
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite, load_suite
from kntrace.sweep import run as sweep

TOTAL = len(STEPS) * 4


def finish(tiny: TinySuite, out: Path, **options: Any) -> Run:
    settled: dict[str, Any] = {"threads": 1, "progress": silent} | options
    return sweep(tiny.study, tiny.suite, out, **settled)


def tree(run: Run | Path) -> dict[str, bytes]:
    home = (run if isinstance(run, Path) else run.path) / "scores.zarr"
    return {str(f.relative_to(home)): f.read_bytes() for f in home.rglob("*") if f.is_file()}


def times(run: Run) -> dict[tuple[int, int], list[int]]:
    """When the chunks of each finished block were written."""
    home, lacking = run.path / "scores.zarr", {*run.missing(), *run.damaged()}
    return {
        pair: [(home / n / chunk_name(n, *pair)).stat().st_mtime_ns for n in BLOCK_VARIABLES]
        for pair in np.ndindex(run.shape)
        if pair not in lacking
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models as small as these are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def master(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tiny_suite, tmp_path_factory.mktemp("master") / "run").path


@pytest.fixture
def done(master: Path, tmp_path: Path) -> Run:
    """A finished run that the test may do anything to."""
    shutil.copytree(master, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.fixture
def mine(tiny_suite: TinySuite, tmp_path: Path) -> TinySuite:
    """A copy of the suite that the test may do anything to."""
    shutil.copytree(tiny_suite.folder, tmp_path / "mine" / "suite")
    shutil.copy(tiny_suite.study_file, tmp_path / "mine")
    return TinySuite(tmp_path / "mine" / "suite", tmp_path / "mine" / "study.yaml")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of the checkpoints that are loaded, as they are."""
    import kntrace.models

    labels: list[str] = []
    load = kntrace.models.load_checkpoint

    def spy(checkpoint: Any, **options: Any) -> Any:
        labels.append(checkpoint.label)
        return load(checkpoint, **options)

    monkeypatch.setattr("kntrace.models.load_checkpoint", spy)
    return labels


def remove(run: Run, checkpoint: int, word: int, variable: str = "score") -> None:
    (run.path / "scores.zarr" / variable / chunk_name(variable, checkpoint, word)).unlink()


# Right numbers


def test_scores_are_those_of_attribute(master: Path, tiny_suite: TinySuite) -> None:
    run, study = open_run(master), tiny_suite.study
    scores = run.scores.load()
    for place, checkpoint in enumerate(run.suite):
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.source)
        for word, column in np.ndindex(len(study.words), len(study.slots)):
            asked = study.words[word]
            prompt = study.rendered(asked)[column]
            cell = scores.isel(checkpoint=place, prompt=column).sel(word=asked.text)
            if prompt is None:
                assert bool(np.isnan(cell["score"]).all() & np.isnan(cell["gap"]).all())
                assert np.isnan(cell["probability"])
                assert int(cell["rank"]) == -1
                assert cell["nodes"].values.tolist() == [0, 0]
                assert cell["converged"].values.tolist() == [-1, -1]
                continue
            alone = kntrace.attribute(model, tokenizer, prompt, asked.answer)
            np.testing.assert_allclose(cell["score"], alone.score, rtol=1e-4, atol=1e-9)
            np.testing.assert_allclose(cell["activation"], alone.activation, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(cell["gap"], alone.gap, rtol=0.05, atol=1e-7)
            np.testing.assert_allclose(cell["probability"], alone.probability, rtol=1e-5)
            assert int(cell["rank"]) == alone.rank
    # So a prompt that is not there was looked at.
    assert sum(prompt is None for word in study.words for prompt in study.rendered(word)) == 1


def test_a_coarse_rule_is_told_of(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    coarse, fine = (
        finish(tiny_suite, tmp_path / str(nodes), settings=Settings.of(rule=rule, nodes=nodes))
        for rule, nodes in (("gauss_legendre", 2), ("gauss_legendre", 40))
    )
    adaptive, scores, exact = (run.scores.load() for run in (open_run(master), coarse, fine))
    asked = adaptive["rank"].values >= 0
    assert bool((adaptive["converged"].values[asked] == 1).all())
    assert bool((adaptive["nodes"].values[asked] > 2).all())
    assert bool((scores["nodes"].values[asked] == 2).all())
    missed = scores["converged"].values[asked] == 0
    assert 0 < missed.sum() < missed.size
    # What the flag says is so, on the safe side: it is set by an estimate of the error.
    off = np.linalg.norm((scores["score"] - exact["score"]).values, axis=-1)
    off = (off / np.linalg.norm(exact["score"].values, axis=-1))[asked]
    assert off[~missed].max() < 1e-3
    assert np.median(off[missed]) > 2 * np.median(off[~missed])
    found = convergence(coarse)
    assert (found.total, found.missed) == (missed.size, missed.sum())
    assert (found.mean_nodes(), found.mean_nodes(0)) == (2, 2)
    label, layer, worst, paths = found.worst or ("", 0, 0, 0)
    cell = scores["converged"].sel(checkpoint=label, layer=layer).values
    assert ((cell == 0).sum(), (cell >= 0).sum()) == (worst, paths)
    each = (scores["converged"] == 0).sum(["word", "prompt"])
    assert worst == int(each.max())
    assert convergence(open_run(master)).missed == 0


def test_settings_reach_the_scores(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    settings = Settings.of(rule="public_code", nodes=5, site="pre_activation", dtype="float64")
    run = finish(tiny_suite, tmp_path / "run", settings=settings)
    assert open_run(run.path).settings == settings
    checkpoint = run.suite.checkpoints[1]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint.source, dtype=torch.float64
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.source)
    word = tiny_suite.study.words[2]
    prompt = tiny_suite.study.rendered(word)[1]
    assert prompt is not None
    alone = kntrace.attribute(
        model, tokenizer, prompt, word.answer, "public_code", 5, "pre_activation"
    )
    found = run.scores["score"].isel(checkpoint=1, word=2, prompt=1).values
    np.testing.assert_allclose(found, alone.score, rtol=1e-6)
    assert not np.allclose(found, open_run(master).scores["score"].isel(checkpoint=1, word=2)[1])


def test_the_same_again_gives_the_same_bytes(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    assert tree(finish(tiny_suite, tmp_path / "run")) == tree(master)


def test_checkpoints_are_told_apart(master: Path) -> None:
    run = open_run(master)
    prints = run.scores["fingerprint"].values.tolist()
    assert len({*prints}) == len(STEPS)
    assert all(len(bytes.fromhex(text)) == 32 for text in prints)
    seen = run.provenance["checkpoints"]
    assert [seen[item.label]["fingerprint"] for item in run.suite] == prints
    assert {seen[item.label]["source"] for item in run.suite} == {c.source for c in run.suite}
    assert all(taken.tensors and taken.tokenizer for taken in read_prints(run))
    assert audit_run(run) == ()
    assert "audit" not in str(status(run))


def test_the_record(master: Path) -> None:
    record = open_run(master).provenance
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["kntrace"] == kntrace.__version__
    assert (record["device"], record["dtype"], record["threads"]) == ("cpu", "float32", 1)
    (session,) = record["sessions"]
    assert session["blocks"] == TOTAL
    assert record["seconds"] == session["seconds"] > 0


def test_the_record_holds_the_answers_tokens(master: Path) -> None:
    run = open_run(master)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.suite.checkpoints[0].source)
    expected = {word.text: [tokenizer.vocab[word.answer]] for word in run.study.words}
    assert run.provenance["answers"] == expected


# Once each


def test_each_checkpoint_is_loaded_once(
    tiny_suite: TinySuite, tmp_path: Path, loads: list[str]
) -> None:
    calls: list[tuple[str, int, int, str]] = []
    finish(
        tiny_suite,
        tmp_path / "run",
        progress=lambda stage, done, total, detail="": calls.append((stage, done, total, detail)),
    )
    assert loads == ["step0", "step10", "step100"]
    assert {(stage, total) for stage, _, total, _ in calls} == {("sweep", TOTAL)}
    counts = [done for _, done, _, _ in calls]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, TOTAL)
    assert ("sweep", 6, TOTAL, "step10 · red") in calls


def test_activations_are_what_enters_the_second_linear_layer(
    master: Path, tiny_suite: TinySuite
) -> None:
    """Read by a hook in the model's own forward pass."""
    run, study = open_run(master), tiny_suite.study
    model = transformers.AutoModelForCausalLM.from_pretrained(run.suite.checkpoints[1].source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.suite.checkpoints[1].source)
    seen: list[torch.Tensor] = []

    def look(_: Any, entering: tuple[torch.Tensor, ...]) -> None:
        seen.append(entering[0][0, -1])

    for layer in model.gpt_neox.layers:
        layer.mlp.dense_4h_to_h.register_forward_pre_hook(look)
    for asked in study.words:
        for column, prompt in enumerate(study.rendered(asked)):
            kept = run.scores["activation"].isel(checkpoint=1, prompt=column).sel(word=asked.text)
            if prompt is None:
                assert bool(np.isnan(kept).all())
                continue
            seen.clear()
            with torch.inference_mode():
                model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False))
            assert kept.dtype == np.float32
            found = torch.stack(seen).numpy()
            np.testing.assert_allclose(kept, found, rtol=1e-4, atol=1e-6)


def test_without_activations_all_else_is_the_same(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(activations=False))
    assert "activation" not in run.scores
    without = {
        name: data
        for name, data in tree(master).items()
        if not name.startswith("activation") and name != "zarr.json"
    }
    assert {name: data for name, data in tree(run).items() if name != "zarr.json"} == without


def test_fewer_bits_are_a_smaller_archive_of_nearly_the_same_numbers(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(keepbits=7))
    whole = kntrace.open_run(master)
    for name in ("score", "activation"):
        mine, true = run.scores[name].values, whole.scores[name].values
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(true))
        there = np.isfinite(true)
        assert (np.abs(mine - true)[there] <= np.abs(true)[there] * 2.0**-8).all()
        assert not (mine.view(np.uint32)[there] & 0xFFFF).any()
    for name in ("gap", "probability", "nodes"):
        np.testing.assert_array_equal(run.scores[name], whole.scores[name])
    sizes = [sum(map(len, tree(one).values())) for one in (run, master)]
    assert sizes[0] < sizes[1]
    # It is part of what the run is.
    with pytest.raises(RunError, match="keepbits: 7 -> None"):
        finish(tiny_suite, run.path)
    assert Settings(keepbits=7).digest != Settings().digest
    with pytest.raises(SettingsError, match="keepbits = 23"):
        Settings.of(keepbits=23)


def test_means_are_kept_of_what_every_prompt_gave(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(keep="means"))
    whole = kntrace.open_run(master)
    for wording in run.scores["mean_over"].values:
        mine, true = (prompt_mean(one.scores, str(wording)) for one in (run, whole))
        np.testing.assert_allclose(mine, true, rtol=2**-23, atol=0)
    sizes = [sum(map(len, tree(one).values())) for one in (run, master)]
    assert sizes[0] < sizes[1]
    remove(run, 1, 2, "mean_score")
    before = run.scores["mean_score"].values
    assert np.isnan(before[1, 2]).all()
    again = finish(tiny_suite, run.path, settings=Settings(keep="means"))
    assert again.missing() == []
    kept = again.scores["mean_score"].values[1, 2]
    np.testing.assert_array_equal(np.isnan(kept), np.isnan(before[0, 2]))


def test_rounding_leaves_what_is_no_number() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, 3.4e38, 1.0], dtype=np.float32)
    kept = with_bits(odd.reshape(2, 3), 3)
    np.testing.assert_array_equal(kept, odd.reshape(2, 3))


def test_a_run_from_before_there_were_activations_goes_on(
    tiny_suite: TinySuite, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(activations=False))
    before = tree(run)
    text = (run.path / "settings.yaml").read_text()
    (run.path / "settings.yaml").write_text(text.replace("activations: false\n", ""))
    remove(run, 1, 2)
    with pytest.raises(RunError, match=r"activations: False -> True.*Go on with --no-activations"):
        finish(tiny_suite, run.path)
    again = finish(tiny_suite, run.path, settings=Settings(activations=False))
    assert (again.missing(), again.damaged()) == ([], [])
    assert tree(again) == before


def test_a_finished_run_is_left_alone(tiny_suite: TinySuite, done: Run, loads: list[str]) -> None:
    before, record, written = tree(done), done.provenance, times(done)
    finish(tiny_suite, done.path)
    assert loads == []
    assert (tree(done), done.provenance, times(done)) == (before, record, written)
    assert not (done.path / ".lock").exists()


@pytest.mark.parametrize("variable", BLOCK_VARIABLES)
def test_only_what_lacks_is_done(
    tiny_suite: TinySuite, done: Run, loads: list[str], variable: str
) -> None:
    before, written = tree(done), times(done)
    remove(done, 1, 0, variable)
    damaged = done.path / "scores.zarr" / variable / chunk_name(variable, 1, 3)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    calls: list[tuple[str, int, int]] = []
    finish(
        tiny_suite,
        done.path,
        progress=lambda stage, done, total, detail="": calls.append((stage, done, total)),
    )
    assert loads == ["step10"]
    assert tree(done) == before
    kept = {pair: time for pair, time in written.items() if pair not in {(1, 0), (1, 3)}}
    assert kept.items() <= times(done).items()
    assert ("verify", TOTAL - 1, TOTAL - 1) in calls
    assert next(count for stage, count, _ in calls if stage == "sweep") == TOTAL - 2
    sessions = done.provenance["sessions"]
    assert [session["blocks"] for session in sessions] == [TOTAL, 2]
    assert sessions[1]["damaged"] == ["step10 · blue"]
    assert done.provenance["seconds"] == pytest.approx(sum(s["seconds"] for s in sessions))


def test_without_verifying_only_missing_blocks_are_done(tiny_suite: TinySuite, done: Run) -> None:
    (done.path / "scores.zarr" / "gap" / chunk_name("gap", 0, 0)).write_bytes(b"")
    remove(done, 2, 1)
    finish(tiny_suite, done.path, verify=False)
    assert (done.missing(), done.damaged()) == ([], [(0, 0)])
    # A fingerprint that is lost takes its blocks with it, looked for or not.
    (done.path / "scores.zarr" / "fingerprint" / chunk_name("fingerprint", 0)).unlink()
    finish(tiny_suite, done.path, verify=False)
    assert (done.missing(), done.damaged()) == ([], [])


# Stopped at any moment


def sweep_in_child(
    study: Study, suite: Suite, out: Path, told: Connection, die_at: int | None = None
) -> None:
    """The work of a process that is to be killed; `die_at`: by itself, at its nth renaming."""
    torch.set_num_threads(1)
    if die_at is not None:
        replace, calls = Path.replace, 0

        def dying(self: Path, target: Any) -> Path:
            nonlocal calls
            calls += 1
            if calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)

        setattr(Path, "replace", dying)  # noqa: B010  (mypy knows the method it replaces)
    told.send("started")
    try:
        sweep(study, suite, out, threads=1, progress=silent)
    except KeyboardInterrupt as stopped:
        told.send(str(stopped))
    except RunError as refused:
        told.send(f"refused: {refused}")
    else:
        told.send("finished")


Start = Callable[..., tuple[Any, Connection]]


@pytest.fixture(scope="module")
def start(tiny_suite: TinySuite) -> Iterator[Start]:
    """Start the sweep in another process, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "pytest",
            "transformers.processing_utils",
            "transformers.models.gpt_neox.modeling_gpt_neox",
            "kntrace.attribution",
            "kntrace.sweep",
        ]
    )
    children = []

    def launch(out: Path, die_at: int | None = None) -> tuple[Any, Connection]:
        mine, theirs = context.Pipe(duplex=False)
        arguments = (tiny_suite.study, tiny_suite.suite, out, theirs, die_at)
        child = context.Process(target=sweep_in_child, args=arguments)
        child.start()
        children.append(child)
        theirs.close()
        assert mine.recv() == "started"
        return child, mine

    yield launch
    for child in children:
        child.kill()
        child.join()


@pytest.mark.slow
def test_killed_at_random_moments(
    tiny_suite: TinySuite, master: Path, tmp_path: Path, start: Start
) -> None:
    child, told = start(tmp_path / "whole")
    began = time.monotonic()
    assert told.recv() == "finished"
    duration = time.monotonic() - began
    child.join()
    chance, found = random.Random(0), []
    for attempt in range(8):
        out = tmp_path / f"run{attempt}"
        child, _ = start(out)
        time.sleep(chance.uniform(0, duration))
        child.kill()
        child.join()
        started = (out / "scores.zarr").exists()
        written = times(open_run(out)) if started else {}
        if started:
            assert status(out).damaged == ()
        run = finish(tiny_suite, out)
        assert written.items() <= times(run).items(), "a finished block was written again"
        assert tree(run) == tree(master)
        assert not list(out.rglob("*.partial"))
        found.append(len(written))
    assert len({*found}) > 2, f"the kills should differ in how much was done: {found}"


@pytest.mark.parametrize("die_at", [1, 4, 5, 20, 30, 32, 34, 35, 37, 38, 39, 70])
def test_killed_at_chosen_moments(
    tiny_suite: TinySuite, master: Path, tmp_path: Path, start: Start, die_at: int
) -> None:
    """Just before one file gets its name: in the making, and before each chunk of a block."""
    out = tmp_path / "run"
    child, _ = start(out, die_at)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert list(out.rglob("*.partial"))
    run = finish(tiny_suite, out)
    assert tree(run) == tree(master)
    assert not list(out.rglob("*.partial"))
    assert run.study == tiny_suite.study


def test_killed_again_and_again(
    tiny_suite: TinySuite, master: Path, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "run"
    for die_at in (40, 13, 9, 3):
        start(out, die_at)[0].join()
    child, told = start(out)
    assert told.recv() == "finished"
    child.join()
    assert tree(out) == tree(master)
    record = open_run(out).provenance
    assert [item["blocks"] for item in record["sessions"]][-1] < TOTAL


def test_ctrl_c_says_how_to_go_on(
    tiny_suite: TinySuite, master: Path, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "run"
    child, told = start(out)
    while not (out / "scores.zarr" / "score" / chunk_name("score", 0, 0)).exists():
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGINT)
    message = told.recv()
    child.join()
    assert child.exitcode == 0
    assert not (out / ".lock").exists()
    kept = TOTAL - len(open_run(out).missing())
    said = re.match(rf"Stopped with (\d+) of {TOTAL} blocks done in {re.escape(str(out))}", message)
    # The block in hand may have become whole while the message was being made.
    assert said is not None
    assert int(said[1]) in (kept, kept - 1)
    assert 1 <= kept < TOTAL
    assert "same command again" in message
    assert tree(finish(tiny_suite, out)) == tree(master)


def test_two_runs_at_once(master: Path, tmp_path: Path, start: Start) -> None:
    out = tmp_path / "run"
    children = [start(out), start(out)]
    messages = sorted(told.recv() for _, told in children)
    for child, _ in children:
        child.join()
    assert messages[0] == "finished"
    assert messages[1] == "finished" or "another kntrace run is writing" in messages[1]
    assert tree(out) == tree(master)


def test_a_folder_in_use_is_refused(tiny_suite: TinySuite, done: Run) -> None:
    with writing(done.path), pytest.raises(RunError, match="another kntrace run is writing"):
        finish(tiny_suite, done.path)


def test_a_full_disk_loses_nothing(
    tiny_suite: TinySuite, master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zarr.storage._local as local

    put, calls = local._put, 0

    def full(path: Path, *args: Any, **options: Any) -> int:
        nonlocal calls
        calls += "score" in path.parts and path.name.startswith("c.")
        if calls > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(path, *args, **options)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(local, "_put", full)
        with pytest.raises(RunError, match=r"disk is full.*same command again"):
            finish(tiny_suite, out)
    assert (status(out).done, status(out).damaged) == (5, ())
    written = times(open_run(out))
    run = finish(tiny_suite, out)
    assert written.items() <= times(run).items()
    assert tree(run) == tree(master)


# Never from other inputs


def refused(tiny: TinySuite, run: Run, **options: Any) -> str:
    """The message with which the run is refused, after a look that nothing was changed."""
    before = tree(run)
    with pytest.raises(RunError) as caught:
        finish(tiny, run.path, **options)
    assert tree(run) == before
    assert not (run.path / ".lock").exists()
    return str(caught.value)


def test_a_changed_study_is_refused(mine: TinySuite, done: Run) -> None:
    mine.study_file.write_text(mine.study_file.read_text().replace("hunts mice", "says meow"))
    message = refused(mine, done)
    assert "prompt 2 (main) of 'cat': 'what hunts mice' -> 'what says meow'" in message
    assert "another --out" in message


def test_a_changed_setting_is_refused(tiny_suite: TinySuite, done: Run) -> None:
    message = refused(tiny_suite, done, settings=Settings.of(rule="midpoint"))
    assert "settings: rule: adaptive -> midpoint" in message


def test_a_checkpoint_of_another_architecture_is_refused(mine: TinySuite, tmp_path: Path) -> None:
    file = mine.folder / "step10" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"use_parallel_residual": False}))
    with pytest.raises(ModelError, match=r"step10.*use_parallel_residual True -> False"):
        finish(mine, tmp_path / "run")


def test_a_missing_folder_is_found_before_anything_is_scored(
    mine: TinySuite, tmp_path: Path
) -> None:
    suite = mine.suite
    shutil.rmtree(mine.folder / "step10")
    with pytest.raises(SuiteError, match="step10"):
        kntrace.run(mine.study, suite, tmp_path / "run", progress=silent)
    assert not (tmp_path / "run" / "scores.zarr").exists()


def test_another_suite_is_refused(mine: TinySuite, done: Run) -> None:
    shutil.rmtree(mine.folder / "step10")
    assert "suite: checkpoint step10 is gone" in refused(mine, done)


@pytest.mark.parametrize("left", [[], [(1, 2)], [(2, 0)]])
def test_changed_weights_are_refused(
    mine: TinySuite, done: Run, left: list[tuple[int, int]]
) -> None:
    """Also where the checkpoint was finished and others, or none, are still to do."""
    for pair in left:
        remove(done, *pair)
    file = mine.folder / "step10" / "model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    assert "the weights of 'step10' have changed" in refused(mine, done)


def test_a_changed_configuration_is_refused(mine: TinySuite, done: Run) -> None:
    file = mine.folder / "step10" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"transformers_version": "9.9"}))
    finish(mine, done.path)
    file.write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    assert "the configuration of 'step10' has changed" in refused(mine, done)


def test_a_moved_and_touched_suite_goes_on(
    mine: TinySuite, done: Run, master: Path, loads: list[str]
) -> None:
    for file in mine.folder.rglob("*"):
        os.utime(file, ns=(1, 1))
    remove(done, 2, 1)
    finish(mine, done.path)
    assert loads == ["step0", "step10", "step100"], "touched files have to be looked at"
    assert tree(done) == tree(master)
    finish(mine, done.path)
    assert len(loads) == 3, "and only once"


def test_finished_checkpoints_may_be_deleted(
    mine: TinySuite, done: Run, master: Path, tmp_path: Path
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(mine.suite.to_yaml())
    shutil.rmtree(mine.folder / "step0")
    remove(done, 2, 1)
    sweep(mine.study, load_suite(suite), done.path, threads=1, progress=silent)
    assert tree(done) == tree(master)


def test_another_tokenizer_is_refused(mine: TinySuite, done: Run, tmp_path: Path) -> None:
    for folder in (mine.folder / "step10", mine.folder / "step100"):
        file = folder / "tokenizer.json"
        text = file.read_text().replace('"meow"', '"@"').replace('"woof"', '"meow"')
        file.write_text(text.replace('"@"', '"woof"'))
    with pytest.raises(ModelError, match=r"step10: its tokenizer reads the study's prompts"):
        finish(mine, done.path)
    with pytest.raises(ModelError, match=r"step10: its tokenizer reads the study's prompts"):
        finish(mine, tmp_path / "new")


def test_a_checkpoint_of_another_shape_is_refused(mine: TinySuite, tmp_path: Path) -> None:
    shutil.rmtree(mine.folder / "step10")
    save_checkpoint(mine.folder / "step10", seed=1, layers=3)
    with pytest.raises(ModelError, match=r"step10: .*num_hidden_layers 2 -> 3"):
        finish(mine, tmp_path / "run")
    assert status(tmp_path / "run").done == 4


# Words and numbers that do not fit


def test_words_that_do_not_fit_are_found_first(mine: TinySuite, tmp_path: Path) -> None:
    text = mine.study_file.read_text()
    text = text.replace("which pet says meow", "which pet says moo")
    mine.study_file.write_text(text.replace("    red:", "    red woof:"))
    with pytest.raises(ModelError) as caught:
        finish(mine, tmp_path / "run")
    message = str(caught.value)
    assert "checkpoint step0: 2 of 4 words do not fit its tokenizer" in message
    assert "cat: the prompt holds a word that is unknown" in message
    assert "red woof: the answer 'red woof' has 2 tokens" in message
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_named(mine: TinySuite, tmp_path: Path) -> None:
    file = mine.folder / "step10" / "model.safetensors"
    weights = load_file(file)
    weights["embed_out.weight"].fill_(3e38)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"step10 · cat: prompt .*not finite.*layer") as caught:
        finish(mine, tmp_path / "run")
    assert "which pet says meow" in str(caught.value)
    assert status(tmp_path / "run").done == 4


def test_threads(tiny_suite: TinySuite, done: Run, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run = finish(tiny_suite, tmp_path / "other", threads=before + 1)
    assert torch.get_num_threads() == before
    assert run.provenance["threads"] == before + 1
    np.testing.assert_allclose(
        run.scores["score"].values, done.scores["score"].values, rtol=1e-4, atol=1e-8
    )
    with pytest.raises(SettingsError, match="threads = 0"):
        finish(tiny_suite, tmp_path / "third", threads=0)


def test_bars_are_the_default(
    tiny_suite: TinySuite, done: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(done, 0, 0)
    sweep(tiny_suite.study, tiny_suite.suite, done.path)
    shown = capsys.readouterr().err
    assert "sweep" in shown
    assert f"{TOTAL}/{TOTAL}" in shown


def test_asking_for_the_status_does_not_load_torch(master: Path) -> None:
    code = (
        "import sys, kntrace.sweep as sweep\n"
        f"assert sweep.status({str(master)!r}).complete\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
