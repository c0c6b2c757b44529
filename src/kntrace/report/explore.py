"""The numbers that the page's script draws from: every pair of words, and every word.

All text goes as JSON into the page, all arrays compressed into one text (see `packed`), so that
500 words stay light. The script finds here whatever it needs, so that it never asks for anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.colors import to_hex

from kntrace.analysis import Analysis
from kntrace.archive import Run
from kntrace.distance import DISTANCES
from kntrace.figures.matrix import in_group_order
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import group_looks
from kntrace.report.known import unknown_words
from kntrace.report.packed import Pack
from kntrace.report.rounded import as_float32

__all__ = ["explorer"]

# The distance that is judged, then the paper's, each also without what learning time explains;
# the others follow as they come.
_FIRST = ("identity", "identity | probability_curve", "emd", "emd | probability_curve")
# What the arrays of a kind may take at most, in bytes: more maps, or more neurons of every
# word, are left out. 500 words take 0.5 MB a map: the two first, each as it is and corrected.
_MAPS, _FORMATION, _LAYERS = 2_000_000, 600_000, 1_500_000
_FEWEST, _MOST = 3, 30
# Colours follow the logarithm where the bulk of the distances spans more than this factor.
_WIDE, _BULK = 8.0, (0.05, 0.95)
# Distances this much smaller than the largest have the colour of the smallest.
_RANGE = 1e-4
_COLOURS = 64
_LARGEST = np.iinfo(np.int16).max

_Floats = npt.NDArray[np.float64]


def explorer(
    run: Run, analysis: Analysis, tables: Mapping[str, Sequence[Sequence[str]]] | None = None
) -> dict[str, Any]:
    """Collect what the script needs, as what JSON can express.

    Parameters
    ----------
    run
        The run.
    analysis
        Its analysis.
    tables
        Rows of tables too long for HTML, by the name that the table has in the page.

    Returns
    -------
    dict
        `words`, `group` (of every word, a position in `groups`), `groups`, `looks` (a colour
        a group), `unknown` (positions of words that the model does not know); `checkpoints`,
        `places` (0 to 1 along the axis), `axis`; `probability` (word, checkpoint) float32;
        `maps`, one a distance; `missing`, the names of those left out; `formation` and
        `layers`, see below; `colours` of both maps; `rows`, those of `tables`. Words are in the
        order of their groups.

    Notes
    -----
    Cost: what is read is the analysis alone, apart from the ranks of the answers.
    """
    order = [word for members in analysis.groups.values() for word in members]
    names = list(analysis.groups)
    group = [place for place, name in enumerate(names) for _ in analysis.groups[name]]
    looks = group_looks(names)
    probability = analysis.probability.transpose("word", "checkpoint").sel(word=order)
    axis = StepAxis.of(analysis.probability)
    unknown = set(unknown_words(run, analysis))
    pack = Pack()
    maps, missing = _maps(analysis, pack)
    return {
        "words": order,
        "groups": names,
        "group": group,
        "looks": [looks[name].colour for name in names],
        "unknown": [place for place, word in enumerate(order) if word in unknown],
        "k": analysis.k,
        "checkpoints": list(axis.labels),
        "places": axis.drawn.round(4).tolist(),
        "axis": axis.name,
        "unit": str(analysis.formation.attrs.get("unit", "probability")),
        "probability": pack.add(probability.values, "<f4"),
        "maps": maps,
        "missing": missing,
        "formation": _formation(analysis, order, pack),
        "layers": _layers(analysis, order, run.layers, pack),
        "colours": {"distance": _colours("viridis"), "contrast": _colours("RdBu")},
        "rows": {
            name: pack.add_text(json.dumps([list(row) for row in rows], ensure_ascii=False))
            for name, rows in (tables or {}).items()
        },
        # Last of all: by now they are all in.
        "arrays": pack.text(),
    }


def _maps(analysis: Analysis, pack: Pack) -> tuple[list[dict[str, Any]], list[str]]:
    """Every distance: the upper triangle, row by row, and what colours and ranks need."""
    every = analysis.distances | analysis.corrected
    first = [name for name in _FIRST if name in every]
    maps: list[dict[str, Any]] = []
    missing, left = [], _MAPS
    for name in dict.fromkeys([*first, *every]):
        matrix = in_group_order(every[name], analysis.groups)
        values = matrix.values[np.triu_indices(len(matrix), 1)]
        if maps and values.size * 4 > left:
            missing.append(name)
            continue
        left -= values.size * 4
        maps.append(
            {
                "name": name,
                "what": _described(name, matrix),
                "unit": str(matrix.attrs.get("unit") or ""),
                **_scale(values),
                "threshold": _thresholds(analysis, name, matrix),
                "values": pack.add(as_float32(values), "<f4"),
            }
        )
    return maps, missing


def _described(name: str, matrix: xr.DataArray) -> str:
    given = matrix.attrs.get("given")
    if given:
        plain = name.partition(" | ")[0]
        return f"What is left of {plain} without what these explain: {given}."
    plain = DISTANCES[name].description if name in DISTANCES else ""
    return str(matrix.attrs.get("description") or plain)


def _scale(values: _Floats) -> dict[str, Any]:
    """Ends of the colours, and whether they follow the logarithm."""
    seen = values[np.isfinite(values)]
    if not seen.size:
        return {"log": False, "low": 0.0, "high": 1.0}
    low, high = (float(end) for end in np.quantile(seen, _BULK))
    if low > 0 and high > _WIDE * low:
        above = seen[seen > 0]
        return {
            "log": True,
            "low": max(float(above.min()), float(above.max()) * _RANGE),
            "high": float(above.max()),
        }
    return {"log": False, "low": float(seen.min()), "high": float(seen.max())}


def _thresholds(analysis: Analysis, name: str, matrix: xr.DataArray) -> list[float | None] | None:
    """Each word's mean same-group distance, which the contrast map compares its row to."""
    # A ratio means something only between numbers that are above zero, which differences are not.
    if name not in analysis.contrasts or not np.nanmin(matrix.values) >= 0:
        return None
    words = analysis.contrasts[name].words.set_index("word")["threshold"]
    found = words.loc[[str(word) for word in matrix["word"].values]].to_numpy(dtype=np.float64)
    return [float(value) if np.isfinite(value) else None for value in found]


def _formation(analysis: Analysis, order: list[str], pack: Pack) -> dict[str, Any]:
    """Formation of every word's strongest neurons.

    Scores are whole numbers up to 32,767, the word's largest being `scale`: a chart needs no
    more. `formed` is where a neuron half-rises, NaN where it does not; `others` how many other
    words have the neuron among theirs.
    """
    rows = analysis.formation.transpose("word", "rank", "checkpoint").sel(word=order)
    words, ranks, checkpoints = rows.shape
    kept = min(ranks, max(_FEWEST, min(_MOST, _FORMATION // (2 * words * checkpoints))))
    layer, neuron = (rows[name].transpose("word", "rank").values for name in ("layer", "neuron"))
    formed = analysis.times.neurons.transpose("word", "rank").sel(word=order).values[:, :kept]
    scores, scale = _whole(rows.values[:, :kept])
    return {
        "kept": kept,
        "neuron": pack.add(np.stack([layer, neuron], axis=-1)[:, :kept], "<i4"),
        "others": pack.add(_others(layer, neuron)[:, :kept], "<i4"),
        "formed": pack.add(formed, "<f4"),
        "scores": pack.add(scores, "<i2"),
        "scale": pack.add(scale, "<f4"),
    }


def _others(layer: npt.NDArray[np.int64], neuron: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the other words that have each neuron; a place without a neuron has the layer -1."""
    flat = np.where(layer < 0, -1, layer * (int(neuron.max()) + 1) + neuron)
    _, place, times = np.unique(flat, return_inverse=True, return_counts=True)
    return np.asarray(times[place].reshape(flat.shape) - 1)


def _layers(analysis: Analysis, order: list[str], layers: int, pack: Pack) -> dict[str, Any] | None:
    """Sum of the scores of a word's neurons in every layer at every checkpoint."""
    rows = analysis.formation.transpose("word", "rank", "checkpoint").sel(word=order)
    words, _, checkpoints = rows.shape
    if words * checkpoints * layers * 2 > _LAYERS:
        return None
    layer = rows["layer"].transpose("word", "rank").values
    sums = np.zeros((words, layers, checkpoints))
    word, rank = np.nonzero(layer >= 0)
    np.add.at(sums, (word, layer[word, rank]), rows.values[word, rank])
    scores, scale = _whole(sums)
    return {"count": layers, "scores": pack.add(scores, "<i2"), "scale": pack.add(scale, "<f4")}


def _whole(values: _Floats) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Write every word's numbers as whole ones, and say what the largest one stands for."""
    values = np.nan_to_num(values)
    scale = np.abs(values).max(axis=(1, 2))
    unit = np.where(scale > 0, scale, 1.0)[:, None, None]
    return np.rint(values / unit * _LARGEST).astype(np.int64), scale


def _colours(name: str) -> list[str]:
    """Return the figures' own colours, in as many steps as an eye can tell apart."""
    return [to_hex(colour) for colour in mpl.colormaps[name](np.linspace(0, 1, _COLOURS))]
