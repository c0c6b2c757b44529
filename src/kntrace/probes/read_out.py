"""What a neuron writes, read as tokens: its value vector through the end of the model.

A layer adds to the residual stream the sum of its neurons' value vectors (the columns of the
down-projection), each times the neuron's activation. Taken alone through the final norm and the
unembedding, a value vector says which tokens the neuron would promote if nothing came after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kntrace.models.feedforward import Stack
from kntrace.models.tail import tail_of
from kntrace.probes.surgery import value_vectors

__all__ = ["ReadOut", "read_out"]

# Rows of logits in the works at once.
_AT_ONCE = 256


@dataclass(frozen=True)
class ReadOut:
    """What `read_out` found; of every neuron first as it is, then times minus one.

    Attributes
    ----------
    below
        (neuron, sign, token): share of all other tokens that lie below the token asked for,
        0.5 by chance; ties count half.
    top
        (neuron, sign, place): the tokens with the largest logits.
    """

    below: npt.NDArray[np.float32]
    top: npt.NDArray[np.int64]


def read_out(
    model: Any,
    stack: Stack,
    neurons: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
    top: int,
    vocabulary: int,
) -> ReadOut:
    """Read neurons' value vectors through the final norm and the unembedding.

    The logits are those that the end of the model itself gives for the vector, less those that
    it gives for no vector at all: what biases prefer is no neuron's doing.

    Parameters
    ----------
    neurons
        (neuron,), counted through all layers: layer * width + neuron.
    tokens
        (token,) whose places among all tokens are asked for.
    top
        How many of the largest to give.
    vocabulary
        Tokens from this one on are rows of the unembedding that stand for nothing.

    Notes
    -----
    Cost: two products of a vector with the unembedding a neuron. In families that norm what a
    layer writes before adding it (Gemma 2, OLMo 2) the vector is read as it was before that.

    References
    ----------
    Geva et al. 2021, 2022.
    """
    below = np.empty((len(neurons), 2, len(tokens)), dtype=np.float32)
    best = np.empty((len(neurons), 2, min(top, vocabulary)), dtype=np.int64)
    layers, columns = np.divmod(neurons, stack.width)
    vectors = [value_vectors(block).detach() for block in stack]
    asked = torch.as_tensor(tokens, device=vectors[0].device)
    with tail_of(model) as tail:
        nothing = tail(torch.zeros_like(vectors[0][:1]))[:, :vocabulary]
        for start in range(0, len(neurons), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(neurons)))
            rows = torch.stack([vectors[layers[place]][columns[place]] for place in some])
            for sign, times in enumerate((1, -1)):
                logits = tail(times * rows)[:, :vocabulary] - nothing
                below[start : some.stop, sign] = _below(logits, asked).cpu().numpy()
                best[start : some.stop, sign] = logits.topk(best.shape[-1]).indices.cpu().numpy()
    return ReadOut(below, best)


def _below(logits: Tensor, tokens: Tensor) -> Tensor:
    """Share of the other tokens below each of `tokens`, (row, token)."""
    ordered = logits.sort(dim=1).values
    chosen = logits[:, tokens].contiguous()
    lower = torch.searchsorted(ordered, chosen, side="left")
    upper = torch.searchsorted(ordered, chosen, side="right")
    # The token itself is among the equal ones.
    return (lower + (upper - lower - 1) / 2) / max(logits.shape[1] - 1, 1)
