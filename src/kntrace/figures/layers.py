"""In which layers words are kept, and when: shares of attribution by layer and step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kntrace.analysis import Analysis
from kntrace.errors import AnalysisError
from kntrace.figures.base import OfAnalysis
from kntrace.figures.labels import per_cent, wrapped
from kntrace.figures.matrix import colour_map
from kntrace.figures.sizes import size_now
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import TEXT, drawing, new_figure, settle, tidy

__all__ = ["LayerMap"]

_Floats = npt.NDArray[np.float64]

# Width of a panel at least, and height of a row of panels (mm).
_PANEL, _ROW, _LEAST_ROW, _REST = 33.0, 26.0, 16.0, 17.0
# More groups than this are drawn as all words together.
_MOST = 24
_ALL = "all words"


@dataclass(frozen=True)
class LayerMap(OfAnalysis):
    """Shares of the knowledge neurons' attribution by layer at every checkpoint.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    word
        Only this word; unless given, every group, and all words together.
    """

    name: str = "layers"
    title: str = "Where attribution lies: layers through training"
    how_to_read: str = (
        "Every column is a checkpoint and adds up to 100 %: how the attribution of the words' "
        "knowledge neurons, sizes of scores without their signs, is shared out over the layers, "
        "mean over a group's words. The mark on the scale is what a layer has if all have the "
        "same. The neurons are those chosen at the last checkpoint, so that its column says where "
        "they are, and the columns before it where these same neurons' attribution lay; neurons "
        "that mattered early and no more are not in it. Before the answers are known, shares are "
        "shares of next to nothing."
    )
    word: str | None = None

    def prepare(self, analysis: Analysis) -> xr.DataArray:
        """Shares, (of, layer, checkpoint).

        Returns
        -------
        xr.DataArray
            `of`: all words, then every group (if there are at most 24), or the word alone. A
            word whose neurons have no attribution at a checkpoint counts for nothing there; NaN
            where no word has any. Attributes `equal`, the share of each layer if all have the
            same; `k`; `unit`.

        Raises
        ------
        AnalysisError
            If the analysis has no such word.
        """
        formation = analysis.formation.transpose("word", "rank", "checkpoint")
        words = [str(word) for word in formation["word"].values]
        shares = word_shares(formation, _layers(analysis))
        group = formation["group"].values
        rows: dict[str, _Floats] = {}
        if self.word is not None:
            if self.word not in words:
                raise AnalysisError(
                    f"no word {self.word!r} in this analysis", expected=", ".join(words[:9])
                )
            rows[self.word] = shares[words.index(self.word)]
        else:
            rows[_ALL] = _mean(shares)
            if 1 < len(analysis.groups) <= _MOST:
                rows |= {name: _mean(shares[group == name]) for name in analysis.groups}
        return xr.DataArray(
            np.stack(list(rows.values())),
            dims=("of", "layer", "checkpoint"),
            coords={
                "of": list(rows),
                "layer": np.arange(shares.shape[1]),
                **{name: formation[name] for name in ("checkpoint", "step")},
            },
            attrs={"equal": 1 / shares.shape[1], "k": analysis.k, "unit": "share"},
        )

    def draw(self, table: xr.DataArray) -> Figure:
        """Draw one map a group, the last layer on top."""
        names = [str(name) for name in table["of"].values]
        with drawing(names):
            now = size_now()
            width = now.narrow if len(names) <= 6 else now.wide
            columns = min(len(names), max(1, int(width / _PANEL)))
            rows = math.ceil(len(names) / columns)
            high = max(_LEAST_ROW, min(_ROW, (now.tallest - _REST) / rows))
            figure = new_figure(width, high * rows + _REST, spaced=True)
            grid = figure.add_gridspec(rows, columns)
            axis, norm = StepAxis.of(table), Normalize(0, float(np.nanmax(table.values)))
            axes, image = [], None
            for place, name in enumerate(names):
                ax = figure.add_subplot(grid[place // columns, place % columns])
                image = _draw_map(ax, table.values[place], axis, norm)
                lowest = place + columns >= len(names)
                axis.apply(ax, width * 0.7 / columns, cells=True, label=lowest)
                if axis.known and lowest:
                    ax.set_xlabel("training step" if columns > 1 else axis.name, labelpad=2)
                if place % columns:
                    ax.set_yticklabels([])
                else:
                    ax.set_ylabel("layer", labelpad=2)
                title = wrapped(name, width * 0.8 / columns, 2, TEXT)
                ax.set_title("\n".join(title), loc="left", pad=2, size=TEXT)
                axes.append(ax)
            if image is not None:
                _draw_bar(figure, axes, image, table.attrs["equal"])
            return settle(figure)

    def describe(self, table: xr.DataArray) -> str:
        """The layer with most at the first and the last checkpoint."""
        axis = StepAxis.of(table)
        parts = []
        for name, shares in zip(table["of"].values, table.values, strict=True):
            tops = []
            for place in (0, -1):
                if np.isnan(shares[:, place]).all():
                    tops.append("none")
                    continue
                layer = int(np.argmax(shares[:, place]))
                tops.append(f"layer {layer} ({per_cent(float(shares[layer, place]))})")
            parts.append(f"{name}: {tops[0]}, at the end {tops[1]}")
        shown = parts[:9] + ([f"and {len(parts) - 9} more groups"] if len(parts) > 9 else [])
        return (
            f"Maps of {table.sizes['layer']} layers over {len(axis.labels)} checkpoints: the share "
            f"that each layer has of the knowledge neurons' attribution (equal shares would be "
            f"{per_cent(table.attrs['equal'], 1)}). Largest at {axis.labels[0]}: "
            f"{'; '.join(shown)}."
        )


def word_shares(formation: xr.DataArray, layers: int) -> _Floats:
    """Share of each layer in the sizes of a word's scores, (word, layer, checkpoint).

    NaN at a checkpoint at which all scores of the word are zero.
    """
    size = np.abs(np.nan_to_num(formation.values))
    layer = formation["layer"].transpose("word", "rank").values
    sums = np.zeros((size.shape[0], layers, size.shape[2]))
    # A place that a word with fewer neurons leaves empty has the layer -1.
    word, rank = np.nonzero(layer >= 0)
    np.add.at(sums, (word, layer[word, rank]), size[word, rank])
    total = sums.sum(axis=1, keepdims=True)
    shares: _Floats = np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)
    return shares


def _layers(analysis: Analysis) -> int:
    known = analysis.neurons.attrs.get("layers")
    return int(known) if known else int(analysis.formation["layer"].values.max()) + 1


def _mean(shares: _Floats) -> _Floats:
    """Mean over the words that have any, (layer, checkpoint)."""
    known = ~np.isnan(shares)
    count = known.sum(axis=0)
    total = np.where(known, shares, 0.0).sum(axis=0)
    mean: _Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _draw_map(ax: Axes, shares: _Floats, axis: StepAxis, norm: Normalize) -> ScalarMappable:
    rows = np.arange(len(shares) + 1) - 0.5
    image = ax.pcolormesh(
        *(axis.edges, rows, np.ma.masked_invalid(shares)),
        cmap=colour_map("cividis"),
        norm=norm,
        rasterized=True,
    )
    ax.set_ylim(-0.5, len(shares) - 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    tidy(ax)
    ax.spines[:].set_visible(False)
    return image


def _draw_bar(figure: Figure, axes: list[Axes], image: ScalarMappable, equal: float) -> None:
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", aspect=30, pad=0.02, shrink=0.8)
    bar.ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: per_cent(value)))
    bar.ax.axvline(equal, color="white", linewidth=1.6)
    bar.ax.axvline(equal, color="black", linewidth=0.7)
    bar.set_label(f"share of attribution (mark: equal shares, {per_cent(equal, 1)})", labelpad=2)
    bar.outline.set_linewidth(0.4)
    tidy(bar.ax)
