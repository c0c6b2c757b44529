"""What one prompt's attribution gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kntrace.notebook import Card, Shown

__all__ = ["Attribution", "mean_of"]

_STRONGEST = 8


@dataclass(frozen=True, repr=False)
class Attribution(Shown):
    """What one prompt's neurons contribute to its answer.

    Attributes
    ----------
    score
        Attribution scores, (layer, neuron), in units of probability.
    gap
        Completeness gap, (layer,): sum of scores minus (probability at the activation minus
        probability at the baseline). How far the integral is from exact.
    probability
        Of the answer, as the model reads the prompt.
    rank
        Of the answer's first token among all tokens; 0 is the most probable.
    activation
        The neurons' values at the last prompt position, (layer, neuron).
    nodes
        Gradients taken along each layer's path, (layer,).
    converged
        Whether each layer's gap is within tolerance, (layer,).
    """

    score: NDArray[np.floating[Any]]
    gap: NDArray[np.floating[Any]]
    probability: float
    rank: int
    activation: NDArray[np.floating[Any]]
    nodes: NDArray[np.integer[Any]]
    converged: NDArray[np.bool_]

    def __repr__(self) -> str:
        layers, width = self.score.shape
        worst = float(np.abs(self.gap).max())
        return (
            f"Attribution({layers} layers x {width} neurons, P(answer) = {self.probability:.4f}, "
            f"rank {self.rank}, largest completeness gap {worst:.1e})"
        )

    def _card(self) -> Card:
        layers, width = self.score.shape
        strongest = np.argsort(-np.abs(self.score), axis=None, kind="stable")[:_STRONGEST]
        return Card(
            "Attribution of one prompt",
            {
                "P(answer)": self.probability,
                "rank": self.rank,
                "layers": layers,
                "neurons in each": width,
                "largest completeness gap": float(np.abs(self.gap).max()),
                "layers converged": int(self.converged.sum()),
            },
            [
                {
                    "layer": int(place) // width,
                    "neuron": int(place) % width,
                    "score": float(self.score.flat[place]),
                    "activation": float(self.activation.flat[place]),
                }
                for place in strongest
            ],
        )


def mean_of(parts: Sequence[Attribution]) -> Attribution:
    """The mean over an answer's tokens; rank and activation are those at the first."""
    if len(parts) == 1:
        return parts[0]
    return Attribution(
        np.mean([part.score for part in parts], axis=0),
        np.mean([part.gap for part in parts], axis=0),
        float(np.mean([part.probability for part in parts])),
        parts[0].rank,
        parts[0].activation,
        np.max([part.nodes for part in parts], axis=0),
        np.all([part.converged for part in parts], axis=0),
    )
