"""What a comparison is: its tables, and how it reads in a terminal."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kntrace.comparison.agreement import OVER
from kntrace.notebook import Card, Shown

__all__ = ["RUN_COLUMNS", "VERDICT_COLUMNS", "Comparison"]

RUN_COLUMNS = (
    *("run", "path", "suite", "words", "checkpoints", "layers", "width", "k"),
    *("probability", "probability_step", "neurons_step"),
)
VERDICT_COLUMNS = (
    *("run", "wording", "answer", "p", "adjusted_auc", "low", "high"),
    *("leverage", "time_share", "words", "groups"),
)

_ALL = "all"
_ALPHA = 0.05
_COLUMNS, _LABEL, _SHORT = 80, 22, 14


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """What `kntrace.compare` found.

    Attributes
    ----------
    labels
        What the runs are called: their folders' names, as far as needed to tell them apart.
    groups
        The common words of every group.
    left_out
        By run, its words that another run lacks.
    runs
        One row a run: where it is; its words, checkpoints, layers, neurons in each and
        knowledge neurons a word; `probability`, mean P(answer) of the common words at the last
        checkpoint; and the medians over these words of the step at which P(answer) and the
        word's neurons half-rise (NaN where steps are not known).
    verdicts
        One row a run and wording, `all` being the verdict of all its wordings; see
        `kntrace.verdict.Verdict`.
    agreement
        One row a distance, two runs and kind of pairs; see `kntrace.comparison.agreement`.
    estimates
        One row a distance and run: `auc`, the mean over groups, and its standard error `se`
        over words; and the adjusted AUC of the verdict.
    pooled
        One row a distance: the same over runs; see `kntrace.comparison.pooled`.
    evaluations
        One row a run, task and checkpoint; see `kntrace.comparison.evaluations`.
    correlations
        One row a run, task and curve: levels and changes over the checkpoints.
    permutations, seed
        Of the tests made here.
    notes
        What a reader must know beside the numbers.
    """

    labels: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    left_out: dict[str, tuple[str, ...]]
    runs: pd.DataFrame
    verdicts: pd.DataFrame
    agreement: pd.DataFrame
    estimates: pd.DataFrame
    pooled: pd.DataFrame
    evaluations: pd.DataFrame
    correlations: pd.DataFrame
    permutations: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """Whether the runs' verdicts agree, in a sentence; no majority decides."""
        whole = self.verdicts[self.verdicts["wording"] == _ALL]
        answers = dict(zip(whole["run"], whole["answer"], strict=True))
        if len(set(answers.values())) == 1:
            both = "Both" if len(answers) == 2 else f"All {len(answers)}"
            return f"{both} runs say: {next(iter(answers.values()))}."
        by_answer = {
            answer: [label for label, found in answers.items() if found == answer]
            for answer in ("yes", "no", "cannot tell")
        }
        parts = [
            f"{answer} in {len(labels)} ({', '.join(labels)})"
            for answer, labels in by_answer.items()
            if labels
        ]
        return (
            f"The runs do not agree: {', '.join(parts)}. "
            "What most of them say is no verdict on all of them."
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, as what JSON can express; undefined numbers become None."""
        tables = ("runs", "verdicts", "agreement", "estimates", "pooled")
        return {
            "labels": list(self.labels),
            "groups": {name: list(words) for name, words in self.groups.items()},
            "left_out": {label: list(words) for label, words in self.left_out.items()},
            "verdict": self.said,
            **{
                name: _records(getattr(self, name))
                for name in (*tables, "evaluations", "correlations")
            },
            "permutations": self.permutations,
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def _card(self) -> Card:
        rows = self.verdicts[["run", "wording", "answer", "p"]].to_dict("records")
        facts = {"runs": len(self.labels), "words": sum(map(len, self.groups.values()))}
        return Card("Several runs side by side", facts, rows, (self.said, *self.notes))

    def __repr__(self) -> str:
        words = sum(map(len, self.groups.values()))
        return f"Comparison({len(self.labels)} runs, {words} words; {self.said})"

    def __str__(self) -> str:
        words = sum(map(len, self.groups.values()))
        title = f"{len(self.labels)} runs, {words} common words in {len(self.groups)} groups"
        parts = [title, *_run_lines(self.runs), "", *_verdict_lines(self.verdicts)]
        parts += [*_wrapped(self.said), "", *_agreement_lines(self.agreement, len(self.labels)), ""]
        parts += _pooled_lines(self.pooled)
        if len(self.correlations):
            parts += ["", *_correlation_lines(self.correlations)]
        notes = [line for note in self.notes for line in _wrapped(f"note: {note}")]
        return "\n".join([*parts, *notes])


def _run_lines(runs: pd.DataFrame) -> list[str]:
    name = _width(runs["run"], "run")
    head = f"{'run':<{name}} checkpoints words  P(answer) half-rise of P of neurons"
    rows = [
        f"{_fit(row['run']):<{name}} {row['checkpoints']:>11} {row['words']:>5}"
        f" {row['probability']:>10.3f} {_or_dash(row['probability_step'], '.0f'):>14}"
        f" {_or_dash(row['neurons_step'], '.0f'):>10}"
        for row in _rows(runs)
    ]
    return _ruled(head, rows)


def _verdict_lines(verdicts: pd.DataFrame) -> list[str]:
    whole = verdicts[verdicts["wording"] == _ALL]
    name = _width(whole["run"], "run")
    head = f"{'run':<{name}} {'verdict':<12} {'adj. AUC':>8} {'90 % interval':>16} {'p':>6}"
    rows = [
        f"{_fit(row['run']):<{name}} {row['answer']:<12} {row['adjusted_auc']:>8.3f}"
        f" {_interval(row):>16} {row['p']:>6.3f}"
        for row in _rows(whole)
    ]
    return _ruled(head, rows)


def _agreement_lines(table: pd.DataFrame, runs: int) -> list[str]:
    """One line a distance: medians over the pairs of runs."""
    heads = {"same group": "same", "other groups": "other", "within blocks": "within"}
    lines = _under_their_distance(table["distance"])
    name = max(len(shown) for shown, _ in lines)
    head = f"{'distance':<{name}} {'all':>5} {'of most':>7}"
    head += "".join(f" {heads[kind]:>6} {'chance':>6}" for kind in OVER[1:])
    medians = table.groupby(["distance", "over"])[["rho", "chance", "ceiling"]].median()
    at = _by_key(medians)
    rows = []
    for shown, distance in lines:
        whole = at[distance, OVER[0]]
        line = f"{shown:<{name}} {_or_dash(whole['rho'], '.2f'):>5}"
        line += f" {_or_dash(whole['ceiling'], '.2f'):>7}"
        for kind in OVER[1:]:
            found = at[distance, kind]
            line += "".join(f" {_or_dash(found[what], '.2f'):>6}" for what in ("rho", "chance"))
        rows.append(line)
    several = f" (medians of {math.comb(runs, 2)})" if runs > 2 else ""
    return [
        f"agreement of distances, Spearman over pairs of words{several}",
        *_ruled(head, rows),
        "of most: what noise of the prompts leaves of it (split-half reliability); same,",
        "other: pairs of one group, of different groups; within: both, ranked apart;",
        "chance: where words change places in their groups. What agrees only in `all`",
        "agrees that groups differ, and in nothing of single words.",
        *_clear(table),
    ]


def _clear(table: pd.DataFrame) -> list[str]:
    """For how many pairs of runs the words themselves agree."""
    inside = table[(table["over"] == OVER[3]) & table["p"].notna()]
    counts = [
        f"{name} {int((part['p'] <= _ALPHA).sum())} of {len(part)}"
        for name, part in inside.groupby("distance", sort=False)
        if " | " not in str(name)
    ]
    said = f"pairs of runs that agree within beyond chance (p at most {_ALPHA:g})"
    return _wrapped(f"{said}: {', '.join(counts)}") if counts else []


def _pooled_lines(table: pd.DataFrame) -> list[str]:
    lines = _under_their_distance(table["distance"])
    name = max(len(shown) for shown, _ in lines)
    by_name = {str(row["distance"]): row for row in _rows(table)}
    head = f"{'distance':<{name}} {'AUC':>5} {'95 % interval':>16} {'next run':>16}"
    head += f" {'I²':>4} {'tau':>5} {'p of Q':>6}"
    rows = []
    for shown, distance in lines:
        row = by_name[distance]
        if math.isnan(row["auc"]):
            rows.append(f"{shown:<{name}} {'–':>5}")
            continue
        rows.append(
            f"{shown:<{name}} {row['auc']:>5.3f} {_interval(row):>16}"
            f" {_interval(row, 'next_low', 'next_high'):>16} {row['i2']:>4.0%}"
            f" {math.sqrt(row['tau2']):>5.3f} {row['q_p']:>6.3f}"
        )
    return [
        "AUC over runs, mean of the groups (random effects)",
        *_ruled(head, rows),
        "Runs of the same words share these words' luck: the interval is about other",
        "trainings on these words, and not about other words.",
    ]


def _correlation_lines(table: pd.DataFrame) -> list[str]:
    name, task = _width(table["run"], "run", _SHORT), _width(table["task"], "task", _SHORT)
    head = f"{'run':<{name}} {'task':<{task}} {'curve':<11} {'levels':>6} {'changes':>7} {'p':>5}"
    head += f" {'given gaps':>10} {'p':>5}"
    rows = [
        f"{_fit(row['run'], _SHORT):<{name}} {_fit(row['task'], _SHORT):<{task}}"
        f" {row['curve']:<11} {_or_dash(row['levels'], '.2f'):>6}"
        f" {_or_dash(row['changes'], '.2f'):>7} {_or_dash(row['changes_p'], '.3f'):>5}"
        f" {_or_dash(row['given_gaps'], '.2f'):>10} {_or_dash(row['given_gaps_p'], '.3f'):>5}"
        for row in _rows(table)
    ]
    return [
        "evaluations beside formation (Spearman over checkpoints)",
        *_ruled(head, rows),
        "Levels of two curves that rise always agree: that is no finding. Changes are",
        "from one checkpoint to the next; given gaps: steps between them regressed out.",
    ]


def _under_their_distance(names: pd.Series[str]) -> list[tuple[str, str]]:
    """What to show and names: every distance, and under it, indented, what it is corrected by."""
    known = [str(name) for name in dict.fromkeys(names)]
    plain = dict.fromkeys(name.partition(" | ")[0] for name in known)
    lines = []
    for name in plain:
        lines += [(_fit(name), name)] if name in known else []
        under = [full for full in known if full.startswith(f"{name} | ")]
        lines += [(_fit(f"  {full.removeprefix(f'{name} ')}"), full) for full in under]
    return lines


def _ruled(head: str, rows: list[str]) -> list[str]:
    rule = "─" * max(map(len, (head, *rows)))
    return [rule, head, rule, *rows, rule]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS)


def _interval(row: dict[str, Any], low: str = "low", high: str = "high") -> str:
    return "–" if math.isnan(row[low]) else f"{row[low]:.3f} to {row[high]:.3f}"


def _or_dash(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _fit(text: str, most: int = _LABEL) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _width(texts: pd.Series[str], least: str, most: int = _LABEL) -> int:
    return max(len(least), *(len(_fit(str(text), most)) for text in texts))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _by_key(table: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """The rows of a table by what its index calls them."""
    return dict(zip(table.index, _rows(table), strict=True))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        for row in _rows(table)
    ]
