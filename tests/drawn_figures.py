"""What figures are drawn of in their tests, and whether all of a figure can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from kntrace.analysis import Analysis, analyse_scores
from kntrace.figures import Size
from kntrace.figures.style import drawing
from kntrace.testing import synthetic_scores

GROUPS = {"A": ("a1", "a2", "a3"), "B": ("b1", "b2", "b3", "b4"), "C": ("c1", "c2")}


def analysed(**drawn: Any) -> Analysis:
    shape: dict[str, Any] = {"groups": GROUPS, "width": 64, "structure": 0.5, "checkpoints": 5}
    covariates = drawn.pop("covariates", ())
    scores = synthetic_scores(**(shape | drawn))
    return analyse_scores(scores, permutations=49, covariates=covariates)


def numbered(words: int, groups: int) -> dict[str, tuple[str, ...]]:
    each = words // groups
    return {f"Group {g}": tuple(f"word{g}x{i}" for i in range(each)) for g in range(groups)}


def with_steps(analysis: Analysis, steps: list[int]) -> Analysis:
    coords = {"step": ("checkpoint", np.array(steps))}
    return replace(
        analysis,
        probability=analysis.probability.assign_coords(coords),
        formation=analysis.formation.assign_coords(coords),
    )


def assert_readable(figure: Figure, what: str = "", room: Size | None = None) -> None:
    """All text is whole, large enough and apart; with `room`, the figure fits there."""
    width, height = figure.get_size_inches() * 25.4
    if room is not None:
        assert width <= room.wide + 0.01, what
        assert height <= room.tallest + 0.01, what
    with drawing():
        figure.draw_without_rendering()
        for text in shown(figure):
            box = text.get_window_extent()
            assert inside(box, figure.bbox), (what, text.get_text())
            assert float(text.get_fontsize()) >= 6, (what, text.get_text())
        for one, other in combinations(names_of_axes(figure), 2):
            boxes = (one.get_window_extent(), other.get_window_extent())
            assert not overlap(*boxes), (what, one.get_text(), other.get_text())
        for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
            boxes = [tick.get_window_extent() for tick in tick_labels(axis)]
            for one, other in combinations(boxes, 2):
                assert not overlap(one, other), what


def shown(figure: Figure) -> Iterator[Text]:
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            labels = {id(label) for label in tick_labels(axis)}
            hidden |= {id(tick.label1) for tick in axis.get_major_ticks()} - labels
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            yield text


def names_of_axes(figure: Figure) -> list[Text]:
    """What stands beside panels: the names of their axes, titles, and the legends' texts."""
    beside = {
        id(text)
        for ax in figure.axes
        for text in (ax.xaxis.label, ax.yaxis.label, ax.title, *_legend_texts(ax))
    }
    return [text for text in shown(figure) if id(text) in beside]


def _legend_texts(ax: Axes) -> list[Text]:
    legend = ax.get_legend()
    return [] if legend is None else list(legend.get_texts())


def tick_labels(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    return [
        tick.label1
        for tick in axis.get_major_ticks()
        if low - slack <= tick.get_loc() <= high + slack and tick.label1.get_text().strip()
    ]


def inside(box: Bbox, around: Any) -> bool:
    return bool(
        around.x0 - 1 <= box.x0
        and around.y0 - 1 <= box.y0
        and box.x1 <= around.x1 + 1
        and box.y1 <= around.y1 + 1
    )


def overlap(one: Bbox, other: Bbox) -> bool:
    return bool(
        min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    )
