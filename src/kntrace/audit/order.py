"""Checkpoints whose weights lie where no training would bring them at that step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from kntrace.audit.finding import Finding, listed
from kntrace.audit.prints import CheckpointPrint

__all__ = ["out_of_order"]

_FEWEST = 4
# Half as far is far less than noise does: of states that wander about one point, all pairs are
# as far apart, and a state in the middle of them is nearer by a factor of 0.7.
_NEARER = 0.5
# Distances are relative to the size of the weights; below this, rounding may decide.
_LEAST = 0.1
# One later checkpoint that is farther from the last may be the wrong one itself.
_LATER = 2


def out_of_order(
    prints: Sequence[CheckpointPrint], trained: Sequence[str], *, besides: Collection[str] = ()
) -> Iterator[Finding]:
    """Find checkpoints whose weights belong to another time of training.

    Training moves on: two neighbours of a checkpoint are not much nearer to each other than
    they are to it, and an early checkpoint is not much nearer to the last one than later ones
    are. Distances are estimated from a few values of every tensor.

    Parameters
    ----------
    prints
        In the order of training.
    trained
        Names of the tensors to compare.
    besides
        Labels of checkpoints that are known to be wrong already.
    """
    known = [item for item in prints if item.tensors and item.label not in besides]
    last = next((item for item in reversed(prints) if item.tensors), None)
    if last is not None and last not in known:
        known.append(last)
    values = _values(known, trained)
    if len(known) < _FEWEST or not values.shape[1]:
        return
    apart = _distances(values)
    astray = [place for place in range(1, len(known) - 1) if _leaps(apart, place)]
    early = [
        place
        for place in range(len(known) - 2)
        if place not in astray and _near_the_end(apart, place, astray)
    ]
    yield from _told(
        known,
        astray,
        "the weights are far from those of both neighbours, which are near each other: they "
        "seem to be of another time of training, or of another training.",
    )
    yield from _told(
        known,
        early,
        "the weights are less than half as far from the last checkpoint's as those of later "
        "checkpoints: they seem to be of the end of training.",
    )


def _told(known: Sequence[CheckpointPrint], places: Sequence[int], says: str) -> Iterator[Finding]:
    if places:
        labels = tuple(known[place].label for place in places)
        yield Finding("order", "warning", labels, f"{listed(labels)}: {says}")


def _values(known: Sequence[CheckpointPrint], trained: Sequence[str]) -> npt.NDArray[np.float64]:
    """Values of every checkpoint, (checkpoint, value), each tensor's relative to its size."""
    columns = []
    for name in trained:
        samples = [item.tensors[name].sample for item in known if name in item.tensors]
        if len(samples) < len(known) or len({*map(len, samples)}) > 1 or not samples[0]:
            continue
        found = np.array(samples, dtype=np.float64)
        size = np.sqrt(np.mean(found**2))
        if np.isfinite(size) and size > 0:
            columns.append(found / size)
    return np.concatenate(columns, axis=1) if columns else np.empty((len(known), 0))


def _distances(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Root mean square difference of every two rows."""
    square = (values**2).mean(axis=1)
    product = values @ values.T / values.shape[1]
    found: npt.NDArray[np.float64] = square[:, None] + square[None] - 2 * product
    return np.sqrt(np.maximum(found, 0.0))


def _leaps(apart: npt.NDArray[np.float64], place: int) -> bool:
    """Whether both neighbours are far from a checkpoint and near each other."""
    away = min(apart[place - 1, place], apart[place, place + 1])
    return bool(away > _LEAST and apart[place - 1, place + 1] < _NEARER * away)


def _near_the_end(apart: npt.NDArray[np.float64], place: int, astray: Collection[int]) -> bool:
    """Whether several later checkpoints are far from the last one, and this one is not."""
    later = [apart[at, -1] for at in range(place + 1, len(apart) - 1) if at not in astray]
    farther = sum(away > max(_LEAST, apart[place, -1] / _NEARER) for away in later)
    return bool(farther >= _LATER)
