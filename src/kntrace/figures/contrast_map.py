"""Which words are farther away than a word's own group: the paper's figure 4, and table 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import PercentFormatter

from kntrace.analysis import Analysis
from kntrace.figures.labels import number, per_cent
from kntrace.figures.matrix import MANY, Frame, colour_map, in_group_order
from kntrace.figures.style import INK, MUTED, drawing, group_looks, legend

__all__ = ["ContrastMap"]

_SIDE = 22.0
_HATCH = "////////"
# Colours span the bulk of the cells, to the next round power of two, whichever side is longer.
_BULK, _ROUND = 95.0, 0.25
# Factors to write where the colours do not reach as far as two, by how far they reach.
_BELOW_TWO = (
    (0.75, (0.6, 0.8, 1.0, 1.25, 1.6)),
    (0.5, (0.8, 0.9, 1.0, 1.1, 1.25)),
    (0.25, (0.9, 1.0, 1.1)),
)


@dataclass(frozen=True)
class ContrastMap:
    """Heat map of each distance relative to its row's mean same-group distance.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    distance
        Name of the distance.
    """

    name: str = "contrast_map"
    title: str = "Other-group words against a word's own group"
    how_to_read: str = (
        "Each row is measured by its own threshold, the mean distance from the row's word to "
        "the others of its group. Blue cells are farther than that, red ones nearer; the words "
        "of the group itself are hatched. The bars count the blue cells among the words of "
        "other groups, a bar a word; the line is the group's share, as in the paper's table 2, "
        "and the dashed line what shuffled labels give. That is not one half, since distances "
        "are skewed."
    )
    distance: str = "emd"

    def applies(self, analysis: Analysis) -> bool:
        """Whether the distance was computed and tested."""
        return self.distance in analysis.distances and self.distance in analysis.contrasts

    def prepare(self, analysis: Analysis) -> xr.Dataset:
        """Cells, rows and groups of the contrast.

        Returns
        -------
        xr.Dataset
            `ratio` (word, other_word): log2 of the distance over the row's threshold, the
            word's mean same-group distance; NaN on the diagonal and where there is no
            threshold, -inf for a distance of zero. `same` (word, other_word): same group.
            `threshold`, `share_above` (word). `share`, `chance`, `p` (of_group): the group's
            share of other-group cells above the threshold, its mean over permutations, and
            the permutation p-value of the share.
        """
        matrix = in_group_order(analysis.distances[self.distance], analysis.groups)
        found = analysis.contrasts[self.distance]
        words = found.words.set_index("word").loc[[str(w) for w in matrix["word"].values]]
        rows = found.groups.set_index("group")
        threshold = words["threshold"].to_numpy(dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log2(matrix.values / threshold[:, None])
        # Nothing lies between two words that are the same, or beyond a threshold of nothing.
        ratio[np.isnan(ratio) & ~np.isnan(threshold)[:, None]] = 0.0
        np.fill_diagonal(ratio, np.nan)
        groups = matrix["group"].values
        of_group = [str(name) for name in dict.fromkeys(groups)]
        cells = ("word", "other_word")
        return xr.Dataset(
            {
                "ratio": (cells, ratio),
                "same": (cells, groups[:, None] == groups[None, :]),
                "threshold": ("word", threshold),
                "share_above": ("word", words["share_above"].to_numpy(dtype=np.float64)),
                "share": ("of_group", rows.loc[of_group, "share_above"].to_numpy(np.float64)),
                "chance": ("of_group", rows.loc[of_group, "chance"].to_numpy(np.float64)),
                "p": ("of_group", rows.loc[of_group, "share_p"].to_numpy(np.float64)),
            },
            coords={**matrix.coords, "of_group": of_group},
            attrs={
                "distance": self.distance,
                "permutations": found.permutations,
                "share": float(found.overall["share_above"]),
                "chance": float(found.overall["chance"]),
            },
        )

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw cells to the left; to the right the shares of rows and groups."""
        words = [str(word) for word in table["word"].values]
        groups = [str(group) for group in table["group"].values]
        with drawing([*words, *groups]):
            notes = {
                str(group): f"{per_cent(share)}  (chance {per_cent(chance)})"
                for group, share, chance in zip(
                    *(table[name].values for name in ("of_group", "share", "chance")), strict=True
                )
                if not math.isnan(share)
            }
            frame = Frame.build(words, groups, side=_SIDE, notes=notes)
            limit = _limit(table["ratio"].values)
            values = np.clip(table["ratio"].values, -2 * limit, 2 * limit)
            image = frame.fill(values, colour_map("RdBu"), Normalize(-limit, limit))
            for block in (block for block in frame.blocks if block.size > 1):
                corner = (block.start - 0.5, block.start - 0.5)
                frame.cells.add_patch(
                    Rectangle(
                        *(corner, block.size, block.size),
                        facecolor="none",
                        edgecolor=INK,
                        linewidth=0.0,
                        hatch=_HATCH,
                        alpha=0.55,
                    )
                )
            factors = _factors(limit)
            frame.colour_bar(
                image,
                f"{table.attrs['distance']} ÷ the row's same-group mean: red nearer, blue farther",
                [math.log2(factor) for factor in factors],
                extend="both",
                names=["×" + number(factor) for factor in factors],
            )
            _draw_shares(frame, table)
            return frame.figure

    def describe(self, table: xr.Dataset) -> str:
        """Shares overall and by group, with what chance gives."""
        shares = [
            f"{group} {per_cent(share, 1)} (chance {per_cent(chance, 1)})"
            for group, share, chance in zip(
                *(table[name].values for name in ("of_group", "share", "chance")), strict=True
            )
        ]
        return (
            f"Of the other-group words, {per_cent(table.attrs['share'], 1)} are farther away by "
            f"{table.attrs['distance']} than the row's word is from its own group on average "
            f"(chance {per_cent(table.attrs['chance'], 1)}). By group: {'; '.join(shares)}."
        )


def _limit(ratio: npt.NDArray[np.float64]) -> float:
    seen = np.abs(ratio[np.isfinite(ratio)])
    bulk = float(np.percentile(seen, _BULK)) if seen.size else 0.0
    return max(_ROUND, math.ceil(bulk / _ROUND - 1e-9) * _ROUND)


def _factors(limit: float) -> list[float]:
    """Round factors to write on a colour bar that reaches `limit` to both sides of log2 = 0."""
    if limit >= 1:
        every = math.ceil(limit / 3)
        return [
            2.0**power for power in range(-every * 3, every * 3 + 1, every) if abs(power) <= limit
        ]
    for least, factors in _BELOW_TWO:
        if limit >= least:
            return list(factors)
    return [1.0]


def _draw_shares(frame: Frame, table: xr.Dataset) -> None:
    """Draw a bar for every row, and a line for every group's share and its chance."""
    side = frame.side
    if side is None:
        raise ValueError("the frame has no panel for the shares")
    groups = [str(group) for group in table["group"].values]
    looks = group_looks(groups)
    side.barh(
        np.arange(len(groups)),
        np.nan_to_num(table["share_above"].values),
        height=0.78,
        color=[looks[group].colour for group in groups],
        alpha=0.45,
        linewidth=0,
        # So many bars are lighter as a picture, in drawings too.
        rasterized=len(groups) > MANY,
    )
    values = {
        str(group): (share, chance)
        for group, share, chance in zip(
            *(table[name].values for name in ("of_group", "share", "chance")), strict=True
        )
    }
    for block in frame.blocks:
        ends = [block.start - 0.5, block.stop - 0.5]
        share, chance = values[block.group]
        side.plot([share] * 2, ends, color=INK, linewidth=1.1, solid_capstyle="butt")
        side.plot([chance] * 2, ends, color=INK, linewidth=1.0, linestyle=(0, (1.5, 1.2)))
        if block.start:
            side.axhline(ends[0], color="white", linewidth=0.9)
    side.set_xlim(0, 1)
    side.set_xticks([0, 0.5, 1])
    side.xaxis.set_major_formatter(PercentFormatter(1.0))
    side.set_xlabel("other-group words\nabove the mean", labelpad=1)
    dashes = (0, (1.5, 1.2))
    handles = [
        Patch(color=MUTED, alpha=0.45, linewidth=0, label="a word"),
        Line2D([], [], color=INK, linewidth=1.1, label="the group"),
        Line2D([], [], color=INK, linewidth=1.0, linestyle=dashes, label="chance"),
        Patch(facecolor="white", edgecolor=INK, hatch=_HATCH, linewidth=0, label="same group"),
    ]
    legend(frame.figure, handles, frame.foot)
