"""What a figure is: a small frozen object that prepares a table, draws it and describes it."""

from __future__ import annotations

from typing import Any, Protocol

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from kntrace.analysis import Analysis

__all__ = ["Drawing", "OfAnalysis", "OfDistance", "OfRun", "OfWords", "Table"]

Table = pd.DataFrame | xr.DataArray | xr.Dataset


class Drawing(Protocol):
    """One figure.

    The table that `prepare` makes holds every number that `draw` shows, so that a figure is
    tested, and can be redrawn by other means, from its table alone.
    """

    @property
    def name(self) -> str:
        """Name in the registry, and of the figure's files."""

    @property
    def title(self) -> str:
        """What the figure is, as a heading."""

    @property
    def how_to_read(self) -> str:
        """What its marks mean, what to look for, and what it does not say."""

    def applies(self, analysis: Analysis) -> bool:
        """Whether the analysis has what the figure shows."""

    def prepare(self, analysis: Analysis) -> Any:
        """Make the table of the numbers that are drawn; its type is the figure's own."""

    def draw(self, table: Any) -> Figure:
        """Draw what `prepare` gave."""

    def describe(self, table: Any) -> str:
        """Say in one or two sentences what is to be seen, for those who cannot see it."""


class OfAnalysis:
    """A figure of what every analysis has."""

    def applies(self, analysis: Analysis) -> bool:
        """Always."""
        return True


class OfRun:
    """A figure of what only the analysis of a run folder has, such as single prompts."""

    def applies(self, analysis: Analysis) -> bool:
        """Whether the analysis is of a run folder."""
        return analysis.run is not None


class OfDistance:
    """A figure of one distance, by its name."""

    distance: str

    def applies(self, analysis: Analysis) -> bool:
        """Whether the distance was computed."""
        return self.distance in analysis.distances


class OfWords(OfDistance):
    """A figure of one distance that says nothing of two words."""

    def applies(self, analysis: Analysis) -> bool:
        """Whether the distance was computed, between three words or more."""
        return super().applies(analysis) and analysis.distances[self.distance].sizes["word"] > 2
