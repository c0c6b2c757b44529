"""A sweep on the workers of a Dask scheduler: real ones, on this machine, some of them killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import kntrace
from conftest import STEPS, TinySuite
from kntrace.archive import Run, open_run, read_computing, writing
from kntrace.errors import KntraceError, ModelError, RunError, SettingsError
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.suite import load_suite
from kntrace.sweep import cluster, scoring
from kntrace.sweep import run as sweep
from kntrace.sweep.admission import Job
from kntrace.sweep.cluster import Cluster, Task, work_on
from kntrace.sweep.plan import parts_of
from kntrace.sweep.slurm import read_slurm, slurm_cluster, start_slurm

TOTAL = len(STEPS) * 4
PAUSE = 0.15
"""Seconds that a worker takes longer for a block, so that it can be killed in its midst."""


def finish(tiny: TinySuite, out: Path, **options: Any) -> Run:
    settled: dict[str, Any] = {"threads": 1, "progress": silent} | options
    return sweep(tiny.study, settled.pop("suite", tiny.suite), out, **settled)


def tree(out: Path) -> dict[str, bytes]:
    home = out / "scores.zarr"
    return {str(f.relative_to(home)): f.read_bytes() for f in home.rglob("*") if f.is_file()}


def serve_scheduler(told: Connection) -> None:
    from distributed import Scheduler

    async def serve() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            told.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(serve())


def serve_worker(told: Connection, address: str, home: Path) -> None:
    from distributed import Worker

    compute = scoring.compute_block

    def slowly(*arguments: Any) -> Any:
        time.sleep(PAUSE)
        return compute(*arguments)

    setattr(scoring, "compute_block", slowly)  # noqa: B010  (mypy knows what it replaces)

    async def serve() -> None:
        worker = Worker(address, nthreads=1, local_directory=str(home), host="127.0.0.1")
        async with worker:
            told.send("here")
            await worker.finished()

    asyncio.run(serve())


class Machines:
    """A scheduler and workers, each a process of its own."""

    def __init__(self, home: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._home = home
        self.workers: list[Any] = []
        self.scheduler, self.address = self._start(serve_scheduler)

    def _start(self, serve: Callable[..., None], *arguments: Any) -> tuple[Any, str]:
        mine, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=serve, args=(theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        return process, mine.recv()

    def add_workers(self, count: int) -> None:
        for _ in range(count):
            process, _said = self._start(serve_worker, self.address, self._home)
            self.workers.append(process)

    def end(self) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.join()


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    before, threads = cluster._LOOK, torch.get_num_threads()
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [
            *("pytest", "transformers.processing_utils", "kntrace.attribution", "kntrace.sweep"),
            *("transformers.models.gpt_neox.modeling_gpt_neox", "distributed"),
        ]
    )
    cluster._LOOK = 0.05
    torch.set_num_threads(1)
    yield
    cluster._LOOK = before
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def master(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tiny_suite, tmp_path_factory.mktemp("cluster") / "run").path


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    started = Machines(tmp_path / "dask")
    yield started
    started.end()


def once(out: Path, act: Callable[[int], None]) -> Callable[..., None]:
    """A `Progress` that does something once a worker has committed a block, to that worker."""
    acted = False

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        nonlocal acted
        busy = [seen for seen in read_computing(out) if seen.alive and seen.blocks]
        if stage == "sweep" and busy and not acted:
            acted = True
            act(busy[0].process)

    return progress


@pytest.mark.slow
def test_a_worker_that_is_killed_is_no_loss(
    machines: Machines, tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    out, killed, calls = tmp_path / "run", [], []
    machines.add_workers(2)

    def kill(process: int) -> None:
        assert process in {one.pid for one in machines.workers}
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    watch = once(out, kill)

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        calls.append((stage, done, total, detail))
        watch(stage, done, total, detail)

    run = finish(tiny_suite, out, scheduler=machines.address, progress=progress)
    assert len(killed) == 1
    assert tree(out) == tree(master)
    record, before = run.provenance, open_run(master).provenance
    for name in ("tokens", "answers", "architecture", "checkpoints", "threads"):
        assert record[name] == before[name]
    assert record["sessions"][0]["blocks"] == TOTAL
    counts = [done for stage, done, _, _ in calls if stage == "sweep"]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, TOTAL)
    odd = [*out.rglob("*.partial"), *out.glob(".*"), *out.glob("sessions")]
    assert odd == []


def test_a_scheduler_that_dies_loses_nothing(
    machines: Machines, tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    machines.add_workers(1)
    dying = once(out, lambda _: machines.scheduler.kill())
    with pytest.raises(KntraceError, match=r"scheduler at tcp.* is gone.*Every finished block"):
        finish(tiny_suite, out, scheduler=machines.address, progress=dying)
    machines.workers[0].kill()
    machines.workers[0].join()
    there = {file.name: file.stat().st_mtime_ns for file in out.glob("scores.zarr/score/c.*.0")}
    assert there
    assert tree(finish(tiny_suite, out).path) == tree(master)
    now = {file.name: file.stat().st_mtime_ns for file in out.glob("scores.zarr/score/c.*.0")}
    assert there.items() <= now.items()


def test_what_a_worker_finds_wrong_is_said_as_ever(
    machines: Machines, tiny_suite: TinySuite, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_suite.folder, tmp_path / "suite"))
    file = folder / "step10" / "model.safetensors"
    weights = load_file(file)
    weights["embed_out.weight"].fill_(3e38)
    save_file(weights, file, metadata={"format": "pt"})
    machines.add_workers(1)
    with pytest.raises(ModelError, match=r"step10 · cat: prompt .*not finite.*layer"):
        finish(
            tiny_suite, tmp_path / "run", suite=load_suite(folder), scheduler=machines.address
        )  # fmt: skip


def test_nobody_there(tiny_suite: TinySuite, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(cluster, "_CONNECT", 0.5)
    with pytest.raises(KntraceError, match=r"no scheduler answers at tcp://127.0.0.1:9: "):
        finish(tiny_suite, tmp_path / "run", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(KntraceError, match="no scheduler answers at nonsense"):
        Cluster("nonsense").__enter__()


@pytest.mark.parametrize(
    "options", [{"workers": 2}, {"shard": "1/3"}, {"evict": True}, {"slurm": "slurm.yaml"}]
)
def test_what_does_not_go_together(
    tiny_suite: TinySuite, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=r"a scheduler and .*expected one of them"):
        finish(tiny_suite, tmp_path / "run", scheduler="tcp://127.0.0.1:9", **options)


def test_work_is_cut_for_more_workers_than_checkpoints() -> None:
    blocks: dict[int, list[int]] = {0: [0, 1, 2, 3, 4], 2: [3], 5: []}
    assert list(parts_of(blocks, 2)) == [(0, [0, 1, 2, 3, 4]), (2, [3]), (5, [])]
    assert list(parts_of(blocks, 5)) == [(0, [0, 2, 4]), (2, [3]), (5, []), (0, [1, 3])]


def test_a_task_in_the_wrong_place_says_so(tiny_suite: TinySuite, master: Path) -> None:
    job = Job(master, tiny_suite.study, tiny_suite.suite, Settings())
    task = Task(job, 0, tiny_suite.suite.checkpoints[0], (0,), "cpu", 1, "17:4711")
    with writing(master):
        name, parts = work_on(task).error or ("", {})
    assert (name, parts["where"]) == (RunError.__name__, str(master))
    assert "does not see the run folder" in str(parts["found"])
    old = Task(job, 0, tiny_suite.suite.checkpoints[0], (0,), "cpu", 1, None, "0.0.1")
    name, parts = work_on(old).error or ("", {})
    assert f"has kntrace {kntrace.__version__}, this is 0.0.1" in str(parts["found"])
    # What is there already is not computed again: what a task that is given a second time does.
    before = tree(master)
    assert work_on(Task(job, 0, job.suite.checkpoints[0], (0, 1), "cpu", 1, None)).blocks == 2
    assert tree(master) == before


# Slurm, without Slurm


OPTIONS = """\
jobs: 8
queue: gpu
account: words
cores: 8
memory: 32GB
walltime: "08:00:00"
job_extra_directives: ["--gres=gpu:1"]
job_script_prologue: ["source venv/bin/activate"]
worker_extra_args: ["--lifetime", "7h"]
"""


def test_the_script_that_slurm_would_be_given(tmp_path: Path) -> None:
    (tmp_path / "slurm.yaml").write_text(OPTIONS + "interface: lo\n")
    options = read_slurm(tmp_path / "slurm.yaml")
    assert options.jobs == 8
    with slurm_cluster(options) as made:
        script = made.job_script()
    for line in ("-p gpu", "-A words", "--cpus-per-task=8", "-t 08:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    assert "#SBATCH --mem=30G\n" in script, "32 GB in GiB, as Slurm counts"
    assert "\nsource venv/bin/activate\n" in script
    assert "--nthreads 8" in script
    assert "--lifetime 7h" in script


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("jobs: 0", r"slurm.yaml:1.*jobs"),
        ("wall_time: 1h", r"unknown key 'wall_time'.*walltime"),
        ("cores: many", r"cores.*a whole number"),
        ("nanny: 3", r"nanny.*true or false"),
        ('job_extra_directives: ["a\\nb"]', "holds a line break"),
    ],
)
def test_odd_options_are_refused_with_the_line(tmp_path: Path, line: str, said: str) -> None:
    key = line.split(":")[0]
    kept = [old for old in OPTIONS.splitlines() if not old.startswith(f"{key}:")]
    (tmp_path / "slurm.yaml").write_text("\n".join([line, *kept]))
    with pytest.raises(SettingsError, match=said):
        read_slurm(tmp_path / "slurm.yaml")


def test_where_there_is_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm.yaml").write_text(OPTIONS)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KntraceError, match="there is no sbatch here"):
        Cluster(started=lambda s: start_slurm(read_slurm(tmp_path / "slurm.yaml"), s)).__enter__()
