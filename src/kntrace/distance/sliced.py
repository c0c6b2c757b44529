"""Sliced Wasserstein distance: transport along many lines, for sets too large to match."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import xarray as xr
from scipy.spatial.distance import cdist

from kntrace.distance.base import Matrix, process_sets
from kntrace.distance.pot import load_pot
from kntrace.errors import AnalysisError
from kntrace.progress import Progress

__all__ = ["SlicedWasserstein", "squared_on_a_line"]


@dataclass(frozen=True)
class SlicedWasserstein:
    """Sliced Wasserstein distance of order two (Rabin et al. 2011), by random directions.

    The formation processes are projected onto a random direction of checkpoint space; on a line
    the best transport matches the n-th smallest with the n-th smallest. The distance is the root
    mean square over directions of the distance on the line. The directions are the same for all
    pairs, so that it obeys the triangle inequality and comparisons between pairs do not suffer
    from their choice; on average over directions it is at most the Wasserstein distance of order
    two over the square root of the number of checkpoints.

    Attributes
    ----------
    name, description, unit, metric
        See `kntrace.distance.FormationDistance`.
    projections
        Number of directions.
    seed
        That the directions are drawn with.

    Notes
    -----
    Cost: for W words, W x `projections` sorts of k numbers, and W² k additions a projection;
    memory W x k. That is k log k where the exact distance needs up to k³.
    """

    name: str = "sliced"
    description: str = "sliced Wasserstein distance of order 2, for very large k"
    unit: str = "probability"
    metric: bool = True
    projections: int = 200
    seed: int = 0
    needs: Literal["formation"] = "formation"

    def pairwise(self, formation: xr.DataArray, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs of words, in units of the scores; `workers` are not needed."""
        if self.projections < 1:
            raise AnalysisError(f"{self.projections} projections", expected="at least one")
        # In an order of their own, so that equal sets are equal to the last bit.
        sets = [vectors[np.lexsort(vectors.T)] for vectors in process_sets(formation)]
        # Squares of scores may be too small for floating point; a power of two loses nothing.
        power = math.frexp(max(float(np.abs(vectors).max()) for vectors in sets))[1]
        sets = [np.ldexp(vectors, -power) for vectors in sets]
        draw = load_pot().sliced.get_random_projections
        directions = draw(sets[0].shape[1], self.projections, seed=self.seed).T
        total = np.zeros((len(sets), len(sets)))
        for done, direction in enumerate(directions):
            progress(self.name, done, len(directions))
            # Not a matrix product, whose rounding may depend on where a row stands.
            total += squared_on_a_line([np.sort((v * direction).sum(axis=1)) for v in sets])
        progress(self.name, len(directions), len(directions))
        root: Matrix = np.ldexp(np.sqrt(total / len(directions)), power)
        return root


def squared_on_a_line(rows: list[Matrix]) -> Matrix:
    """Squared Wasserstein distances of order two between sorted sets of numbers."""
    if len({len(row) for row in rows}) == 1:
        stacked = np.stack(rows)
        distances: Matrix = cdist(stacked, stacked, "sqeuclidean") / stacked.shape[1]
        return distances
    matrix = np.zeros((len(rows), len(rows)))
    on_a_line = load_pot().wasserstein_1d
    for i, j in combinations(range(len(rows)), 2):
        matrix[i, j] = on_a_line(rows[i], rows[j], p=2, require_sort=False)
    return matrix
