"""The frame of all figures that compare every word with every other.

Rows and columns are the words, group by group. The groups' names stand to the right of their
rows, beside an optional panel with one mark a row; the colour bar lies below. Everything is
laid out in mm, from the measured size of the text, so that nothing overlaps or is cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kntrace.figures.key import draw_key, key_height
from kntrace.figures.labels import LINE, fitted, longest, number, spread, width_of, wrapped
from kntrace.figures.sizes import size_now
from kntrace.figures.style import INK, MUTED, SMALL, TEXT, Look, group_looks, new_figure, tidy

__all__ = ["MANY", "MASKED", "Block", "Frame", "blocks_of", "colour_map", "in_group_order"]

# Cells without a value: a word and itself, or a row without a threshold.
MASKED = "#c9c9c9"
# Of more words than this the marks beside the map are drawn as a picture, in svg and pdf too.
MANY = 200

_EDGE, _GAP = 1.5, 1.2
_BRACKET = 2.4
_LONGEST_WORD, _LONGEST_NAME, _NARROWEST_NAME = 24.0, 32.0, 8.0
_LARGEST, _SMALLEST, _WIDEST_CELL = 130.0, 34.0, 10.0
_BAR, _BAR_TICKS, _WIDE_BAR = 2.6, 4.2, 72.0
# Room below the panel for its axis and a legend of four lines.
_FOOT = 25.0
# Under this width of the matrix the groups are named below, and the panel is this wide.
_NARROW, _NARROW_SIDE = 46.0, 20.0
# Width of that legend.
_LEGEND = 24.5
_NAME_LINE = LINE * TEXT / SMALL


@dataclass(frozen=True)
class Block:
    """A group's rows: from `start` up to, not including, `stop`."""

    group: str
    start: int
    stop: int

    @property
    def middle(self) -> float:
        """Centre of the rows, row i reaching from i - 0.5 to i + 0.5."""
        return (self.start + self.stop - 1) / 2

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def blocks_of(groups: Sequence[str]) -> list[Block]:
    """Runs of equal names in a row."""
    blocks, start = [], 0
    for name, members in groupby(groups):
        stop = start + len(list(members))
        blocks.append(Block(name, start, stop))
        start = stop
    return blocks


def in_group_order(matrix: xr.DataArray, groups: Mapping[str, Sequence[str]]) -> xr.DataArray:
    """Sort rows and columns group by group, as `groups` has them."""
    place = {word: i for i, word in enumerate(w for members in groups.values() for w in members)}
    order = np.argsort([place[str(word)] for word in matrix["word"].values], kind="stable")
    return matrix.isel(word=order, other_word=order)


def colour_map(name: str, *, zero: str | None = None) -> Colormap:
    """Give matplotlib's colour map `name` a colour for cells without a value, and one for zero."""
    return mpl.colormaps[name].with_extremes(bad=MASKED, under=zero)


@dataclass(frozen=True)
class Frame:
    """A figure of a matrix, made by `Frame.build`.

    Attributes
    ----------
    figure
        The figure.
    cells
        Axes of the matrix, word i being centred at i in both directions, 0 at the top left.
    side
        Axes to the right that share the rows; None unless asked for.
    bar
        Axes below the matrix for the colour bar.
    blocks
        Rows of every group.
    looks
        How every group is drawn.
    bar_room, bar_lines
        Width in mm of the colour bar's label, and its number of lines.
    foot
        Lower left corner of the room for a legend below `side`, in fractions of the figure.
    """

    figure: Figure
    cells: Axes
    side: Axes | None
    bar: Axes
    blocks: list[Block]
    looks: dict[str, Look]
    bar_room: float
    bar_lines: int
    foot: tuple[float, float]

    @classmethod
    def build(
        cls,
        words: Sequence[str],
        groups: Sequence[str],
        *,
        side: float = 0.0,
        notes: Mapping[str, str] | None = None,
        names: Sequence[str] | None = None,
    ) -> Frame:
        """Lay the figure out, for the size that figures are drawn at now.

        Where there is no room to name the groups beside their rows, or where their rows do not
        lie together, a key below names them, and the panel to the right is narrower.

        Parameters
        ----------
        words, groups
            Word and group of every row.
        side
            Width in mm of the panel to the right; 0 for none.
        notes
            A line to stand below the name of a group.
        names
            All groups in their own order, if the rows' order is another.
        """
        notes, names = notes or {}, list(dict.fromkeys(names or groups))
        blocks = blocks_of(groups)
        left = min(longest(words), _LONGEST_WORD) + _GAP
        named = min(max(longest(names, TEXT), longest(notes.values())), _LONGEST_NAME)
        named = max(named, _NARROWEST_NAME if side else 0.0)
        beside = _BRACKET + (side + 2 * _GAP if side else 0.0)
        keyed = len(blocks) > len(names) or _room(left + beside + named) < _NARROW
        if keyed:
            # The last number below the panel reaches beyond it.
            named = _GAP if side else 0.0
            side = min(side, _NARROW_SIDE) if _room(left + beside) < _NARROW else side
            beside = _BRACKET + (side + 2 * _GAP if side else 0.0)
        key = {name: "   ".join(filter(None, (name, notes.get(name)))) for name in names}
        size, below, lines = _sizes(
            len(words), left, beside + named, list(key.values()) if keyed else [], bool(side)
        )
        cell = size / len(words)
        over = not keyed and all(width_of(b.group, TEXT) <= cell * b.size for b in blocks)
        top = _EDGE + _BRACKET + (_NAME_LINE if over else 0.0)
        bottom = below + left + _GAP + _BAR + _BAR_TICKS + lines * _NAME_LINE + _EDGE
        bottom = max(bottom, below + _FOOT) if side else bottom
        width, height = 2 * _EDGE + left + size + beside + named, top + size + bottom

        figure = new_figure(width, height)

        def place(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
            return x / width, y / height, w / width, h / height

        x, right = _EDGE + left, _EDGE + left + size + _BRACKET + _GAP
        cells = figure.add_axes(place(x, bottom, size, size))
        panel = figure.add_axes(place(right, bottom, side, size)) if side else None
        bar = place(x, bottom - left - _GAP - _BAR, min(size, _WIDE_BAR), _BAR)
        foot = min(right, width - _EDGE - _LEGEND)
        room = (foot - 2.0 if side else width - _GAP) - x
        frame = cls(
            *(figure, cells, panel, figure.add_axes(bar), blocks),
            looks=group_looks(names),
            bar_room=room,
            bar_lines=lines,
            foot=(foot / width, (_EDGE + below) / height),
        )
        frame._label_words(words, cell, left - _GAP)
        frame._draw_groups(cell, over)
        if keyed:
            draw_key(figure, key, frame.looks, _EDGE)
        else:
            frame._name_groups(cell, named, notes, 1 + beside / size)
        return frame

    def fill(
        self, values: npt.NDArray[np.float64], cmap: Colormap, norm: Normalize
    ) -> ScalarMappable:
        """Draw the cells; NaN is a cell without a value."""
        return self.cells.imshow(
            np.ma.masked_invalid(values),
            cmap=cmap,
            norm=norm,
            interpolation="nearest",
            extent=(-0.5, len(values) - 0.5, len(values) - 0.5, -0.5),
            aspect="auto",
        )

    def colour_bar(
        self,
        image: ScalarMappable,
        label: str,
        ticks: Sequence[float],
        *,
        extend: str = "neither",
        names: Sequence[str] | None = None,
    ) -> Colorbar:
        """Draw the colour bar, with numbers or `names` at `ticks`."""
        bar = self.figure.colorbar(
            image, cax=self.bar, orientation="horizontal", extend=extend, extendfrac=0.04
        )
        written = [number(tick) for tick in ticks] if names is None else list(names)
        length = self.bar.get_position().width * self.figure.get_figwidth() * 25.4
        places = np.ma.getdata(image.norm(np.array(ticks, dtype=np.float64))) * length
        shown = spread(places, longest(written) + _GAP)
        written = [written[place] for place in shown]
        bar.ax.xaxis.set_major_locator(FixedLocator([ticks[place] for place in shown]))
        bar.ax.xaxis.set_minor_locator(NullLocator())
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda _, place: written[place or 0]))
        bar.outline.set_linewidth(0.4)
        # The label begins where the colours do, which is beyond a pointed end.
        pointed = 0.0 if extend in ("neither", "max") else 0.05 * length
        lines = wrapped(label, self.bar_room - pointed, self.bar_lines, TEXT)
        bar.set_label("\n".join(lines), labelpad=2, loc="left")
        tidy(bar.ax)
        return bar

    def _label_words(self, words: Sequence[str], cell: float, room: float) -> None:
        shown = spread([cell * row for row in range(len(words))], LINE)
        labels = [fitted(words[row], room) for row in shown]
        ticks = 1.5 if len(shown) < len(words) else 0.0
        self.cells.set_xticks(shown, labels, rotation=90)
        self.cells.set_yticks(shown, labels)
        tidy(self.cells)
        self.cells.tick_params(length=ticks, pad=1.5)
        self.cells.set(xlim=(-0.5, len(words) - 0.5), ylim=(len(words) - 0.5, -0.5))
        self.cells.spines[:].set_visible(False)
        if self.side is not None:
            self.side.set_ylim(self.cells.get_ylim())
            self.side.set_yticks([])
            tidy(self.side, grid="x")
            self.side.spines["left"].set_visible(False)

    def _draw_groups(self, cell: float, over: bool) -> None:
        """Bracket the groups' rows and columns, and separate them where they lie together."""
        across, down = self.cells.get_xaxis_transform(), self.cells.get_yaxis_transform()
        size = cell * self.blocks[-1].stop
        thick = 0.9 if cell * min(block.size for block in self.blocks) > 2 else 0.3
        together = len(self.blocks) <= len(self.looks)
        for block in self.blocks:
            ends = [block.start - 0.5, block.stop - 0.5]
            if block.start and together:
                self.cells.axhline(ends[0], color="white", linewidth=thick)
                self.cells.axvline(ends[0], color="white", linewidth=thick)
            inset = min(0.3 / cell, 0.2) if together else 0.0
            ends = [ends[0] + inset, ends[1] - inset]
            beside = 1 + 1.1 / size
            style: dict[str, Any] = {"color": self.looks[block.group].colour, "linewidth": 2.2}
            style |= {"clip_on": False, "solid_capstyle": "butt"}
            self.cells.plot(ends, [beside, beside], transform=across, **style)
            self.cells.plot([beside, beside], ends, transform=down, **style)
            if over:
                self.cells.text(
                    *(block.middle, 1 + _BRACKET / size, block.group),
                    transform=across,
                    ha="center",
                    va="bottom",
                )

    def _name_groups(self, cell: float, room: float, notes: Mapping[str, str], x: float) -> None:
        """Write the names beside their rows, as many of them as have room."""
        taken = -np.inf
        for block in self.blocks:
            note = [notes[block.group]] if block.group in notes else []
            most = max(1, int(cell * block.size / _NAME_LINE) - len(note))
            lines = [*wrapped(block.group, room, most, TEXT), *note]
            middle, half = cell * (block.middle + 0.5), len(lines) * _NAME_LINE / 2
            if middle - half < taken - 0.2:
                continue
            taken = middle + half
            for place, line in enumerate(lines):
                self.cells.text(
                    *(x, (middle - half + (place + 0.5) * _NAME_LINE) / cell - 0.5, line),
                    transform=self.cells.get_yaxis_transform(),
                    va="center_baseline",
                    color=MUTED if line in note else INK,
                    size=SMALL if line in note else TEXT,
                )


def _room(other: float) -> float:
    """Widest matrix in mm that has room beside what else takes `other` mm."""
    return size_now().wide - 2 * _EDGE - other


def _sizes(
    words: int, left: float, right: float, key: Sequence[str], side: bool
) -> tuple[float, float, int]:
    """Side of the matrix, height of the key below, and lines of the colour bar's label."""
    other = left + right + 2 * _EDGE
    size, below, lines = _matrix_size(words, other), 0.0, 1
    for _ in range(3):
        below = key_height(key, size + left + right) if key else 0.0
        # The colour bar's label is broken into lines where the matrix is narrow.
        lines = 1 if size >= _WIDE_BAR else 3
        bottom = left + _GAP + _BAR + _BAR_TICKS + lines * _NAME_LINE + _EDGE
        bottom = max(bottom, _FOOT) if side else bottom
        high = size_now().tallest - _EDGE - _BRACKET - _NAME_LINE - bottom - below
        if size <= max(high, _SMALLEST):
            break
        size = max(high, _SMALLEST)
    return size, below, lines


def _matrix_size(words: int, other: float) -> float:
    """Side of the matrix in mm: on a column if every word can be named there, else on a page."""
    narrow, wide = size_now().narrow - other, size_now().wide - other
    wanted = min(_LARGEST, max(_SMALLEST, words * _WIDEST_CELL))
    if narrow >= max(words * LINE, _SMALLEST):
        return min(narrow, wanted)
    return max(_SMALLEST, min(wide, wanted))
