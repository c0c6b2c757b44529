"""Sweeps that are killed, interrupted, short of room, or two at once."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TinySuite
from kntrace.archive import (
    Run,
    open_run,
    status,
    writing,
)
from kntrace.errors import RunError
from kntrace.progress import silent
from kntrace.study import Study
from kntrace.suite import Suite
from kntrace.sweep import run as sweep
from sweeps import (  # noqa: F401
    TOTAL,
    finish,
    fixture_done,
    fixture_master,
    fixture_mine,
    fixture_one_thread,
    times,
    tree,
)

# Seconds that a slow disk takes to give a file its name.
WRITING = 0.01


def sweep_in_child(
    study: Study,
    suite: Suite,
    out: Path,
    told: Connection,
    die_at: int | None = None,
    by: int = signal.SIGKILL,
    slow_disk: bool = False,
) -> None:
    """The work of a process that is to be killed; `die_at`: by itself, at its nth renaming.

    `slow_disk`: each file takes `WRITING` seconds to get its name, and is told of when it has it.
    """
    torch.set_num_threads(1)
    replace, calls = Path.replace, 0

    def renamed(self: Path, target: Any) -> Path:
        nonlocal calls
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), by)
        if slow_disk:
            time.sleep(WRITING)
        done = replace(self, target)
        if slow_disk:
            told.send("a file")
        return done

    setattr(Path, "replace", renamed)  # noqa: B010  (mypy knows the method it replaces)
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

    def launch(
        out: Path,
        die_at: int | None = None,
        by: int = signal.SIGKILL,
        slow_disk: bool = False,
    ) -> tuple[Any, Connection]:
        mine, theirs = context.Pipe(duplex=False)
        arguments = (tiny_suite.study, tiny_suite.suite, out, theirs, die_at, by, slow_disk)
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
    """By what is done, not by the clock: how long it takes differs with the load."""
    child, told = start(tmp_path / "whole", slow_disk=True)
    files = 0
    while (said := told.recv()) == "a file":
        files += 1
    assert said == "finished"
    child.join()
    chance, found = random.Random(0), []
    for attempt in range(8):
        out = tmp_path / f"run{attempt}"
        child, told = start(out, slow_disk=True)
        # One of eight parts of the work each time, and anywhere in it.
        for _ in range(int(files * (attempt + chance.random()) / 8)):
            assert told.recv() == "a file"
        time.sleep(chance.uniform(0, 2 * WRITING))
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
    child, told = start(out, 45, signal.SIGINT)
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
