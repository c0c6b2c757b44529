"""Distance that keeps which neuron is which: whose work an answer is, compared between words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kntrace.distance.base import Matrix
from kntrace.progress import Progress
from kntrace.wording import Wording

__all__ = ["NeuronIdentity"]

# A word whose shares differ from the mean word's by less than rounding has no direction.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class NeuronIdentity:
    """Mean over checkpoints of one minus the cosine of two words' shares.

    At every checkpoint a word's mean scores are divided by the sum of their absolute values,
    over all neurons of all layers; from these shares the mean over all words is taken away (if
    `centred`), and what is left of two words is compared by the angle. It uses all neurons, so
    it has no k; how large the scores are, and so how well the word is known, does not enter.

    Attributes
    ----------
    name, description, unit, metric
        See `kntrace.distance.ScoresDistance`. Values lie between 0 and 2.
    centred
        Whether what all words have in common is taken away first. Without that it is the plain
        cosine of the scores.

    Notes
    -----
    Reads the archive once; holds one checkpoint of all words, W x neurons float64. A word
    without any score, or just like the mean word, has no angle: its distance is 1 to every word
    that has one, and 0 to others like it.
    """

    name: str = "identity"
    description: str = "neuron identity: 1 − cosine of centred shares, mean over checkpoints"
    unit: str = ""
    metric: bool = False
    centred: bool = True
    needs: Literal["scores"] = "scores"

    def pairwise(self, view: Wording, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs of words, without unit; `workers` are not needed."""
        labels = view.checkpoints
        total = np.zeros((len(view.words), len(view.words)))
        for checkpoint, label in enumerate(labels):
            progress(self.name, checkpoint, len(labels), label)
            rows = [view.mean(checkpoint, word).ravel() for word in range(len(view.words))]
            total += _one_minus_cosine(_directions(np.stack(rows), self.centred))
        progress(self.name, len(labels), len(labels))
        return total / len(labels)


def _directions(scores: Matrix, centred: bool) -> Matrix:
    """Unit vectors of the words' shares, about the mean share or not; zero where there is none."""
    shares = _divided(scores, np.abs(scores).sum(axis=1), floor=0.0)
    size = np.linalg.norm(shares, axis=1).max()
    vectors = shares - shares.mean(axis=0) if centred else shares
    return _divided(vectors, np.linalg.norm(vectors, axis=1), floor=_ROUNDING * float(size))


def _divided(rows: Matrix, by: Matrix, *, floor: float) -> Matrix:
    usable = by > floor
    divided: Matrix = np.where(usable, 1 / np.where(usable, by, 1.0), 0.0)[:, None] * rows
    return divided


def _one_minus_cosine(unit: Matrix) -> Matrix:
    flat = ~unit.any(axis=1)
    distances: Matrix = 1 - unit @ unit.T
    distances[np.ix_(flat, flat)] = 0.0
    # Rounding may carry equal directions below zero.
    return np.clip(distances, 0.0, 2.0)
