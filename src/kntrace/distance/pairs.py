"""Something computed for many pairs of words, in this process or in several."""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from kntrace.distance.base import Matrix
from kntrace.errors import AnalysisError, KntraceError
from kntrace.progress import Progress

__all__ = ["Between", "Pair", "measure_pairs"]

Pair = tuple[int, int]
Between = Callable[[Matrix, Matrix], float]

# Below so many comparisons of two neurons, all pairs together, sharing the work does not pay
# for starting processes: about ten seconds on one core.
_WORTHWHILE = 200_000_000
# Pairs handed to a process at a time: few, so that all end at about the same moment.
_PORTIONS, _AT_MOST = 16, 8


def measure_pairs(
    between: Between,
    sets: Sequence[Matrix],
    pairs: Sequence[Pair],
    names: Sequence[str],
    *,
    stage: str,
    progress: Progress,
    workers: int = 1,
) -> list[float]:
    """Compute `between(sets[i], sets[j])` for every pair (i, j).

    Parameters
    ----------
    between
        Must be found by its name from another process (no lambda) if there are workers.
    sets, names
        One entry a word.
    pairs
        What to compute.
    stage, progress
        `progress` is told of the pairs done, under the name `stage`.
    workers
        Processes to compute in. The numbers are the same, bit for bit, whatever it is; where
        the work is too small for a second process to pay, there is none.

    Returns
    -------
    list of float
        In the order of `pairs`.

    Raises
    ------
    AnalysisError
        If `workers` is below one.
    KntraceError
        If a process was killed or could not start; and whatever `between` raises.
    """
    if workers < 1:
        raise AnalysisError(f"{workers} workers", expected="at least one")
    work = sum(len(sets[i]) * len(sets[j]) for i, j in pairs)
    alone = workers == 1 or work < _WORTHWHILE
    steps = _here(between, sets, pairs) if alone else _elsewhere(between, sets, pairs, workers)
    found = [0.0] * len(pairs)
    for done, (place, value) in enumerate(steps):
        i, j = pairs[place]
        progress(stage, done, len(pairs), f"{names[i]} · {names[j]}")
        found[place] = value
    progress(stage, len(pairs), len(pairs))
    return found


def _here(
    between: Between, sets: Sequence[Matrix], pairs: Sequence[Pair]
) -> Iterator[tuple[int, float]]:
    for place, (i, j) in enumerate(pairs):
        yield place, between(sets[i], sets[j])


def _elsewhere(
    between: Between, sets: Sequence[Matrix], pairs: Sequence[Pair], workers: int
) -> Iterator[tuple[int, float]]:
    """Yield the positions of pairs with their values, as processes finish them."""
    portion = max(1, min(_AT_MOST, math.ceil(len(pairs) / (workers * _PORTIONS))))
    places = range(len(pairs))
    portions = [places[start : start + portion] for start in places[::portion]]
    # Spawned, not forked: the caller may have threads, of torch or of a notebook.
    executor = ProcessPoolExecutor(
        min(workers, len(portions)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(between, list(sets)),
    )
    try:
        futures: dict[Future[list[float]], range] = {
            executor.submit(_portion, [pairs[place] for place in chosen]): chosen
            for chosen in portions
        }
        for future in as_completed(futures):
            yield from zip(futures[future], future.result(), strict=True)
    except BrokenProcessPool:
        raise KntraceError(
            "a process that computed distances was killed, or could not start",
            fix="Give fewer workers if the memory was short; in a script, call this under "
            '`if __name__ == "__main__":`.',
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


# What a process computes with, set once as it starts: the sets need not travel with each pair.
_between: Between
_sets: list[Matrix]


def _begin(between: Between, sets: list[Matrix]) -> None:
    global _between, _sets
    # Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _between, _sets = between, sets


def _portion(pairs: list[Pair]) -> list[float]:
    return [_between(_sets[i], _sets[j]) for i, j in pairs]
