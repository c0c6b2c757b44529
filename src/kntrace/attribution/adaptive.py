"""Integrated gradients with as many nodes as each layer of each prompt needs.

In most layers the path from nothing to the activation is smooth and three nodes are plenty; in
the first layer of a real model, and wherever a norm follows the layer, it has sharp turns that
no fixed rule sees. So a path is cut into panels. A panel begins with three nodes (Simpson's
rule); where those will not do it gets two more (the Gauss-Lobatto rule of five, which has the
three among its own), and where those will not do either it is halved.

Two numbers say whether a panel will do. Its completeness gap (what its scores add up to, minus
what the objective really rose by) costs nothing more, because the ends of the panel are among
its nodes. It is blind, though, to errors of single neurons that cancel in their sum, as most of
them do under a norm. So a panel is also compared, neuron by neuron, with a coarser rule on the
same nodes.

At the end of the path nothing is replaced in any layer, so one row a prompt serves the last
node of every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from kntrace.attribution.integrate import Integral, Tolerance
from kntrace.attribution.memory import Memory, in_pieces
from kntrace.attribution.precision import exact_dtype
from kntrace.attribution.replays import Recording, Replay
from kntrace.attribution.rules import quadrature

__all__ = ["integrate_adaptively"]

# Where the five nodes of a panel lie. A coarse panel has three of them; in the places of the
# other two it names its middle again, with no weight.
_LOBATTO = quadrature("gauss_lobatto", 5)
_MIDDLE = 2
_ADDED = (1, 3)
_SIMPSON = np.array([1, 0, 4, 0, 1]) / 6
_TRAPEZOID = np.array([1, 0, 0, 0, 1]) / 2

# Edges of the first panels. The first layer's output is nearly all that its successors see, and
# scaling it from nothing drags a model through sharp turns close to the baseline (measured: 17
# to 100 nodes there, three to five elsewhere). Starting with four panels saves whole passes.
_FIRST_LAYER = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)
_OTHER_LAYERS = (0.0, 1.0)


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
    fine
        Whether it has all five.
    """

    path: Tensor
    left: Tensor
    right: Tensor
    nodes: Tensor
    fine: Tensor

    def __getitem__(self, which: Tensor) -> _Panels:
        return _Panels(*(getattr(self, field.name)[which] for field in fields(self)))

    def joined(self, other: _Panels) -> _Panels:
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
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

    A prompt's scores do not depend on the prompts beside it: each path is refined by its own
    errors alone.

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
    score, gap, missed = work.contributions(panels, tolerance)
    while True:
        # Errors of separate panels are taken to have signs of their own, and so add up by their
        # squares; the safety factor covers sixteen panels whose errors all point one way.
        wanted = tolerance.wanted(work.summed(score, panels))
        rounding = tolerance.rounding(work.highest)
        count = torch.bincount(panels.path, minlength=len(wanted)).clamp(min=1).sqrt()
        error = work.summed(missed**2, panels).sqrt()
        settled = error <= torch.maximum(wanted, rounding * count)
        spent = work.spent()
        share = torch.maximum(wanted / count, rounding)
        poor = (~settled & (spent < most))[panels.path] & (missed > share[panels.path])
        if not bool(poor.any()):
            break
        better = work.refined(panels[poor])
        new = work.contributions(better, tolerance)
        panels = panels[~poor].joined(better)
        score, gap, missed = (
            torch.cat([old[~poor], added])
            for old, added in zip((score, gap, missed), new, strict=True)
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
        self._exact = exact_dtype(self._device)
        self._paths = self._prompts * self._layers
        self._origin = baseline.expand_as(activation).reshape(self._paths, width)
        self._change = (activation - baseline).reshape(self._paths, width)
        # The pool begins with the end of every path, where nothing is replaced.
        self._objective = recording.objective.repeat_interleave(self._layers)
        self._gradient = torch.empty(0, width, dtype=activation.dtype, device=self._device)
        self.highest = self._objective.abs()

    def first_panels(self) -> _Panels:
        """Coarse panels of every path, from baseline to activation."""
        path: list[int] = []
        point: list[float] = []
        panels: list[tuple[int, float, float, int, int, int]] = []
        for here in range(self._paths):
            edges = _FIRST_LAYER if here % self._layers == 0 else _OTHER_LAYERS
            for start, stop in pairwise(edges):
                place = self._paths + len(point)
                path += [here, here]
                point += [start, (start + stop) / 2]
                # The end of the panel begins the next one, or is the end of the path.
                end = place + 2 if stop < 1 else here
                panels.append((here, start, stop, place, place + 1, end))
        self._visit(self._tensor(path), self._tensor(point), ends=True)
        whose, left, right, first, middle, last = (
            self._tensor(column) for column in zip(*panels, strict=True)
        )
        nodes = torch.stack([first, middle, middle, middle, last], 1)
        return _Panels(whose, left, right, nodes, torch.zeros_like(whose, dtype=torch.bool))

    def refined(self, panels: _Panels) -> _Panels:
        """Two more nodes for each coarse panel, and both halves of each fine one."""
        coarse, fine = panels[~panels.fine], panels[panels.fine]
        middle = (fine.left + fine.right) / 2
        old = fine.nodes
        lefts = torch.stack([old[:, 0], old[:, 0], old[:, 0], old[:, 0], old[:, _MIDDLE]], 1)
        rights = torch.stack([old[:, _MIDDLE]] * 4 + [old[:, -1]], 1)
        halves = _Panels(
            torch.cat([fine.path, fine.path]),
            torch.cat([fine.left, middle]),
            torch.cat([middle, fine.right]),
            torch.cat([lefts, rights]),
            torch.zeros(2 * len(middle), dtype=torch.bool, device=self._device),
        )
        made = coarse.joined(halves)
        wanted = [1, 3] * len(coarse.path) + [1, 2, 3] * len(halves.path)
        panel = [place for place in range(len(coarse.path)) for _ in _ADDED]
        panel += [len(coarse.path) + place for place in range(len(halves.path)) for _ in range(3)]
        row, column = self._tensor(panel), self._tensor(wanted)
        share = torch.tensor(_LOBATTO.points, dtype=self._exact, device=self._device)[column]
        point = made.left[row] + share * (made.right - made.left)[row]
        made.nodes[row, column] = self._visit(made.path[row], point)
        made.fine[:] = True
        return made

    def contributions(self, panels: _Panels, tolerance: Tolerance) -> tuple[Tensor, Tensor, Tensor]:
        """Per panel: its scores (panel, neuron), their gap, and what it may be off by."""
        weights = torch.tensor(
            np.array([[_SIMPSON, _TRAPEZOID], [_LOBATTO.weights, _SIMPSON]]),
            dtype=self._exact,
            device=self._device,
        )[panels.fine.long()]
        scale = self._change[panels.path].to(self._exact) * (panels.right - panels.left)[:, None]
        gradient = self._gradient[panels.nodes].to(self._exact)
        score, check = torch.einsum("pnf,pkn->kpf", gradient, weights) * scale
        risen = self._objective[panels.nodes[:, -1]] - self._objective[panels.nodes[:, 0]]
        gap = score.sum(1) - risen
        # The coarser rule errs far more than the rule that it checks: measured on 31 models, by
        # the square for Simpson's rule (within the safety factor), by the power 3/2 for five.
        rough = (score - check).norm(dim=1)
        share = rough / score.norm(dim=1).clamp(min=torch.finfo(self._exact).tiny)
        less = torch.where(panels.fine, share.sqrt(), tolerance.safety * share)
        return score, gap, torch.maximum(tolerance.safety * gap.abs(), rough * less)

    def summed(self, values: Tensor, panels: _Panels) -> Tensor:
        """Sum what panels contribute to their paths."""
        total = torch.zeros(self._paths, *values.shape[1:], dtype=self._exact, device=self._device)
        return total.index_add_(0, panels.path, values)

    def spent(self) -> Tensor:
        """How many nodes each path has, the one at the activation included."""
        return torch.bincount(self._owner, minlength=self._paths)

    def _tensor(self, values: list[int] | list[float] | tuple[float, ...]) -> Tensor:
        whole = all(isinstance(value, int) for value in values)
        dtype = torch.long if whole else self._exact
        return torch.tensor(values, dtype=dtype, device=self._device)

    def _visit(self, path: Tensor, point: Tensor, *, ends: bool = False) -> Tensor:
        """Take objective and gradient at points of paths; returns their places in the pool."""
        order = torch.argsort(path % self._layers, stable=True)
        path, point = path[order], point[order].to(self._origin.dtype)
        prompt, layer = path // self._layers, path % self._layers

        def value(some: slice) -> Tensor:
            return self._origin[path[some]] + point[some, None] * self._change[path[some]]

        objectives, gradients = [], []
        for _, found in in_pieces(
            self._replay, self._recording, prompt, layer, value, self._memory, at_activation=ends
        ):
            if found.at_activation is not None:
                self._gradient = found.at_activation.reshape(self._paths, -1)
                self._owner = torch.arange(self._paths, device=self._device)
            objectives.append(found.objective)
            gradients.append(found.slopes)
        start = len(self._objective)
        # Nodes enter the pool in the order in which they were asked for.
        back = torch.argsort(order)
        self._objective = torch.cat([self._objective, torch.cat(objectives)[back]])
        self._gradient = torch.cat([self._gradient, torch.cat(gradients)[back]])
        self._owner = torch.cat([self._owner, path[back]])
        self.highest.scatter_reduce_(0, path, torch.cat(objectives).abs(), "amax")
        return start + torch.arange(len(order), device=self._device)
