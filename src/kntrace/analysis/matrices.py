"""Several distances of the same words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import xarray as xr

from kntrace.distance import find_distance, pairwise_distances
from kntrace.progress import Progress

__all__ = ["BASELINE", "bound_errors", "distance_matrices"]

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


def bound_errors(matrices: Mapping[str, xr.DataArray]) -> Iterator[str]:
    """Say of every distance that only bounds another how far its ranks can be trusted."""
    for name, matrix in matrices.items():
        said = matrix.attrs
        if "checked" not in said:
            continue
        ranks = (
            f", ranks correlate {said['rank_correlation']:.4f}"
            if "rank_correlation" in said
            else ""
        )
        auc = (
            f", AUC {said['auc_error']:+.4f} ± {said['auc_error_se']:.4f} apart"
            if "auc_error" in said
            else ""
        )
        yield (
            f"{name}: {said['checked']} of {said['pairs']:,} pairs were computed exactly as well: "
            f"the bound is {said['share']:.0%} of the distance in the median{ranks}{auc}"
        )
