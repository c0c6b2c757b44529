"""All that an analysis found, in one object that figures and reports are made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import xarray as xr

from kntrace.analysis.prompt_noise import PromptNoise
from kntrace.archive import Run
from kntrace.contrasts import Contrast
from kntrace.emergence import Early, FormationTimes
from kntrace.notebook import Card, Shown
from kntrace.overlap import Overlap
from kntrace.verdict import Verdict, account

__all__ = ["Analysis"]

_ALPHA = 0.05
_NAMED = 8
_LABEL = 32


@dataclass(frozen=True, repr=False)
class Analysis(Shown):
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
    tests
        One row a distance, corrected ones included, and test of `kntrace.contrasts.MATRIX_TESTS`.
    reliability
        One row a distance: how well it repeats, see `kntrace.analysis.reliability`.
    prompt_noise
        How far the prompts by themselves move the judged distance's AUC.
    overlap
        Knowledge neurons in common, see `neuron_overlap`.
    overlap_by_layer
        The same by layer, see `kntrace.overlap.overlap_by_layer`.
    early
        How early a word's final neurons can be told, see `kntrace.emergence`.
    times
        When neurons and answers half-rise, see `kntrace.emergence`.
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
    tests: pd.DataFrame
    reliability: pd.DataFrame
    prompt_noise: PromptNoise
    overlap: Overlap
    overlap_by_layer: pd.DataFrame
    early: Early
    times: FormationTimes
    verdict: Verdict
    verdicts: dict[str, Verdict]
    notes: tuple[str, ...] = ()
    corrected: dict[str, xr.DataArray] = field(default_factory=dict)
    selection: str = ""

    def __str__(self) -> str:
        first = next(iter(self.contrasts.values()))
        notes = [f"note: {note}" for note in self.notes]
        neurons = [str(self.overlap), _layers(self.overlap_by_layer), str(self.early)]
        return "\n".join(
            [
                *(str(first), "", *self._distances(), str(self.prompt_noise), ""),
                *(*neurons, str(self.times), *notes, ""),
                account(self.verdict, self.verdicts),
            ]
        )

    def _distances(self) -> list[str]:
        """One line a distance, with what is needed beside it."""
        lines = _under_their_distance(self.contrasts)
        width = max(len(shown) for shown, _ in lines)
        repeats = self.reliability.set_index("distance")["reliability"].to_dict()
        head = (
            f"{'distance':<{width}} {'AUC':>5} {'±':>5} {'chance':>6} {'p':>5}"
            f" {'above':>6} {'chance':>6} {'repeats':>7}"
        )
        rows = [
            f"{shown:<{width}} {row['auc']:>5.3f} {_or_dash(row['auc_se'], '.3f'):>5}"
            f" {row['auc_chance']:>6.3f}"
            f" {row['p']:>5.3f} {row['share_above']:>6.1%} {row['chance']:>6.1%}"
            f" {_or_dash(repeats.get(name, math.nan), '.2f'):>7}"
            for shown, name, row in ((*line, self.contrasts[line[1]].overall) for line in lines)
        ]
        rule = "─" * len(head)
        legend = (
            "probability_curve: the baseline, which knows only when a word was learnt;",
            "| probability_curve: with its ranks regressed out; | hub: without word effects",
            "±: standard error (jackknife over words); repeats: split-half reliability over",
            "prompts (Spearman-Brown); PERMANOVA and others are in analysis/tests.csv",
        )
        return [rule, head, rule, *rows, rule, *legend]

    def __repr__(self) -> str:
        return (
            f"Analysis({len(self.distances)} distances, k = {self.k}, "
            f"verdict: {self.verdict.answer})"
        )

    def _card(self) -> Card:
        rows = [
            {
                "distance": shown.strip(),
                "AUC": row["auc"],
                "±": row["auc_se"],
                "AUC by chance": row["auc_chance"],
                "p": row["p"],
                "above": row["share_above"],
                "by chance": row["chance"],
            }
            for shown, name in _under_their_distance(self.contrasts)
            for row in (self.contrasts[name].overall,)
        ]
        facts = {
            "words": sum(map(len, self.groups.values())),
            "groups": len(self.groups),
            "knowledge neurons a word": self.k,
            "wording": self.wording,
        }
        notes = (self.verdict.reason, *self.notes)
        return Card(f"Analysis: {self.verdict.answer}", facts, rows, notes)


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


def _or_dash(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _layers(table: pd.DataFrame) -> str:
    """The layers in which words of one group have more neurons in common than others."""
    found = table[table["p_holm"] <= _ALPHA]["layer"].tolist()
    named = ", ".join(map(str, found[:_NAMED])) + (", …" if len(found) > _NAMED else "")
    return f"more in common within groups in {len(found)} of {len(table)} layers" + (
        f": {named} (Holm)" if found else " (Holm)"
    )
