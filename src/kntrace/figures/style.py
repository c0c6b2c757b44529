"""How all figures look: fonts, colours, lines and where axes lie.

Nothing here touches pyplot or a window, and the reader's own matplotlib settings are neither
used nor changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.style as mpl_style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kntrace.figures.fonts import families
from kntrace.figures.sizes import SIZES, size_now

__all__ = [
    "COLUMN",
    "DOTS_PER_INCH",
    "INK",
    "MUTED",
    "PAGE",
    "PALE",
    "SMALL",
    "TEXT",
    "Look",
    "Sheet",
    "drawing",
    "group_looks",
    "legend",
    "new_figure",
    "settle",
    "tidy",
]

# Widths of a column and of a page of a paper, in mm.
COLUMN, PAGE = SIZES["paper"].narrow, SIZES["paper"].wide
# Sizes of text in points; nothing is set smaller than SMALL.
TEXT, SMALL = 7.0, 6.2
DOTS_PER_INCH = 200
_MM_PER_INCH = 25.4
_MARGIN, _BETWEEN = 0.025, 0.02
# Places of axes are exact to a thousandth of a dot.
_DIGITS = 6

INK, MUTED, PALE = "#1a1a1a", "#6b6b6b", "#d4d4d4"

# The colours of Okabe and Ito (2008), which people with any kind of colour blindness tell
# apart; their yellow is too pale for a line on white, and their black is the ink.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))

_SETTINGS: dict[str, Any] = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": DOTS_PER_INCH,
    "savefig.dpi": DOTS_PER_INCH,
    # Words are a user's: a dollar sign among them must not begin mathematics.
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "kntrace",
}


class Sheet(Figure):
    """A figure that is to be enlarged by `scale` when it is saved."""

    scale: float = 1.0

    def _repr_png_(self) -> bytes:
        """The picture, where it is the last line of a notebook's cell."""
        from kntrace.figures.files import render

        return render(self, "png")


@dataclass(frozen=True)
class Look:
    """How a group is drawn: its colour, and the dashes of its lines."""

    colour: str
    dashes: Any


def group_looks(groups: Iterable[str]) -> dict[str, Look]:
    """Give every group a look of its own; the looks repeat after 24 groups."""
    looks = [Look(colour, dashes) for dashes in _DASHES for colour in _COLOURS]
    names = dict.fromkeys(groups)
    return {name: looks[place % len(looks)] for place, name in enumerate(names)}


def new_figure(width: float, height: float, *, spaced: bool = False) -> Figure:
    """Make an empty figure, `width` x `height` mm, that belongs to no window.

    With `spaced`, matplotlib places the axes so that no text is cut off; then `settle` it.
    """
    engine = (
        ConstrainedLayoutEngine(w_pad=_MARGIN, h_pad=_MARGIN, wspace=_BETWEEN, hspace=_BETWEEN)
        if spaced
        else None
    )
    figure = Sheet(figsize=(width / _MM_PER_INCH, height / _MM_PER_INCH), layout=engine)
    figure.scale = size_now().scale
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure, *, passes: int = 1) -> Figure:
    """Let matplotlib place the axes of a `spaced` figure, for good.

    Its solver answers in another last digit from time to time, which would show in the bytes
    of a file; so places are rounded. Numbers on an axis can get longer once it has its place:
    then a second pass makes room for them.
    """
    for _ in range(passes):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_position(np.round(ax.get_position(original=True).bounds, _DIGITS).tolist())
    return figure


def tidy(ax: Axes, *, grid: Literal["x", "y"] | None = None) -> None:
    """Fix the look of the ticks, and draw faint lines of the grid along one axis."""
    ax.tick_params(labelsize=SMALL, width=0.6, length=2, pad=2)
    if grid is not None:
        ax.grid(axis=grid, color=PALE, linewidth=0.4)
        ax.set_axisbelow(True)


def legend(
    owner: Axes | Figure, handles: Sequence[Artist], at: tuple[float, float], *, columns: int = 1
) -> None:
    """Put a legend whose lower left corner is `at`, in fractions of the axes or figure."""
    owner.legend(
        handles=list(handles),
        loc="lower left",
        bbox_to_anchor=at,
        ncols=columns,
        borderaxespad=0.0,
        columnspacing=1.1,
        handlelength=1.8,
        labelspacing=0.25,
    )


@contextmanager
def drawing(texts: Iterable[str] = ()) -> Iterator[None]:
    """Draw in this style, whatever the reader's settings are, with fonts that have `texts`."""
    with (
        mpl_style.context(["default", _SETTINGS | {"font.family": families(texts)}]),
        warnings.catch_warnings(),
    ):
        # A character that no font of this machine has shows as a box, and that is all there
        # is to say about it: the tables have the word.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield
