"""Earth mover's distance between two words' sets of formation processes.

Every neuron of a word carries the same mass, and moving it costs the distance between two
formation processes. The minimum is found exactly. For sets of equal size an optimal plan
matches the neurons one to one (the vertices of the doubly stochastic matrices are the
permutations), so that the problem is an assignment.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.spatial.distance import cdist

from kntrace.distance.assignment import GroundCost, best_matching, mean_cost, scaled
from kntrace.distance.base import Matrix, process_sets
from kntrace.distance.pairs import Job, Pairs, all_pairs, measure_pairs
from kntrace.distance.pot import load_pot
from kntrace.errors import AnalysisError, KntraceError
from kntrace.progress import Progress

__all__ = ["EarthMover", "GroundCost", "earth_movers_distance", "lower_bound"]

_PIVOTS = 50_000_000
# Pairs that are timed to say how long all of them will take, and for how long.
_TIMED, _LONG_ENOUGH = 8, 2.0
# How many times as long as a distance a proof of it takes, or thereabouts.
_PROOF = 6
# A found optimum may lie above its proven lower bound by this much of itself, and by this much
# of the dearest move, in whose rounding the bound is known.
_SLACK, _ROUNDING = 1e-6, 1e-12


@dataclass(frozen=True)
class EarthMover:
    """Exact earth mover's distance with uniform weights (Rubner et al. 1998; NLP2025, eq. 6-7).

    Attributes
    ----------
    name, description, unit, metric
        See `kntrace.distance.FormationDistance`. With the Euclidean ground cost it is the
        Wasserstein distance of order one, a metric; with the squared one (the choice of the
        paper's public code, there on scores times 1e6) the triangle inequality fails, and
        holds for its root, the Wasserstein distance of order two.
    ground
        Cost of moving one formation process to another: `sqeuclidean` or `euclidean`.
    scale
        By what the scores are multiplied first.
    single
        Whether the distance is rounded to float32 in the end.
    root
        Take the square root of the least mean cost.
    per_probability
        Divide the scores by the word's P(answer) at every checkpoint before: what share of
        the probability each neuron contributes, however well the word is known by then.
    proved
        Share of the pairs (and one at least) whose optimum is proved by duality.

    Notes
    -----
    For W words, W (W - 1) / 2 problems of size k, each of order k^3 at worst and mostly much
    less: about 40 ms on one core for k = 1,000 and 20 checkpoints. A proof solves its problem
    a second time, by the network simplex.
    """

    name: str
    description: str
    unit: str
    metric: bool
    ground: GroundCost
    scale: float = 1.0
    single: bool = False
    root: bool = False
    per_probability: bool = False
    proved: float = 0.01
    needs: Literal["formation"] = "formation"

    def pairwise(self, formation: xr.DataArray, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs of words, in the unit of the scores or its square."""
        sets, names = self._sets(formation), _names(formation)
        job = self._all(len(sets))
        [found] = measure_pairs([job], sets, names, progress=progress, workers=workers)
        return self._matrix(found, job.pairs, len(sets))

    def proved_pairwise(
        self, formation: xr.DataArray, progress: Progress, workers: int = 1
    ) -> tuple[Matrix, dict[str, int | float]]:
        """Distances of all pairs, and a proof by duality that a sample of them are the least.

        A feasible solution of the dual problem, which POT finds, is a lower bound to the cost
        of every plan; a plan of the same cost cannot be bettered.

        Returns
        -------
        matrix : (word, word)
            As of `pairwise`.
        dict
            `pairs`, all there are; `proved`, how many were proved; `largest_gap`, the largest
            distance between cost and bound among them, as a share of the cost.

        Raises
        ------
        KntraceError
            If a distance lies above its bound by more than rounding explains.
        """
        sets, names = self._sets(formation), _names(formation)
        job = self._all(len(sets))
        count = min(len(job.pairs), max(1, math.ceil(self.proved * len(job.pairs))))
        spread = np.linspace(0, len(job.pairs) - 1, count).round().astype(np.int64)
        proof = Job(self._bound, job.pairs[spread], f"{self.name}: proof", _PROOF)
        bounds, found = measure_pairs([proof, job], sets, names, progress=progress, workers=workers)
        matrix = self._matrix(found, job.pairs, len(sets))
        gaps = [0.0]
        for (i, j), bound in zip(proof.pairs, bounds, strict=True):
            cost = float(matrix[i, j]) ** (2 if self.root else 1)
            gaps.append(abs(cost - bound) / cost if cost else 0.0)
            dearest = float(cdist(sets[i], sets[j], self.ground).max())
            if abs(cost - bound) > _SLACK * cost + _ROUNDING * dearest:
                raise KntraceError(
                    f"the distance {self.name!r} is not the least: {cost:.6g}, with a lower "
                    f"bound of {bound:.6g}",
                    where=f"words {names[i]!r} and {names[j]!r}",
                    fix="This is a fault of a solver. Please report it with the run's "
                    "`analysis/formation.zarr`.",
                )
        return matrix, {"pairs": len(job.pairs), "proved": count, "largest_gap": max(gaps)}

    def seconds_a_pair(self, formation: xr.DataArray) -> float:
        """Time some pairs, evenly spread, in this process: 2 seconds or 8 of them at most."""
        names, took = formation["word"].values, 0.0
        pairs = np.stack(np.triu_indices(len(names), 1), axis=1)
        chosen = pairs[np.unique(np.linspace(0, len(pairs) - 1, _TIMED).round().astype(int))]
        for done, pair in enumerate(chosen, 1):
            first, second = self._sets(formation.isel(word=pair))
            if done == 1:
                self._between(first[:2], second[:2])  # nobody's first call is timed
            begun = time.perf_counter()
            self._between(first, second)
            took += time.perf_counter() - begun
            if took > _LONG_ENOUGH:
                break
        return took / done

    def _sets(self, formation: xr.DataArray) -> list[Matrix]:
        """What is compared: one set of vectors a word."""
        sets = process_sets(formation, per_probability=self.per_probability)
        # In order, so that nobody has to sort them again for every pair; one after the other in
        # its place, since there may be gigabytes of them.
        for place, values in enumerate(sets):
            sets[place] = _ordered(values if self.scale == 1 else values * self.scale)
        return sets

    def _all(self, words: int) -> Job:
        return Job(self._between, all_pairs(words), self.name)

    def _matrix(self, found: Matrix, pairs: Pairs, words: int) -> Matrix:
        matrix = np.zeros((words, words))
        matrix[pairs[:, 0], pairs[:, 1]] = found
        return matrix.astype(np.float32).astype(np.float64) if self.single else matrix

    def _between(self, first: Matrix, second: Matrix) -> float:
        cost = _least_cost(first, second, self.ground)
        return math.sqrt(cost) if self.root else cost

    def _bound(self, first: Matrix, second: Matrix) -> float:
        return lower_bound(first, second, self.ground)


def _names(formation: xr.DataArray) -> list[str]:
    return [str(word) for word in formation["word"].values]


def earth_movers_distance(
    first: Matrix, second: Matrix, ground: GroundCost = "sqeuclidean"
) -> float:
    """Least mean cost of moving one set of vectors onto another, all weights being equal.

    Parameters
    ----------
    first, second
        (vector, component): finite numbers; the sets may differ in size.
    ground
        `sqeuclidean` or `euclidean`.

    Returns
    -------
    float
        sum of plan * cost under the best plan; exactly 0 for equal sets in whatever order.

    Raises
    ------
    AnalysisError
        If numbers are so large that a cost is infinite, or if POT, which is used for sets of
        unequal size, does not reach the optimum.

    Notes
    -----
    Equal sizes: `lap.lapjvr` (Jonker and Volgenant 1987), or POT's network simplex where many
    neurons compete for few. Both are exact; which one is used depends on the data alone, never
    on timing. The value is summed from the costs of the plan, not taken from a solver, with a
    sum that is correctly rounded whatever the order of the neurons or words.
    """
    return _least_cost(_ordered(first), _ordered(second), ground)


def _least_cost(first: Matrix, second: Matrix, ground: GroundCost) -> float:
    """Least mean cost between sets in order."""
    if np.array_equal(first, second):
        return 0.0
    if first.shape == second.shape:
        matching = best_matching(first, second, ground)
        if matching is not None:
            rows, columns = matching
            return mean_cost(first[rows], second[columns], ground)
    cost, exponent = _scaled_costs(first, second, ground)
    plan, _ = _network_simplex(cost)
    used = plan > 0
    if first.shape == second.shape and used.sum() == len(first):
        rows, columns = used.nonzero()
        return mean_cost(first[rows], second[columns], ground)
    return math.ldexp(math.fsum(plan[used] * cost[used]), exponent)


def lower_bound(first: Matrix, second: Matrix, ground: GroundCost = "sqeuclidean") -> float:
    """Bound `earth_movers_distance` from below, by a feasible solution of the dual problem.

    The dual: largest mean of u plus mean of v with u_i + v_j <= cost_ij for all i and j. Any u
    and v that obey this bound the cost of every plan; those of the optimum reach it.

    Parameters
    ----------
    first, second, ground
        As for `earth_movers_distance`.

    Notes
    -----
    Where POT's u and v break an inequality by rounding, u is lowered until they do not.
    """
    cost, exponent = _scaled_costs(first, second, ground)
    _, log = _network_simplex(cost)
    u, v = np.asarray(log["u"]), np.asarray(log["v"])
    excess = max(0.0, float((u[:, None] + v - cost).max()))
    return math.ldexp(float(u.mean() + v.mean()) - excess, exponent)


def _scaled_costs(first: Matrix, second: Matrix, ground: GroundCost) -> tuple[Matrix, int]:
    """Cost of every move, scaled, and the power of two that it was divided by."""
    return scaled(cdist(first, second, ground))


def _ordered(vectors: Matrix) -> Matrix:
    """Sort the vectors, so that equal sets become equal arrays."""
    return vectors[np.lexsort(vectors.T)]


def _network_simplex(cost: Matrix) -> tuple[Matrix, dict[str, Any]]:
    """Plan of the least cost, and POT's log, which holds the dual solution."""
    weights = [np.full(size, 1 / size) for size in cost.shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what POT warns of is in its log
        plan, log = load_pot().emd(*weights, cost, numItermax=_PIVOTS, log=True)
    if log["warning"] is not None:
        raise AnalysisError(
            f"the earth mover's distance was not found: {log['warning']}",
            where=f"sets of {cost.shape[0]} and {cost.shape[1]} neurons",
        )
    return np.asarray(plan, dtype=np.float64), log
