"""Distances between words, each a small frozen object in a file of its own.

To add one, write the object and enter it in `_KNOWN`; the tests of what every distance must
obey pick it up from there.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from kntrace.distance.base import Distance, FormationDistance, Matrix, Proved, ScoresDistance
from kntrace.distance.bound import EarthMoverBound
from kntrace.distance.corrections import (
    Correction,
    HubCorrection,
    PairCovariate,
    WordCovariate,
    correct,
    regress_out,
)
from kntrace.distance.covariates import read_covariate
from kntrace.distance.curves import ProbabilityCurve
from kntrace.distance.identity import NeuronIdentity
from kntrace.distance.neuron_sets import NeuronSets
from kntrace.distance.sliced import SlicedWasserstein
from kntrace.distance.transport import EarthMover, earth_movers_distance
from kntrace.errors import AnalysisError
from kntrace.labels import between_words
from kntrace.progress import Progress, silent
from kntrace.wording import read_wording

__all__ = [
    "DISTANCES",
    "Correction",
    "Distance",
    "EarthMover",
    "EarthMoverBound",
    "FormationDistance",
    "HubCorrection",
    "NeuronIdentity",
    "NeuronSets",
    "PairCovariate",
    "ProbabilityCurve",
    "Proved",
    "ScoresDistance",
    "SlicedWasserstein",
    "WordCovariate",
    "correct",
    "earth_movers_distance",
    "find_distance",
    "pairwise_distances",
    "read_covariate",
    "regress_out",
]

_KNOWN: tuple[Distance, ...] = (
    EarthMover(
        name="emd",
        description="earth mover's distance, squared Euclidean cost (the paper's)",
        unit="probability²",
        metric=False,
        ground="sqeuclidean",
    ),
    EarthMover(
        name="emd_euclidean",
        description="earth mover's distance, Euclidean cost: Wasserstein's of order 1",
        unit="probability",
        metric=True,
        ground="euclidean",
    ),
    EarthMover(
        name="emd_public_code",
        description="earth mover's distance as in the public code: scores × 10⁶, squared "
        "Euclidean cost, float32",
        unit="(10⁻⁶ probability)²",
        metric=False,
        ground="sqeuclidean",
        scale=1e6,
        single=True,
    ),
    EarthMover(
        name="w2",
        description="root of the paper's distance: Wasserstein's of order 2",
        unit="probability",
        metric=True,
        ground="sqeuclidean",
        root=True,
    ),
    EarthMover(
        name="emd_over_probability",
        description="earth mover's distance of scores over P(answer), squared Euclidean cost",
        unit="",
        metric=False,
        ground="sqeuclidean",
        per_probability=True,
    ),
    EarthMoverBound(),
    SlicedWasserstein(),
    NeuronSets(),
    NeuronIdentity(),
    NeuronIdentity(
        name="cosine",
        description="1 − cosine of all neurons' scores, mean over checkpoints",
        centred=False,
    ),
    ProbabilityCurve(),
)
DISTANCES: dict[str, Distance] = {distance.name: distance for distance in _KNOWN}

# Other names that a reader of the literature may try.
_ALSO_CALLED = {"w1": "emd_euclidean"}


def find_distance(name: str) -> Distance:
    """Look up a distance by its name; raises `AnalysisError` that suggests the nearest name.

    `w1` is another name of `emd_euclidean`.
    """
    name = _ALSO_CALLED.get(name, name)
    if name in DISTANCES:
        return DISTANCES[name]
    raise AnalysisError.unknown("distance", name, (*DISTANCES, *_ALSO_CALLED))


def pairwise_distances(
    data: xr.DataArray | xr.Dataset,
    name: str | Distance = "emd",
    *,
    wording: str | None = None,
    progress: Progress = silent,
    workers: int = 1,
) -> xr.DataArray:
    """Compute the distances between all pairs of words.

    Parameters
    ----------
    data
        What the distance needs: the scores of a run for `identity`, `cosine` and
        `probability_curve`, formation processes (of `formation_processes`) for all others.
    name
        A name in `DISTANCES`, or a distance of your own.
    wording
        The prompts to use where `data` are scores; the study's first wording unless given.
        Formation processes have theirs already.
    progress
        Told of the pairs or checkpoints done, in a stage of the distance's name.
    workers
        Processes that exact earth mover's distances are computed in, where that pays. The
        result is the same, bit for bit, whatever their number.

    Returns
    -------
    xr.DataArray
        (word, other_word) float64, exactly symmetric, zero on the diagonal; coordinates
        `group` and `other_group`; attributes `distance`, `description`, `unit`, `metric`
        and `wording`, of earth mover's distances `pairs`, `proved` and `largest_gap`: how
        many of the optima were proved by duality, and with what gap; and of `emd_bound` what
        `EarthMoverBound.proved_pairwise` found of its error.

    Raises
    ------
    AnalysisError
        If there is no such distance, if it needs other data, or if a value is not a finite
        number; then the word and the checkpoint are named.
    """
    distance = find_distance(name) if isinstance(name, str) else name
    if distance.needs == "formation":
        if not isinstance(data, xr.DataArray):
            raise _other_data(distance, "formation processes, from kntrace.formation_processes")
        used = data.attrs.get("wording")
        if wording is not None and wording != used:
            raise AnalysisError(f"formation processes of the wording {used!r}", expected=wording)
        if isinstance(distance, Proved):
            matrix, proof = distance.proved_pairwise(data, progress, workers)
        else:
            matrix, proof = distance.pairwise(data, progress, workers), {}
    else:
        if not isinstance(data, xr.Dataset):
            raise _other_data(distance, "the scores of a run, such as run.scores")
        view = read_wording(data, wording)
        used = view.name
        matrix, proof = distance.pairwise(view, progress, workers), {}
    attrs = {
        "distance": distance.name,
        "description": distance.description,
        "unit": distance.unit,
        "metric": distance.metric,
        "wording": used,
        **proof,
    }
    return _labelled(matrix, data, attrs)


def _other_data(distance: Distance, expected: str) -> AnalysisError:
    return AnalysisError(
        f"the distance {distance.name!r} was given other data than it needs", expected=expected
    )


def _labelled(
    matrix: Matrix, data: xr.DataArray | xr.Dataset, attrs: dict[str, object]
) -> xr.DataArray:
    """Mirror the upper triangle, so that the result is symmetric to the last bit, and name it."""
    upper = np.triu(matrix, 1)
    words, groups = data["word"].values, data["group"].values
    return between_words(upper + upper.T, words, groups, "distance", attrs)
