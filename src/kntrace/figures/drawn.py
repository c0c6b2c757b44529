"""Draw figures into a folder, each with its description beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kntrace.analysis import Analysis
from kntrace.archive.folder import write_failure
from kntrace.comparison import Comparison
from kntrace.effects import Ablation
from kntrace.errors import SettingsError
from kntrace.figures.base import Drawing
from kntrace.figures.files import FORMATS, render
from kntrace.figures.registry import COMPARISON, DOSE, FIGURES
from kntrace.figures.sizes import find_size, sized
from kntrace.progress import Progress, silent

__all__ = [
    "draw_ablation",
    "draw_all",
    "draw_comparison",
    "draw_one",
    "figures_folder",
    "find_figures",
    "known_formats",
]

# Ending of the file that says in words what a figure shows.
_ALT = "txt"


def draw_all(
    analysis: Analysis,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    size: str = "paper",
    figures: Mapping[str, Drawing] | None = None,
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
    size
        One of `SIZES`: `paper`, every figure as wide as a column (85 mm) or a page (170 mm) as
        it needs; all of them a `column` or a page `wide`, text having 7 and 6.2 points; or a
        `slide`, at most 338 mm x 190 mm where it can be, with text of 14 and 12.4 points.
    figures
        Which ones, by name; all of `FIGURES` unless given.
    progress
        Told of the figures done, in the stage `figures`.

    Returns
    -------
    list of Path
        `folder/<name>.<format>`, one for each figure and format, and `folder/<name>.txt`, which
        says in words what is to be seen; so do the metadata of the pictures. Equal analyses give
        equal bytes. Files of a figure that this analysis has not, left by an earlier one, are
        removed.

    Raises
    ------
    SettingsError
        If a format or the size is unknown.
    RunError
        If a file cannot be written.

    Notes
    -----
    Cost: about 10 s for 38 words in two formats.
    """
    formats, folder = known_formats(formats), Path(folder)
    find_size(size)
    chosen = FIGURES if figures is None else figures
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for done, (name, drawing) in enumerate(chosen.items()):
            progress("figures", done, len(chosen), name)
            if not drawing.applies(analysis):
                for form in (*FORMATS, _ALT):
                    (folder / f"{name}.{form}").unlink(missing_ok=True)
                continue
            written += _draw(drawing, analysis, folder, formats, size)
    except OSError as error:
        raise write_failure(folder, error) from error
    progress("figures", len(chosen), len(chosen))
    return written


def draw_ablation(
    ablation: Ablation,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    size: str = "paper",
) -> list[Path]:
    """Draw the dose curves of an ablation; see `draw_one`."""
    return draw_one(DOSE, ablation, folder, formats=formats, size=size)


def draw_comparison(
    comparison: Comparison, folder: str | Path, *, formats: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Draw the agreement and the AUC of several runs, on a page; see `draw_one`."""
    return draw_one(COMPARISON, comparison, folder, formats=formats)


def draw_one(
    drawing: Any,
    subject: Any,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    size: str = "paper",
) -> list[Path]:
    """Draw one figure of what it is about, with its description beside it; see `draw_all`.

    Parameters
    ----------
    drawing
        A figure, or a view: whatever prepares, draws and describes.
    subject
        What it is about: an analysis, an ablation, several runs, or what a view found.

    Raises
    ------
    SettingsError
        If a format or the size is unknown.
    RunError
        If a file cannot be written.
    """
    formats, folder = known_formats(formats), Path(folder)
    find_size(size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _draw(drawing, subject, folder, formats, size)
    except OSError as error:
        raise write_failure(folder, error) from error


def figures_folder(run: Path, size: str) -> Path:
    """The folder of a run's figures of one size."""
    return run / ("figures" if size == "paper" else f"figures-{size}")


def known_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Each of the formats once; raises `SettingsError` if one is unknown."""
    formats = (formats,) if isinstance(formats, str) else tuple(dict.fromkeys(formats))
    for form in formats:
        if form not in FORMATS:
            raise SettingsError.unknown("format", form, FORMATS)
    return formats


def find_figures(names: Sequence[str]) -> dict[str, Drawing]:
    """Find figures of an analysis by name; all of them if there are no names.

    Raises
    ------
    SettingsError
        If there is none of a name.
    """
    for name in names:
        if name not in FIGURES:
            raise SettingsError.unknown("figure", name, FIGURES)
    return {name: FIGURES[name] for name in dict.fromkeys(names)} or dict(FIGURES)


def _draw(
    drawing: Any, subject: Any, folder: Path, formats: Sequence[str], size: str
) -> list[Path]:
    table: Any = drawing.prepare(subject)
    with sized(size):
        figure = drawing.draw(table)
    alt = drawing.describe(table)
    written = [folder / f"{drawing.name}.{form}" for form in formats]
    for path, form in zip(written, formats, strict=True):
        _write(path, render(figure, form, title=drawing.title, alt=alt))
    beside = folder / f"{drawing.name}.{_ALT}"
    _write(
        beside,
        f"{drawing.title}\n\n{alt}\n\n{drawing.how_to_read}\n".encode(errors="backslashreplace"),
    )
    return [*written, beside]


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
