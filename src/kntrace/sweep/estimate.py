"""What a run would take: hours, memory, room on the disk, from one real block or by reckoning."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from kntrace.archive import open_run
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
from kntrace.sweep.fetching import Access, agreed_commits
from kntrace.sweep.plan import plan_blocks
from kntrace.sweep.processes import threads_for
from kntrace.sweep.reckoning import Reckoning, kept_of_words, reckon
from kntrace.sweep.trial import Trial, computing, prompts_of_words, speed_of, try_block
from kntrace.threads import torch_threads

__all__ = ["Estimate", "Kind", "Trial", "plan"]


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
        What was measured; or reckoned, where no block was tried.
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
    trial: Trial | Reckoning
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
            *(_tried(trial) if isinstance(trial, Trial) else _reckoned(trial)),
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
    tried: bool = True,
    evict: bool = False,
    allow_bin: bool = False,
    pin: bool = False,
    progress: Progress = silent,
    tell: Callable[[str], None] | None = None,
) -> Estimate:
    """Say what `kntrace.run` with these arguments would take, from one real block if it is tried.

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
    tried
        Whether a block is tried. If not, no weights are read: memory and room are reckoned
        from the last checkpoint's configuration, and hours from the operations that it takes
        and the speed of a large matrix product here (`Reckoning`).
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
    trial: Trial | Reckoning
    with tempfile.TemporaryDirectory(prefix="kntrace-plan-") as home, ExitStack() as stack:
        job = Job(
            Path(home) / "run", study, one, wanted, vector, allow_bin=allow_bin, memory=memory
        )
        job.path.mkdir()
        ahead = _ahead(job.path, suite, list(left.blocks), access)
        stack.enter_context(torch_threads(threads_for(workers, threads)))
        trial = try_block(job, device, access, progress) if tried else _reckon(job, device)
    prompts = prompts_of_words(study)
    kept = kept_of_words(study, wanted)
    loading, words_take, words_hold = _each_word(trial, prompts, kept)
    loads = sum(1 for chosen in left.blocks.values() if chosen)
    seconds = loads * loading + sum(
        words_take[word] for chosen in left.blocks.values() for word in chosen
    )
    return Estimate(
        len(suite),
        words,
        sum(prompts),
        left.total,
        left.total - left.done,
        round(len(suite) * sum(words_hold)),
        ahead.bytes,
        trial,
        _kinds(seconds / 3600, trial, workers, shards, machines or {}),
    )


def _each_word(
    trial: Trial | Reckoning, prompts: Sequence[int], kept: Sequence[int]
) -> tuple[float, Sequence[float], Sequence[float]]:
    """Seconds of loading a checkpoint, and each word's seconds and bytes at one."""
    if isinstance(trial, Reckoning):
        return 0.0, trial.seconds, trial.archive
    return (
        trial.loading,
        [trial.scoring * count / trial.prompts for count in prompts],
        [trial.archive * count / trial.kept for count in kept],
    )


def _reckon(job: Job, device: str) -> Reckoning:
    import torch

    here = computing(device)
    return reckon(
        job.study,
        job.suite.checkpoints[0],
        job.settings,
        device=here,
        memory=job.memory,
        threads=torch.get_num_threads(),
        speed=speed_of(here),
    )


def _ahead(path: Path, suite: Suite, places: list[int], access: Access) -> Preflight:
    """Look at what would be fetched, as `run` does before it begins."""
    commits = agreed_commits(path, suite.checkpoints, {}, pin=access.pin) if places else {}
    return preflight(
        [suite.checkpoints[place] for place in places],
        commits,
        allow_bin=access.allow_bin,
        evict=access.evict,
    )


def _kinds(
    hours: float, trial: Trial | Reckoning, workers: int, shards: int, machines: Mapping[str, float]
) -> tuple[Kind, ...]:
    """The run on this machine, on more of it, and on others."""
    kinds = [
        Kind(
            "this machine, one process",
            1,
            hours,
            trial.memory,
            "the trial, as often as there are checkpoints and prompts"
            if isinstance(trial, Trial)
            else f"reckoned, at {trial.share:.0%} of that speed, without loading",
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


def _tried(trial: Trial) -> Iterator[str]:
    yield (
        f"measured: {trial.checkpoint} · {trial.word}, {trial.prompts} prompts, on "
        f"{trial.device} with {trial.threads} threads:"
    )
    yield (
        f"  loading {trial.loading:.1f} s, block {trial.scoring:.2f} s, "
        f"{size_in_words(trial.archive)} on the disk"
    )


def _reckoned(shape: Reckoning) -> Iterator[str]:
    first, other = shape.nodes
    yield (
        f"reckoned from {shape.checkpoint}: {shape.layers} layers of {shape.width:,} neurons, "
        f"{shape.parameters / 1e9:.3g} billion weights"
    )
    yield f"  {size_in_words(shape.weights)} to load for each checkpoint, which no hours count"
    yield f"  nodes taken: {first:.3g} in the first layer, {other:.2g} in each other"
    yield (
        f"  measured: matrix products at {shape.speed / 1e12:.2g} TFLOP/s, on {shape.device} "
        f"with {shape.threads} threads"
    )


def _in_hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.1f} min" if hours * 3600 >= 60 else f"{hours * 3600:.0f} s"
    return f"{hours:.1f} h"
