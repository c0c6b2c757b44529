"""What a reader must see before believing a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kntrace.analysis import Analysis
from kntrace.archive import Convergence, Run, audit_run, convergence
from kntrace.report.known import unknown_words
from kntrace.report.tables import p_value, per_cent, share

__all__ = ["Caution", "cautions"]

_BASELINE, _PAPER = "probability_curve", "emd"
_SIGNIFICANT = 0.05
# Scores of a layer should add up to what the layer does to P(answer); this much may be missing.
_GAP, _GAPS_ALLOWED = 0.01, 0.01
_NAMED = 12
# Blocks whose scores are read to say how much the gaps matter, whatever the size of the run.
_LOOKED_AT = 200

# Titles by the kind of what an audit of the checkpoints found.
_AUDITED = {
    "repeated": "Some checkpoints are the same.",
    "shared": "Some checkpoints hold weights of another one.",
    "untrained": "Some weights are the same in all checkpoints.",
    "missing": "Weights are missing.",
    "unexpected": "Some checkpoints hold weights that others have not.",
    "not-finite": "Some weights are not finite.",
    "shape": "Weights change their shape.",
    "dtype": "Checkpoints were saved in different formats.",
    "order": "Some checkpoints may be mislabelled.",
    "config": "The configuration changes along the series.",
    "tokenizer": "The tokenizer changes along the series.",
}


@dataclass(frozen=True)
class Caution:
    """A warning: what is the matter, and what follows."""

    title: str
    text: str


def cautions(run: Run, analysis: Analysis) -> list[Caution]:
    """Look for everything that should lower a reader's trust in what the report shows."""
    found = [
        *_learning_time(analysis),
        *_not_known(run, analysis),
        *_one_wording(analysis),
        *_paper_finds_nothing(analysis),
        *_gaps(run),
        *_not_converged(run),
        *_audit(run),
        *_no_steps(run),
    ]
    notes = [*analysis.notes, *(n for item in analysis.contrasts.values() for n in item.notes)]
    return found + [Caution("Left out.", f"{note}.") for note in dict.fromkeys(notes)]


def _learning_time(analysis: Analysis) -> list[Caution]:
    if _BASELINE not in analysis.contrasts:
        return []
    overall = analysis.contrasts[_BASELINE].overall
    if not overall["p"] <= _SIGNIFICANT:
        return []
    return [
        Caution(
            "Learning time alone tells the groups apart.",
            f"The curves of P(answer), which know nothing of neurons, reach an AUC of "
            f"{share(overall['auc'], 2)} (p = {p_value(overall['p'])}). Distances between "
            "formation processes, the paper's among them, see groups for that reason whatever "
            "the words mean, and regressing the curves out removes only part of it. Go by the "
            "verdict.",
        )
    ]


def _not_known(run: Run, analysis: Analysis) -> list[Caution]:
    unknown = unknown_words(run, analysis)
    if not unknown:
        return []
    return [
        Caution(
            f"The model does not know {len(unknown)} of {run.scores.sizes['word']} words.",
            "At the last checkpoint it does not put them first in most of their prompts: "
            f"{_listed(unknown)}. What is called their knowledge neurons is not of knowledge.",
        )
    ]


def _one_wording(analysis: Analysis) -> list[Caution]:
    if len(analysis.verdicts) != 1:
        return []
    return [
        Caution(
            "Only one wording was judged.",
            "Questions of one group are often worded alike, and that alone can make its words "
            "look alike. Give the study prompts in a second, neutral wording (“which thing …”) "
            "to guard against it; the rule's error rates are those of two wordings.",
        )
    ]


def _paper_finds_nothing(analysis: Analysis) -> list[Caution]:
    if _PAPER not in analysis.contrasts:
        return []
    overall = analysis.contrasts[_PAPER].overall
    if overall["p"] <= _SIGNIFICANT:
        return []
    return [
        Caution(
            "The paper's distance does not tell the groups apart.",
            f"Its AUC is {share(overall['auc'], 2)}, p = {p_value(overall['p'])}. Once learning "
            "time is under control it has little power, so this is no evidence against groups.",
        )
    ]


def _gaps(run: Run) -> list[Caution]:
    gaps = np.abs(run.scores["gap"].values)
    gaps = gaps[np.isfinite(gaps)]
    if not gaps.size or float((gaps > _GAP).mean()) <= _GAPS_ALLOWED:
        return []
    return [
        Caution(
            "The integral is not exact everywhere.",
            f"In {per_cent(float((gaps > _GAP).mean()))} of all layers and prompts the scores "
            f"miss the change of P(answer) that they should add up to by more than {_GAP}, at "
            f"most by {gaps.max():.2f}. The rule named adaptive, or more nodes, would mend it.",
        )
    ]


def _not_converged(run: Run) -> list[Caution]:
    paths = convergence(run)
    if not paths.missed:
        return []
    checkpoints, words, layers = (
        paths.unconverged.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)
    )
    return [
        Caution(
            f"{paths.missed:,} of {paths.total:,} integrals did not converge "
            f"({per_cent(paths.share)}).",
            "An integral is one layer's for one prompt at one checkpoint; these were not within "
            f"a relative error of {run.settings.tolerance:g}. They are in "
            f"layer {_most(layers, range(run.layers))}; at {_most(checkpoints, paths.checkpoints)}"
            f"; of the words {_most(words, paths.words)}. {_how_far(run, paths)} {paths.advice}",
        )
    ]


def _most(counts: npt.NDArray[np.int64], names: Sequence[object]) -> str:
    """Name those with a count, the largest first."""
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return _listed([f"{names[place]} ({counts[place]:,})" for place in order])


def _how_far(run: Run, paths: Convergence) -> str:
    """Say how large the gaps of such paths are beside what their layers' scores amount to."""
    blocks = np.argwhere(paths.unconverged.any(axis=2))
    seen = blocks[np.unique(np.linspace(0, len(blocks) - 1, _LOOKED_AT).round().astype(int))]
    if run.settings.keep == "means":
        return "How far, beside their layers' scores, is not known: only means were kept."
    scores, shares = run.scores[["score", "gap", "converged"]], []
    for checkpoint, word in seen:
        block = scores.isel(checkpoint=checkpoint, word=word).load()
        missed = block["converged"].values == 0
        amount = np.abs(block["score"].values[missed]).sum(axis=-1, dtype=np.float64)
        gap = np.abs(block["gap"].values[missed])
        shares.append(np.divide(gap, amount, out=np.full(len(gap), np.inf), where=amount > 0))
    found = np.concatenate(shares)
    where = "" if len(seen) == len(blocks) else f" (in {len(seen)} of {len(blocks):,} blocks)"
    return (
        f"Their scores miss what they should add up to by {per_cent(float(np.median(found)))} of "
        f"the sum of their sizes in the median, {per_cent(float(found.max()))} at most{where}."
    )


def _audit(run: Run) -> list[Caution]:
    """Say what is wrong with the checkpoints' weights; notes are left to `kntrace status`."""
    return [
        Caution(_AUDITED.get(finding.kind, "The checkpoints are odd."), finding.says)
        for finding in audit_run(run)
        if finding.severity != "note"
    ]


def _no_steps(run: Run) -> list[Caution]:
    stages = [stage or "none" for stage in run.suite.stages]
    if len(stages) > 1:
        return [
            Caution(
                "The checkpoints come from several stages of training.",
                f"Steps begin anew in each ({_listed(stages)}), so figures show the checkpoints in "
                "a row, evenly spaced.",
            )
        ]
    if all(checkpoint.step is not None for checkpoint in run.suite):
        return []
    return [
        Caution(
            "The checkpoints' steps are not known.",
            "Figures show them in a row, evenly spaced. Name the steps in a suite.yaml.",
        )
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
