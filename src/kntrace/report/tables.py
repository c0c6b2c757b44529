"""The tables of the report, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kntrace.analysis import Analysis
from kntrace.contrasts import MATRIX_TESTS, Contrast
from kntrace.distance import DISTANCES
from kntrace.verdict import MEASURED_ON, VALIDATED, VALIDATED_ON, Measured, VerdictRule

__all__ = [
    "Table",
    "contrast",
    "distances",
    "early",
    "matrix_tests",
    "measured",
    "measured_before",
    "overlap",
    "overlap_by_layer",
    "p_value",
    "per_cent",
    "share",
    "verdicts",
    "words",
]

_BASELINE = "probability_curve"
_HALF = 0.5
_STRONGEST = 3
_ALPHA = 0.05


@dataclass(frozen=True)
class Table:
    """A table: the first cell of every row names the row.

    Attributes
    ----------
    caption
        What the numbers are.
    columns
        Headings.
    rows
        Cells as text.
    foot
        A last row that sums up, if there is one.
    text, long
        Positions of columns that hold words, not numbers, and of those that hold sentences.
    marked
        Positions of rows to be set off.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    foot: tuple[str, ...] | None = None
    text: frozenset[int] = frozenset({0})
    long: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()


def verdicts(analysis: Analysis) -> Table:
    """The rule's numbers for every wording."""
    rows = [
        (
            *(wording, found.answer, share(found.adjusted_auc)),
            f"{share(found.low)} to {share(found.high)}",
            *(p_value(found.p), share(found.auc), share(found.null_mean)),
            *(share(found.leverage, 2), per_cent(found.time_share, 0)),
        )
        for wording, found in analysis.verdicts.items()
    ]
    return Table(
        "What the rule found in each wording of the questions. AUC: how often a same-group pair "
        "is nearer than an other-group pair, learning time taken out; by chance: its mean when "
        "labels are shuffled among words learnt at like times; adjusted: what is left, 0.5 "
        "being nothing. With leverage below 0.25 nothing can be told.",
        (
            *("wording", "answer", "adjusted AUC", "90 % interval", "p"),
            *("AUC", "by chance", "leverage", "learning time explained by groups"),
        ),
        tuple(rows),
        text=frozenset({0, 1}),
    )


def measured(rule: VerdictRule) -> Table | None:
    """How often the rule gave each answer on suites that were grown to check it."""
    return _answers(
        f"How often the rule gave each answer where the truth is known: {VALIDATED_ON}. Where "
        "groups mean nothing, the interval is that of a false “yes”, elsewhere of a right one.",
        VALIDATED if rule.measured else (),
    )


def measured_before(rule: VerdictRule) -> Table | None:
    """How often it gave each answer on the suites that its thresholds were set on."""
    return _answers(
        "The same on the suites that the thresholds were set on, which flatters them: "
        f"{MEASURED_ON}.",
        rule.measured,
    )


def _answers(title: str, measured: Sequence[Measured]) -> Table | None:
    rows = [
        (
            *(row.world, "yes" if row.meant else "no"),
            *map(str, (row.suites, row.yes, row.no, row.cannot_tell)),
            " to ".join(per_cent(end, 0) for end in row.yes_interval),
        )
        for row in measured
    ]
    if not rows:
        return None
    return Table(
        title,
        (
            *("world", "groups mean something", "suites", "yes", "no", "cannot tell"),
            "rate of yes, exact 95 % interval",
        ),
        tuple(rows),
        text=frozenset({0, 1}),
    )


def distances(analysis: Analysis) -> Table:
    """Every distance as it is, then with other things taken out; the baseline first."""
    order = sorted(analysis.distances, key=lambda name: name != _BASELINE)
    repeats = analysis.reliability.set_index("distance")["reliability"].to_dict()
    rows = []
    for name in order:
        for full in (name, *(full for full in analysis.corrected if full.startswith(f"{name} | "))):
            if full not in analysis.contrasts:
                continue
            found = analysis.contrasts[full].overall
            what = _description(analysis, name) if full == name else _given(analysis, full)
            rows.append(
                (
                    *(full.replace(_BASELINE, "P(answer) curves") if full != name else name, what),
                    f"{share(found['auc'])} ± {share(found['auc_se'])}",
                    *(share(found["auc_chance"]), _marked(found["p"])),
                    *(per_cent(found["share_above"]), per_cent(found["chance"])),
                    share(repeats.get(full, math.nan), 2),
                )
            )
    return Table(
        "Same-group against other-group pairs, by every distance. The first row is the baseline: "
        "it knows only when a word is learnt. By chance: mean over "
        f"{analysis.permutations:,} permutations of the labels. ±: standard error, by a jackknife "
        "over words. Repeats: split-half reliability over prompts. n.s.: p above .05. "
        "A small p says that groups differ in something, which may be no more than learning time.",
        (
            *("distance", "what it is", "AUC", "by chance", "p"),
            *("share above", "by chance", "repeats"),
        ),
        tuple(rows),
        text=frozenset({0, 1}),
        long=frozenset({1}),
        marked=frozenset({0}) if order[0] == _BASELINE else frozenset(),
    )


def contrast(found: Contrast) -> Table:
    """The paper's table 2 for one distance, in both conventions."""
    rows = [_contrast_row(row["group"], row["words"], row) for row in _records(found)]
    rows.append(_contrast_row("mean of groups", "", found.macro))
    return Table(
        f"Table 2 of the paper, by the distance {found.distance}: of the words of other groups, "
        "the share that is farther from a word than the word's own group is on average. “As the "
        "paper counts” takes the word itself for one that is not farther. By chance: mean over "
        f"{found.permutations:,} permutations of the labels. Holm: p of the AUC adjusted for the "
        "groups. n.s.: p above .05.",
        (
            *("group", "words", "share above", "by chance", "p"),
            *("as the paper counts", "by chance", "AUC", "by chance", "p of AUC", "Holm"),
        ),
        tuple(rows),
        foot=_contrast_row("all", len(found.words), found.overall),
    )


def matrix_tests(analysis: Analysis) -> Table:
    """PERMANOVA, ANOSIM, PERMDISP and Mantel's test of every distance."""
    names = list(analysis.contrasts)
    found = analysis.tests.set_index(["distance", "test"])
    rows = [
        (
            name.replace(f" | {_BASELINE}", " | P(answer) curves"),
            *(_tested(found.loc[(name, test)]) for test in MATRIX_TESTS),
        )
        for name in names
    ]
    said = "; ".join(f"{test.upper()}, {what}" for test, what in MATRIX_TESTS.items())
    return Table(
        f"Tests of whole distance matrices, with p in brackets ({said}). None of them knows of "
        "learning time. –: does not apply, as to ranks that can be negative.",
        ("distance", *(test.upper() for test in MATRIX_TESTS)),
        tuple(rows),
    )


def overlap(analysis: Analysis) -> Table:
    """Knowledge neurons in common, by group."""
    found = analysis.overlap
    rows = [
        (name, _mean(row["within"]), _mean(row["between"]), _known(row["p"]), _known(row["p_holm"]))
        for name, row in found.groups.items()
    ]
    return Table(
        f"Mean number of knowledge neurons in common, of {analysis.k:,} per word. Two sets drawn "
        f"at random out of {found.total_neurons:,} neurons would share {found.expected:.1f} "
        f"(standard deviation of one pair {found.expected_sd:.1f}). p: within above between, by "
        f"{found.permutations:,} permutations of the labels; Holm: adjusted for the groups.",
        ("group", "within the group", "with other groups", "p", "Holm"),
        tuple(rows),
        foot=("all", _mean(found.within), _mean(found.between), p_value(found.p), ""),
    )


def overlap_by_layer(analysis: Analysis) -> Table:
    """Knowledge neurons in common, by layer."""
    rows = [
        (
            *(f"{row['layer']:.0f}", _mean(row["neurons"])),
            *(f"{row[name]:.2f}" for name in ("within", "between", "expected")),
            *(p_value(row["p"]), p_value(row["p_holm"])),
        )
        for row in analysis.overlap_by_layer.to_dict("records")
    ]
    return Table(
        "The same layer by layer. At random: what words would share if each kept its number of "
        "neurons in the layer and drew them anew; Holm: p adjusted for the layers.",
        ("layer", "neurons a word", "within groups", "between groups", "at random", "p", "Holm"),
        tuple(rows),
    )


def early(analysis: Analysis) -> Table:
    """How early a word's final neurons can be told."""
    found = analysis.early
    rows = [
        (
            row["checkpoint"],
            *(per_cent(row[name] / found.k) for name in ("own", "same_group", "other_groups")),
            p_value(row["p"]),
        )
        for row in found.checkpoints.to_dict("records")
    ]
    return Table(
        f"Of the {found.k:,} largest scores of a word at a checkpoint, the share that are its "
        "knowledge neurons at the end, and that are those of other words. At random: "
        f"{per_cent(found.expected / found.k)}. p: own above others', by {found.permutations:,} "
        "permutations of the final sets.",
        ("checkpoint", "its own", "of its group", "of other groups", "p"),
        tuple(rows),
    )


def words(analysis: Analysis) -> Table:
    """Every word: how well it is known, since when, by which neurons, and what is nearest."""
    probability = analysis.probability.transpose("checkpoint", "word")
    labels = [str(label) for label in probability["checkpoint"].values]
    nearest = {
        name: _nearest(matrix) for name, matrix in analysis.distances.items() if name != _BASELINE
    }
    columns = ["word", "group", "P(answer) at the end", "over one half since", "strongest neurons"]
    columns += [f"nearest by {name}" for name in nearest]
    rows = [
        (
            *(str(word), str(group), share(float(curve[-1])), _known_since(curve, labels)),
            *(strongest, *near),
        )
        for word, group, curve, strongest, *near in zip(
            probability["word"].values,
            probability["group"].values,
            probability.values.T,
            _strongest(analysis),
            *nearest.values(),
            strict=True,
        )
    ]
    return Table(
        "Every word in the main wording. Over one half: the first checkpoint from which on "
        "P(answer) stays at one half or more. Neurons are written layer.neuron, both counted "
        "from 0, the largest score first. Nearest words are single pairs, which are not a "
        "finding: between two trainings only the groups agree.",
        tuple(columns),
        tuple(rows),
        text=frozenset({0, 1, 3, *range(4, len(columns))}),
    )


def share(value: float, digits: int = 3) -> str:
    """A number between 0 and 1, or about that."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def per_cent(value: float, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f} %"


def p_value(value: float) -> str:
    """A p-value, to three digits unless it is smaller."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def _marked(value: float) -> str:
    """Write a p-value, saying so where it is not significant."""
    return ("n.s.\N{NO-BREAK SPACE}" if value > _ALPHA else "") + p_value(value)


def _contrast_row(name: object, size: object, row: Any) -> tuple[str, ...]:
    return (
        *(str(name), str(size), per_cent(row["share_above"]), per_cent(row["chance"])),
        *(p_value(row["share_p"]), per_cent(row["share_above_with_self"])),
        *(per_cent(row["chance_with_self"]), share(row["auc"]), share(row["auc_chance"])),
        *(_marked(row["p"]), _marked(row["p_holm"]) if "p_holm" in row else ""),
    )


def _records(found: Contrast) -> Sequence[dict[Any, Any]]:
    return found.groups.to_dict("records")


def _tested(row: Any) -> str:
    if math.isnan(row["p"]):
        return "–"
    return f"{share(row['statistic'], 2)} ({p_value(row['p'])})"


def _known(value: float | None) -> str:
    return "–" if value is None else p_value(value)


def _mean(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _description(analysis: Analysis, name: str) -> str:
    attrs = analysis.distances[name].attrs
    text = str(attrs.get("description") or "")
    return text or (DISTANCES[name].description if name in DISTANCES else "")


def _given(analysis: Analysis, name: str) -> str:
    """What was taken out of a corrected distance."""
    return f"without what these explain: {analysis.corrected[name].attrs['given']}"


def _known_since(curve: np.ndarray[Any, np.dtype[np.float64]], labels: Sequence[str]) -> str:
    below = np.flatnonzero(curve < _HALF)
    if not below.size:
        return labels[0]
    return "–" if below[-1] == len(labels) - 1 else labels[int(below[-1]) + 1]


def _strongest(analysis: Analysis) -> list[str]:
    """The first few knowledge neurons of every word, as layer.neuron."""
    neurons = analysis.neurons.transpose("word", "rank").isel(rank=slice(_STRONGEST))
    between = ",\N{NO-BREAK SPACE}"
    return [
        between.join(f"{layer}.{neuron}" for layer, neuron in zip(*row, strict=True) if layer >= 0)
        for row in zip(neurons["layer"].values, neurons["neuron"].values, strict=True)
    ]


def _nearest(matrix: xr.DataArray) -> list[str]:
    """The nearest other word of every word."""
    values = matrix.values.copy()
    np.fill_diagonal(values, np.inf)
    return [str(word) for word in matrix["other_word"].values[values.argmin(axis=1)]]
