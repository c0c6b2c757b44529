"""Integrated gradients with as many nodes as each layer of each prompt needs.

In most layers the path from nothing to the activation is smooth and a handful of nodes is
plenty; in the first layer of a real model, and wherever a norm follows the layer, it has sharp
turns that no fixed rule sees. Each path starts as one panel under a Gauss-Lobatto rule. A
panel's completeness gap (what its scores add up to, minus what the objective really rose by)
costs nothing more, because the rule's nodes include the panel's ends. Panels whose gap is too
large are halved, and the two halves share the old middle and ends.

The gap alone is blind to errors of single neurons that cancel in their sum (under a norm most
of them do). So a panel is also compared, neuron by neuron, with Simpson's rule on three of its
nodes.

At the end of the path nothing is replaced in any layer, so one row a prompt serves the last
node of every layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kntrace.attribution.integrate import Integral, Memory, Tolerance
from kntrace.attribution.replays import Recording, Replay, Rows
from kntrace.attribution.rules import quadrature

__all__ = ["integrate_adaptively"]

# Five nodes: exact to degree 7, and the middle one is an end of both halves, so that halving
# a panel costs six new nodes and not ten.
_PANEL = quadrature("gauss_lobatto", 5)
_MIDDLE = 2
_SIMPSON = np.array([1, 0, 4, 0, 1]) / 6


@dataclass
class _Panels:
    """Stretches of paths, side by side.

    Attributes
    ----------
    path
        Which path a panel belongs to: prompt x layers + layer.
    left, right
        Its ends.
    nodes
        (panel, 5): where its nodes lie in the pool of all nodes.
    """

    path: Tensor
    left: Tensor
    right: Tensor
    nodes: Tensor

    def __getitem__(self, which: Tensor) -> _Panels:
        return _Panels(self.path[which], self.left[which], self.right[which], self.nodes[which])

    def joined(self, other: _Panels) -> _Panels:
        pairs = (
            (self.path, other.path),
            (self.left, other.left),
            (self.right, other.right),
            (self.nodes, other.nodes),
        )
        return _Panels(*(torch.cat(pair) for pair in pairs))


def integrate_adaptively(
    replay: Replay,
    recording: Recording,
    baseline: Tensor,
    tolerance: Tolerance,
    memory: Memory,
    *,
    most: int = 1000,
) -> Integral:
    """Integrate until every layer of every prompt is within tolerance.

    A prompt's scores do not depend on the prompts beside it: each path is halved by its own
    gaps alone.

    Parameters
    ----------
    baseline
        Where the paths start, broadcast to (prompt, layer, neuron).
    most
        Nodes after which a path is given up as not converged.

    Returns
    -------
    Integral
        With `nodes` the number of gradients each path took (the shared one at the activation
        counted for every layer) and `converged` which paths met the tolerance.
    """
    work = _Work(replay, recording, baseline, memory)
    panels = work.first_panels()
    score, gap, rough = work.contributions(panels)
    while True:
        total = work.summed(score, panels)
        allowed = tolerance.allowed(total, work.highest)
        # Simpson's rule errs far more than the rule it checks: by the power 3/2, as measured.
        norm = total.norm(dim=-1).clamp(min=torch.finfo(total.dtype).tiny)
        missed = tolerance.safety * gap.abs()
        missed = torch.maximum(missed, rough * (rough / norm[panels.path]).sqrt())
        settled = work.summed(missed, panels) <= allowed
        spent = work.spent()
        wanting = ~settled & (spent < most)
        count = torch.bincount(panels.path, minlength=len(settled)).clamp(min=1)
        split = wanting[panels.path] & (missed > (allowed / count)[panels.path])
        if not bool(split.any()):
            break
        halves = work.halved(panels[split])
        new = work.contributions(halves)
        panels = panels[~split].joined(halves)
        score, gap, rough = (
            torch.cat([old[~split], added])
            for old, added in zip((score, gap, rough), new, strict=True)
        )
    shape = recording.activation.shape
    return Integral(
        work.summed(score, panels).view(shape),
        work.summed(gap, panels).view(shape[:2]),
        spent.view(shape[:2]),
        settled.view(shape[:2]),
    )


class _Work:
    """The paths of a recording and every node at which the gradient has been taken."""

    def __init__(
        self, replay: Replay, recording: Recording, baseline: Tensor, memory: Memory
    ) -> None:
        self._replay = replay
        self._recording = recording
        self._memory = memory
        activation = recording.activation
        self._prompts, self._layers, width = activation.shape
        self._device = activation.device
        self._paths = self._prompts * self._layers
        self._origin = baseline.expand_as(activation).reshape(self._paths, width)
        self._change = (activation - baseline).reshape(self._paths, width)
        # The pool begins with the end of every path, where nothing is replaced.
        self._objective = recording.objective.repeat_interleave(self._layers)
        self._gradient = torch.empty(0, width, dtype=activation.dtype, device=self._device)
        self.highest = self._objective.abs()

    def first_panels(self) -> _Panels:
        """One panel a path, from baseline to activation."""
        paths = torch.arange(self._paths, device=self._device)
        points = torch.tensor(_PANEL.points[:-1], dtype=torch.float64, device=self._device)
        inner = self._visit(
            paths.repeat_interleave(len(points)), points.repeat(self._paths), ends=True
        )
        nodes = torch.cat([inner.view(self._paths, -1), paths[:, None]], 1)
        zeros = torch.zeros(self._paths, dtype=torch.float64, device=self._device)
        return _Panels(paths, zeros, zeros + 1, nodes)

    def halved(self, panels: _Panels) -> _Panels:
        """Both halves of each panel; the old ends and middle serve again."""
        middle = (panels.left + panels.right) / 2
        halves = _Panels(
            torch.cat([panels.path, panels.path]),
            torch.cat([panels.left, middle]),
            torch.cat([middle, panels.right]),
            torch.empty(0),
        )
        inside = torch.tensor(_PANEL.points[1:-1], dtype=torch.float64, device=self._device)
        points = halves.left[:, None] + inside * (halves.right - halves.left)[:, None]
        new = self._visit(halves.path.repeat_interleave(len(inside)), points.flatten())
        old = panels.nodes
        lefts = torch.cat([old[:, 0], old[:, _MIDDLE]])
        rights = torch.cat([old[:, _MIDDLE], old[:, -1]])
        halves.nodes = torch.cat([lefts[:, None], new.view(len(points), -1), rights[:, None]], 1)
        return halves

    def contributions(self, panels: _Panels) -> tuple[Tensor, Tensor, Tensor]:
        """Per panel, in float64: its scores, their gap, and how far Simpson's rule is off.

        The scores are (panel, neuron); the distance from Simpson's rule is an L2 norm.
        """
        weights = torch.tensor(
            np.stack([_PANEL.weights, _PANEL.weights - _SIMPSON]), device=self._device
        )
        scale = self._change[panels.path].double() * (panels.right - panels.left)[:, None]
        gradient = self._gradient[panels.nodes].double()
        score, off = torch.einsum("pnf,kn->kpf", gradient, weights) * scale
        risen = self._objective[panels.nodes[:, -1]] - self._objective[panels.nodes[:, 0]]
        return score, score.sum(1) - risen, off.norm(dim=1)

    def summed(self, values: Tensor, panels: _Panels) -> Tensor:
        """Sum what panels contribute to their paths."""
        total = torch.zeros(
            self._paths, *values.shape[1:], dtype=torch.float64, device=self._device
        )
        return total.index_add_(0, panels.path, values)

    def spent(self) -> Tensor:
        """How many nodes each path has, the one at the activation included."""
        return torch.bincount(self._owner, minlength=self._paths)

    def _visit(self, path: Tensor, point: Tensor, *, ends: bool = False) -> Tensor:
        """Take objective and gradient at points of paths; returns their places in the pool."""
        order = torch.argsort(path % self._layers, stable=True)
        path, point = path[order], point[order]
        prompt, layer = path // self._layers, path % self._layers
        objectives, gradients = [], []
        at_end: Tensor | None = None
        for some in self._memory.split(layer, self._layers):
            moved = point[some, None].to(self._origin.dtype) * self._change[path[some]]
            rows = Rows(prompt[some], layer[some], self._origin[path[some]] + moved)
            found = self._replay.evaluate(
                self._recording, rows, at_activation=ends and at_end is None
            )
            if ends and at_end is None:
                at_end = found.slopes_at_activation
            objectives.append(found.objective)
            gradients.append(found.slopes)
        if at_end is not None:
            self._gradient = at_end.reshape(self._paths, -1)
            self._owner = torch.arange(self._paths, device=self._device)
        start = len(self._objective)
        self._objective = torch.cat([self._objective, *objectives])
        self._gradient = torch.cat([self._gradient, *gradients])
        self._owner = torch.cat([self._owner, path])
        self.highest.scatter_reduce_(0, path, torch.cat(objectives).abs(), "amax")
        places = torch.empty_like(order)
        places[order] = start + torch.arange(len(order), device=self._device)
        return places
