"""Equation 3 of the paper read literally: what the objective loses without one neuron.

Scaling neuron i alone, with all others as they are, the path integral telescopes: it is exactly
the objective as it is minus the objective with that neuron at its baseline. Each neuron is one
row of the same replay, without gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kntrace.attribution.integrate import Memory
from kntrace.attribution.replays import Recording, Replay, Rows

__all__ = ["ablate"]


def ablate(
    replay: Replay, recording: Recording, layer: Tensor, neuron: Tensor, memory: Memory
) -> Tensor:
    """Set single neurons to zero, one at a time, for every prompt of a recording.

    Parameters
    ----------
    layer, neuron
        Which neurons, (neuron,) each, in any order.

    Returns
    -------
    Tensor
        (prompt, neuron), float64: the objective as it is minus the objective without the
        neuron; positive where the neuron helps.

    Notes
    -----
    Cost: one one-token forward pass from the neuron's layer upward per neuron and prompt.
    """
    prompts, layers, _ = recording.activation.shape
    order = torch.argsort(layer, stable=True)
    layer, neuron = layer[order], neuron[order]
    lost = torch.empty(prompts, len(layer), dtype=torch.float64, device=recording.activation.device)
    for index in range(prompts):
        for some in memory.split(layer, layers):
            value = recording.activation[index, layer[some]].clone()
            value[torch.arange(len(value), device=value.device), neuron[some]] = 0
            rows = Rows(torch.full_like(layer[some], index), layer[some], value)
            without = replay.evaluate(recording, rows, gradient=False).objective
            lost[index, order[some]] = recording.objective[index] - without
    return lost
