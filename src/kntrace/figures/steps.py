"""The axis of training steps.

It shows step 0 and gives the early steps, where words are learnt, more room than the late ones.
Checkpoints lie where their step is; if no step is known, or if steps begin anew in another
stage, they lie in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator

from kntrace.figures.labels import LINE, fitted, spread
from kntrace.figures.style import MUTED

__all__ = ["StepAxis", "step_name"]

_Floats = npt.NDArray[np.float64]

# Above this ratio of the last step to the first positive one a square root crowds the early
# steps, and a logarithm takes its place.
_WIDE = 1000.0
# Room for the number of a step, in mm.
_ROOM = 8.0


@dataclass(frozen=True)
class StepAxis:
    """Where checkpoints lie along x.

    Attributes
    ----------
    places
        (checkpoint,) steps, ascending; 0, 1, 2, ... where they are not known.
    labels
        Labels of the checkpoints.
    known
        Whether `places` are steps, known and ascending.
    """

    places: _Floats
    labels: tuple[str, ...]
    known: bool

    @classmethod
    def of(cls, table: xr.DataArray | xr.Dataset) -> StepAxis:
        """Take it from the coordinates `checkpoint` and `step` of a table."""
        steps = table["step"].values.astype(np.float64)
        # Steps that begin anew in a second stage of training are no axis either.
        known = bool((steps >= 0).all() and (np.diff(steps) > 0).all())
        places = steps if known else np.arange(steps.size, dtype=np.float64)
        return cls(places, tuple(str(label) for label in table["checkpoint"].values), known)

    @property
    def edges(self) -> _Floats:
        """(checkpoint + 1,) borders of the checkpoints' cells, half-way between them as drawn."""
        there, back = self._functions()
        drawn = there(self.places)
        if drawn.size == 1:
            return back(drawn + np.array([-0.5, 0.5]))
        middle = (drawn[1:] + drawn[:-1]) / 2
        first, last = 2 * drawn[0] - middle[0], 2 * drawn[-1] - middle[-1]
        return back(np.array([first, *middle, last]))

    @property
    def drawn(self) -> _Floats:
        """(checkpoint,) where the checkpoints lie along the axis as drawn, from 0 to 1."""
        there, _ = self._functions()
        drawn = there(self.places)
        span = float(drawn[-1] - drawn[0])
        return (drawn - drawn[0]) / span if span else np.full(drawn.size, 0.5)

    def apply(self, ax: Axes, width: float, *, cells: bool = False, label: bool = True) -> None:
        """Scale and label the x axis of `ax`.

        Parameters
        ----------
        ax
            The axes.
        width
            Their width in mm.
        cells
            Whether the axis reaches to the edges of the outer checkpoints' cells.
        label
            Whether to write numbers and the axis' name.
        """
        there, back = self._functions()
        ax.set_xscale("function", functions=(there, back))
        low, high = (self.edges[0], self.edges[-1]) if cells else self._limits(there, back)
        ax.set_xlim(low, high)
        # A small tick wherever something was measured.
        ax.xaxis.set_minor_locator(FixedLocator(list(self.places)))
        ax.tick_params(axis="x", which="minor", length=1.2, width=0.4, color=MUTED)
        at, names = self._ticks(there, width)
        ax.xaxis.set_major_locator(FixedLocator(at))
        ax.xaxis.set_major_formatter(FixedFormatter(names if label else [""] * len(at)))
        if not self.known and label:
            ax.tick_params(axis="x", rotation=90)
        if label:
            ax.set_xlabel(self.name, labelpad=2)

    @property
    def name(self) -> str:
        """Name of the axis, with its scale."""
        if not self.known:
            return "checkpoint"
        return "training step (log scale)" if self._wide else "training step (square-root scale)"

    @property
    def _first(self) -> float:
        positive = self.places[self.places > 0]
        return float(positive.min()) if positive.size else 1.0

    @property
    def _wide(self) -> bool:
        return bool(self.places[-1] / self._first > _WIDE)

    def _functions(self) -> tuple[Callable[[_Floats], _Floats], Callable[[_Floats], _Floats]]:
        """Return the scale, from steps to places along the axis, and its inverse.

        Both are odd functions, since cells of step 0 reach below it.
        """
        if not self.known:
            return (lambda x: np.asarray(x, dtype=np.float64),) * 2
        if self._wide:
            unit = self._first
            return (
                lambda x: np.sign(x) * np.log1p(np.abs(x) / unit),
                lambda y: np.sign(y) * np.expm1(np.abs(y)) * unit,
            )
        return (
            lambda x: np.sign(x) * np.sqrt(np.abs(x)),
            lambda y: np.sign(y) * np.square(y),
        )

    def _limits(
        self, there: Callable[[_Floats], _Floats], back: Callable[[_Floats], _Floats]
    ) -> tuple[float, float]:
        drawn = there(self.places)
        margin = 0.02 * float(drawn[-1] - drawn[0]) or 0.5
        low, high = back(np.array([drawn[0] - margin, drawn[-1] + margin]))
        return float(low), float(high)

    def _ticks(
        self, there: Callable[[_Floats], _Floats], width: float
    ) -> tuple[list[float], list[str]]:
        """Round steps, the first and the last one, as many as have room."""
        first, last = float(self.places[0]), float(self.places[-1])
        if not self.known:
            every = width / max(len(self.places), 1)
            shown = spread(list(self.places * every), LINE)
            return [float(self.places[i]) for i in shown], [
                fitted(self.labels[i], 18) for i in shown
            ]
        span = max(float(there(np.array([last]))[0] - there(np.array([first]))[0]), 1e-12)

        def apart(one: float, other: float) -> bool:
            ends = there(np.array([one, other]))
            return abs(float(ends[1] - ends[0])) / span * width >= _ROOM

        chosen = [first] if first == last or not apart(first, last) else [first, last]
        # Round in this order, so that 100 is preferred to 200, and 200 to 300.
        powers = range(0, math.ceil(math.log10(max(last, 1.0))) + 1)
        for factor in (1, 5, 2, 3):
            for power in reversed(powers):
                step = float(factor * 10**power)
                if first < step < last and all(apart(step, other) for other in chosen):
                    chosen.append(step)
        chosen.sort()
        return chosen, [step_name(step) for step in chosen]


def step_name(step: float) -> str:
    """Write a step shortly: 512, 1k, 143k, 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(step) >= size:
            return f"{step / size:.4g}{letter}"
    return f"{step:.4g}"
