"""How far apart words are: the paper's figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kntrace.analysis import Analysis
from kntrace.figures.base import OfDistance
from kntrace.figures.labels import number
from kntrace.figures.matrix import Frame, colour_map, in_group_order
from kntrace.figures.style import drawing

__all__ = ["DistanceMap", "draw_distances"]

_ZERO = "black"
# Smaller distances than this part of the largest are drawn as if they were no smaller.
_RANGE = 1e-6


@dataclass(frozen=True)
class DistanceMap(OfDistance):
    """Heat map of one distance between all words.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    distance
        Name of the distance.
    log
        Whether colours follow the logarithm of the distance.
    """

    name: str = "distances"
    title: str = "Distances between words"
    how_to_read: str = (
        "Every cell is the distance between the formation processes of two words; dark is near. "
        "Groups that form alike would be dark squares along the diagonal. Stripes are single "
        "words that are near to, or far from, everything: they say nothing of groups. This "
        "distance answers to when a word is learnt, whatever it means. The grey diagonal is no "
        "data."
    )
    distance: str = "emd"
    log: bool = True

    def prepare(self, analysis: Analysis) -> xr.DataArray:
        """Distances (word, other_word), group by group; NaN on the diagonal, which is no data."""
        matrix = in_group_order(analysis.distances[self.distance], analysis.groups).copy()
        np.fill_diagonal(matrix.values, np.nan)
        return matrix

    def draw(self, table: xr.DataArray) -> Figure:
        """Draw the heat map; dark is near, and grey the diagonal."""
        return draw_distances(table, self.log).figure

    def describe(self, table: xr.DataArray) -> str:
        """Range, nearest pair, and medians within and between groups."""
        words, groups = _texts(table)
        i, j = np.triu_indices(len(words), 1)
        values = table.values[i, j]
        same = np.array([groups[a] == groups[b] for a, b in zip(i, j, strict=True)])
        near = int(values.argmin())
        inside = number(float(np.median(values[same]))) if same.any() else "–"
        across = number(float(np.median(values[~same]))) if (~same).any() else "–"
        return (
            f"Heat map of the distance {table.attrs['distance']} between {len(words)} words in "
            f"{len(dict.fromkeys(groups))} groups, from {number(float(values.min()))} to "
            f"{number(float(values.max()))}. Median within groups {inside}, between groups "
            f"{across}. Nearest pair: {words[i[near]]} and {words[j[near]]}."
        )


def draw_distances(
    table: xr.DataArray, log: bool, *, side: float = 0.0, names: Sequence[str] | None = None
) -> Frame:
    """Draw the heat map of a distance; see `Frame.build` for `side` and `names`."""
    words, groups = _texts(table)
    with drawing([*words, *groups]):
        frame = Frame.build(words, groups, side=side, names=names)
        norm, ticks, low = _scale(table.values, log)
        floor = float(norm.vmin or 0.0)
        zeros = int((_upper(table) == 0).sum()) if log else 0
        values = table.values
        if log:
            # A zero has no logarithm: it is put below the scale, in a colour of its own.
            below = floor / 2 if floor > 0 else -1.0
            values = np.where(values == 0, below, np.maximum(values, floor))
        image = frame.fill(values, colour_map("viridis", zero=_ZERO if zeros else None), norm)
        label = f"{table.attrs['distance']}: distance"
        label += f" in {table.attrs['unit']}" if table.attrs.get("unit") else ", without unit"
        scale = " (log)" if zeros else " (log scale)"  # both have to fit in small figures
        label += scale if isinstance(norm, LogNorm) else ""
        pairs = "pair" if zeros == 1 else "pairs"
        label += f"; black: exactly 0 ({zeros} {pairs})" if zeros else ""
        frame.colour_bar(image, label, ticks, extend="min" if low or zeros else "neither")
        return frame


def _texts(table: xr.DataArray) -> tuple[list[str], list[str]]:
    return [str(word) for word in table["word"].values], [str(g) for g in table["group"].values]


def _upper(table: xr.DataArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = table.values[np.triu_indices(len(table), 1)]
    return values


def _scale(values: npt.NDArray[np.float64], log: bool) -> tuple[Normalize, list[float], bool]:
    """Choose norm and ticks, and say whether some distances lie below the norm's range."""
    seen = values[np.isfinite(values)]
    if log:
        seen = seen[seen > 0]
    if not seen.size:
        return Normalize(0.0, 1.0), [0.0, 1.0], False
    low, high = float(seen.min()), float(seen.max())
    if not log or low == high:
        low, high = (low, high) if low < high else (low - abs(low) / 10 - 1e-12, high)
        ticks = [
            t
            for t in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
            if low <= t <= high
        ]
        return Normalize(low, high), ticks, False
    floor = max(low, high * _RANGE)
    return LogNorm(floor, high), _log_ticks(floor, high), low < floor


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two others: as many as have room, at least the ends."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) <= 7:
            return ticks if len(ticks) > 1 else [low, high]
    return ticks[:: -(-len(ticks) // 7)]
