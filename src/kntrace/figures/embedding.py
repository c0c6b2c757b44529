"""Where words lie when their distances are laid out on a plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox
from scipy.linalg import eigh
from scipy.stats import chi2

from kntrace.analysis import Analysis
from kntrace.figures.base import OfWords
from kntrace.figures.key import draw_key, key_height
from kntrace.figures.labels import LINE, fitted, number, per_cent, width_of
from kntrace.figures.matrix import in_group_order
from kntrace.figures.sizes import size_now
from kntrace.figures.style import INK, MUTED, SMALL, drawing, group_looks, new_figure, tidy

__all__ = ["Embedding"]

_Floats = npt.NDArray[np.float64]

_COVERED, _DRAWS = 0.95, 1000
# Fewer words than this have no ellipse: what is drawn anew would be all but the same.
_FEWEST = 4
_MARKS = "osD^vP"
_EDGE, _LEFT, _BELOW = 1.5, 11.0, 9.0
_TALLEST, _LONGEST, _NAMED = 105.0, 22.0, 150


@dataclass(frozen=True)
class Embedding(OfWords):
    """Words on a plane by classical multidimensional scaling of a distance.

    Attributes
    ----------
    name, title, how_to_read
        See `kntrace.figures.Drawing`.
    distance
        Name of the distance.
    """

    name: str = "embedding"
    title: str = "Words laid out by their distances"
    how_to_read: str = (
        "Classical multidimensional scaling: the plane that keeps the most of the squared "
        "distances by neuron identity; each axis says how much, and what is not on the plane "
        "cannot be seen, so that words may seem nearer than they are. The cross is a group's "
        "centre, the ellipse where 95 % of the centres lie if the group's words are drawn anew, "
        "with replacement, on the same plane. Ellipses are about centres and not about words, "
        "know nothing of prompts or of another training, and are no test: the verdict is. Groups "
        "with fewer than four words have none. Directions and signs of the axes mean nothing."
    )
    distance: str = "identity"

    def prepare(self, analysis: Analysis) -> xr.Dataset:
        """Places of the words, and ellipses of the groups' centres.

        Returns
        -------
        xr.Dataset
            `place` (word, axis), in units of the distance; the words' groups as the coordinate
            `group`. `explained` (axis): share of the sum of all positive eigenvalues. `centre`
            (of_group, axis); `ellipse` (of_group, part): lengths of the long and the short half
            axis and the angle of the long one in degrees, NaN for fewer than four words.
            Attributes: those of the distance; `negative`, the share that negative eigenvalues
            have of the sum of all sizes (0: the distances are those of points in some space);
            `covered` and `draws` of the ellipses, `seed`.

        Notes
        -----
        Principal coordinates (Gower 1966), checked against scikit-bio's. An ellipse is that of a
        normal distribution with the covariance of the centres of 1,000 bootstrap samples of the
        group's words.
        """
        matrix = in_group_order(analysis.distances[self.distance], analysis.groups)
        place, values = principal_coordinates(matrix.values)
        positive = values[values > 0].sum()
        explained = np.maximum(values[:2], 0) / positive if positive else np.zeros(2)
        names, groups = list(analysis.groups), matrix["group"].values
        rng = np.random.default_rng(analysis.seed)
        rows = [_centre(place[groups == name], rng) for name in names]
        size = np.abs(values).sum()
        return xr.Dataset(
            {
                "place": (("word", "axis"), place),
                "explained": ("axis", explained),
                "centre": (("of_group", "axis"), np.array([row[0] for row in rows])),
                "ellipse": (("of_group", "part"), np.array([row[1] for row in rows])),
            },
            coords={"word": matrix["word"], "group": matrix["group"], "of_group": names},
            attrs={
                **matrix.attrs,
                "negative": float(-values[values < 0].sum() / size) if size else 0.0,
                "covered": _COVERED,
                "draws": _DRAWS,
                "seed": analysis.seed,
            },
        )

    def draw(self, table: xr.Dataset) -> Figure:
        """Draw the plane with equal scales, and a key of the groups below."""
        groups = [str(name) for name in table["of_group"].values]
        words = [str(word) for word in table["word"].values]
        with drawing([*words, *groups]):
            now, looks = size_now(), group_looks(groups)
            width = now.narrow if len(words) <= 60 else now.wide
            below = _BELOW + key_height(groups, width - 2 * _EDGE)
            low, high = _limits(table)
            across = width - _LEFT - 2 * _EDGE
            tall = min(across, _TALLEST, now.tallest - below - 2 * _EDGE)
            figure = new_figure(width, tall + below + 2 * _EDGE)
            high_mm = tall + below + 2 * _EDGE
            ax = figure.add_axes(
                (
                    *((_EDGE + _LEFT) / width, (_EDGE + below) / high_mm),
                    *(across / width, tall / high_mm),
                )
            )
            _scale(ax, low, high, across / tall)
            for place, group in enumerate(groups):
                _draw_group(ax, table.isel(of_group=place), looks[group].colour, _mark(place))
            _label_axes(ax, table)
            if len(words) <= _NAMED:
                _name_words(
                    ax, table, (across, tall), [looks[str(g)].colour for g in _group(table)]
                )
            draw_key(figure, dict(zip(groups, groups, strict=True)), looks, _EDGE)
            return figure

    def describe(self, table: xr.Dataset) -> str:
        """What the axes keep, and how far apart the centres lie beside how far words do."""
        first, second = table["explained"].values
        groups, place = _group(table), table["place"].values
        inside = [
            float(np.linalg.norm(place[groups == name] - centre, axis=1).mean())
            for name, centre in zip(table["of_group"].values, table["centre"].values, strict=True)
        ]
        centres = table["centre"].values
        between = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        apart = between[np.triu_indices(len(centres), 1)]
        return (
            f"Plane of {len(groups)} words by classical multidimensional scaling of the distance "
            f"{table.attrs['distance']}; its axes keep {per_cent(float(first), 1)} and "
            f"{per_cent(float(second), 1)}. The centres of two groups are "
            f"{number(float(apart.mean())) if apart.size else '–'} apart on average, a word is "
            f"{number(float(np.mean(inside)))} from its group's centre."
        )


def principal_coordinates(distances: _Floats) -> tuple[_Floats, _Floats]:
    """Places on the first two axes, (word, 2), and all eigenvalues, the largest first.

    An axis points to where the word farthest out lies, so that signs are the same on every
    machine.
    """
    matrix = (distances + distances.T) / 2
    np.fill_diagonal(matrix, 0.0)
    square = matrix**2
    centred = -(square - square.mean(axis=0) - square.mean(axis=1)[:, None] + square.mean()) / 2
    values, axes = eigh(centred)
    values, axes = values[::-1], axes[:, ::-1]
    place = axes[:, :2] * np.sqrt(np.maximum(values[:2], 0))
    farthest = place[np.abs(place).argmax(axis=0), [0, 1]]
    return place * np.where(farthest < 0, -1.0, 1.0), values


def _centre(place: _Floats, rng: np.random.Generator) -> tuple[_Floats, _Floats]:
    """Return the centre of some words and the ellipse of what bootstrap samples have for one."""
    if len(place) < _FEWEST:
        return place.mean(axis=0), np.full(3, np.nan)
    drawn = rng.integers(len(place), size=(_DRAWS, len(place)))
    spread = np.cov(place[drawn].mean(axis=1), rowvar=False)
    values, axes = np.linalg.eigh(spread)
    short, long = np.sqrt(np.maximum(values, 0) * chi2.ppf(_COVERED, 2))
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180
    return place.mean(axis=0), np.array([long, short, angle])


def _group(table: xr.Dataset) -> npt.NDArray[np.str_]:
    return np.asarray(table["group"].values, dtype=np.str_)


def _mark(place: int) -> str:
    return _MARKS[place % len(_MARKS)]


def _limits(table: xr.Dataset) -> tuple[_Floats, _Floats]:
    """Lower and upper ends of what is drawn on both axes."""
    long = np.nan_to_num(table["ellipse"].values[:, :1])
    centre = table["centre"].values
    points = np.concatenate([table["place"].values, centre - long, centre + long])
    return points.min(axis=0), points.max(axis=0)


def _scale(ax: Axes, low: _Floats, high: _Floats, shape: float) -> None:
    """Give both axes the same scale, with all that is drawn in the middle."""
    middle, span = (low + high) / 2, np.maximum(high - low, 1e-12) * 1.12
    half = max(float(span[0]) / shape, float(span[1])) / 2
    ax.set_xlim(middle[0] - half * shape, middle[0] + half * shape)
    ax.set_ylim(middle[1] - half, middle[1] + half)
    ax.axhline(0, color=MUTED, linewidth=0.3, zorder=0)
    ax.axvline(0, color=MUTED, linewidth=0.3, zorder=0)
    tidy(ax)


def _draw_group(ax: Axes, row: xr.Dataset, colour: str, mark: str) -> None:
    mine = row["group"].values == row["of_group"].values
    x, y = row["place"].values[mine].T
    size = 2.6 if row.sizes["word"] <= 100 else 1.6
    dots: dict[str, Any] = {"linestyle": "", "marker": mark, "markersize": size}
    ax.plot(x, y, color=colour, markeredgewidth=0, zorder=3, **dots)
    centre = row["centre"].values
    ax.plot(*centre, marker="+", color=colour, markersize=6, markeredgewidth=1.2, zorder=4)
    long, short, angle = row["ellipse"].values
    if not np.isnan(long):
        style: dict[str, Any] = {"edgecolor": colour, "linewidth": 0.9, "zorder": 2}
        ellipse = Ellipse(tuple(centre), 2 * long, 2 * short, angle=angle, fill=False, **style)
        ax.add_patch(ellipse)


def _label_axes(ax: Axes, table: xr.Dataset) -> None:
    unit = table.attrs.get("unit")
    for axis, which, share in zip(
        (ax.xaxis, ax.yaxis), (1, 2), table["explained"].values, strict=True
    ):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        known = f", {unit}" if unit else ""
        axis.set_label_text(f"axis {which}: {per_cent(float(share), 1)} of the variance{known}")
        axis.labelpad = 2
    ax.yaxis.set_label_coords(-(_LEFT - 2.4) / _width(ax), 0.5)


def _width(ax: Axes) -> float:
    figure = ax.get_figure()
    wide = figure.get_figwidth() if isinstance(figure, Figure) else 1.0
    return float(ax.get_position().width * wide * 25.4)


def _name_words(ax: Axes, table: xr.Dataset, size: tuple[float, float], colours: list[str]) -> None:
    """Write each word beside its dot where it covers no other name and no dot."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    scale = np.array([size[0] / (right - left), size[1] / (high - low)])
    dots = (table["place"].values - [left, low]) * scale
    taken: list[Bbox] = [Bbox.from_bounds(x - 0.5, y - 0.5, 1.0, 1.0) for x, y in dots]
    centres = (table["centre"].values - [left, low]) * scale
    taken += [Bbox.from_bounds(x - 1.1, y - 1.1, 2.2, 2.2) for x, y in centres]
    sheet = Bbox.from_bounds(0, 0, *size)
    for place, word in enumerate(table["word"].values):
        text = fitted(str(word), _LONGEST)
        for box, x, align in _beside(dots[place], width_of(text)):
            clear = not any(box.overlaps(other) for i, other in enumerate(taken) if i != place)
            if clear and sheet.x0 <= box.x0 and box.x1 <= sheet.x1 and box.y0 >= sheet.y0:
                middle = (box.y0 + box.y1) / 2
                ax.annotate(
                    text,
                    tuple(np.array([x, middle]) / scale + [left, low]),
                    ha=align,
                    va="center",
                    size=SMALL,
                    color=INK if len(set(colours)) == 1 else _dark(colours[place]),
                    annotation_clip=False,
                    zorder=5,
                )
                taken.append(box)
                break


def _beside(dot: _Floats, wide: float) -> Iterator[tuple[Bbox, float, str]]:
    """Where a name of this width may stand: right, left, above and below its dot."""
    x, y, tall = float(dot[0]), float(dot[1]), 0.8 * LINE
    yield Bbox.from_bounds(x + 0.8, y - tall / 2, wide, tall), x + 0.8, "left"
    yield Bbox.from_bounds(x - 0.8 - wide, y - tall / 2, wide, tall), x - 0.8, "right"
    yield Bbox.from_bounds(x - wide / 2, y + 0.6, wide, tall), x, "center"
    yield Bbox.from_bounds(x - wide / 2, y - 0.6 - tall, wide, tall), x, "center"


def _dark(colour: str) -> str:
    """The colour, dark enough for small letters on white."""
    parts = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(part * 0.62):02x}" for part in parts)
