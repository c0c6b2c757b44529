"""Changing weights of the down-projections for a while, and putting them back bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from kntrace.models.feedforward import FeedForward, Stack

__all__ = ["Change", "changed", "value_vectors"]


@dataclass(frozen=True)
class Change:
    """New values for what some neurons of one layer write.

    Attributes
    ----------
    layer
        The layer.
    neurons
        (neuron,) which ones; none of them twice.
    values
        (neuron, hidden) their new value vectors, or 0.
    row
        Only this component of each vector is changed; all of them unless given.
    """

    layer: int
    neurons: npt.NDArray[np.int64]
    values: Tensor | float = 0.0
    row: int | None = None


def value_vectors(block: FeedForward) -> Tensor:
    """What each neuron of a layer writes when its activation is 1, (neuron, hidden).

    A view of the weights: what is written into it is written into them.
    """
    weight: Tensor = block.down.weight  # type: ignore[assignment]
    return weight if isinstance(block.down, Conv1D) else weight.T


@contextmanager
def changed(stack: Stack, changes: Sequence[Change]) -> Iterator[None]:
    """Inside the `with`, the weights are changed; afterwards they have every former bit.

    They have them after an exception, too, and if the changes touch one another.
    """
    undo: list[tuple[Tensor, tuple[Any, ...], Tensor]] = []
    try:
        with torch.no_grad():
            for change in changes:
                vectors = value_vectors(stack.layers[change.layer])
                rows = torch.as_tensor(change.neurons, device=vectors.device)
                where = (rows,) if change.row is None else (rows, change.row)
                undo.append((vectors, where, vectors[where].clone()))
                vectors[where] = torch.as_tensor(
                    change.values, device=vectors.device, dtype=vectors.dtype
                )
        yield
    finally:
        with torch.no_grad():
            for vectors, where, former in reversed(undo):
                vectors[where] = former
