"""All that an analysis found, in one object that figures and reports are made from."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from kntrace.archive import Run
from kntrace.contrasts import Contrast
from kntrace.overlap import Overlap
from kntrace.verdict import Verdict

__all__ = ["Analysis"]


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
        By name: one for every distance, and one, "<name> | probability_curve", for every
        distance with the ranks of the baseline regressed out.
    overlap
        Knowledge neurons in common, see `neuron_overlap`.
    verdict
        Of all wordings together.
    verdicts
        By wording.
    notes
        What was left out, and why.
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
    selection: str = ""

    def __str__(self) -> str:
        first = next(iter(self.contrasts.values()))
        width = max(len(name) for name in self.contrasts)
        head = f"{'distance':<{width}} {'AUC':>7} {'chance':>7} {'p':>6} {'above':>8} {'chance':>8}"
        rows = [
            f"{name:<{width}} {row['auc']:>7.3f} {row['auc_chance']:>7.3f} {row['p']:>6.3f}"
            f" {row['share_above']:>8.1%} {row['chance']:>8.1%}"
            for name, row in ((name, found.overall) for name, found in self.contrasts.items())
        ]
        rule = "─" * len(head)
        table = [rule, head, rule, *rows, rule]
        legend = [
            "probability_curve: the baseline, which knows only when a word was learnt;",
            "| probability_curve: with its ranks regressed out",
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
