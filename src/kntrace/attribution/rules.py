"""Integration rules: where on the path from baseline to activation the gradient is taken.

A rule turns a number of nodes into points and weights on [0, 1]. Attribution is the path
integral of Sundararajan et al. 2017; the rule decides how well a sum stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kntrace.errors import SettingsError

__all__ = ["ADAPTIVE", "RULES", "Quadrature", "quadrature"]

ADAPTIVE = "adaptive"
"""The rule that chooses its own points; see `kntrace.attribution.adaptive`."""


@dataclass(frozen=True)
class Quadrature:
    """Points on [0, 1], in ascending order, and what each one's gradient counts for."""

    points: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)


def _gauss_legendre(count: int) -> Quadrature:
    points, weights = np.polynomial.legendre.leggauss(count)
    return Quadrature((points + 1) / 2, weights / 2)


def _gauss_lobatto(count: int) -> Quadrature:
    """Both ends and the extrema of the Legendre polynomial of degree count - 1 between them."""
    if count < 2:
        raise SettingsError(f"rule 'gauss_lobatto' with nodes = {count}", expected="2 or more")
    legendre = np.polynomial.legendre.Legendre.basis(count - 1)
    # They are real, but newer releases of numpy give them as complex numbers.
    points = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    weights = 2 / (count * (count - 1) * legendre(points) ** 2)
    return Quadrature((points + 1) / 2, weights / 2)


def _midpoint(count: int) -> Quadrature:
    return Quadrature((np.arange(count) + 0.5) / count, np.full(count, 1 / count))


def _left(count: int) -> Quadrature:
    return Quadrature(np.arange(count) / count, np.full(count, 1 / count))


def _right(count: int) -> Quadrature:
    return Quadrature((np.arange(count) + 1) / count, np.full(count, 1 / count))


def _trapezoid(count: int) -> Quadrature:
    if count < 2:
        raise SettingsError(f"rule 'trapezoid' with nodes = {count}", expected="at least 2 nodes")
    weights = np.full(count, 1 / (count - 1))
    weights[[0, -1]] /= 2
    return Quadrature(np.linspace(0, 1, count), weights)


def _public_code(count: int) -> Quadrature:
    """Both ends included, yet every node counts 1/n: neither left, right nor trapezoid.

    It is what the paper's public code does; the integral of alpha^2 comes out as 0.342 with
    its 20 nodes instead of 1/3.
    """
    return Quadrature(np.linspace(0, 1, count), np.full(count, 1 / count))


def _gradient_x_activation(count: int) -> Quadrature:
    return Quadrature(np.ones(1), np.ones(1))


RULES: dict[str, Callable[[int], Quadrature]] = {
    "gauss_legendre": _gauss_legendre,
    "gauss_lobatto": _gauss_lobatto,
    "midpoint": _midpoint,
    "trapezoid": _trapezoid,
    "left": _left,
    "right": _right,
    "public_code": _public_code,
    "gradient_x_activation": _gradient_x_activation,
}


def quadrature(rule: str, nodes: int) -> Quadrature:
    """Points and weights of the named rule.

    Parameters
    ----------
    rule
        A key of `RULES`; hyphens count as underscores. `gradient_x_activation` has one node,
        at the activation itself, whatever `nodes` says.
    nodes
        Number of points.

    Raises
    ------
    SettingsError
        If the rule is unknown or the number of nodes is below what it needs.
    """
    name = rule.replace("-", "_")
    if name not in RULES:
        raise SettingsError.unknown("rule", rule, (ADAPTIVE, *RULES))
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise SettingsError(f"nodes = {nodes!r}", expected="a whole number, 1 or more")
    return RULES[name](nodes)
