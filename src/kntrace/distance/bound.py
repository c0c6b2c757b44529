"""A lower bound of the earth mover's distance, for more pairs than can be solved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.fft import dct
from scipy.stats import spearmanr

from kntrace.distance.base import Matrix, process_sets
from kntrace.distance.pairs import Job, Pairs, measure_pairs
from kntrace.distance.sliced import squared_on_a_line
from kntrace.distance.transport import earth_movers_distance
from kntrace.errors import AnalysisError, KntraceError
from kntrace.progress import Progress

__all__ = ["EarthMoverBound"]

# By rounding alone a bound may lie above by this much of the exact distance.
_SLACK = 1e-9


@dataclass(frozen=True)
class EarthMoverBound:
    """Lower bound of the earth mover's distance with squared Euclidean cost, and its error.

    The components of formation processes along any orthonormal basis of checkpoint space share
    out their squared distances. So the best transport of all components together costs at least
    the sum over components of what the best transport of each one costs by itself; and on a line
    that is known at once, matching the n-th smallest with the n-th smallest. The basis is that
    of the discrete cosine transform, in which smooth curves have few large components, and which
    does not depend on the data.

    Attributes
    ----------
    name, description, unit, metric
        See `kntrace.distance.FormationDistance`.
    checked
        Pairs whose exact distance is computed as well (half of them of one group where there are
        groups), to say what the bound does to the ranks of pairs.

    Notes
    -----
    Cost for W words and C checkpoints: W x C sorts of k numbers, and W² k additions a
    checkpoint; memory W x k beside the formation processes. The exact distance takes up to k³ a
    pair.
    """

    name: str = "emd_bound"
    description: str = "lower bound of the earth mover's distance, for very many pairs"
    unit: str = "probability²"
    metric: bool = False
    checked: int = 200
    needs: Literal["formation"] = "formation"

    def pairwise(self, formation: xr.DataArray, progress: Progress, workers: int = 1) -> Matrix:
        """Bounds of all pairs of words, in squared units of the scores; `workers` are unneeded."""
        # In an order of their own, so that equal sets are equal to the last bit.
        sets = [vectors[np.lexsort(vectors.T)] for vectors in process_sets(formation)]
        # Squares of scores may be too small for floating point; a power of two loses nothing.
        power = math.frexp(max(float(np.abs(vectors).max()) for vectors in sets))[1]
        basis = dct(np.eye(sets[0].shape[1]), norm="ortho", axis=0)
        total = np.zeros((len(sets), len(sets)))
        for done, direction in enumerate(basis):
            progress(self.name, done, len(basis))
            # Not a matrix product, whose rounding may depend on where a row stands.
            lines = [np.sort((np.ldexp(v, -power) * direction).sum(axis=1)) for v in sets]
            total += squared_on_a_line(lines)
        progress(self.name, len(basis), len(basis))
        bound: Matrix = np.ldexp(total, 2 * power)
        return bound

    def proved_pairwise(
        self, formation: xr.DataArray, progress: Progress, workers: int = 1
    ) -> tuple[Matrix, dict[str, int | float]]:
        """Bounds of all pairs, and how they compare with the exact distances of some.

        Returns
        -------
        matrix : (word, word)
            As of `pairwise`.
        dict
            `pairs`, all there are; `checked`, how many of them were computed exactly;
            `share`, the median of bound over exact; `rank_correlation` (Spearman) between the
            two; and where there are pairs of one group and of two, `auc_error`: AUC by the bound
            less AUC by the exact distance, of the pairs checked, and `auc_error_se`, its
            standard error over these pairs (DeLong et al. 1988).

        Raises
        ------
        KntraceError
            If a bound lies above the exact distance.
        """
        matrix = self.pairwise(formation, progress, workers)
        return matrix, self._check(formation, matrix, progress, workers)

    def _check(
        self, formation: xr.DataArray, matrix: Matrix, progress: Progress, workers: int
    ) -> dict[str, int | float]:
        sets = process_sets(formation)
        names = [str(word) for word in formation["word"].values]
        if len(names) < 2:
            return {"pairs": 0, "checked": 0, "share": 1.0}
        pairs, same = _sample(formation["group"].values, self.checked)
        job = Job(earth_movers_distance, pairs, f"{self.name}: check")
        [exact] = measure_pairs([job], sets, names, progress=progress, workers=workers)
        bound = matrix[pairs[:, 0], pairs[:, 1]]
        for place in np.flatnonzero(bound > exact * (1 + _SLACK)):
            i, j = pairs[place]
            raise KntraceError(
                f"a bound of {bound[place]:.6g} lies above the distance, {exact[place]:.6g}",
                where=f"words {names[i]!r} and {names[j]!r}",
                fix="This is a fault of kntrace. Please report it with the run's "
                "`analysis/formation.zarr`.",
            )
        there = exact > 0
        found: dict[str, int | float] = {
            "pairs": math.comb(len(names), 2),
            "checked": len(pairs),
            "share": float(np.median(bound[there] / exact[there])) if there.any() else 1.0,
        }
        if np.ptp(bound) > 0 and np.ptp(exact) > 0:
            found["rank_correlation"] = float(spearmanr(bound, exact).statistic)
        if min(same.sum(), (~same).sum()) > 1:
            found |= _auc_error(bound, exact, same)
        return found


def _sample(groups: npt.NDArray[np.str_], most: int) -> tuple[Pairs, npt.NDArray[np.bool_]]:
    """Pairs evenly spread over all pairs of one group, and over the others; which are the first."""
    if most < 1:
        raise AnalysisError(f"{most} pairs to check", expected="at least one")
    first, second = np.triu_indices(len(groups), 1)
    same = groups[first] == groups[second]
    chosen: list[np.intp] = []
    within, between = np.flatnonzero(same), np.flatnonzero(~same)
    share = min(len(within), max(most // 2, most - len(between)))
    for places, count in ((within, share), (between, min(len(between), most - share))):
        if count:
            chosen.extend(places[np.linspace(0, len(places) - 1, count).round().astype(int)])
    return np.stack((first[chosen], second[chosen]), axis=1), same[chosen]


def _auc_error(bound: Matrix, exact: Matrix, same: npt.NDArray[np.bool_]) -> dict[str, int | float]:
    """AUC by the bounds less AUC by the exact distances, with a standard error."""
    # What each pair adds to an AUC: the share of pairs of the other kind on its right side.
    parts = [_placements(values, same) for values in (bound, exact)]
    near, far = ((one - other) for one, other in zip(*parts, strict=True))
    variance = near.var(ddof=1) / len(near) + far.var(ddof=1) / len(far)
    return {"auc_error": float(near.mean()), "auc_error_se": math.sqrt(variance)}


def _placements(values: Matrix, same: npt.NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """Of each pair within groups the share of pairs between that lie above, and vice versa."""
    near, far = np.sort(values[same]), np.sort(values[~same])

    def shares(of: Matrix, among: Matrix) -> Matrix:
        below = np.searchsorted(among, of, "left")
        up_to = np.searchsorted(among, of, "right")
        return (below + up_to) / (2 * len(among))

    return 1 - shares(values[same], far), shares(values[~same], near)
