"""Several distances of the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from kntrace.distance import find_distance, pairwise_distances, regress_out
from kntrace.progress import Progress

__all__ = ["BASELINE", "corrected", "distance_matrices"]

BASELINE = "probability_curve"


def distance_matrices(
    scores: xr.Dataset, formation: xr.DataArray, names: Sequence[str], progress: Progress
) -> dict[str, xr.DataArray]:
    """Compute distances by name, each from what it needs."""
    return {
        name: pairwise_distances(
            formation if find_distance(name).needs == "formation" else scores,
            name,
            progress=progress,
        )
        for name in names
    }


def corrected(matrices: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """All but the baseline, with the baseline's ranks regressed out."""
    found = [
        regress_out(matrix, matrices[BASELINE])
        for name, matrix in matrices.items()
        if name != BASELINE
    ]
    return {str(matrix.attrs["distance"]): matrix for matrix in found}
