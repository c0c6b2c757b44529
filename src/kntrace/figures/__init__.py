"""Figures: each file prepares a table from an analysis and draws it.

`prepare(analysis)` gives all the numbers that a figure shows; `draw(table)` makes a matplotlib
figure of them. A new figure is one file and one line in `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from kntrace.analysis import Analysis
from kntrace.errors import SettingsError
from kntrace.figures import (
    contrast_map,
    distances,
    forest,
    formation,
    neuron_overlap,
    probability,
)
from kntrace.figures.style import save, styled
from kntrace.progress import Progress, silent

__all__ = ["FIGURES", "FORMATS", "draw_all"]

FIGURES: dict[str, ModuleType] = {
    "forest": forest,
    "distances": distances,
    "contrast_map": contrast_map,
    "neuron_overlap": neuron_overlap,
    "probability": probability,
    "formation": formation,
}

FORMATS = ("png", "pdf", "svg")


def draw_all(
    analysis: Analysis,
    folder: Path | str,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    progress: Progress = silent,
) -> list[Path]:
    """Draw every figure into `folder`, one file a format.

    Parameters
    ----------
    formats
        Of `FORMATS`. Fonts are embedded in pdf; text stays text in svg.

    Raises
    ------
    SettingsError
        If a format is unknown.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise SettingsError(f"format {unknown[0]!r}", expected=f"one of {', '.join(FORMATS)}")
    written = []
    with styled():
        for done, (name, module) in enumerate(FIGURES.items()):
            progress("figures", done, len(FIGURES), name)
            figure = module.draw(module.prepare(analysis))
            written += [save(figure, Path(folder) / f"{name}.{form}") for form in formats]
    progress("figures", len(FIGURES), len(FIGURES))
    return written
