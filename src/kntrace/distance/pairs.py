"""Something computed for many pairs of words, in this process and in others beside it."""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from kntrace.distance.base import Matrix
from kntrace.errors import AnalysisError, KntraceError
from kntrace.progress import Progress

__all__ = ["Between", "Job", "Pairs", "all_pairs", "measure_pairs"]

Pairs = npt.NDArray[np.integer]
Between = Callable[[Matrix, Matrix], float]

# Below so many comparisons of two neurons, all pairs together, sharing the work does not pay
# for starting processes: about ten seconds on one core.
_WORTHWHILE = 200_000_000
# Comparisons handed to a process at a time, a tenth of a second: so few that all end at about
# the same moment. And how many such portions wait for each, while this process is busy itself.
_PORTION, _WAITING = 2_000_000, 16
# More portions than so many would only take memory.
_AT_MOST = 20_000


@dataclass(frozen=True)
class Job:
    """What is to be computed of which pairs.

    Attributes
    ----------
    between
        Of two words' sets; found by its name from another process (no lambda).
    pairs
        (pair, 2) places of words.
    stage
        Under which name progress is told.
    weight
        How much longer it takes than an earth mover's distance, or thereabouts.
    """

    between: Between
    pairs: Pairs
    stage: str
    weight: int = 1


# Some pairs, from one place to another, of one job.
_Portion = tuple[int, slice]
_Steps = Iterator[tuple[int, int, float]]


def all_pairs(words: int) -> Pairs:
    """All pairs of so many words, (pair, 2), the first of both first."""
    return np.stack(np.triu_indices(words, 1), axis=1)


def measure_pairs(
    jobs: Sequence[Job],
    sets: Sequence[Matrix],
    names: Sequence[str],
    *,
    progress: Progress,
    workers: int = 1,
) -> list[Matrix]:
    """Compute `between(sets[i], sets[j])` for every pair (i, j) of every job.

    Parameters
    ----------
    jobs
        What to compute; those whose pairs take longest first.
    sets, names
        One entry a word.
    progress
        Told of the pairs done, under the name of the job's stage.
    workers
        Processes to compute in, this one among them. The numbers are the same, bit for bit,
        whatever it is; where the work is too small for a second process to pay, there is none.

    Returns
    -------
    list of (pair,) arrays
        One a job, in the order of its pairs.

    Raises
    ------
    AnalysisError
        If `workers` is below one.
    KntraceError
        If a process was killed or could not start; and whatever `between` raises.
    """
    if workers < 1:
        raise AnalysisError(f"{workers} workers", expected="at least one")
    sizes = np.array([len(vectors) for vectors in sets])
    work = [job.weight * (sizes[job.pairs[:, 0]] @ sizes[job.pairs[:, 1]]) for job in jobs]
    portions = deque(
        portion
        for place, (job, much) in enumerate(zip(jobs, work, strict=True))
        for portion in _portions(place, len(job.pairs), float(much), workers)
    )
    steps: _Steps
    if workers == 1 or sum(work) < _WORTHWHILE or len(portions) == 1:
        steps = chain.from_iterable(_here(jobs, sets, portion) for portion in portions)
    else:
        steps = _shared(jobs, sets, portions, min(workers, len(portions)) - 1)
    found = [np.zeros(len(job.pairs)) for job in jobs]
    told = _Told(jobs, names, progress)
    for place, pair, value in steps:
        found[place][pair] = value
        told.of(place, pair)
    return found


class _Told:
    """Tells of one job after the other, although they may be worked on at the same time."""

    def __init__(self, jobs: Sequence[Job], names: Sequence[str], progress: Progress) -> None:
        self._jobs, self._names, self._progress = jobs, names, progress
        self._done, self._now = [0] * len(jobs), 0

    def of(self, place: int, pair: int) -> None:
        """Say that a pair is done, if it is of the job that is told of now."""
        job = self._jobs[place]
        if place == self._now:
            i, j = (self._names[word] for word in job.pairs[pair])
            self._progress(job.stage, self._done[place], len(job.pairs), f"{i} · {j}")
        self._done[place] += 1
        while self._now < len(self._jobs) and self._done[self._now] == len(
            self._jobs[self._now].pairs
        ):
            ended = self._jobs[self._now]
            self._progress(ended.stage, len(ended.pairs), len(ended.pairs))
            self._now += 1


def _portions(place: int, pairs: int, work: float, workers: int) -> Iterator[_Portion]:
    """Split the pairs of a job into portions of about the same work."""
    if not pairs:
        return
    count = min(pairs, max(workers, min(_AT_MOST, math.ceil(work / _PORTION))))
    ends = [pairs * number // count for number in range(count + 1)]
    for start, stop in pairwise(ends):
        yield place, slice(start, stop)


def _here(jobs: Sequence[Job], sets: Sequence[Matrix], portion: _Portion) -> _Steps:
    """Yield job, pair and value, each as it is computed."""
    place, pairs = portion
    for pair in range(pairs.start, pairs.stop):
        i, j = jobs[place].pairs[pair]
        yield place, pair, jobs[place].between(sets[i], sets[j])


def _shared(
    jobs: Sequence[Job], sets: Sequence[Matrix], portions: deque[_Portion], helpers: int
) -> _Steps:
    """Yield job, pair and value, as this process and its helpers find them.

    Helpers need a second or two before they can begin. This process begins at once, at the
    front, where what takes longest is; they take from the back, and all meet in between.
    """
    # Spawned, not forked: the caller may have threads, of torch or of a notebook.
    executor = ProcessPoolExecutor(
        helpers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=([job.between for job in jobs], list(sets)),
    )
    given: dict[Future[list[float]], _Portion] = {}
    try:
        while portions or given:
            mine = portions.popleft() if portions else _taken_back(given)
            while portions and len(given) < _WAITING * helpers:
                place, pairs = portions.pop()
                future = executor.submit(_portion, place, jobs[place].pairs[pairs])
                given[future] = place, pairs
            if mine is not None:
                yield from _here(jobs, sets, mine)
            for future in wait(given, None if mine is None else 0, FIRST_COMPLETED).done:
                place, pairs = given.pop(future)
                for pair, value in zip(
                    range(pairs.start, pairs.stop), future.result(), strict=True
                ):
                    yield place, pair, value
    except BrokenProcessPool:
        raise KntraceError(
            "a process that computed distances was killed, or could not start",
            fix="Give fewer workers if the memory was short; in a script, call this under "
            '`if __name__ == "__main__":`.',
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _taken_back(given: dict[Future[list[float]], _Portion]) -> _Portion | None:
    """A portion that was given away and that nobody has begun, if there is one."""
    for future in reversed(given):
        if future.cancel():
            return given.pop(future)
    return None


# What a process computes with, set once as it starts: the sets need not travel with each pair.
_between: list[Between]
_sets: list[Matrix]


def _begin(between: list[Between], sets: list[Matrix]) -> None:
    global _between, _sets
    # Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _between, _sets = between, sets


def _portion(job: int, pairs: Pairs) -> list[float]:
    return [_between[job](_sets[i], _sets[j]) for i, j in pairs]
