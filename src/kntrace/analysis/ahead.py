"""How long the exact distances of all pairs will take, before they are begun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb

import xarray as xr

from kntrace.distance import EarthMover, find_distance
from kntrace.progress import duration

__all__ = ["long_distances"]

# Comparisons of two neurons, all pairs together, below which nothing is timed: ten seconds.
_WORTHWHILE = 200_000_000
_LONG = 60.0


def long_distances(
    formation: xr.DataArray, names: Sequence[str], workers: int = 1
) -> Iterator[str]:
    """Say of each distance that will take more than a minute how long, from some timed pairs."""
    words, k, checkpoints = (formation.sizes[dim] for dim in ("word", "rank", "checkpoint"))
    pairs = comb(words, 2)
    if pairs * k**2 < _WORTHWHILE:
        return
    for distance in map(find_distance, names):
        if not isinstance(distance, EarthMover):
            continue
        each = distance.seconds_a_pair(formation)
        whole = each * pairs * (1 + distance.proved) / workers
        if whole > _LONG:
            yield (
                f"{distance.name}: {pairs:,} pairs of {k:,} neurons x {checkpoints} checkpoints, "
                f"{1 / each:.3g} a second: about {duration(whole)} in {workers} "
                f"process{'es' if workers > 1 else ''}. --distance emd_bound takes a small part "
                "of that, with a stated error"
            )
