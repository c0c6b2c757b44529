"""How one word's knowledge neurons form: their scores at every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kntrace.analysis import Analysis
from kntrace.emergence import half_rise
from kntrace.errors import AnalysisError
from kntrace.figures.base import OfAnalysis
from kntrace.figures.labels import LINE, fitted, number, spread, width_of
from kntrace.figures.matrix import colour_map
from kntrace.figures.sizes import size_now
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import (
    INK,
    MUTED,
    TEXT,
    drawing,
    group_looks,
    legend,
    new_figure,
    settle,
    tidy,
)

__all__ = ["NEGATIVE", "Formation", "share_bar"]

_LINES, _CELLS, _REST, _WIDE = 38.0, 2.7, 30.0, 120.0
# Cells of scores below zero.
NEGATIVE = "#e9d8c8"


@dataclass(frozen=True)
class Formation(OfAnalysis):
    """Formation processes of the neurons with the largest final scores of one word.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    word
        The word; unless given, the one whose answer is most probable at the last checkpoint.
    neurons
        How many neurons to show, at most.
    lines
        How many of them to draw as lines too.
    """

    name: str = "formation"
    title: str = "Formation of one word's knowledge neurons"
    how_to_read: str = (
        "How the neurons that carry one word's answer at the end came to carry it. Above, the "
        "scores of the strongest few (colours) and of the others shown (grey). Below, each "
        "neuron's score as a share of its own largest, sorted by when it is formed: the white "
        "dot, from which on the score stays above half of its last value. Neurons are chosen "
        "at the last checkpoint, so that all of them end high is no finding."
    )
    word: str | None = None
    neurons: int = 30
    lines: int = 5

    def prepare(self, analysis: Analysis) -> xr.Dataset:
        """Scores of the word's first neurons, in the order in which they form.

        Returns
        -------
        xr.Dataset
            `score` (place, checkpoint), in units of probability; `layer`, `neuron`, `rank`
            (place), the rank being 0 for the largest score at the last checkpoint;
            `formed` (place): the checkpoint, counted from 0 and with a fraction between two,
            from which on the score stays above half of its last value. Attributes `word`,
            `group`, `k`.

        Raises
        ------
        AnalysisError
            If the analysis has no such word.
        """
        word = self.word or _best_known(analysis.probability)
        words = [str(name) for name in analysis.formation["word"].values]
        if word not in words:
            raise AnalysisError(f"no word {word!r} in this analysis", expected=", ".join(words[:9]))
        rows = analysis.formation.isel(word=words.index(word)).transpose("rank", "checkpoint")
        # A place that a word with fewer neurons leaves empty has the layer -1.
        rows = rows.isel(rank=np.flatnonzero(rows["layer"].values >= 0)[: self.neurons])
        # What does not end above zero has not formed, which is last of all.
        formed = np.nan_to_num(half_rise(rows.values), nan=rows.sizes["checkpoint"] - 1.0)
        order = np.argsort(formed, kind="stable")
        return xr.Dataset(
            {
                "score": (("place", "checkpoint"), rows.values[order]),
                "layer": ("place", rows["layer"].values[order]),
                "neuron": ("place", rows["neuron"].values[order]),
                "rank": ("place", rows["rank"].values[order]),
                "formed": ("place", formed[order]),
            },
            coords={name: rows[name] for name in ("checkpoint", "step")},
            attrs={
                "word": word,
                "group": str(rows["group"].values),
                "k": analysis.k,
                "lines": self.lines,
                "unit": str(analysis.formation.attrs.get("unit", "probability")),
            },
        )

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw the first few neurons as lines, and below them all as a heat map."""
        word = table.attrs["word"]
        with drawing([word, table.attrs["group"]]):
            cells = max(18.0, table.sizes["place"] * _CELLS)
            # Beside each other where there is room, else one above the other.
            wide = size_now().narrow >= _WIDE
            width = size_now().narrow / (2 if wide else 1)
            cells = min(cells, size_now().tallest - _REST - (0 if wide else _LINES))
            height = _REST + (cells if wide else _LINES + cells)
            figure = new_figure(size_now().narrow, height, spaced=True)
            grid = (
                figure.add_gridspec(1, 2)
                if wide
                else figure.add_gridspec(2, 1, height_ratios=[_LINES, cells])
            )
            axis = StepAxis.of(table)
            top, heat = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
            _draw_lines(top, table, axis, width)
            axis.apply(top, width * 0.7, cells=True, label=wide)
            image = _draw_cells(heat, table, axis, cells)
            axis.apply(heat, width * 0.7, cells=True)
            share_bar(figure, heat, image)
            return settle(figure)

    def describe(self, table: xr.Dataset) -> str:
        """The first neuron to form, the last, and the one with the largest score."""
        names = neuron_names(table)
        axis = StepAxis.of(table)
        top = int(np.argmin(table["rank"].values))
        middle = float(np.median(table["formed"].values))
        return (
            f"Scores of the {len(names)} strongest knowledge neurons of the word "
            f"{table.attrs['word']} through training. Half of them have half of their final "
            f"score by checkpoint {axis.labels[min(int(np.ceil(middle)), len(axis.labels) - 1)]}. "
            f"First to form: {names[0]}; last: {names[-1]}; largest final score: {names[top]}, "
            f"{number(float(table['score'].values[top, -1]))}."
        )


def neuron_names(table: xr.Dataset) -> list[str]:
    """Write the neurons as layer.neuron."""
    pairs = zip(table["layer"].values, table["neuron"].values, strict=True)
    return [f"{layer}.{neuron}" for layer, neuron in pairs]


def share_bar(figure: Figure, ax: Axes, image: ScalarMappable) -> None:
    """Say below a heat map of neurons what its colours are."""
    bar = figure.colorbar(image, ax=ax, orientation="horizontal", extend="min", aspect=28, pad=0.02)
    bar.set_label("share of the neuron's largest score (pale: below 0)", labelpad=2)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.outline.set_linewidth(0.4)
    tidy(bar.ax)


def _best_known(probability: xr.DataArray) -> str:
    last = probability.isel(checkpoint=-1)
    return str(last["word"].values[int(np.argmax(last.values))])


def _draw_lines(ax: Axes, table: xr.Dataset, axis: StepAxis, width: float) -> None:
    names, ranks = neuron_names(table), table["rank"].values
    chosen = np.argsort(ranks)[: table.attrs["lines"]]
    looks = list(group_looks(names[place] for place in chosen).values())
    marker = "o" if axis.places.size == 1 else None
    for place in np.argsort(ranks)[len(chosen) :]:
        ax.plot(axis.places, table["score"].values[place], color=MUTED, lw=0.3, alpha=0.35)
    for place, look in zip(chosen, looks, strict=True):
        ax.plot(
            axis.places,
            table["score"].values[place],
            color=look.colour,
            linestyle=look.dashes,
            lw=1.2,
            marker=marker,
            markersize=3,
            label=names[place],
        )
    tidy(ax, grid="y")
    ax.axhline(0, color=INK, linewidth=0.5)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.set_ylabel("attribution score\n(probability)", labelpad=2)
    title = fitted(f"{table.attrs['word']} ({table.attrs['group']})", width * 0.75, TEXT)
    ax.set_title(title, loc="left", size=TEXT, pad=14)
    legend(ax, ax.get_legend_handles_labels()[0], (0.0, 1.02), columns=len(chosen))


def _draw_cells(ax: Axes, table: xr.Dataset, axis: StepAxis, height: float) -> ScalarMappable:
    scores, names = table["score"].values, neuron_names(table)
    largest = np.maximum(scores.max(axis=1, keepdims=True), 1e-300)
    rows = np.arange(len(names) + 1) - 0.5
    image = ax.pcolormesh(
        axis.edges,
        rows,
        scores / largest,
        cmap=colour_map("viridis", zero=NEGATIVE),
        norm=Normalize(0, 1),
        rasterized=True,
    )
    ax.set_ylim(len(names) - 0.5, -0.5)
    shown = spread(list(np.arange(len(names)) * height / len(names)), LINE)
    ax.set_yticks(shown, [names[row] for row in shown])
    tidy(ax)
    ax.tick_params(axis="y", length=0)
    label = f"{len(names)} of {table.attrs['k']:,} neurons (layer.neuron), first formed on top"
    short = "layer.neuron"
    ax.set_ylabel(label if height > width_of(label, TEXT) else short, labelpad=2)
    # Where each row is first half formed.
    place = np.interp(table["formed"].values, np.arange(axis.places.size), axis.places)
    ax.scatter(place, np.arange(len(names)), s=5, color="white", edgecolor=INK, linewidth=0.4)
    ax.spines[:].set_visible(False)
    return image
