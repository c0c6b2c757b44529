"""A key of groups below a figure, for where their names have no room beside what they name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kntrace.figures.labels import LINE, fitted, longest
from kntrace.figures.style import INK, SMALL, Look

__all__ = ["draw_key", "key_height"]

_SWATCH, _GAP, _LONGEST = 2.4, 1.0, 60.0
_ROW = LINE * 1.15


def key_height(names: Sequence[str], width: float) -> float:
    """Height in mm of a key that is `width` mm wide, with a little room above it."""
    return math.ceil(len(names) / _columns(names, width)) * _ROW + _GAP


def draw_key(
    figure: Figure, names: Mapping[str, str], looks: Mapping[str, Look], edge: float
) -> None:
    """Draw a swatch and a text for each group, column by column, `edge` mm from the figure's edge.

    Parameters
    ----------
    figure
        The figure, at its lower edge room for `key_height` of the texts.
    names
        What to write, by group.
    looks
        Colours, by group.
    edge
        Margin in mm to the left, to the right and below.
    """
    wide, high = (float(side) * 25.4 for side in figure.get_size_inches())
    texts = list(names.values())
    columns = _columns(texts, wide - 2 * edge)
    rows = math.ceil(len(texts) / columns)
    step = (wide - 2 * edge) / columns
    for place, (group, text) in enumerate(names.items()):
        column, row = divmod(place, rows)
        x, y = edge + column * step, edge + (rows - 1 - row) * _ROW
        figure.add_artist(
            Rectangle(
                (x / wide, (y + 0.15 * LINE) / high),
                *(_SWATCH / wide, 0.7 * LINE / high),
                transform=figure.transFigure,
                facecolor=looks[group].colour,
                linewidth=0,
            )
        )
        figure.text(
            *((x + _SWATCH + _GAP) / wide, (y + 0.5 * LINE) / high),
            fitted(text, step - _SWATCH - 2 * _GAP),
            size=SMALL,
            color=INK,
            va="center_baseline",
        )


def _columns(names: Sequence[str], width: float) -> int:
    each = min(longest(names), _LONGEST) + _SWATCH + 3 * _GAP
    return max(1, min(int(width / each), len(names)))
