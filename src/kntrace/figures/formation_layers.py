"""When one word's knowledge neurons form, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kntrace.analysis import Analysis
from kntrace.figures.base import OfAnalysis
from kntrace.figures.formation import NEGATIVE, Formation, share_bar
from kntrace.figures.labels import LINE, fitted
from kntrace.figures.matrix import blocks_of, colour_map
from kntrace.figures.sizes import size_now
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import INK, TEXT, drawing, new_figure, settle, tidy

__all__ = ["FormationByLayer"]

_CELL, _LEAST, _REST = 1.5, 24.0, 26.0


@dataclass(frozen=True)
class FormationByLayer(OfAnalysis):
    """Heat map of a word's strongest neurons, those of a layer together, sorted by formation.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    word
        The word; unless given, the one whose answer is most probable at the last checkpoint.
    neurons
        How many neurons to show, at most.
    """

    name: str = "formation_layers"
    title: str = "Formation of one word's knowledge neurons, layer by layer"
    how_to_read: str = (
        "The same word as before with more of its neurons: each row is a neuron's score as a "
        "share of its own largest, the layers from the last (top) to the first, and within a "
        "layer from the first to form to the last. The white dots, from which on a neuron's score "
        "stays above half of its last, would stand in one line if all layers formed at once; "
        "look for layers whose dots lie to the left of others'. One word's neurons in one "
        "training say nothing of words in general."
    )
    word: str | None = None
    neurons: int = 60

    def prepare(self, analysis: Analysis) -> xr.Dataset:
        """Scores of the word's first neurons, the last layer first, then as they form.

        Returns
        -------
        xr.Dataset
            As of `kntrace.figures.Formation`, in another order.

        Raises
        ------
        AnalysisError
            If the analysis has no such word.
        """
        table = Formation(word=self.word, neurons=self.neurons).prepare(analysis)
        # As they form already: a stable sort by layer keeps that.
        return table.isel(place=np.argsort(-table["layer"].values, kind="stable"))

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw the heat map."""
        with drawing([table.attrs["word"], table.attrs["group"]]):
            now = size_now()
            cells = max(_LEAST, table.sizes["place"] * _CELL)
            cells = max(min(cells, now.tallest - _REST), _LEAST)
            figure = new_figure(now.narrow, cells + _REST, spaced=True)
            ax, axis = figure.add_subplot(), StepAxis.of(table)
            image = _draw_cells(ax, table, axis, cells)
            axis.apply(ax, now.narrow * 0.75, cells=True)
            title = f"{table.attrs['word']} ({table.attrs['group']})"
            ax.set_title(fitted(title, now.narrow * 0.75, TEXT), loc="left", size=TEXT, pad=3)
            share_bar(figure, ax, image)
            return settle(figure)

    def describe(self, table: xr.Dataset) -> str:
        """When each layer's neurons are half formed, in the median."""
        axis = StepAxis.of(table)
        parts = []
        for block in reversed(blocks_of([str(layer) for layer in table["layer"].values])):
            formed = float(np.median(table["formed"].values[block.start : block.stop]))
            label = axis.labels[min(int(np.ceil(formed)), len(axis.labels) - 1)]
            parts.append(f"layer {block.group}: {block.size}, by {label}")
        shown = parts[:16] + ([f"{len(parts) - 16} more layers"] if len(parts) > 16 else [])
        return (
            f"Scores of the {table.sizes['place']} strongest knowledge neurons of the word "
            f"{table.attrs['word']} through training, by layer. Neurons, and the checkpoint by "
            f"which half of them have half of their final score: {'; '.join(shown)}."
        )


def _draw_cells(ax: Axes, table: xr.Dataset, axis: StepAxis, height: float) -> ScalarMappable:
    scores = table["score"].values
    many = len(scores)
    largest = np.maximum(scores.max(axis=1, keepdims=True), 1e-300)
    image = ax.pcolormesh(
        *(axis.edges, np.arange(many + 1) - 0.5, scores / largest),
        cmap=colour_map("viridis", zero=NEGATIVE),
        norm=Normalize(0, 1),
        rasterized=True,
    )
    ax.set_ylim(many - 0.5, -0.5)
    blocks = blocks_of([str(layer) for layer in table["layer"].values])
    for block in blocks[1:]:
        ax.axhline(block.start - 0.5, color="white", linewidth=0.9)
    shown: list[Any] = []
    for block in blocks:
        # As many layers are named as have room.
        if not shown or (block.middle - shown[-1].middle) * height / many >= LINE:
            shown.append(block)
    ax.set_yticks([block.middle for block in shown], [block.group for block in shown])
    tidy(ax)
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel(f"layer ({many} of {table.attrs['k']:,} neurons)", labelpad=2)
    place = np.interp(table["formed"].values, np.arange(axis.places.size), axis.places)
    ax.scatter(place, np.arange(many), s=3.5, color="white", edgecolor=INK, linewidth=0.35)
    ax.spines[:].set_visible(False)
    return image
