"""Figures for papers, drawn from an analysis.

Each is a small frozen object in a file of its own: `prepare(analysis)` makes the table of all
numbers that are shown, `draw(table)` makes a matplotlib figure of it, and `describe(table)`
says in words what is to be seen. To add one, write the object and enter it in `FIGURES`; the
tests of what every figure must do, and the report, pick it up from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kntrace.analysis import Analysis
from kntrace.archive.folder import write_failure
from kntrace.comparison import Comparison
from kntrace.effects import Ablation
from kntrace.errors import SettingsError
from kntrace.figures.base import Drawing
from kntrace.figures.contrast_map import ContrastMap
from kntrace.figures.distances import DistanceMap
from kntrace.figures.dose import DoseCurves
from kntrace.figures.forest import Forest
from kntrace.figures.formation import Formation
from kntrace.figures.neuron_overlap import NeuronOverlap
from kntrace.figures.probability import ProbabilityCurves
from kntrace.figures.runs import SeveralRuns
from kntrace.figures.style import FORMATS, render
from kntrace.progress import Progress, silent

__all__ = [
    "COMPARISON",
    "DOSE",
    "FIGURES",
    "FORMATS",
    "ContrastMap",
    "DistanceMap",
    "DoseCurves",
    "Drawing",
    "Forest",
    "Formation",
    "NeuronOverlap",
    "ProbabilityCurves",
    "SeveralRuns",
    "draw_ablation",
    "draw_all",
    "draw_comparison",
    "known_formats",
    "render",
]

_BY_NEURON = (
    "The same by the distance that keeps which neuron is which, on which the verdict rests: 1 − "
    "cosine of the words' shares of attribution, less the mean word's, averaged over "
    "checkpoints. How well a word is known does not enter. About 1 is unrelated; dark squares "
    "along the diagonal are groups whose words use the same neurons."
)

# In the order in which a reader should look at them: the whole, the confound, the details.
_KNOWN: tuple[Drawing, ...] = (
    Forest(),
    ProbabilityCurves(),
    DistanceMap(),
    DistanceMap(
        name="distances_identity",
        title="Distances between words by neuron identity",
        how_to_read=_BY_NEURON,
        distance="identity",
        log=False,
    ),
    ContrastMap(),
    ContrastMap(
        name="contrast_map_identity",
        title="Other-group words against a word's own group, by neuron identity",
        distance="identity",
    ),
    NeuronOverlap(),
    Formation(),
)
FIGURES: dict[str, Drawing] = {drawing.name: drawing for drawing in _KNOWN}

DOSE = DoseCurves()
"""The figure of an ablation, which is no part of an analysis."""

COMPARISON = SeveralRuns()
"""The figure of several runs."""


def draw_all(
    analysis: Analysis,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    progress: Progress = silent,
) -> list[Path]:
    """Draw every figure that the analysis has the numbers for.

    Parameters
    ----------
    analysis
        What `kntrace.analysis.analyse` found.
    folder
        Where the files go; made if need be.
    formats
        Some of `FORMATS`: `png` has 200 dots per inch, `pdf` has its fonts embedded, and in
        `svg` text is drawn as outlines.
    progress
        Told of the figures done, in the stage `figures`.

    Returns
    -------
    list of Path
        `folder/<name>.<format>`, one for each figure and format. Equal analyses give equal
        bytes. Files of a figure that this analysis has not, left by an earlier one, are
        removed.

    Raises
    ------
    SettingsError
        If a format is unknown.
    RunError
        If a file cannot be written.

    Notes
    -----
    Cost: about 5 s for 38 words in two formats.
    """
    formats = known_formats(formats)
    folder = Path(folder)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for done, (name, drawing) in enumerate(FIGURES.items()):
            progress("figures", done, len(FIGURES), name)
            if not drawing.applies(analysis):
                for form in FORMATS:
                    (folder / f"{name}.{form}").unlink(missing_ok=True)
                continue
            written += _draw(drawing, analysis, folder, formats)
    except OSError as error:
        raise write_failure(folder, error) from error
    progress("figures", len(FIGURES), len(FIGURES))
    return written


def draw_ablation(
    ablation: Ablation, folder: str | Path, *, formats: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Draw the dose curves of an ablation; see `draw_all`.

    Raises
    ------
    SettingsError
        If a format is unknown.
    RunError
        If a file cannot be written.
    """
    formats, folder = known_formats(formats), Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _draw(DOSE, ablation, folder, formats)
    except OSError as error:
        raise write_failure(folder, error) from error


def draw_comparison(
    comparison: Comparison, folder: str | Path, *, formats: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Draw the agreement and the AUC of several runs; see `draw_all`.

    Raises
    ------
    SettingsError
        If a format is unknown.
    RunError
        If a file cannot be written.
    """
    formats, folder = known_formats(formats), Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _draw(COMPARISON, comparison, folder, formats)
    except OSError as error:
        raise write_failure(folder, error) from error


def known_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Each of the formats once; raises `SettingsError` if one is unknown."""
    formats = (formats,) if isinstance(formats, str) else tuple(dict.fromkeys(formats))
    for form in formats:
        if form not in FORMATS:
            raise SettingsError.unknown("format", form, FORMATS)
    return formats


def _draw(
    drawing: Drawing | DoseCurves | SeveralRuns, subject: Any, folder: Path, formats: Sequence[str]
) -> list[Path]:
    table: Any = drawing.prepare(subject)
    figure = drawing.draw(table)
    written = [folder / f"{drawing.name}.{form}" for form in formats]
    for path, form in zip(written, formats, strict=True):
        _write(path, render(figure, form))
    return written


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
