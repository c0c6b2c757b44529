"""Parts of a run, computed side by side: who may write, who is seen, and what comes of it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from conftest import STEPS, TinySuite
from kntrace.analysis import analyse
from kntrace.archive import (
    Computing,
    Run,
    clear_killed,
    open_run,
    read_computing,
    sharing,
    status,
    writing,
)
from kntrace.cli import app
from kntrace.errors import RunError, SettingsError
from kntrace.progress import silent
from kntrace.study import Study
from kntrace.suite import Suite
from kntrace.sweep import run as sweep
from kntrace.sweep.plan import Shard

TOTAL = len(STEPS) * 4


def finish(tiny: TinySuite, out: Path, **options: Any) -> Run:
    return sweep(tiny.study, tiny.suite, out, **({"threads": 1, "progress": silent} | options))


def tree(out: Path) -> dict[str, bytes]:
    home = out / "scores.zarr"
    return {str(f.relative_to(home)): f.read_bytes() for f in home.rglob("*") if f.is_file()}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def master(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tiny_suite, tmp_path_factory.mktemp("shards") / "run").path


# Parts of a run


def test_checkpoints_are_dealt_out() -> None:
    shards = [Shard.read(f"{number}/3") for number in (1, 2, 3)]
    dealt = [[place for place in range(8) if one.takes(place)] for one in shards]
    assert dealt == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", "1" * 99])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(SettingsError, match=r"I/N with I from 1 to N.*--array=1-N"):
        Shard.read(text)


def test_shards_one_after_another(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "run", []
    command = ["run", str(tiny_suite.study_file), str(tiny_suite.folder), "--out", str(out)]
    first = CliRunner().invoke(app, [*command, "--threads", "1", "--shard", "2/2"])
    assert first.exit_code == 0, first.output
    assert f"Shard 2/2 is done. {TOTAL - 4} blocks of the run are missing" in first.stdout
    assert [row.done for row in status(out).checkpoints] == [0, 4, 0]
    with pytest.raises(RunError, match=f"{TOTAL - 4} of {TOTAL} blocks are missing"):
        analyse(open_run(out))
    finish(
        tiny_suite,
        out,
        shard="1/2",
        progress=lambda stage, done, total, detail="": calls.append((stage, done, total)),
    )
    assert {total for stage, _, total in calls if stage == "sweep"} == {TOTAL - 4}
    assert tree(out) == tree(master)
    sessions = open_run(out).provenance["sessions"]
    assert [(one["shard"], one["blocks"]) for one in sessions] == [("2/2", 4), ("1/2", 8)]
    assert not (out / ".lock").exists()
    again = CliRunner().invoke(app, [*command, "--shard", "2/2"])
    assert "The run has all its blocks" in again.stdout


def test_a_run_does_what_shards_have_left(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    finish(tiny_suite, tmp_path / "run", shard="3/3")
    run = finish(tiny_suite, tmp_path / "run")
    assert run.provenance["sessions"][-1]["blocks"] == TOTAL - 4
    assert tree(run.path) == tree(master)


def test_a_shard_computes_its_own_damaged_blocks_again_and_no_others(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(master, tmp_path / "run"))
    for place in (0, 1):
        (out / "scores.zarr" / "gap" / f"c.{place}.2.0.0").write_bytes(b"torn")
    finish(tiny_suite, out, shard="2/3")
    assert open_run(out).damaged() == [(0, 2)]
    assert open_run(out).damaged(silent, [1, 2]) == []


def test_what_shards_cannot_do(tiny_suite: TinySuite, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"4 shards of 3 checkpoints.*dealt out whole"):
        finish(tiny_suite, tmp_path / "run", shard="1/4")
    with pytest.raises(SettingsError, match="evict and a shard"):
        finish(tiny_suite, tmp_path / "run", shard="1/3", evict=True)
    assert not (tmp_path / "run").exists()


def shard_in_child(study: Study, suite: Suite, out: Path, shard: str, told: Connection) -> None:
    torch.set_num_threads(1)
    told.send("here")
    told.recv()  # until all are
    sweep(study, suite, out, threads=1, progress=silent, shard=shard)
    told.send("finished")


@pytest.mark.slow
def test_all_shards_at_once(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    """They make the run together: each comes to an empty folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            *("pytest", "transformers.processing_utils", "kntrace.attribution", "kntrace.sweep"),
            "transformers.models.gpt_neox.modeling_gpt_neox",
        ]
    )
    out, children = tmp_path / "run", []
    for shard in ("1/3", "2/3", "3/3"):
        mine, theirs = context.Pipe()
        arguments = (tiny_suite.study, tiny_suite.suite, out, shard, theirs)
        child = context.Process(target=shard_in_child, args=arguments)
        child.start()
        children.append((child, mine))
    for _, told in children:
        assert told.recv() == "here"
    for _, told in children:
        told.send("go")
    for child, told in children:
        assert told.recv() == "finished"
        child.join()
    assert tree(out) == tree(master)
    record = open_run(out).provenance
    assert sorted(one["shard"] for one in record["sessions"]) == ["1/3", "2/3", "3/3"]
    assert {*record["checkpoints"]} == {"step0", "step10", "step100"}
    assert sum(one["blocks"] for one in record["sessions"]) == TOTAL
    odd = [*out.rglob("*.partial"), *out.glob(".*"), *out.glob("sessions")]
    assert odd == []


# Who may write


def test_shards_share_the_folder_and_nobody_else_does(master: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(master, tmp_path / "run"))
    leftover = out / "provenance.json.partial"
    leftover.write_text("half")
    with sharing(out) as first:
        assert first
        assert not leftover.exists()
        leftover.write_text("another shard's, in the making")
        with sharing(out) as second:
            assert not second
            assert leftover.exists()
        with pytest.raises(RunError, match=r"shards of this run are being computed.*status"):
            writing(out).__enter__()
        assert (out / ".lock").exists(), "who stays has to be seen"
    assert not (out / ".lock").exists()
    with writing(out), pytest.raises(RunError, match=f"another kntrace run.*{os.getpid()}"):
        sharing(out).__enter__()
    with sharing(out) as again:
        assert again


def test_a_killed_shard_locks_nobody_out(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from kntrace.archive import sharing\n"
        "with sharing(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    out = tmp_path / "run"
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    assert (out / ".lock").read_text() == "shared"
    with writing(out):
        pass


# Who is seen


def test_who_computes_is_seen_until_the_end(master: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(master, tmp_path / "run"))
    assert status(out, verify=False).computing == ()
    with Computing(out, "shard 2/8") as one, Computing(out, "worker 1 of 2") as other:
        one.tell("step10 · red", 2)
        other.tell("step100 · " + "色" * 500, 0)
        shard, worker = status(out, verify=False).computing
        assert (shard.who, shard.at, shard.blocks) == ("shard 2/8", "step10 · red", 2)
        assert (shard.process, shard.alive, worker.alive) == (os.getpid(), True, True)
        assert worker.at.endswith("色…")
        assert f"computing: shard 2/8 (process {os.getpid()} on " in str(status(out))
        clear_killed(out)
        assert len(read_computing(out)) == 2
        copy = Path(shutil.copytree(out, tmp_path / "copy"))
    assert not (out / "sessions").exists()
    killed = status(copy, verify=False)
    assert [seen.alive for seen in killed.computing] == [False, False]
    assert "was killed at step10 · red" in str(killed)
    clear_killed(copy)
    assert not (copy / "sessions").exists()


def test_odd_files_of_sessions_are_passed_over(master: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(master, tmp_path / "run"))
    (out / "sessions").mkdir()
    good = '{"who": "run", "host": "h", "process": 1, "blocks": 0, "at": "x"}'
    for name, text in {
        "a.json": good,
        "b.json": "no json",
        "c.json": good.replace('"x"', '"\\u001b[31m"'),
        "d.json": good + " " * 5000,
        "e.json": good.replace("1,", '"1",'),
        "f.txt": good,
    }.items():
        (out / "sessions" / name).write_text(text)
    assert [seen.at for seen in read_computing(out)] == ["x"]
    shutil.rmtree(out / "sessions")
    (out / "sessions").write_text("a file")
    assert read_computing(out) == ()
    with Computing(out, "run") as computing:
        computing.tell("x", 0)
