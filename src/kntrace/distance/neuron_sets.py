"""Distance of the sets of knowledge neurons: how many two words have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from kntrace.distance.base import Matrix, process_sets
from kntrace.errors import AnalysisError
from kntrace.progress import Progress

__all__ = ["NeuronSets"]


@dataclass(frozen=True)
class NeuronSets:
    """One minus Jaccard's index: the share of two words' knowledge neurons that only one has.

    It knows which neurons were chosen, at the last checkpoint, and nothing of their scores. A
    metric (Jaccard's distance obeys the triangle inequality).

    Attributes
    ----------
    name, description, unit, metric
        See `kntrace.distance.FormationDistance`. Values lie between 0 and 1.

    Notes
    -----
    Cost: one intersection of two sets of k numbers a pair.
    """

    name: str = "jaccard"
    description: str = "knowledge neurons not in common, as a share of those of both words"
    unit: str = ""
    metric: bool = True
    needs: Literal["formation"] = "formation"

    def pairwise(self, formation: xr.DataArray, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs of words, without unit; `workers` are not needed."""
        if not {"layer", "neuron"} <= set(formation.coords):
            raise AnalysisError(
                "formation processes that do not say of which neurons they are",
                expected="coordinates `layer` and `neuron`, as kntrace.formation_processes gives",
            )
        process_sets(formation)  # a number that is none is refused here as everywhere
        layer = formation["layer"].transpose("word", "rank").values
        neuron = formation["neuron"].transpose("word", "rank").values
        sets = [
            {(int(i), int(j)) for i, j in zip(*row, strict=True) if i >= 0}
            for row in zip(layer, neuron, strict=True)
        ]
        matrix = np.zeros((len(sets), len(sets)))
        for i, j in zip(*np.triu_indices(len(sets), 1), strict=True):
            matrix[i, j] = len(sets[i] ^ sets[j]) / len(sets[i] | sets[j])
        progress(self.name, 1, 1)
        return matrix
