"""What a run would take, from one real trial block: hours, memory, room on the disk."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from kntrace.archive import Run, open_run
from kntrace.archive.chunks import block_chunks
from kntrace.archive.folder import SCORES
from kntrace.archive.identity import refuse_changes
from kntrace.errors import SettingsError
from kntrace.notebook import Card, Shown
from kntrace.progress import Progress, silent
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Preflight, Suite, preflight
from kntrace.suite.weights import size_in_words
from kntrace.sweep.admission import Job
from kntrace.sweep.baselines import given_baseline
from kntrace.sweep.fetching import Access, agreed_commits, fetching
from kntrace.sweep.plan import plan_blocks
from kntrace.sweep.processes import threads_for
from kntrace.sweep.scoring import score
from kntrace.threads import torch_threads

__all__ = ["Estimate", "Kind", "Trial", "plan"]

# A second block is timed where the first, which also warms up, took no longer than this.
_WORTH_A_SECOND = 30.0


@dataclass(frozen=True)
class Trial:
    """What was measured: one checkpoint loaded, one block of it scored and written.

    Attributes
    ----------
    checkpoint, word, prompts
        Which block, and how many prompts it has.
    device, threads
        On what.
    loading, scoring
        Seconds for the checkpoint and for the block; the second of two where the first took
        under half a minute.
    archive
        Bytes of the block on the disk.
    memory
        Most bytes that the process held, of the device's own memory if it has one.
    speed
        Float32 operations a second of a large matrix product on this device, right after.
    """

    checkpoint: str
    word: str
    prompts: int
    device: str
    threads: int
    loading: float
    scoring: float
    archive: int
    memory: int
    speed: float


@dataclass(frozen=True)
class Kind:
    """One kind of machine, and what the run would take on it.

    Attributes
    ----------
    name
        What it is.
    processes
        How many compute at a time.
    hours
        By the clock.
    memory
        Bytes that the processes of one machine need together.
    how
        What these numbers rest on.
    """

    name: str
    processes: int
    hours: float
    memory: int
    how: str


@dataclass(frozen=True, repr=False)
class Estimate(Shown):
    """What a run would take.

    Attributes
    ----------
    checkpoints, words, prompts
        Of the run; prompts at one checkpoint.
    total, missing
        Blocks in all, and those that are still to be computed.
    archive
        Bytes of all blocks on the disk.
    download
        Bytes to fetch from the hub.
    trial
        What was measured.
    kinds
        The run on this machine and on others.
    """

    checkpoints: int
    words: int
    prompts: int
    total: int
    missing: int
    archive: int
    download: int
    trial: Trial
    kinds: tuple[Kind, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Everything here as what JSON can express."""
        return asdict(self)

    def _card(self) -> Card:
        facts: dict[str, object] = {"blocks": self.total, "still to do": self.missing}
        facts["archive"] = size_in_words(self.archive)
        for one in self.kinds:
            memory = size_in_words(one.memory)
            facts[one.name] = f"{_in_hours(one.hours)}, {memory} of memory; {one.how}"
        return Card("What the run would take", facts)

    def __str__(self) -> str:
        trial = self.trial
        lines = [
            f"{self.total} blocks: {self.checkpoints} checkpoints x {self.words} words, "
            f"{self.prompts} prompts a checkpoint"
            + (f"; {self.missing} still to do" if self.missing != self.total else ""),
            f"archive: {size_in_words(self.archive)}; "
            f"to download: {size_in_words(self.download) if self.download else 'nothing'}",
            f"measured: {trial.checkpoint} · {trial.word}, {trial.prompts} prompts, on "
            f"{trial.device} with {trial.threads} threads:",
            f"  loading {trial.loading:.1f} s, block {trial.scoring:.2f} s, "
            f"{size_in_words(trial.archive)} on the disk",
            "",
        ]
        width = max(len(kind.name) for kind in self.kinds)
        for kind in self.kinds:
            lines.append(
                f"{kind.name:<{width}}  {_in_hours(kind.hours):>9}  "
                f"{size_in_words(kind.memory):>8} of memory"
            )
            lines.append(f"  {kind.how}")
        return "\n".join(lines)


def plan(
    study: Study,
    suite: Suite,
    out: str | Path | None = None,
    *,
    settings: Settings | None = None,
    baseline: ArrayLike | str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    memory: int | None = None,
    workers: int = 1,
    shards: int = 1,
    machines: Mapping[str, float] | None = None,
    evict: bool = False,
    allow_bin: bool = False,
    pin: bool = False,
    progress: Progress = silent,
    tell: Callable[[str], None] | None = None,
) -> Estimate:
    """Say what `kntrace.run` with these arguments would take, from one real trial block.

    The last checkpoint is loaded, since its paths take the most nodes, and one of its blocks
    scored and written to a temporary folder; nothing is written into `out`. Hours grow with
    checkpoints and prompts; that other checkpoints and prompts take as long is assumed.

    Parameters
    ----------
    study, suite, settings, baseline, device, threads, memory, workers, evict, allow_bin, pin, tell
        As for `kntrace.run`.
    out
        A run that was begun: only what lacks is counted.
    shards
        Machines like this one that compute at the same time.
    machines
        Others, by name, with the speed of their large float32 matrix products in TFLOP/s.
    progress
        Told of the trial, in the stage `trial`.

    Raises
    ------
    KntraceError
        As `kntrace.run`.
    """
    if min(workers, shards) < 1:
        raise SettingsError(f"{workers} workers, {shards} shards", expected="at least 1 of each")
    wanted, vector = given_baseline(settings or Settings(), baseline)
    opened = open_run(out) if out is not None and (Path(out) / SCORES).is_dir() else None
    if opened is not None:
        made = (opened.study, opened.suite, opened.settings)
        refuse_changes(opened.path, made, (study, suite, wanted))
        ordered = Job.of(opened, opened.path, study, suite, settings=wanted)
        study, suite = ordered.study, ordered.suite
    words, every = len(study.words), list(suite.checkpoints)
    left = plan_blocks(every, words, opened, verify=False, progress=silent)
    # The trial writes into a folder of its own.
    one = replace(suite, checkpoints=suite.checkpoints[-1:])
    access = Access(evict, allow_bin, pin, tell or (lambda _: None))
    with tempfile.TemporaryDirectory(prefix="kntrace-plan-") as home, ExitStack() as stack:
        job = Job(
            Path(home) / "run", study, one, wanted, vector, allow_bin=allow_bin, memory=memory
        )
        job.path.mkdir()
        ahead = _ahead(job.path, suite, list(left.blocks), access)
        stack.enter_context(torch_threads(threads_for(workers, threads)))
        trial = _try(job, device, access, progress)
    prompts = _prompts(study)
    blocks = sum(prompts[word] for chosen in left.blocks.values() for word in chosen)
    loads = sum(1 for chosen in left.blocks.values() if chosen)
    seconds = loads * trial.loading + blocks * trial.scoring / trial.prompts
    return Estimate(
        len(suite),
        words,
        sum(prompts),
        left.total,
        left.total - left.done,
        round(len(suite) * sum(prompts) * trial.archive / trial.prompts),
        ahead.bytes,
        trial,
        _kinds(seconds / 3600, trial, workers, shards, machines or {}),
    )


def _prompts(study: Study) -> list[int]:
    """How many prompts each word has."""
    return [sum(text is not None for text in study.rendered(word)) for word in study.words]


def _ahead(path: Path, suite: Suite, places: list[int], access: Access) -> Preflight:
    """Look at what would be fetched, as `run` does before it begins."""
    commits = agreed_commits(path, suite.checkpoints, {}, pin=access.pin) if places else {}
    return preflight(
        [suite.checkpoints[place] for place in places],
        commits,
        allow_bin=access.allow_bin,
        evict=access.evict,
    )


class _Clock:
    """A `Told` that takes the times of a trial."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = 0.0
        self.run: Run | None = None
        self.threads, self.loading, self.scoring = 0, 0.0, 0.0

    def words(self, first: int, second: int) -> Iterator[int]:
        """One word, and another if that takes no longer than it is worth."""
        yield first
        if second != first and self.scoring < _WORTH_A_SECOND:
            yield second

    def at(self, says: str) -> None:
        self._progress("trial", 0, 1, says)
        self._began = time.monotonic()

    def ready(self, run: Run, threads: int, seconds: float) -> None:
        self.run, self.threads, self.loading = run, threads, seconds

    def done(self, says: str) -> None:
        self.scoring = time.monotonic() - self._began
        self.says = says


def _try(job: Job, device: str, access: Access, progress: Progress) -> Trial:
    counts = _prompts(job.study)
    # Of the most prompts, so that the memory is enough for the others; ones of them are alike.
    most = sorted(range(len(counts)), key=lambda word: -counts[word])[:2]
    clock, (checkpoint,) = _Clock(progress), job.suite.checkpoints
    with fetching(job.path, [checkpoint], [0], None, access) as fetched:
        here = fetched.turn(checkpoint, clock.at)
        run = score(
            replace(job, commits=fetched.commits),
            0,
            here,
            clock.words(most[0], most[-1]),
            device,
            clock,
            who="trial",
        )
    word = next(word for word in reversed(most) if run.intact(0, [word]))
    chunks = block_chunks(run.path / SCORES, 0, word, run.block_variables)
    progress("trial", 1, 1)
    return Trial(
        checkpoint.label,
        job.study.words[word].text,
        counts[word],
        device,
        clock.threads,
        clock.loading,
        clock.scoring,
        sum(file.stat().st_size for file in chunks),
        _memory(device),
        _speed(device),
    )


def _memory(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_reserved(device))
    # macOS counts bytes, Linux kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _speed(device: str, size: int = 1024, least: float = 0.3) -> float:
    """Operations a second of products of two float32 matrices, the best of a few."""
    import torch

    one = torch.rand(size, size, device=device)
    best, began = float("inf"), time.monotonic()
    while time.monotonic() - began < least:
        start = time.monotonic()
        (one @ one).sum().item()
        best = min(best, time.monotonic() - start)
    return 2 * size**3 / best


def _kinds(
    hours: float, trial: Trial, workers: int, shards: int, machines: Mapping[str, float]
) -> tuple[Kind, ...]:
    """The run on this machine, on more of it, and on others."""
    kinds = [
        Kind(
            "this machine, one process",
            1,
            hours,
            trial.memory,
            "the trial, as often as there are checkpoints and prompts",
        )
    ]
    if workers > 1:
        kinds.append(
            Kind(
                f"this machine, {workers} workers",
                workers,
                hours / workers,
                trial.memory * workers,
                "extrapolated: at best, if they do not slow each other down",
            )
        )
    if shards > 1:
        kinds.append(
            Kind(
                f"{shards} such machines",
                workers * shards,
                hours / (workers * shards),
                trial.memory * workers,
                "extrapolated: at best, if the folder they share keeps up",
            )
        )
    for name, speed in machines.items():
        kinds.append(
            Kind(
                f"{name}, one process",
                1,
                hours * trial.speed / (speed * 1e12),
                trial.memory,
                f"extrapolated: by {speed:g} TFLOP/s against {trial.speed / 1e12:.3g} here, "
                "at the same share of it",
            )
        )
    return tuple(kinds)


def _in_hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.1f} min" if hours * 3600 >= 60 else f"{hours * 3600:.0f} s"
    return f"{hours:.1f} h"
