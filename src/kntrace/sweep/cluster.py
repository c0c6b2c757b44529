"""Score checkpoints on the workers of a Dask scheduler, the user's own or one that asks Slurm.

A task is one checkpoint, or a part of its words where there are more workers than checkpoints.
It loads the checkpoint and commits its blocks into the run folder, which all workers see;
through the scheduler go only what to do and what became of it. The scheduler gives a task whose
worker died to another, which computes the blocks that still lack. Errors come back as values:
what is raised would have to be rebuilt by a scheduler that may know nothing of kntrace.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import kntrace
from kntrace import errors
from kntrace.archive import Run, holder, read_computing
from kntrace.errors import KntraceError, RunError, SettingsError
from kntrace.suite import Checkpoint
from kntrace.sweep.admission import Job
from kntrace.sweep.plan import parts_of
from kntrace.sweep.scoring import score
from kntrace.sweep.tally import Tally
from kntrace.threads import torch_threads

__all__ = ["Cluster", "Outcome", "Task", "work_on"]

_LOOK = 0.5
"""Seconds between two looks at what has become of the tasks."""
_CONNECT = 30.0
_DEATHS = 10
"""So often the worker of a task may die before the task counts as what kills it."""


@dataclass(frozen=True)
class Task:
    """Words of one checkpoint to score, as it travels to a worker.

    Attributes
    ----------
    holder
        Who holds the run folder: a task of a run that has ended stops.
    """

    job: Job
    place: int
    checkpoint: Checkpoint
    words: tuple[int, ...]
    device: str
    threads: int | None
    holder: str | None
    version: str = kntrace.__version__


@dataclass(frozen=True)
class Outcome:
    """What became of a task: how many blocks are done, or why not, as plain values."""

    blocks: int
    threads: int | None = None
    error: tuple[str, Mapping[str, str | None]] | None = None
    fault: str | None = None


class Cluster:
    """A client of a scheduler; a context manager, after which the tasks are called off.

    Parameters
    ----------
    address
        Of the scheduler, such as `tcp://10.0.0.1:8786`.
    started
        Starts a scheduler of our own in its stead, given the stack on which to put its end.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        started: Callable[[ExitStack], Any] | None = None,
    ) -> None:
        self._address = address
        self._started = started
        self._stack = ExitStack()
        self._client: Any = None

    def __enter__(self) -> Self:
        try:
            import distributed
        except ImportError:
            raise SettingsError(
                "the package distributed is not installed",
                expected="it, for a scheduler",
                fix="pip install 'kntrace[cluster]'",
            ) from None
        with ExitStack() as stack:
            where = self._address if self._started is None else self._started(stack)
            try:
                self._client = distributed.Client(
                    where, timeout=_CONNECT, set_as_default=False, name="kntrace"
                )
            except (OSError, ValueError, TypeError) as error:
                raise KntraceError(
                    f"no scheduler answers at {self._address}: {_one_line(error)}",
                    fix="Start one (`dask scheduler`), and give the address that it prints.",
                ) from None
            stack.callback(self._close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _close(self) -> None:
        # A scheduler that is dead is waited for no longer.
        with suppress(Exception):
            self._client.close(timeout=2)

    def score(
        self,
        job: Job,
        blocks: Mapping[int, Sequence[int]],
        tally: Tally,
        *,
        device: str,
        threads: int | None,
    ) -> None:
        """Do all the blocks, given as words by checkpoint.

        Raises
        ------
        KntraceError
            What a task has met, or if the scheduler is gone.
        """
        job = replace(job, path=job.path.absolute())
        held = holder(job.path)
        futures = {}
        for number, (place, words) in enumerate(parts_of(blocks, self._workers(tally))):
            checkpoint = _at_commit(job, place)
            task = Task(job, place, checkpoint, tuple(words), device, threads, held)
            future = self._client.submit(
                work_on,
                task,
                key=f"kntrace-{checkpoint.label}-{number}-{time.time_ns()}",
                pure=False,
                retries=0,
                priority=-number,
            )
            futures[future] = task
        try:
            self._wait(job, futures, tally)
        except BaseException:
            with suppress(Exception):
                self._client.cancel(list(futures), force=True)
            raise

    def _workers(self, tally: Tally) -> int:
        """Wait until there is a worker, and return how many there are."""
        while True:
            self._refuse_dead()
            count = len(self._client.scheduler_info(n_workers=-1)["workers"])
            if count:
                return count
            tally.at("waiting for workers")
            time.sleep(_LOOK)

    def _refuse_dead(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise KntraceError(
                f"the scheduler at {self._address or 'this machine'} is gone",
                fix="Every finished block is kept: start it again, and give the same command.",
            )

    def _wait(self, job: Job, futures: dict[Any, Task], tally: Tally) -> None:
        left = dict(futures)
        while left:
            self._refuse_dead()
            for future in [one for one in left if one.status != "pending"]:
                task = left.pop(future)
                self._ended(future, task, tally)
            seen = [one for one in read_computing(job.path) if one.alive]
            says = seen[0].at if seen else "waiting for workers"
            tally.at(says, ahead=sum(one.blocks for one in seen))
            if left:
                time.sleep(_LOOK)

    def _ended(self, future: Any, task: Task, tally: Tally) -> None:
        label = task.checkpoint.label
        if future.status in ("cancelled", "lost"):
            raise KntraceError(
                f"the scheduler at {self._address or 'this machine'} is gone, or has called off "
                f"the task of {label}",
                fix="Every finished block is kept: start it again, and give the same command.",
            )
        if future.status == "error":
            raise KntraceError(
                f"the task of checkpoint {label} failed: {_one_line(future.exception(timeout=10))}",
                fix="Every finished block is kept. Do the workers have the same kntrace, and "
                "enough memory?",
            )
        outcome: Outcome = future.result(timeout=60)
        if outcome.error is not None:
            name, parts = outcome.error
            found = dict(parts)
            raise getattr(errors, name, KntraceError)(str(found.pop("found")), **found)
        if outcome.fault is not None:
            raise RuntimeError(f"in a task:\n{outcome.fault}")
        if outcome.threads is not None:
            tally.ready(None, outcome.threads, 0.0)
        tally.done(f"{label} is done", outcome.blocks)


def _at_commit(job: Job, place: int) -> Checkpoint:
    checkpoint = job.suite.checkpoints[place]
    commit = (job.commits or {}).get(checkpoint.label)
    return checkpoint if commit is None else replace(checkpoint, revision=commit)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# On a worker

_ONE_AT_A_TIME = threading.Lock()
"""A worker with several threads loads one model all the same: torch's settings are one's own."""


def work_on(task: Task) -> Outcome:
    """Do a task, on a worker."""
    with _ONE_AT_A_TIME:
        try:
            return _work_on(task)
        except KntraceError as error:
            parts = {name: getattr(error, name) for name in ("found", "where", "expected", "fix")}
            return Outcome(0, error=(type(error).__name__, parts))
        except Exception:
            return Outcome(0, fault=traceback.format_exc())


def _work_on(task: Task) -> Outcome:
    where = _worker()
    if task.version != kntrace.__version__:
        raise SettingsError(
            f"the worker {where} has kntrace {kntrace.__version__}, this is {task.version}",
            expected="one version",
        )
    if task.holder is not None and holder(task.job.path) != task.holder:
        raise RunError(
            f"the worker {where} does not see the run folder, or its lock",
            where=task.job.path,
            expected="a folder on a file system that all workers share, and that passes on locks",
        )
    heard = _Heard(task)
    with torch_threads(task.threads or _threads_of_worker()):
        score(
            task.job, task.place, task.checkpoint, heard.words(), task.device, heard,
            who=f"Dask worker {where}",
        )  # fmt: skip
    return Outcome(len(task.words), heard.threads)


def _worker() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:  # called directly
        return "here"


def _threads_of_worker() -> int | None:
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        return None


class _Heard:
    """A `Told` that remembers the run, and gives out the words whose blocks still lack."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._run: Run | None = None
        self.threads: int | None = None

    def words(self) -> Iterator[int]:
        """Words to score: where the worker before died, the ones that it had not done."""
        task, run = self._task, self._run
        if run is None:
            return
        there = set(run.intact(task.place, task.words))
        for word in task.words:
            if word in there:
                continue
            if task.holder is not None and holder(task.job.path) != task.holder:
                raise RunError("the run that this task belongs to has ended", where=task.job.path)
            yield word

    def at(self, says: str) -> None:
        """Is told by the file that `status` reads."""

    def ready(self, run: Run, threads: int, seconds: float) -> None:
        """Remember the run."""
        del seconds
        self._run, self.threads = run, threads

    def done(self, says: str) -> None:
        """Is told by the file that `status` reads."""
