"""Integrated gradients of a layer's neurons along the straight path from baseline to activation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kntrace.attribution.memory import Memory, in_pieces
from kntrace.attribution.precision import exact_dtype
from kntrace.attribution.replays import Recording, Replay
from kntrace.attribution.rules import Quadrature

__all__ = ["Integral", "Tolerance", "integrate"]


@dataclass(frozen=True)
class Tolerance:
    """When an integral is good enough.

    Attributes
    ----------
    relative
        Wanted relative error of a layer's scores for one prompt, in the L2 norm.
    safety
        By how much the true error may exceed what the completeness gap says of it. A gap is
        an estimate and no bound: errors of neurons may cancel in it. `tests/test_adaptive.py`
        holds what comes of it against a graded rule of other nodes.
    noise
        Smallest step of the arithmetic; the objective's own rounding cannot be integrated away.
    """

    relative: float
    noise: float
    safety: float = 4.0

    def rounding(self, highest: Tensor) -> Tensor:
        """What rounding alone may make of one gap, with the safety factor.

        Objectives of deep models came out with up to 17 steps of error in float32, measured
        against float64 on six families.

        Parameters
        ----------
        highest
            The largest objective met on the path.
        """
        return highest * (self.safety * 16 * self.noise)

    def wanted(self, score: Tensor) -> Tensor:
        """How large the error of a path's scores (..., neuron) may be."""
        norm: Tensor = score.norm(dim=-1)
        return self.relative * norm


@dataclass(frozen=True)
class Integral:
    """Scores and their check.

    Attributes
    ----------
    score
        (prompt, layer, neuron), float64, in units of the objective.
    gap
        Completeness gap, (prompt, layer): sum of scores minus (objective at the activation
        minus objective at the baseline). An exact integral has none.
    nodes
        Gradients taken, (prompt, layer).
    converged
        Whether the gap is within tolerance, (prompt, layer).
    """

    score: Tensor
    gap: Tensor
    nodes: Tensor
    converged: Tensor


def integrate(
    replay: Replay,
    recording: Recording,
    rule: Quadrature,
    baseline: Tensor,
    tolerance: Tolerance,
    memory: Memory,
) -> Integral:
    """Attr_i = (a_i - b_i) * integral over alpha in [0, 1] of dF(b + alpha (a - b)) / da_i.

    The whole layer's vector moves together, each layer by itself (Dai et al. 2022;
    Sundararajan et al. 2017).

    Parameters
    ----------
    baseline
        b, broadcast to (prompt, layer, neuron).
    """
    activation = recording.activation
    prompts, layers, _ = activation.shape
    change = activation - baseline
    device = activation.device
    # Rows sorted by layer: (layer, prompt, node), flattened.
    layer, prompt, node = (
        axis.flatten()
        for axis in torch.meshgrid(
            torch.arange(layers, device=device),
            torch.arange(prompts, device=device),
            torch.arange(len(rule), device=device),
            indexing="ij",
        )
    )
    exact = exact_dtype(device)
    points = torch.tensor(rule.points, dtype=activation.dtype, device=device)
    weights = torch.tensor(rule.weights, dtype=exact, device=device)
    mean_gradient = torch.zeros(activation.shape, dtype=exact, device=device)
    origin = baseline.expand_as(activation)

    def value(some: slice) -> Tensor:
        where = (prompt[some], layer[some])
        return origin[where] + points[node[some]][:, None] * change[where]

    for some, replayed in in_pieces(replay, recording, prompt, layer, value, memory):
        weighted = weights[node[some]][:, None] * replayed.slopes
        mean_gradient.index_put_((prompt[some], layer[some]), weighted, accumulate=True)
    score = change.to(exact) * mean_gradient
    start = _at_baseline(replay, recording, origin, memory)
    end = recording.objective[:, None]
    gap = score.sum(-1) - (end - start)
    return Integral(
        score,
        gap,
        torch.full(gap.shape, len(rule), device=device),
        tolerance.safety * gap.abs()
        <= torch.maximum(
            tolerance.wanted(score), tolerance.rounding(torch.maximum(end.abs(), start.abs()))
        ),
    )


def _at_baseline(replay: Replay, recording: Recording, baseline: Tensor, memory: Memory) -> Tensor:
    """The objective with each layer in turn at its baseline, (prompt, layer)."""
    prompts, layers, _ = baseline.shape
    layer = torch.arange(layers, device=baseline.device).repeat_interleave(prompts)
    prompt = torch.arange(prompts, device=baseline.device).repeat(layers)
    found = torch.empty(len(layer), dtype=exact_dtype(baseline.device), device=baseline.device)

    def value(some: slice) -> Tensor:
        return baseline[prompt[some], layer[some]]

    for some, replayed in in_pieces(
        replay, recording, prompt, layer, value, memory, gradient=False
    ):
        found[some] = replayed.objective
    return found.view(layers, prompts).T
