"""What all figures share: sizes, colours, fonts, the axis of training steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = [
    "COLUMN",
    "PAGE",
    "brackets",
    "colour_map",
    "dividers",
    "group_colours",
    "new_figure",
    "save",
    "step_axis",
    "styled",
    "word_ticks",
]

COLUMN = 85 / 25.4
"""Width of a column of a paper, in inches."""
PAGE = 170 / 25.4
"""Width of a page of a paper, in inches."""

# Okabe and Ito's colours, told apart with every kind of colour blindness; the yellow is left
# out, being too pale for a line. With more groups they come again with another line style.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.")

# The first font that has a character draws it, so words in any script can be labels.
_FONTS = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK JP",
    "IPAexGothic",
    "Hiragino Sans",
    "Yu Gothic",
    "Noto Sans Arabic",
    "Arial Unicode MS",
)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in kntrace's style and leave the reader's own settings alone."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    style: dict[str, Any] = {
        "font.family": [name for name in _FONTS if name in known] or ["sans-serif"],
        "font.size": 7,
        "axes.titlesize": 8,
        "axes.labelsize": 7,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "legend.fontsize": 6.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "lines.linewidth": 1.2,
        "legend.frameon": False,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "kntrace",
        "figure.dpi": 200,
        "savefig.dpi": 200,
        "hatch.linewidth": 0.4,
    }
    with mpl.rc_context(style):  # type: ignore[arg-type]
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches, known to no window and no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure whose bytes depend on what it shows and not on when it was drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    form = path.suffix.lstrip(".")
    figure.savefig(partial, format=form, metadata=undated.get(form, {"Software": "kntrace"}))
    partial.replace(path)
    return path


def group_colours(groups: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and line style of every group; no two groups share both until there are 28."""
    return {
        group: (_COLOURS[place % len(_COLOURS)], _STYLES[place // len(_COLOURS) % len(_STYLES)])
        for place, group in enumerate(groups)
    }


def colour_map(name: str) -> Colormap:
    """The named colour map, with grey for what has no value."""
    return mpl.colormaps[name].with_extremes(bad="#d9d9d9")


def step_axis(ax: Axes, steps: NDArray[Any]) -> None:
    """Make x an axis of training steps that shows step 0 and spreads the early ones.

    Linear from 0 to the first step after it, logarithmic beyond.
    """
    steps = np.asarray(steps)
    positive = steps[steps > 0]
    if len(positive) and positive.max() / positive.min() > 20:
        ax.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.4)
        powers = 10.0 ** np.arange(
            np.ceil(np.log10(positive.min())), np.floor(np.log10(positive.max())) + 1
        )
        ax.set_xticks([0, *powers], ["0", *(f"{int(power):,}" for power in powers)])
        ax.minorticks_off()
    ax.set_xlim(steps.min(), steps.max())
    ax.set_xlabel("training step")


def word_ticks(ax: Axes, words: Sequence[str], inches: float) -> None:
    """Label rows and columns of a matrix; where words are too many, only some of them."""
    room = inches * 72 / max(1, len(words))
    size = min(6.5, max(4.2, room * 0.8))
    every = max(1, int(np.ceil(size * 1.15 / room)))
    places = np.arange(0, len(words), every)
    labels = [_shorten(words[int(place)]) for place in places]
    ax.set_xticks(places, labels, rotation=90, fontsize=size)
    ax.set_yticks(places, labels, fontsize=size)
    ax.tick_params(length=0, pad=1.5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def dividers(ax: Axes, groups: Sequence[str], colour: str = "white") -> None:
    """Draw lines between the groups of a matrix whose words lie group by group."""
    names = np.asarray(groups)
    for place in np.flatnonzero(names[1:] != names[:-1]) + 0.5:
        ax.axhline(place, color=colour, lw=0.9)
        ax.axvline(place, color=colour, lw=0.9)


def brackets(ax: Axes, groups: Sequence[str]) -> None:
    """Name the groups above a matrix, a line over each one's columns."""
    names = list(groups)
    start = 0
    colours = group_colours(list(dict.fromkeys(names)))
    while start < len(names):
        stop = start
        while stop < len(names) and names[stop] == names[start]:
            stop += 1
        top = ax.get_xaxis_transform()
        colour, _ = colours[names[start]]
        ax.plot(
            [start - 0.4, stop - 0.6],
            [1.015, 1.015],
            transform=top,
            color=colour,
            lw=2,
            clip_on=False,
            solid_capstyle="butt",
        )
        narrow = (stop - start) / len(names) < 0.1
        ax.text(
            (start + stop - 1) / 2 - (0.4 if narrow else 0),
            1.028,
            _shorten(names[start], 18),
            transform=top,
            ha="left" if narrow else "center",
            va="bottom",
            rotation=30 if narrow else 0,
            fontsize=7,
        )
        start = stop


def _shorten(text: str, longest: int = 16) -> str:
    # A dollar sign would begin mathematics.
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    return shown.replace("$", r"\$")
