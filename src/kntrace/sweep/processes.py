"""Score checkpoints in several processes of this machine.

Each loads a checkpoint, asks for its words one by one, and commits their blocks itself; this
process only deals out what is to be done. A process that dies takes the block in hand with it;
a new one takes its place, unless the same work has ended several.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from kntrace.archive import Run
from kntrace.errors import KntraceError
from kntrace.heap import return_large_blocks
from kntrace.suite import Checkpoint
from kntrace.sweep.admission import Job
from kntrace.sweep.fetching import Fetching
from kntrace.sweep.plan import Shard
from kntrace.sweep.scoring import score
from kntrace.sweep.tally import Tally
from kntrace.threads import torch_threads

__all__ = ["Workers", "threads_for"]

# Spawned, not forked: this process may have threads, of torch or of a notebook.
_START = "spawn"
_LOOK = 0.2
"""Seconds between two looks at a download that is waited for."""
_GRACE = 10.0
"""Seconds that a process has to end by itself."""
_TRIES = 3
"""Processes that may die over one block, over loading one checkpoint, or before any work."""


def threads_for(workers: int, threads: int | None) -> int | None:
    """Processor threads for each of the workers, the processors shared out unless given."""
    if workers == 1 or threads is not None:
        return threads
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, usable // workers)


# In the process that deals out the work


@dataclass
class _Place:
    """A checkpoint: which words are left, who is at it, and how many seconds loading it took."""

    left: deque[int]
    begun: bool = False
    at: set[int] = field(default_factory=set)
    loading: float = 0.0

    @property
    def over(self) -> bool:
        return self.begun and not self.left and not self.at


@dataclass
class _Worker:
    number: int
    process: Any
    told: Connection
    idle: bool = False
    place: int | None = None
    word: int | None = None
    began: float = 0.0
    says: str = ""


class Workers:
    """Processes that score checkpoints; a context manager, after which none is left.

    Entered early: each takes some seconds to start.
    """

    def __init__(
        self, count: int, device: str, threads: int | None, shard: Shard | None = None
    ) -> None:
        self._count = count
        whole = f" of {count}" if shard is None else f" of {count}, shard {shard}"
        self._options = (whole, device, threads)
        self._workers: dict[int, _Worker] = {}

    def __enter__(self) -> Self:
        for number in range(self._count):
            self._begin(number)
        return self

    def _begin(self, number: int) -> _Worker:
        """Start the worker of this number, which decides its GPU and its name."""
        context: Any = multiprocessing.get_context(_START)
        mine, theirs = context.Pipe()
        process = context.Process(
            target=serve,
            args=(theirs, number, *self._options),
            daemon=True,
            name=f"kntrace-worker-{number + 1}",
        )
        # Ctrl-C reaches every process of the terminal; ending them is this one's part.
        with _deaf():
            process.start()
        theirs.close()
        self._workers[number] = _Worker(number, process, mine)
        return self._workers[number]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.told.close()  # for one that waits, this is the end
            if kind is not None:
                worker.process.kill()
        for worker in self._workers.values():
            worker.process.join(_GRACE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()

    def score(
        self, job: Job, blocks: Mapping[int, Sequence[int]], fetched: Fetching, tally: Tally
    ) -> None:
        """Do all the blocks, given as words by checkpoint.

        Raises
        ------
        KntraceError
            What a worker has raised, or if several died over the same work.
        """
        _Dealing(self._workers, job, blocks, fetched, tally, self._begin).finish()


class _Dealing:
    """Which worker does what next.

    `sources` says where the checkpoints that were begun are read, `pace` how many seconds the
    last block took, `deaths` how many workers died over what: a checkpoint and word, a
    checkpoint that was being loaded (no word), or their own start (neither).
    """

    def __init__(
        self,
        workers: dict[int, _Worker],
        job: Job,
        blocks: Mapping[int, Sequence[int]],
        fetched: Fetching,
        tally: Tally,
        begin: Callable[[int], _Worker],
    ) -> None:
        self.workers = workers
        self.begin = begin
        self.job = job
        self.fetched = fetched
        self.tally = tally
        self.places = {place: _Place(deque(words)) for place, words in blocks.items()}
        self.sources: dict[int, Checkpoint] = {}
        self.pace = 0.0
        self.deaths = Counter[tuple[int | None, int | None]]()

    def finish(self) -> None:
        for worker in list(self.workers.values()):
            self._send(worker, self.job)
        while not all(place.over for place in self.places.values()):
            self._deal()
            for told in wait([worker.told for worker in self.workers.values()], _LOOK):
                worker = next(one for one in self.workers.values() if one.told is told)
                try:
                    message = worker.told.recv()
                except (EOFError, OSError):
                    self._lost(worker)
                else:
                    self._heard(worker, *message)

    def _heard(self, worker: _Worker, kind: str, value: Any) -> None:
        if kind == "idle":
            worker.idle = True
        elif kind == "failed":
            raise value
        elif kind == "at":
            worker.says = value
            self.tally.at(value)
        elif kind == "ready":
            threads, seconds = value
            self.tally.ready(None, threads, seconds)
            self._next_word(worker, loading=seconds)
        elif kind == "done":
            self.pace, worker.word = time.monotonic() - worker.began, None
            self.tally.done(worker.says)
            self._next_word(worker)

    def _next_word(self, worker: _Worker, loading: float = 0.0) -> None:
        """Give a worker another word of its checkpoint, or let it go from there."""
        number = worker.place
        if number is None:
            return
        place = self.places[number]
        place.loading = max(place.loading, loading)
        worker.word = place.left.popleft() if place.left else None
        worker.began = time.monotonic()
        if worker.word is None:
            place.at.discard(worker.number)
            worker.place = None
            if place.over:
                self.fetched.done(self.job.suite.checkpoints[number])
                self.tally.record()
        self._send(worker, worker.word)

    def _deal(self) -> None:
        for worker in [one for one in self.workers.values() if one.idle]:
            number = self._choose()
            if number is None:
                continue
            if number not in self.sources:
                self.sources[number] = self.fetched.turn(
                    self.job.suite.checkpoints[number], self.tally.at
                )
            place = self.places[number]
            place.begun = True
            place.at.add(worker.number)
            worker.idle, worker.place = False, number
            self._send(worker, (number, self.sources[number]))

    def _choose(self) -> int | None:
        """The next checkpoint that nobody is at; where there is none, one that help pays for."""
        for number, place in self.places.items():
            if not place.at and not place.over:
                checkpoint = self.job.suite.checkpoints[number]
                if number in self.sources or self.fetched.is_here(checkpoint):
                    return number
                if all(worker.idle for worker in self.workers.values()):
                    self.tally.at(self.fetched.waited_for(checkpoint))
                return None
        number, place = max(self.places.items(), key=lambda item: len(item[1].left))
        saved = self.pace * len(place.left) / (len(place.at) + 1)
        return number if place.loading and saved > place.loading else None

    def _send(self, worker: _Worker, message: Any) -> None:
        # One that has died is heard of when it is listened to.
        with suppress(OSError):
            worker.told.send(message)

    def _lost(self, worker: _Worker) -> None:
        """Take back what a worker that died had in hand, and start another in its place.

        A block, or a checkpoint, over which one worker after the other dies would never be done.
        """
        said = self._bury(worker)
        over = (worker.place, worker.word)
        self.deaths[over] += 1
        if worker.place is not None:
            place = self.places[worker.place]
            if worker.word is not None:
                place.left.appendleft(worker.word)
            place.at.discard(worker.number)
            # What it was to be loaded for has to be looked at by another.
            place.begun = place.begun and bool(place.at or place.left)
        if self.deaths[over] == _TRIES:
            raise KntraceError(
                f"{said}; so did {_TRIES - 1} others "
                f"{'before they began' if worker.place is None else 'there'}",
                fix="Every finished block is kept: give the same command again, with fewer "
                "--workers if the memory was short; in a script, call this under "
                '`if __name__ == "__main__":`.',
            )
        self.tally.tell(f"{said[0].upper()}{said[1:]}; a new one takes its place.")
        self._send(self.begin(worker.number), self.job)

    def _bury(self, worker: _Worker) -> str:
        """Let go of a worker that died; how, in words."""
        del self.workers[worker.number]
        worker.told.close()
        worker.process.join(_GRACE)
        if worker.process.is_alive():  # it cannot be told anything any more
            worker.process.kill()
            worker.process.join()
        code = worker.process.exitcode
        worker.process.close()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"worker {worker.number + 1} {how}" + (f" at {worker.says}" if worker.says else "")


@contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that are started in here not hear Ctrl-C, from their first moment on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In a worker


def serve(told: Connection, number: int, whole: str, device: str, threads: int | None) -> None:
    """The work of one process: load the checkpoints it is given, and score words of them."""
    return_large_blocks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe = _Pipe(told)
    with suppress(_NobodyThereError):
        try:
            job: Job = pipe.receive()
            while True:
                pipe.send("idle", None)
                place, checkpoint = pipe.receive()
                chosen, who = _device(device, number), f"worker {number + 1}{whole}"
                with torch_threads(threads):
                    score(job, place, checkpoint, pipe.words(), chosen, pipe, who=who)
        except KntraceError as error:
            pipe.send("failed", error)
        except _NobodyThereError:
            raise
        except Exception:
            pipe.send("failed", RuntimeError(f"in a worker:\n{traceback.format_exc()}"))


def _end_with_parent() -> None:
    """End at once when the process that deals out the work is no more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _device(device: str, number: int) -> str:
    """Deal out the GPUs where there are several."""
    if device != "cuda":
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if count > 1 else device


class _NobodyThereError(Exception):
    """The process that deals out the work has closed the pipe, or is no more."""


class _Pipe:
    """A `Told` at the other end of a pipe."""

    def __init__(self, told: Connection) -> None:
        self._told = told

    def send(self, kind: str, value: Any) -> None:
        try:
            self._told.send((kind, value))
        except OSError:
            raise _NobodyThereError from None

    def receive(self) -> Any:
        try:
            return self._told.recv()
        except (EOFError, OSError):
            raise _NobodyThereError from None

    def words(self) -> Iterator[int]:
        """Words as they are given, until there are no more."""
        while (word := self.receive()) is not None:
            yield word

    def at(self, says: str) -> None:
        self.send("at", says)

    def ready(self, run: Run, threads: int, seconds: float) -> None:
        self.send("ready", (threads, seconds))

    def done(self, says: str) -> None:
        self.send("done", None)
