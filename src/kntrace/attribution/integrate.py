"""Integrated gradients of a layer's neurons along the straight path from baseline to activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kntrace.attribution.replays import Recording, Replay, Rows
from kntrace.attribution.rules import Quadrature

__all__ = ["Integral", "Memory", "Tolerance", "integrate"]


@dataclass(frozen=True)
class Memory:
    """How many rows may be alive at once.

    Attributes
    ----------
    budget
        Bytes that the rows of one pass may take.
    per_row_layer, per_row
        Bytes that a row takes in each layer it runs through, and at the model's head.
    """

    budget: int
    per_row_layer: int
    per_row: int

    def split(self, layer: Tensor, layers: int) -> Iterator[slice]:
        """Cut rows, sorted by layer, into runs that fit; always at least one row a run."""
        cost = (self.per_row + self.per_row_layer * (layers - layer.double())).cumsum(0)
        start = 0
        while start < len(layer):
            spent = 0.0 if start == 0 else float(cost[start - 1])
            stop = int(torch.searchsorted(cost, spent + self.budget, right=True))
            stop = max(stop, start + 1)
            yield slice(start, stop)
            start = stop


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

    def allowed(self, score: Tensor, highest: Tensor) -> Tensor:
        """How large the error of a path's scores may be.

        Parameters
        ----------
        score
            (..., neuron).
        highest
            The largest objective met on the path, (...,).
        """
        rounding = 64 * self.noise * highest
        return torch.maximum(self.relative * score.norm(dim=-1), rounding)


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
    points = torch.tensor(rule.points, dtype=activation.dtype, device=device)
    weights = torch.tensor(rule.weights, dtype=torch.float64, device=device)
    mean_gradient = torch.zeros(activation.shape, dtype=torch.float64, device=device)
    origin = baseline.expand_as(activation)
    for some in memory.split(layer, layers):
        where = (prompt[some], layer[some])
        value = origin[where] + points[node[some]][:, None] * change[where]
        replayed = replay.evaluate(recording, Rows(*where, value), gradient=True)
        weighted = weights[node[some]][:, None] * replayed.slopes
        mean_gradient.index_put_(where, weighted, accumulate=True)
    score = change.double() * mean_gradient
    start = _at_baseline(replay, recording, origin, memory)
    end = recording.objective[:, None]
    gap = score.sum(-1) - (end - start)
    return Integral(
        score,
        gap,
        torch.full(gap.shape, len(rule), device=device),
        tolerance.safety * gap.abs()
        <= tolerance.allowed(score, torch.maximum(end.abs(), start.abs())),
    )


def _at_baseline(replay: Replay, recording: Recording, baseline: Tensor, memory: Memory) -> Tensor:
    """The objective with each layer in turn at its baseline, (prompt, layer)."""
    prompts, layers, _ = baseline.shape
    layer = torch.arange(layers, device=baseline.device).repeat_interleave(prompts)
    prompt = torch.arange(prompts, device=baseline.device).repeat(layers)
    value = baseline[prompt, layer]
    found = torch.empty(len(layer), dtype=torch.float64, device=baseline.device)
    for some in memory.split(layer, layers):
        rows = Rows(prompt[some], layer[some], value[some])
        found[some] = replay.evaluate(recording, rows, gradient=False).objective
    return found.view(layers, prompts).T
