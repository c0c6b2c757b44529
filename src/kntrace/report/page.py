"""Put an analysis into one self-contained page."""

from __future__ import annotations

import base64
import io
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from kntrace.analysis import Analysis
from kntrace.archive import Run
from kntrace.figures import FIGURES
from kntrace.figures.style import styled
from kntrace.report.explain import EXPLAINED, HEADLINES
from kntrace.verdict import LIMITS, MEASURED, MEASURED_ON

__all__ = ["write_report"]

# Below this mean probability at the last checkpoint the model cannot be said to know a word.
_KNOWN = 0.1


def write_report(run: Run, analysis: Analysis, out: Path | str | None = None) -> Path:
    """Write the report of a run and its analysis.

    Parameters
    ----------
    run, analysis
        As `open_run` and `analyse` or `load_analysis` give them.
    out
        The file; `report.html` in the run folder unless given.

    Returns
    -------
    Path
        The page: one file, which asks nothing of the network and holds its figures. Words and
        prompts of the study appear as text, whatever they contain.

    Notes
    -----
    Cost: some seconds, most of them for drawing.
    """
    path = run.path / "report.html" if out is None else Path(out)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "number": _number, "p": _p_value}
    template = environment.from_string(
        files("kntrace.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    page = template.render(
        run=run,
        analysis=analysis,
        headline=HEADLINES[analysis.verdict.answer],
        reason=analysis.verdict.reason[:1].upper() + analysis.verdict.reason[1:],
        warnings=_warnings(analysis),
        figures=_figures(analysis),
        contrasts=_contrasts(analysis),
        limits=LIMITS,
        measured=MEASURED,
        measured_on=MEASURED_ON,
        record=run.provenance,
        steps=_steps(analysis),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def _figures(analysis: Analysis) -> list[dict[str, str]]:
    drawn = []
    with styled():
        for name, module in FIGURES.items():
            stream = io.BytesIO()
            module.draw(module.prepare(analysis)).savefig(stream, format="png", dpi=160)
            drawn.append(
                {
                    "name": name,
                    "title": module.TITLE,
                    "alt": module.ALT,
                    "read": EXPLAINED[name],
                    "data": base64.b64encode(stream.getvalue()).decode("ascii"),
                }
            )
    return drawn


def _contrasts(analysis: Analysis) -> list[dict[str, Any]]:
    """Rows of the table of all distances, the baseline first."""
    return [
        {"name": name, "corrected": " | " in name, **found.overall}
        for name, found in sorted(
            analysis.contrasts.items(), key=lambda item: item[0] != "probability_curve"
        )
    ]


def _warnings(analysis: Analysis) -> list[str]:
    """What a reader must see before believing anything below."""
    warnings = list(analysis.notes)
    last = analysis.probability.isel(checkpoint=-1)
    unknown = [
        f"{word} ({float(value):.0%})"
        for word, value in zip(last["word"].values, last.values, strict=True)
        if value < _KNOWN
    ]
    if unknown:
        warnings.append(
            f"The last checkpoint gives these answers less than {_KNOWN:.0%}, so it can hardly be "
            f"said to know them: {', '.join(unknown)}."
        )
    baseline = analysis.contrasts["probability_curve"].overall
    if baseline["p"] <= 0.05:
        warnings.append(
            "The curves of P(answer) alone already tell the groups apart (AUC "
            f"{baseline['auc']:.2f}, p {_p_value(baseline['p'])}): words of a group were learnt at "
            "like times. Distances between formation processes answer to that, whatever the words "
            "mean; look at the verdict and at the rows with the baseline regressed out."
        )
    warnings += [note for found in analysis.contrasts.values() for note in found.notes]
    return list(dict.fromkeys(warnings))


def _steps(analysis: Analysis) -> str:
    steps = [int(step) for step in analysis.probability["step"].values]
    if min(steps) < 0:
        return f"{len(steps)} checkpoints"
    return f"{len(steps)} checkpoints, steps {min(steps):,} to {max(steps):,}"


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _p_value(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
