"""What a distance between words is: a small frozen object that says what it needs and claims."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.errors import AnalysisError
from kntrace.progress import Progress
from kntrace.wording import Wording

__all__ = ["Distance", "FormationDistance", "Matrix", "Proved", "ScoresDistance", "process_sets"]

Matrix = npt.NDArray[np.float64]


class _Described(Protocol):
    """What every distance says of itself."""

    @property
    def name(self) -> str:
        """Name under which it is asked for and written down."""

    @property
    def description(self) -> str:
        """What it measures, in one line for figures and tables."""

    @property
    def unit(self) -> str:
        """Unit of its values, "" for none."""

    @property
    def metric(self) -> bool:
        """Whether it obeys the triangle inequality; all are symmetric and zero on equals."""


class FormationDistance(_Described, Protocol):
    """A distance that is computed from formation processes."""

    @property
    def needs(self) -> Literal["formation"]:
        """That it takes what `formation_processes` gives."""

    def pairwise(self, formation: xr.DataArray, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs, (word, word); the upper triangle is what counts.

        `workers` processes may share the work; the numbers must not depend on how many.
        """


class ScoresDistance(_Described, Protocol):
    """A distance that is computed from the scores of a run."""

    @property
    def needs(self) -> Literal["scores"]:
        """That it takes one wording of a run's scores."""

    def pairwise(self, view: Wording, progress: Progress, workers: int = 1) -> Matrix:
        """Distances of all pairs, (word, word); the upper triangle is what counts.

        `workers` processes may share the work; the numbers must not depend on how many.
        """


@runtime_checkable
class Proved(Protocol):
    """A distance found by optimisation that can prove that what it found is the optimum."""

    def proved_pairwise(
        self, formation: xr.DataArray, progress: Progress, workers: int = 1
    ) -> tuple[Matrix, dict[str, int | float]]:
        """Distances as of `pairwise`, and what a sample of them was proved to be.

        The latter goes into the attributes of the result. Raises `KntraceError` where the proof
        fails.
        """


Distance = FormationDistance | ScoresDistance


def process_sets(formation: xr.DataArray, *, per_probability: bool = False) -> list[Matrix]:
    """Split formation processes into one array (neuron, checkpoint) per word.

    Words may have unequally many neurons: a place without one has the layer -1.

    Parameters
    ----------
    formation
        Of `formation_processes`.
    per_probability
        Divide by the word's P(answer) at every checkpoint. Where that is zero the scores are
        zero too, and stay so.

    Raises
    ------
    AnalysisError
        If a value is not a finite number, if a word has no neuron at all, or if there are no
        probabilities to divide by.
    """
    array = formation.transpose("word", "rank", "checkpoint")
    values = array.values.astype(np.float64, copy=False)
    held = np.ones(values.shape[:2], dtype=np.bool_)
    if "layer" in array.coords:
        held = array["layer"].transpose("word", "rank").values >= 0
    if per_probability:
        values = _divided(values, array)
    # Word by word: all words' processes are the largest thing that an analysis holds.
    for word, (some, mine) in enumerate(zip(held, values, strict=True)):
        for _, at in np.argwhere(some[:, None] & ~np.isfinite(mine)):
            raise AnalysisError(
                "a formation process holds a value that is not a finite number",
                where=_cell(array, word, int(at)),
                expected="finite scores",
            )
    for empty in np.flatnonzero(~held.any(axis=1)):
        raise AnalysisError("no knowledge neurons", where=f"word {array['word'].values[empty]}")
    return [values[word, held[word]] for word in range(len(values))]


def _divided(values: Matrix, array: xr.DataArray) -> Matrix:
    """Divide formation processes by P(answer) of their word."""
    if "probability" not in array.coords:
        raise AnalysisError(
            "formation processes without the probabilities of the answers",
            expected="those of kntrace.formation_processes, with a coordinate `probability`",
        )
    probability = array["probability"].transpose("word", "checkpoint").values.astype(np.float64)
    for word, checkpoint in np.argwhere(~(np.isfinite(probability) & (probability >= 0))):
        raise AnalysisError(
            f"a probability of {probability[word, checkpoint]}",
            where=_cell(array, word, checkpoint),
            expected="a finite number, not below zero",
        )
    by = np.broadcast_to(probability[:, None, :], values.shape)
    # A score that is not zero over a probability that is: infinite, and refused by the caller.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.where((by == 0) & (values == 0), 0.0, values / by)


def _cell(array: xr.DataArray, word: int, checkpoint: int) -> str:
    label = array["checkpoint"].values[checkpoint] if "checkpoint" in array.coords else None
    name = str(array["word"].values[word])
    return f"word {name!r} at checkpoint {checkpoint if label is None else repr(str(label))}"
