"""Which neuron of one word goes to which of another, so that all moves together cost the least.

The method is Jonker and Volgenant's (1987), from `lap`. How long it takes depends on how many
rows find their best column taken; of costs that have the same best matching, those with the
fewest such rows are given to it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import lap
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from kntrace.distance.base import Matrix
from kntrace.errors import AnalysisError

__all__ = ["GroundCost", "best_matching", "mean_cost", "scaled"]

GroundCost = Literal["sqeuclidean", "euclidean"]
_Places = npt.NDArray[np.integer[Any]]

# The budget of the method, which cannot be stopped: share of rows left without a column by a
# first greedy pass, above which it has so many augmenting paths to search that the network
# simplex is faster. Measured with 1,000 neurons x 20 checkpoints: at 0.3 to 0.5, 40-120 ms
# against 100-190; at 0.7, 180 ms against 170; at 0.8, 280 ms against 140; of a grown run's 740,
# at 0.6, 50 ms against 80-130. Unlike a clock, it depends on the data alone.
_CONTENDED = 0.7
# Of so few neurons, starting the network simplex takes longer than any search for paths.
_FEW = 40
# Directions in which a set hardly spreads are taken to spread this share of its widest one.
_NARROWEST = 1e-9
# A reformulation whose costs are larger by more powers of two would be known less well.
_LARGER = 4
# Rows that are worked on at a time.
_AT_A_TIME = 64


def best_matching(
    first: Matrix, second: Matrix, ground: GroundCost
) -> tuple[_Places, _Places] | None:
    """Rows of `first` and of `second` that belong together, or None where they are contended.

    Parameters
    ----------
    first, second
        (vector, component), equally many of both.
    ground
        Cost of moving one vector to another.

    Raises
    ------
    AnalysisError
        If numbers are so large that a cost is infinite.

    Notes
    -----
    Costs are known to about 1e-15 of the dearest, and so is the least mean of them.
    """
    # A power of two changes no digit, and keeps products of products within bounds.
    exponent = math.frexp(float(max(np.abs(first).max(), np.abs(second).max())))[1]
    first, second = np.ldexp(first, -exponent), np.ldexp(second, -exponent)
    cost, size = scaled(_costs(first, second, ground))
    if len(first) > _FEW:
        contention = _contention(cost)
        if ground == "sqeuclidean":
            alike, larger = scaled(_costs(*_spread_alike(first, second), ground))
            if larger <= size + _LARGER and (less := _contention(alike)) < contention:
                cost, contention = alike, less
        if contention > _CONTENDED:
            return None
    rows, columns = lap.lapjvr(cost, return_cost=False)
    return rows, columns


def scaled(cost: Matrix) -> tuple[Matrix, int]:
    """Bring costs to at most 1, in their own memory; and the power of two they were divided by.

    Solvers compare with absolute tolerances, and squared scores may be as small as 1e-20.
    A power of two scales without rounding.

    Raises
    ------
    AnalysisError
        If a cost is infinite, or none.
    """
    exponent = math.frexp(_finite(float(cost.max())))[1]
    return np.ldexp(cost, -exponent, out=cost), exponent


def _finite(largest: float) -> float:
    if not math.isfinite(largest):
        raise AnalysisError(
            "numbers too large to compare", expected="vectors whose distances are finite"
        )
    return largest


def mean_cost(first: Matrix, second: Matrix, ground: GroundCost) -> float:
    """Mean cost of moving each vector to that of the same place, whatever the order of places."""
    with np.errstate(over="ignore"):
        squares = ((first - second) ** 2).sum(axis=1)
    costs = np.sqrt(squares) if ground == "euclidean" else squares
    _finite(float(costs.max()))
    return math.fsum(costs) / len(first)


def _costs(first: Matrix, second: Matrix, ground: GroundCost) -> Matrix:
    """Cost of every move; squared ones by a matrix product, in a quarter of `cdist`'s time."""
    if ground == "euclidean":
        return cdist(first, second, ground)
    # Far from zero the product would lose what is near together; a common shift costs nothing.
    middle = (first.mean(axis=0) + second.mean(axis=0)) / 2
    first, second = first - middle, second - middle
    lengths = [np.einsum("ij,ij->i", vectors, vectors) for vectors in (first, second)]
    first *= -2
    cost = np.empty((len(first), len(second)))
    for some in _rows(cost):
        np.matmul(first[some], second.T, out=cost[some])
        cost[some] += lengths[0][some, None]
        cost[some] += lengths[1]
    return cost


def _rows(cost: Matrix) -> list[slice]:
    """A few rows after the other, that a core's own cache holds: the whole passes it by."""
    return [slice(start, start + _AT_A_TIME) for start in range(0, len(cost), _AT_A_TIME)]


def _spread_alike(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Move and stretch both sets so that they spread alike and are matched best as before.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, and what speaks of x or y alone is paid by every
    matching. So x and y may be moved, and replaced by R x and inverse(R) y, for any symmetric
    R. With R^2 the map that takes a normal distribution of the first set's covariance to one
    of the second's at the least cost (Knott and Smith 1984), both then have the same
    covariance, and most vectors a neighbour of their own.
    """
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    spread = _power(first.T @ first, 0.5)
    shrink = _power(first.T @ first, -0.5)
    onto = shrink @ _power(spread @ (second.T @ second) @ spread, 0.5) @ shrink
    return first @ _power(onto, 0.5), second @ _power(onto, -0.5)


def _power(matrix: Matrix, power: float) -> Matrix:
    """Power of a positive semidefinite matrix whose least eigenvalues are lifted a little."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    largest = values[-1]
    if largest <= 0:
        return np.eye(len(matrix))
    lifted: Matrix = (vectors * np.maximum(values, largest * _NARROWEST) ** power) @ vectors.T
    return lifted


def _contention(cost: Matrix) -> float:
    """Share of rows that find their best column, after column reduction, taken by another."""
    least = cost.min(axis=0)
    best = [(cost[some] - least).argmin(axis=1) for some in _rows(cost)]
    return 1 - np.unique(np.concatenate(best)).size / len(cost)
