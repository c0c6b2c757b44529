"""Put the page together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kntrace.analysis import Analysis
from kntrace.archive import Run
from kntrace.archive.folder import write_failure, write_text
from kntrace.errors import AnalysisError
from kntrace.figures import DOSE, FIGURES
from kntrace.report import prose, provenance, tables
from kntrace.report.causes import causes
from kntrace.report.cautions import cautions
from kntrace.report.explore import explorer
from kntrace.report.pictures import picture
from kntrace.report.references import BIBTEX, REFERENCES
from kntrace.report.script import policy, script
from kntrace.report.tables import Table
from kntrace.report.views import sections as view_sections
from kntrace.verdict import VerdictRule

__all__ = ["write_report"]

_NAME = "report.html"
# A table of more rows than this carries them compressed, and has so many without the script.
_LONG, _FIRST = 1_000, 100

Rows = tuple[tuple[str, ...], ...]

_SECTIONS = {
    "confound": ("forest", "probability", "probability_prompts"),
    "identity": ("distances_identity", "clusters", "embedding", "contrast_map_identity"),
    "paper": ("distances", "contrast_map"),
    "neurons": ("neuron_overlap", "layers", "formation", "formation_layers"),
    "run": ("audit",),
}


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
        name: picture(drawing, analysis)
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
    asked, long = _shortened("prompts", provenance.prompts(run))
    if found is not None and found.ablation is not None:
        sections["causes"] = [picture(DOSE, found.ablation)]
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
        "views": view_sections(run, picture),
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
        "prompts": asked,
        "prompts_asked": len(long.get("prompts", asked.rows)),
        "sections": sections,
        "findings": explorer(run, analysis, long),
        "script": Markup(script()),  # ours, and nothing of the study's
        "policy": policy(),
    }


def _shortened(name: str, table: Table) -> tuple[Table, dict[str, Rows]]:
    """Leave the rows of a long table to the page's script, all but the first."""
    if len(table.rows) <= _LONG:
        return table, {}
    caption = (
        f"{table.caption} Without JavaScript, and on paper, the first {_FIRST} of "
        f"{len(table.rows):,}; all are in the run's study.yaml."
    )
    return replace(table, rows=table.rows[:_FIRST], caption=caption), {name: table.rows}


def _groups(run: Run) -> dict[str, tuple[str, ...]]:
    return {name: tuple(words) for name, words in run.study.groups.items()}
