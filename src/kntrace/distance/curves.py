"""The baseline: distance between two words' curves of the answer's probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kntrace.distance.base import Matrix
from kntrace.progress import Progress
from kntrace.wording import Wording

__all__ = ["ProbabilityCurve"]


@dataclass(frozen=True)
class ProbabilityCurve:
    """Squared Euclidean distance of the curves of P(answer), mean over prompts.

    It knows nothing of neurons, only when a word is learnt and how well. What another distance
    shows beyond this one is what neurons have to do with it.

    Attributes
    ----------
    name, description, unit, metric
        See `kntrace.distance.ScoresDistance`.
    """

    name: str = "probability_curve"
    description: str = "baseline: squared distance of the curves of P(answer)"
    unit: str = "probability²"
    metric: bool = False
    needs: Literal["scores"] = "scores"

    def pairwise(self, view: Wording, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs, in units of probability squared; `workers` are not needed."""
        curves = view.probability().values
        difference = curves[:, :, None] - curves[:, None, :]
        progress(self.name, 1, 1)
        matrix: Matrix = np.square(difference).sum(axis=0)
        return matrix
