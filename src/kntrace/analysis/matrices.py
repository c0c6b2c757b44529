"""Several distances of the same words."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from kntrace.distance import find_distance, pairwise_distances
from kntrace.progress import Progress

__all__ = ["BASELINE", "distance_matrices"]

BASELINE = "probability_curve"


def distance_matrices(
    scores: xr.Dataset,
    formation: xr.DataArray,
    names: Sequence[str],
    progress: Progress,
    workers: int = 1,
) -> dict[str, xr.DataArray]:
    """Compute distances by name, each from what it needs."""
    return {
        name: pairwise_distances(
            formation if find_distance(name).needs == "formation" else scores,
            name,
            progress=progress,
            workers=workers,
        )
        for name in names
    }
