"""What was run, with what, and when: the last part of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from kntrace.analysis import Analysis
from kntrace.archive import Run, convergence
from kntrace.report.tables import Table

__all__ = ["checkpoints", "prompts", "record"]

_SHORT = 16


def record(run: Run, analysis: Analysis) -> list[tuple[str, str]]:
    """Name and value of everything that the numbers depend on."""
    study, suite, made = run.study, run.suite, run.provenance
    entries = [
        ("study", f"{study.name} · SHA-256 {study.digest[:_SHORT]}"),
        ("template", study.template or "none: the questions are the prompts"),
        ("answer", study.answer_form.replace("_", " ")),
        ("wordings", ", ".join(study.wordings)),
        ("suite", f"{suite.name} · {len(suite)} checkpoints · SHA-256 {suite.digest[:_SHORT]}"),
        ("settings", _listed(run.settings.model_dump(mode="json"))),
        *_kept(run),
        (
            "analysis",
            f"k {analysis.k:,}, main wording {analysis.wording}, {analysis.permutations:,} "
            f"permutations, seed {analysis.seed}",
        ),
        ("completeness", _completeness(run)),
        ("nodes", _nodes(run)),
    ]
    sessions = made.get("sessions", [])
    if sessions:
        took = sum(float(session["seconds"]) for session in sessions)
        many = "one session" if len(sessions) == 1 else f"{len(sessions)} sessions"
        entries.append(("scored", f"{sessions[0]['started'][:19]} UTC, {_took(took)} in {many}"))
    entries += [
        (name, str(made[name])) for name in ("device", "threads", "platform") if name in made
    ]
    if "versions" in made:
        entries.append(("versions", _listed(made["versions"])))
    return entries


def checkpoints(run: Run) -> Table:
    """Every checkpoint: its place in training, where it came from, and its weights."""
    seen = run.provenance.get("checkpoints", {})
    rows = []
    for place, checkpoint in enumerate(run.suite):
        commit = seen.get(checkpoint.label, {}).get("commit")
        rows.append(
            (
                checkpoint.label,
                "–" if checkpoint.step is None else f"{checkpoint.step:,}",
                "–" if checkpoint.tokens is None else f"{checkpoint.tokens:,}",
                checkpoint.place + (f" ({commit[:12]})" if commit else ""),
                (run.fingerprint(place) or "–")[:_SHORT],
            )
        )
    return Table(
        "The checkpoints; equal fingerprints are equal weights.",
        ("checkpoint", "step", "tokens seen", "from", "fingerprint"),
        tuple(rows),
        text=frozenset({0, 3, 4}),
        long=frozenset({3}),
    )


def prompts(run: Run) -> Table:
    """Every prompt as the model read it."""
    study = run.study
    rows = [
        (word.text, wording, text, word.answer)
        for word in study.words
        for (wording, _), text in zip(study.slots, study.rendered(word), strict=True)
        if text is not None
    ]
    return Table(
        "The prompts as the model read them, and the answers that were scored.",
        ("word", "wording", "prompt", "answer"),
        tuple(rows),
        text=frozenset({0, 1, 2, 3}),
        long=frozenset({2}),
    )


def _kept(run: Run) -> list[tuple[str, str]]:
    if run.settings.top is None:
        return []
    return [("kept", f"of every word the neurons ever among its {run.settings.top:,} strongest")]


def _completeness(run: Run) -> str:
    gaps = np.abs(run.scores["gap"].values)
    gaps = gaps[np.isfinite(gaps)]
    if not gaps.size:
        return "no gap was recorded"
    return (
        f"scores of a layer miss the change of P(answer) by {np.median(gaps):.1g} in the median, "
        f"{np.quantile(gaps, 0.95):.1g} at the 95th percentile, {gaps.max():.1g} at most"
    )


def _nodes(run: Run) -> str:
    paths = convergence(run)
    if not paths.total:
        return "no path was recorded"
    return (
        f"{paths.mean_nodes():.1f} gradients per layer and prompt in the mean, "
        f"{paths.mean_nodes(0):.1f} in the first layer"
    )


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _took(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
