"""A sweep in several processes: the same bytes, and nothing lost whichever of them dies."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from conftest import STEPS, TinySuite
from hub_server import HubServer
from kntrace.archive import Run, open_run
from kntrace.archive.chunks import chunk_name
from kntrace.errors import KntraceError, ModelError, SettingsError
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.suite import cache, load_suite
from kntrace.sweep import processes
from kntrace.sweep import run as sweep
from kntrace.sweep.admission import Job
from kntrace.sweep.processes import _Dealing, threads_for

TOTAL = len(STEPS) * 4
PRELOADED = [
    *("pytest", "transformers.processing_utils", "kntrace.attribution", "kntrace.sweep"),
    "transformers.models.gpt_neox.modeling_gpt_neox",
]


def finish(tiny: TinySuite, out: Path, **options: Any) -> Run:
    settled: dict[str, Any] = {"threads": 1, "progress": silent} | options
    return sweep(tiny.study, settled.pop("suite", tiny.suite), out, **settled)


def tree(run: Run | Path) -> dict[str, bytes]:
    home = (run if isinstance(run, Path) else run.path) / "scores.zarr"
    return {str(f.relative_to(home)): f.read_bytes() for f in home.rglob("*") if f.is_file()}


def left_behind(out: Path) -> list[str]:
    odd = [*out.rglob("*.partial"), *out.glob(".*"), *out.glob("sessions")]
    return [path.name for path in odd] + [one.name for one in multiprocessing.active_children()]


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    """Workers forked from a process that has imported everything, where users' are spawned."""
    before, torch_before = processes._START, torch.get_num_threads()
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    processes._START = "forkserver"
    torch.set_num_threads(1)
    yield
    processes._START = before
    torch.set_num_threads(torch_before)


@pytest.fixture(scope="module")
def master(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tiny_suite, tmp_path_factory.mktemp("workers") / "run").path


def when_done(count: int, act: Callable[[], None]) -> Callable[..., None]:
    """A `Progress` that does something once so many blocks are done."""
    acted = False

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        nonlocal acted
        if stage == "sweep" and done >= count and not acted:
            acted = True
            act()

    return progress


def workers() -> dict[str, Any]:
    return {one.name: one for one in multiprocessing.active_children()}


# The same, whoever computes it


@pytest.mark.slow
def test_the_number_of_workers_changes_no_bit(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    calls: list[tuple[str, int, int]] = []
    run = finish(
        tiny_suite,
        tmp_path / "run",
        workers=2,
        progress=lambda stage, done, total, detail="": calls.append((stage, done, total)),
    )
    assert tree(run) == tree(master)
    assert left_behind(run.path) == []
    record, before = run.provenance, open_run(master).provenance
    for name in ("tokens", "answers", "architecture", "checkpoints", "threads"):
        assert record[name] == before[name]
    (session,) = record["sessions"]
    assert (session["blocks"], session["workers"]) == (TOTAL, 2)
    counts = [done for _, done, _ in calls]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, TOTAL)


def test_workers_do_only_what_lacks(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(master, tmp_path / "run"))
    chunks = out / "scores.zarr" / "score"
    (chunks / chunk_name("score", 0, 1)).unlink()
    (chunks / chunk_name("score", 2, 3)).write_bytes(b"torn")
    kept = {file.name: file.stat().st_mtime_ns for file in chunks.glob("c.*")}
    kept.pop(chunk_name("score", 2, 3))
    run = finish(tiny_suite, out, workers=2)
    assert tree(run) == tree(master)
    assert kept.items() <= {f.name: f.stat().st_mtime_ns for f in chunks.glob("c.*")}.items()
    assert run.provenance["sessions"][-1]["blocks"] == 2
    assert run.provenance["sessions"][-1]["damaged"] == ["step100 · blue"]


def test_a_measured_baseline_is_one_for_all_workers(tiny_suite: TinySuite, tmp_path: Path) -> None:
    settings = Settings(baseline="mean", rule="midpoint", nodes=2)
    alone, together = (
        finish(tiny_suite, tmp_path / str(count), workers=count, settings=settings)
        for count in (1, 2)
    )
    assert tree(alone) == tree(together)


def test_processors_are_shared_out() -> None:
    usable = len(os.sched_getaffinity(0))
    assert threads_for(1, None) is None, "one process takes what it took before"
    assert threads_for(usable, None) == 1
    assert threads_for(10 * usable, None) == 1
    assert threads_for(2, 7) == 7


def test_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [processes._device("cuda", number) for number in range(5)] == [
        *("cuda:0", "cuda:1", "cuda:2"),
        *("cuda:0", "cuda:1"),
    ]
    assert processes._device("cuda:1", 2) == "cuda:1"
    assert processes._device("cpu", 2) == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert processes._device("cuda", 1) == "cuda"


def test_no_workers_are_refused(tiny_suite: TinySuite, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="0 workers"):
        finish(tiny_suite, tmp_path / "run", workers=0)
    with pytest.raises(SettingsError, match="device auto and 2 workers"):
        finish(tiny_suite, tmp_path / "run", workers=2, device="auto")


class _Fetched:
    def __init__(self, here: bool) -> None:
        self.here = here

    def is_here(self, checkpoint: object) -> bool:
        return self.here

    def waited_for(self, checkpoint: object) -> str:
        return "waiting"


def dealing(tiny: TinySuite, here: bool = True) -> _Dealing:
    job = Job(Path(), tiny.study, tiny.suite, Settings())
    said: Any = type("Said", (), {"at": staticmethod(lambda says: None)})
    fetched: Any = _Fetched(here)
    blocks = {0: [0, 1, 2, 3], 1: [0, 1]}
    return _Dealing({}, job, blocks, fetched, said, begin=lambda number: pytest.fail("a worker"))


def test_a_second_worker_comes_to_a_checkpoint_where_that_pays(tiny_suite: TinySuite) -> None:
    dealt = dealing(tiny_suite)
    assert dealt._choose() == 0
    for number, place in dealt.places.items():
        place.begun, place.at = True, {number}
    assert dealt._choose() is None, "nothing is known of what it would cost"
    dealt.pace = 1.0
    for place in dealt.places.values():
        place.loading = 1.5
    assert dealt._choose() == 0, "four blocks by two save two seconds"
    dealt.places[0].loading = 2.5
    assert dealt._choose() is None
    dealt.places[0].at = set()
    assert dealt._choose() == 0, "whoever was there has died"
    assert dealing(tiny_suite, here=False)._choose() is None


# Whichever of them dies


def test_a_worker_that_is_killed_loses_its_block_at_most(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    killing = when_done(2, lambda: workers()["kntrace-worker-1"].kill())
    run = finish(tiny_suite, tmp_path / "run", workers=2, progress=killing, tell=said.append)
    assert tree(run) == tree(master)
    assert left_behind(run.path) == []
    (text,) = said
    assert text.startswith("Worker 1 was killed by signal 9")
    assert text.endswith("; a new one takes its place.")
    (session,) = run.provenance["sessions"]
    assert session["blocks"] == TOTAL


def test_when_all_workers_are_killed_new_ones_go_on(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    killing = when_done(3, lambda: [one.kill() for one in workers().values()] and None)
    run = finish(tiny_suite, tmp_path / "run", workers=2, progress=killing, tell=said.append)
    assert sorted(text[:8] for text in said) == ["Worker 1", "Worker 2"]
    assert tree(run) == tree(master)
    assert left_behind(run.path) == []
    (session,) = run.provenance["sessions"]
    assert session["blocks"] == TOTAL, "what was committed was not computed again"


def test_a_block_that_kills_every_worker_is_tried_three_times(
    tiny_suite: TinySuite, master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "run", list[str]()
    monkeypatch.setattr(processes, "serve", partial(serve_and_die, "step100 · blue"))
    with pytest.raises(
        KntraceError, match=r"killed by signal 9 at step100 · blue; so did 2 others there.*Every"
    ):
        finish(tiny_suite, out, workers=2, tell=said.append)
    assert [text.partition(" at ")[2] for text in said] == [
        "step100 · blue; a new one takes its place."
    ] * 2
    assert left_behind(out) == []
    monkeypatch.undo()
    kept = TOTAL - len(open_run(out).missing())
    run = finish(tiny_suite, out)
    assert run.provenance["sessions"][-1]["blocks"] == TOTAL - kept
    assert tree(run) == tree(master)
    assert left_behind(out) == []


def serve_and_die(where: str, *arguments: Any) -> None:
    """A worker that is killed, as one is that takes too much memory, whenever it comes there."""

    def at(self: Any, says: str) -> None:
        self.send("at", says)
        if says == where:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(processes._Pipe, "at", at)  # noqa: B010  (mypy knows the function it replaces)
    processes.serve(*arguments)


@pytest.mark.parametrize("where", ["", "loading step10"])
def test_workers_that_die_before_their_first_block_are_not_started_for_ever(
    tiny_suite: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    serve = partial(serve_and_die, where) if where else serve_nothing
    monkeypatch.setattr(processes, "serve", serve)
    others = "there" if where else "before they began"
    with pytest.raises(KntraceError, match=f"so did 2 others {others}"):
        finish(tiny_suite, tmp_path / "run", workers=2)
    assert left_behind(tmp_path / "run") == []


def serve_nothing(*_: Any) -> None:
    """What comes of a script without `if __name__ == "__main__":`."""
    sys.exit(1)


def test_ctrl_c_ends_every_worker(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    """A terminal sends it to all processes at once; the workers leave it to this one."""
    out, seen = tmp_path / "run", []

    def interrupt() -> None:
        seen.extend(workers().values())
        for one in seen:
            os.kill(one.pid, signal.SIGINT)
        time.sleep(0.05)
        assert all(one.is_alive() for one in seen)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=rf"Stopped with \d+ of {TOTAL} blocks done"):
        finish(tiny_suite, out, workers=2, progress=when_done(2, interrupt))
    assert len(seen) == 2
    assert left_behind(out) == []
    assert tree(finish(tiny_suite, out)) == tree(master)


def test_what_a_worker_finds_wrong_is_said_as_ever(tiny_suite: TinySuite, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_suite.folder, tmp_path / "suite"))
    file = folder / "step10" / "model.safetensors"
    weights = load_file(file)
    weights["embed_out.weight"].fill_(3e38)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"step10 · \w+: prompt .*not finite.*layer"):
        finish(tiny_suite, tmp_path / "run", suite=load_suite(folder), workers=2)
    assert left_behind(tmp_path / "run") == []


def test_a_fault_in_a_worker_keeps_its_traceback(
    tiny_suite: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "serve", serve_with_a_fault)
    with pytest.raises(RuntimeError, match=r"(?s)in a worker:.*ZeroDivisionError"):
        finish(tiny_suite, tmp_path / "run", workers=2)
    assert not (tmp_path / "run").exists()


def serve_with_a_fault(*arguments: Any) -> None:
    def score(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    setattr(processes, "score", score)  # noqa: B010  (mypy knows the function it replaces)
    processes.serve(*arguments)


def test_workers_end_with_a_killed_parent() -> None:
    """Spawned, as users' are; they are busy, and hear nothing through their pipe."""
    code = (
        "import time, busy_worker\n"
        "from kntrace.sweep import processes\n"
        "processes.serve = busy_worker.serve\n"
        "with processes.Workers(2, 'cpu', 1) as started:\n"
        "    for worker in started._workers.values():\n"
        "        assert worker.told.recv() == 'busy'\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)"
    )
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": places},
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        parent.kill()
    until = time.monotonic() + 120
    while _group_lives(parent.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _group_lives(parent.pid)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


# With what lies on the hub


def test_workers_wait_for_what_is_fetched_and_it_goes_when_all_are_done(
    hub: HubServer, tiny_suite: TinySuite, master: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hub.add_suite("owner/tiny", tiny_suite.folder)
    monkeypatch.setattr(processes, "serve", partial(serve_from_a_cache, constants.HF_HUB_CACHE))
    said: list[str] = []
    run = finish(
        tiny_suite,
        tmp_path / "run",
        suite=load_suite("owner/tiny"),
        workers=2,
        evict=True,
        tell=said.append,
    )
    assert "deleted after use" in said[0]
    assert run.scores["score"].equals(open_run(master).scores["score"])
    assert list(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")) == []
    assert cache.claimed(run.path) == {}


def serve_from_a_cache(cache: str, *arguments: Any) -> None:
    """A worker that may ask nobody: what it needs has to be in the cache."""
    constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = True, cache
    processes.serve(*arguments)
