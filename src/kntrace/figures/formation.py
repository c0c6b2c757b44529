"""Formation processes of one word's knowledge neurons."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure

from kntrace.analysis import Analysis
from kntrace.figures.style import PAGE, new_figure, step_axis

__all__ = ["ALT", "TITLE", "draw", "prepare"]

TITLE = "Formation processes of one word's knowledge neurons"
ALT = (
    "Left: heat map of the attribution scores of a word's strongest knowledge neurons over "
    "checkpoints, sorted by when each reaches half of its final score. Right: the strongest ones "
    "as lines, labelled layer.neuron."
)

_ROWS, _LINES = 40, 6


def prepare(analysis: Analysis, word: str | None = None) -> xr.Dataset:
    """Scores (neuron, checkpoint) of the word's strongest neurons, sorted by half-rise.

    `half` is the place of the first checkpoint at which a neuron has half of its last score.
    The word is the first of the study unless given.
    """
    words = [str(name) for name in analysis.formation["word"].values]
    word = words[0] if word is None else word
    paths = analysis.formation.sel(word=word).isel(rank=slice(0, _ROWS))
    scores = paths.transpose("rank", "checkpoint").values
    half = (scores >= scores[:, -1:] / 2).argmax(1)
    order = np.argsort(half, kind="stable")
    chosen = analysis.neurons.sel(word=word).isel(rank=slice(0, _ROWS))
    names = [f"{int(a)}.{int(b)}" for a, b in zip(chosen["layer"], chosen["neuron"], strict=True)]
    return xr.Dataset(
        {"score": (("neuron", "checkpoint"), scores[order])},
        coords={
            "neuron": np.array(names)[order],
            "rank": ("neuron", np.arange(len(order))[order]),
            "half": ("neuron", half[order]),
            "checkpoint": paths["checkpoint"].values,
            "step": ("checkpoint", paths["step"].values),
        },
        attrs={"word": word},
    )


def draw(table: xr.Dataset) -> Figure:
    """Draw heat map and lines side by side at page width."""
    figure = new_figure(PAGE, PAGE * 0.5)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    scores = table["score"].values
    limit = float(np.abs(scores).max()) or 1.0
    image = left.imshow(
        scores, aspect="auto", cmap="PuOr_r", norm=AsinhNorm(limit / 50, -limit, limit),
        interpolation="nearest",
    )  # fmt: skip
    names = [str(name) for name in table["neuron"].values]
    left.set_yticks(range(len(names)), names, fontsize=min(6.0, 130 / max(1, len(names))))
    steps = [str(step) for step in table["step"].values]
    left.set_xticks(range(len(steps)), steps, rotation=90)
    left.set_xlabel("training step (one column a checkpoint)")
    left.set_ylabel("neuron (layer.neuron), by half-rise")
    bar = figure.colorbar(image, ax=left, pad=0.02, shrink=0.8)
    ticks = [-limit, -limit / 10, 0, limit / 10, limit]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    bar.set_label("score (probability)")
    ranked = np.argsort(table["rank"].values)[:_LINES]
    shown = table["step"].values
    shown = np.arange(len(shown)) if (shown < 0).any() else shown
    for place, shade in zip(ranked, np.linspace(0.0, 0.75, len(ranked)), strict=True):
        colour = (shade, shade * 0.8, 0.55 + 0.3 * shade)
        right.plot(shown, scores[place], color=colour, marker=".", ms=3, label=names[place])
    step_axis(right, shown)
    right.axhline(0, color="#909090", lw=0.5)
    right.set_ylabel("score (probability)")
    right.legend(title="strongest", loc="upper left")
    figure.suptitle(f"“{table.attrs['word']}”".replace("$", r"\$"), fontsize=8)
    return figure
