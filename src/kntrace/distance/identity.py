"""Distance that keeps which neuron is which: whose work an answer is, compared between words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kntrace.distance.base import Matrix
from kntrace.distance.rows import Rows
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
    Reads the archive once. Of one checkpoint of all words, W x neurons float64, it holds no
    more than 128 MB; what is more is in a temporary file. A run that has kept only some neurons
    has kept these distances too, and they are read. A word without any score, or just like the
    mean word, has no angle: its distance is 1 to every word that has one, and 0 to others like it.
    """

    name: str = "identity"
    description: str = "neuron identity: 1 − cosine of centred shares, mean over checkpoints"
    unit: str = ""
    metric: bool = False
    centred: bool = True
    needs: Literal["scores"] = "scores"

    def pairwise(self, view: Wording, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs of words, without unit; `workers` are not needed."""
        if view.top is not None:
            return view.distances(self.name)
        labels, words = view.checkpoints, len(view.words)
        total = np.zeros((words, words))
        neurons = view.scores.sizes["layer"] * view.scores.sizes["neuron"]
        with Rows(words, neurons) as shares:
            for checkpoint, label in enumerate(labels):
                progress(self.name, checkpoint, len(labels), label)
                largest = 0.0
                for word in range(words):
                    share = _shares(view.mean(checkpoint, word).ravel())
                    largest = max(largest, float(np.linalg.norm(share)))
                    shares.put(word, share)
                total += _one_minus_cosine(shares, self.centred, _ROUNDING * largest)
        progress(self.name, len(labels), len(labels))
        return total / len(labels)


def _shares(scores: Matrix) -> Matrix:
    """Scores over the sum of their sizes; zero throughout where they are."""
    by = np.abs(scores).sum()
    shares: Matrix = scores / by if by > 0 else np.zeros_like(scores)
    return shares


def _one_minus_cosine(rows: Rows, centred: bool, floor: float) -> Matrix:
    """Of the angles between rows, about the mean row or not; those up to `floor` have none."""
    products: Matrix | float = 0.0
    for slab in rows.slabs():
        if centred:
            slab -= slab.mean(axis=0)
        products = products + slab @ slab.T
    inner = np.asarray(products)
    lengths = np.sqrt(np.diag(inner))
    flat = lengths <= floor
    by = np.where(flat, 0.0, 1 / np.where(flat, 1.0, lengths))
    distances: Matrix = 1 - by[:, None] * inner * by
    distances[np.ix_(flat, flat)] = 0.0
    # Rounding may carry equal directions below zero.
    return np.clip(distances, 0.0, 2.0)
