"""Which words lie near each other, whatever their groups: distances ordered by clustering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
from scipy.spatial.distance import squareform

from kntrace.analysis import Analysis
from kntrace.figures.base import OfWords
from kntrace.figures.distances import draw_distances
from kntrace.figures.labels import number, per_cent
from kntrace.figures.matrix import MANY, in_group_order
from kntrace.figures.style import INK, drawing

__all__ = ["ClusterMap"]

_Floats = npt.NDArray[np.float64]

_SIDE = 24.0
# The best order of the leaves takes time with the cube of the words, and more.
_BEST_ORDER = 300


@dataclass(frozen=True)
class ClusterMap(OfWords):
    """Heat map of one distance, words in the order of a hierarchical clustering.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    distance
        Name of the distance.
    log
        Whether colours follow the logarithm of the distance.
    """

    name: str = "clusters"
    title: str = "Words in the order in which they cluster"
    how_to_read: str = (
        "The same distances as on the map by neuron identity, but the words' groups had no part "
        "in their order: it is that of a clustering (average linkage, neighbours as near as the "
        "tree allows). Two branches join at the mean distance between their words. The coloured "
        "strips are the groups: where groups form alike they would lie in long runs of one "
        "colour. A tree is drawn of any distances, whether or not there are clusters; how well "
        "this one keeps to them is said below as cophenetic correlation."
    )
    distance: str = "identity"
    log: bool = False

    def prepare(self, analysis: Analysis) -> xr.Dataset:
        """Distances in the order of the leaves, and the tree.

        Returns
        -------
        xr.Dataset
            `distance` (word, other_word), NaN on the diagonal; the words as the tree has them.
            `joined` (join, part): the clusters that each join makes one of, a cluster below the
            number of words being the word at this place, and the others joins, counted on from
            there. `height` (join): their mean distance. Attributes: those of the distance;
            `cophenetic`, the correlation of the distances with the heights at which words are
            joined; `neighbours`, the share of words next to one another that are of one group,
            and `neighbours_chance`, what it is on average if the order is random; `groups`.

        Notes
        -----
        Unweighted average linkage (Sokal and Michener 1958); up to 300 words the leaves are in
        the best order (Bar-Joseph et al. 2001).
        """
        matrix = in_group_order(analysis.distances[self.distance], analysis.groups)
        pairs = squareform(_symmetric(matrix.values), checks=False)
        tree = linkage(pairs, "average", optimal_ordering=len(matrix) <= _BEST_ORDER)
        order = leaves_list(tree)
        found = matrix.isel(word=order, other_word=order).copy()
        np.fill_diagonal(found.values, np.nan)
        place = np.argsort(order)
        joined = tree[:, :2].astype(np.int64)
        words = len(order)
        joined = np.where(joined < words, place[np.minimum(joined, words - 1)], joined)
        groups = found["group"].values
        _, sizes = np.unique(groups, return_counts=True)
        return xr.Dataset(
            {
                "distance": found,
                "joined": (("join", "part"), joined),
                "height": ("join", tree[:, 2]),
            },
            attrs={
                **matrix.attrs,
                "cophenetic": _correlation(pairs, cophenet(tree)),
                "neighbours": float((groups[1:] == groups[:-1]).mean()),
                "neighbours_chance": float((sizes * (sizes - 1)).sum() / (words * (words - 1))),
                "groups": list(analysis.groups),
            },
        )

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw the heat map, and to the right the tree, its root at the right."""
        names = table.attrs["groups"]
        frame = draw_distances(table["distance"], self.log, side=_SIDE, names=names)
        side = frame.side
        if side is None:
            raise ValueError("the frame has no panel for the tree")
        with drawing():
            _draw_tree(side, table)
        return frame.figure

    def describe(self, table: xr.Dataset) -> str:
        """How many neighbours are of one group, and how well the tree keeps to the distances."""
        attrs = table.attrs
        words = [str(word) for word in table["word"].values]
        return (
            f"Heat map of the distance {attrs['distance']} between {len(words)} words in the order "
            f"of a hierarchical clustering, with its tree. Of the words next to one another "
            f"{per_cent(attrs['neighbours'])} are of one group, in a random order it would be "
            f"{per_cent(attrs['neighbours_chance'])}. Cophenetic correlation "
            f"{number(attrs['cophenetic'], 2)}."
        )


def _symmetric(values: _Floats) -> _Floats:
    """Without the rounding by which the two halves may differ."""
    mean: _Floats = (values + values.T) / 2
    np.fill_diagonal(mean, 0.0)
    return mean


def _correlation(one: _Floats, other: _Floats) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _draw_tree(ax: Axes, table: xr.Dataset) -> None:
    words = table.sizes["word"]
    height = table["height"].values
    row, at = np.arange(2.0 * words - 1), np.zeros(2 * words - 1)
    lines = []
    for join, (one, other) in enumerate(table["joined"].values):
        here = words + join
        row[here], at[here] = (row[one] + row[other]) / 2, height[join]
        lines.append(
            [
                *((at[one], row[one]), (at[here], row[one])),
                *((at[here], row[other]), (at[other], row[other])),
            ]
        )
    style: dict[str, Any] = {"colors": INK, "linewidths": 0.5 if words <= 100 else 0.25}
    tree = LineCollection(lines, capstyle="projecting", rasterized=words > MANY, **style)
    ax.add_collection(tree)
    most = float(height.max()) or 1.0
    ax.set_xlim(0, most * 1.04)
    ax.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.grid(visible=False)
    ax.set_xlabel("mean distance\nof what is joined", labelpad=1)
