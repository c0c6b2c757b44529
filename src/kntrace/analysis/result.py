"""All that an analysis found, in one object that figures and reports are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from kntrace.archive import Run
from kntrace.contrasts import Contrast
from kntrace.overlap import Overlap
from kntrace.verdict import Verdict

__all__ = ["Analysis"]

_LABEL = 38


@dataclass(frozen=True, repr=False)
class Analysis:
    """Results of `analyse`; all but `verdicts` are of the study's main wording.

    Attributes
    ----------
    run
        The run analysed; None if scores without a run folder were.
    groups
        The words of every group.
    wording
        Name of the main wording.
    k
        Knowledge neurons per word; of the word with the most, where words have unequally many.
    permutations, seed
        Of every permutation test.
    probability
        (checkpoint, word) mean P(answer) over the word's prompts; coordinates `step`, `group`.
    neurons
        (word, rank) knowledge neurons, see `knowledge_neurons`.
    formation
        (word, rank, checkpoint) formation processes, see `formation_processes`.
    distances
        By name, (word, other_word), see `pairwise_distances`.
    contrasts
        By name: one for every distance, and one for every corrected one.
    overlap
        Knowledge neurons in common, see `neuron_overlap`.
    verdict
        Of all wordings together.
    verdicts
        By wording.
    notes
        What was left out, and why.
    corrected
        By name, such as "emd | probability_curve" or "emd | hub": what is left of every
        distance but the baseline once the baseline, word effects or a covariate are taken out;
        see `kntrace.distance.correct`.
    selection
        How knowledge neurons were chosen, see `kntrace.selection`.
    """

    run: Run | None
    groups: dict[str, tuple[str, ...]]
    wording: str
    k: int
    permutations: int
    seed: int
    probability: xr.DataArray
    neurons: xr.Dataset
    formation: xr.DataArray
    distances: dict[str, xr.DataArray]
    contrasts: dict[str, Contrast]
    overlap: Overlap
    verdict: Verdict
    verdicts: dict[str, Verdict]
    notes: tuple[str, ...] = ()
    corrected: dict[str, xr.DataArray] = field(default_factory=dict)
    selection: str = ""

    def __str__(self) -> str:
        first = next(iter(self.contrasts.values()))
        lines = _under_their_distance(self.contrasts)
        width = max(len(shown) for shown, _ in lines)
        head = f"{'distance':<{width}} {'AUC':>7} {'chance':>7} {'p':>6} {'above':>8} {'chance':>8}"
        rows = [
            f"{shown:<{width}} {row['auc']:>7.3f} {row['auc_chance']:>7.3f} {row['p']:>6.3f}"
            f" {row['share_above']:>8.1%} {row['chance']:>8.1%}"
            for shown, row in ((shown, self.contrasts[name].overall) for shown, name in lines)
        ]
        rule = "─" * len(head)
        table = [rule, head, rule, *rows, rule]
        legend = [
            "probability_curve: the baseline, which knows only when a word was learnt;",
            "| probability_curve: with its ranks regressed out; | hub: without word effects",
        ]
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join(
            [str(first), "", *table, *legend, "", str(self.overlap), *notes, "", str(self.verdict)]
        )

    def __repr__(self) -> str:
        return (
            f"Analysis({len(self.distances)} distances, k = {self.k}, "
            f"verdict: {self.verdict.answer})"
        )


def _under_their_distance(contrasts: Mapping[str, Contrast]) -> list[tuple[str, str]]:
    """Names to show and names: every distance, and under it, indented, what it is corrected by."""
    lines = []
    for name in contrasts:
        if " | " not in name:
            lines.append((name, name))
            under = [full for full in contrasts if full.startswith(f"{name} | ")]
            lines += [(_clipped(f"  {full.removeprefix(f'{name} ')}"), full) for full in under]
    return lines


def _clipped(text: str) -> str:
    """Short enough for a line of 80 columns."""
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
