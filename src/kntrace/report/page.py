"""Put the page together."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from kntrace.analysis import Analysis
from kntrace.archive import Run
from kntrace.archive.folder import write_failure, write_text
from kntrace.errors import AnalysisError
from kntrace.figures import (
    DOSE,
    FIGURES,
    ContrastMap,
    DistanceMap,
    DoseCurves,
    Drawing,
    render,
)
from kntrace.report import prose, provenance, tables
from kntrace.report.causes import causes
from kntrace.report.cautions import cautions
from kntrace.report.explore import explorer
from kntrace.report.references import BIBTEX, REFERENCES
from kntrace.report.script import policy, script
from kntrace.report.views import sections as view_sections
from kntrace.verdict import VerdictRule
from kntrace.views import View

__all__ = ["write_report"]

_NAME = "report.html"
# An inch of a figure in CSS pixels: larger than life, for reading on a screen.
_PIXELS_PER_INCH = 155
# A drawing with more marks than this is smaller, and faster to show, as a picture.
_LARGEST_SVG = 300_000

_SECTIONS = {
    "confound": ("forest", "probability"),
    "identity": ("distances_identity", "contrast_map_identity"),
    "paper": ("distances", "contrast_map"),
    "neurons": ("neuron_overlap", "formation"),
}


@dataclass(frozen=True)
class _Picture:
    """A figure as the page shows it; `map` and `view` where the page's script can show it too."""

    name: str
    title: str
    how_to_read: str
    alt: str
    source: str
    width: int
    height: int
    map: str = ""
    view: str = ""


def write_report(run: Run, analysis: Analysis, out: str | Path | None = None) -> Path:
    """Write the report of an analysed run.

    Parameters
    ----------
    run
        The run.
    analysis
        What `kntrace.analysis.analyse` or `load_analysis` gave for it.
    out
        The file to write; `report.html` in the run's folder unless given.

    Returns
    -------
    Path
        The page: a single file with all its figures inside, which loads nothing from
        anywhere. Words, groups and prompts appear as the text they are, whatever they hold.

    Raises
    ------
    AnalysisError
        If the analysis is of other words than the run.
    RunError
        If the file cannot be written.

    Notes
    -----
    Cost: about 5 s for 38 words, most of it for drawing. Equal runs and analyses give equal
    pages.
    """
    if _groups(run) != {name: tuple(words) for name, words in analysis.groups.items()}:
        raise AnalysisError(
            "an analysis of other words or groups than the run's",
            where=run.path,
            fix="Analyse the run again with `kntrace analyse`.",
        )
    path = run.path / _NAME if out is None else Path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path.parent, error) from error
    page = _environment().get_template("page.html.j2").render(_content(run, analysis))
    write_text(path, page)
    return path


def _environment() -> jinja2.Environment:
    # Everything that is filled in is escaped: a study's text is a stranger's.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kntrace.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tied"] = prose.tied
    # What is not a number has no name in JSON, and must not get into the page.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _content(run: Run, analysis: Analysis) -> dict[str, Any]:
    pictures = {
        name: _picture(drawing, analysis)
        for name, drawing in FIGURES.items()
        if drawing.applies(analysis)
    }
    placed = {name for names in _SECTIONS.values() for name in names}
    sections = {
        section: [pictures[name] for name in names if name in pictures]
        for section, names in _SECTIONS.items()
    }
    sections["causes"] = []
    sections["more"] = [picture for name, picture in pictures.items() if name not in placed]
    rule, found = VerdictRule(), causes(run)
    if found is not None and found.ablation is not None:
        sections["causes"] = [_picture(DOSE, found.ablation)]
    return {
        "study": run.study,
        "suite": run.suite,
        "subject": prose.subject(run, analysis),
        "question": prose.QUESTION,
        "answer": analysis.verdict.answer,
        "headline": prose.HEADLINES[analysis.verdict.answer],
        "reason": prose.sentence(analysis.verdict.reason),
        "facts": prose.facts(analysis.verdict, rule),
        "meaning": prose.meaning(analysis.verdict),
        "cautions": cautions(run, analysis),
        "limits": rule.limits,
        "by_wording": tables.verdicts(analysis),
        "measured": tables.measured(rule),
        "measured_before": tables.measured_before(rule),
        "distances": tables.distances(analysis),
        "contrasts": {
            name: tables.contrast(found)
            for name, found in analysis.contrasts.items()
            if name in analysis.distances
        },
        "matrix_tests": tables.matrix_tests(analysis),
        "overlap": tables.overlap(analysis),
        "causes": found,
        "views": view_sections(run, _picture),
        "overlap_by_layer": tables.overlap_by_layer(analysis),
        "early": tables.early(analysis),
        "times": prose.times(analysis.times),
        "noise": prose.noise(analysis),
        "words": tables.words(analysis),
        "methods": prose.methods(run, analysis),
        "references": REFERENCES,
        "bibtex": BIBTEX,
        "record": provenance.record(run, analysis),
        "checkpoints": provenance.checkpoints(run),
        "prompts": provenance.prompts(run),
        "sections": sections,
        "findings": explorer(run, analysis),
        "script": Markup(script()),  # ours, and nothing of the study's
        "policy": policy(),
    }


def _picture(drawing: Drawing | DoseCurves | View, subject: Any) -> _Picture:
    table: Any = drawing.prepare(subject)
    figure = drawing.draw(table)
    kind, data = "image/svg+xml", render(figure, "svg")
    if len(data) > _LARGEST_SVG:
        kind, data = "image/png", _in_256_colours(render(figure, "png"))
    width, height = (round(float(side) * _PIXELS_PER_INCH) for side in figure.get_size_inches())
    return _Picture(
        name=drawing.name,
        title=drawing.title,
        how_to_read=drawing.how_to_read,
        alt=drawing.describe(table),
        source=f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}",
        width=width,
        height=height,
        map=drawing.distance if isinstance(drawing, DistanceMap | ContrastMap) else "",
        view="contrast" if isinstance(drawing, ContrastMap) else "distance",
    )


def _in_256_colours(png: bytes) -> bytes:
    """A third of the bytes: a colour map has no more colours, and text needs few."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _groups(run: Run) -> dict[str, tuple[str, ...]]:
    return {name: tuple(words) for name, words in run.study.groups.items()}
