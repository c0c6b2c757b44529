"""Earth mover's distance between two words' sets of formation processes.

Every neuron of a word carries the same mass, and moving it costs the distance between two
formation processes. The minimum is found exactly. For sets of equal size an optimal plan
matches the neurons one to one (the vertices of the doubly stochastic matrices are the
permutations), so that the problem is an assignment.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from dataclasses import dataclass
from itertools import combinations
from types import ModuleType
from typing import Literal

import lap
import numpy as np
import xarray as xr
from scipy.spatial.distance import cdist

from kntrace.distance.base import Matrix, process_sets
from kntrace.errors import AnalysisError
from kntrace.progress import Progress

__all__ = ["EarthMover", "GroundCost", "earth_movers_distance"]

GroundCost = Literal["sqeuclidean", "euclidean"]

# Share of rows left without a column by a first greedy pass, above which Jonker-Volgenant has
# so many augmenting paths to search that the network simplex is faster. Measured with 1,000
# neurons x 20 checkpoints: below, 10-100 ms against 40-200; above, 50-500 ms against 25-160.
_CONTENDED = 0.6
_PIVOTS = 50_000_000


@dataclass(frozen=True)
class EarthMover:
    """Exact earth mover's distance with uniform weights (Rubner et al. 1998; NLP2025, eq. 6-7).

    Attributes
    ----------
    name, description, unit, metric
        See `kntrace.distance.FormationDistance`. With the Euclidean ground cost it is the
        Wasserstein distance of order one, a metric; with the squared one (the choice of the
        paper's public code, there on scores times 1e6) the triangle inequality fails.
    ground
        Cost of moving one formation process to another: `sqeuclidean` or `euclidean`.
    scale
        By what the scores are multiplied first.
    single
        Whether the distance is rounded to float32 in the end.

    Notes
    -----
    For W words, W (W - 1) / 2 problems of size k, each of order k^3 at worst and mostly much
    less: about 40 ms on one core for k = 1,000 and 20 checkpoints.
    """

    name: str
    description: str
    unit: str
    metric: bool
    ground: GroundCost
    scale: float = 1.0
    single: bool = False
    needs: Literal["formation"] = "formation"

    def pairwise(self, formation: xr.DataArray, progress: Progress) -> Matrix:
        """Distances of all pairs of words, in the unit of the scores or its square."""
        sets = [values * self.scale for values in process_sets(formation)]
        names = [str(word) for word in formation["word"].values]
        pairs = list(combinations(range(len(sets)), 2))
        matrix = np.zeros((len(sets), len(sets)))
        for done, (i, j) in enumerate(pairs):
            progress(self.name, done, len(pairs), f"{names[i]} · {names[j]}")
            matrix[i, j] = earth_movers_distance(sets[i], sets[j], self.ground)
        progress(self.name, len(pairs), len(pairs))
        return matrix.astype(np.float32).astype(np.float64) if self.single else matrix


def earth_movers_distance(
    first: Matrix, second: Matrix, ground: GroundCost = "sqeuclidean"
) -> float:
    """Least mean cost of moving one set of vectors onto another, all weights being equal.

    Parameters
    ----------
    first, second
        (vector, component): finite float64; the sets may differ in size.
    ground
        `sqeuclidean` or `euclidean`.

    Returns
    -------
    float
        sum of plan * cost under the best plan; exactly 0 for equal sets in whatever order.

    Raises
    ------
    AnalysisError
        If POT, which is used for sets of unequal size, does not reach the optimum.

    Notes
    -----
    Equal sizes: `lap.lapjvr` (Jonker and Volgenant 1987), or POT's network simplex where many
    neurons compete for few. Both are exact; which one is used depends on the data alone, never
    on timing. The value is summed from the costs of the plan, not taken from a solver, with a
    sum that is correctly rounded whatever the order of the neurons or words.
    """
    if first.shape == second.shape and np.array_equal(_ordered(first), _ordered(second)):
        return 0.0
    cost = cdist(first, second, ground)
    # Solvers compare with absolute tolerances, and squared scores may be as small as 1e-20.
    # A power of two scales without rounding.
    scaled = np.ldexp(cost, -math.frexp(cost.max())[1])
    if first.shape == second.shape and _contention(scaled) <= _CONTENDED:
        rows, columns = lap.lapjvr(scaled, return_cost=False)
        return math.fsum(cost[rows, columns]) / len(rows)
    plan = _network_simplex(scaled)
    used = plan > 0
    if first.shape == second.shape and used.sum() == len(first):
        return math.fsum(cost[used]) / len(first)
    return math.fsum(plan[used] * cost[used])


def _ordered(vectors: Matrix) -> Matrix:
    """Sort the vectors, so that equal sets become equal arrays."""
    return vectors[np.lexsort(vectors.T)]


def _contention(cost: Matrix) -> float:
    """Share of rows that find their best column, after column reduction, taken by another."""
    reduced = cost - cost.min(axis=0)
    return 1 - np.unique(reduced.argmin(axis=1)).size / len(cost)


def _network_simplex(cost: Matrix) -> Matrix:
    weights = [np.full(size, 1 / size) for size in cost.shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what POT warns of is in its log
        plan, log = _pot().emd(*weights, cost, numItermax=_PIVOTS, log=True)
    if log["warning"] is not None:
        raise AnalysisError(
            f"the earth mover's distance was not found: {log['warning']}",
            where=f"sets of {cost.shape[0]} and {cost.shape[1]} neurons",
        )
    return np.asarray(plan, dtype=np.float64)


def _pot() -> ModuleType:
    """Import POT without the array libraries that it would load because they are installed."""
    if "ot" in sys.modules:
        return sys.modules["ot"]
    switches = {
        f"POT_BACKEND_DISABLE_{library}": "1"
        for library in ("PYTORCH", "JAX", "TENSORFLOW", "CUPY")
    }
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    try:
        import ot
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    module: ModuleType = ot
    return module
