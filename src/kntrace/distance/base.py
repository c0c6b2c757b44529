"""What a distance between words is: a small frozen object that says what it needs and claims."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.errors import AnalysisError
from kntrace.progress import Progress
from kntrace.wording import Wording

__all__ = ["Distance", "FormationDistance", "Matrix", "ScoresDistance", "process_sets"]

Matrix = npt.NDArray[np.float64]


class FormationDistance(Protocol):
    """A distance that is computed from formation processes."""

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

    @property
    def needs(self) -> Literal["formation"]:
        """That it takes what `formation_processes` gives."""

    def pairwise(self, formation: xr.DataArray, progress: Progress) -> Matrix:
        """Distances of all pairs, (word, word); the upper triangle is what counts."""


class ScoresDistance(Protocol):
    """A distance that is computed from the scores of a run."""

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

    @property
    def needs(self) -> Literal["scores"]:
        """That it takes one wording of a run's scores."""

    def pairwise(self, view: Wording, progress: Progress) -> Matrix:
        """Distances of all pairs, (word, word); the upper triangle is what counts."""


Distance = FormationDistance | ScoresDistance


def process_sets(formation: xr.DataArray) -> list[Matrix]:
    """Split formation processes into one array (neuron, checkpoint) per word.

    Words may have unequally many neurons: a place without one has the layer -1.

    Raises
    ------
    AnalysisError
        If a value is not a finite number, or if a word has no neuron at all.
    """
    array = formation.transpose("word", "rank", "checkpoint")
    values = array.values.astype(np.float64)
    held = np.ones(values.shape[:2], dtype=np.bool_)
    if "layer" in array.coords:
        held = array["layer"].transpose("word", "rank").values >= 0
    for word, _, checkpoint in np.argwhere(held[..., None] & ~np.isfinite(values)):
        label = array["checkpoint"].values[checkpoint] if "checkpoint" in array.coords else None
        raise AnalysisError(
            "a formation process holds a value that is not a finite number",
            where=f"word {str(array['word'].values[word])!r} at checkpoint "
            f"{checkpoint if label is None else repr(str(label))}",
            expected="finite scores",
        )
    for word in np.flatnonzero(~held.any(axis=1)):
        raise AnalysisError("no knowledge neurons", where=f"word {array['word'].values[word]}")
    return [values[word, held[word]] for word in range(len(values))]
