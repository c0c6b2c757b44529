"""Equation 3 of the paper read literally: what the objective loses without one neuron.

Scaling neuron i alone, with all others as they are, the path integral telescopes: it is exactly
the objective as it is minus the objective with that neuron at its baseline. Each neuron is one
row of the same replay, without gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kntrace.attribution.memory import Memory, in_pieces
from kntrace.attribution.precision import exact_dtype
from kntrace.attribution.replays import Recording, Replay
from kntrace.errors import SettingsError

__all__ = ["ablate", "check_neurons"]


def check_neurons(pairs: Tensor, layers: int, width: int) -> None:
    """Raise `SettingsError` if a (layer, neuron) pair, one a row, names no neuron of the model."""
    inside = (pairs >= 0).all(1) & (pairs < torch.tensor([layers, width])).all(1)
    if not bool(inside.all()):
        layer, neuron = pairs[~inside][0].tolist()
        raise SettingsError(
            f"neuron {neuron} of layer {layer}",
            expected=f"layers 0 to {layers - 1} and neurons 0 to {width - 1}",
        )


def ablate(
    replay: Replay,
    recording: Recording,
    layer: Tensor,
    neuron: Tensor,
    baseline: Tensor,
    memory: Memory,
) -> Tensor:
    """Set single neurons to their baseline, one at a time, for every prompt of a recording.

    Parameters
    ----------
    layer, neuron
        Which neurons, (neuron,) each, in any order.
    baseline
        What a neuron is set to, broadcast to (prompt, layer, neuron).

    Returns
    -------
    Tensor
        (prompt, neuron), float64: the objective as it is minus the objective without the
        neuron; positive where the neuron helps.

    Notes
    -----
    Cost: one one-token forward pass from the neuron's layer upward per neuron and prompt.
    """
    device = recording.activation.device
    prompts = len(recording.activation)
    origin = baseline.expand_as(recording.activation)
    order = torch.argsort(layer, stable=True)
    layer, neuron = layer[order], neuron[order]
    lost = torch.empty(prompts, len(layer), dtype=exact_dtype(device), device=device)
    for index in range(prompts):
        prompt = torch.full_like(layer, index)

        def value(some: slice, index: int = index) -> Tensor:
            whole = recording.activation[index, layer[some]].clone()
            rows = torch.arange(len(whole), device=device)
            whole[rows, neuron[some]] = origin[index, layer[some], neuron[some]]
            return whole

        for some, found in in_pieces(
            replay, recording, prompt, layer, value, memory, gradient=False
        ):
            lost[index, order[some]] = recording.objective[index] - found.objective
    return lost
