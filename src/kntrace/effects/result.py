"""All that an ablation found, in one object that figures and reports are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from kntrace.effects.settings import SOURCES, AblationSettings
from kntrace.effects.story import headline, paragraph
from kntrace.effects.summary import CELL, by_word, compare, correlate, leaks, summarise
from kntrace.notebook import Card, Shown

__all__ = ["Ablation"]

_HEADS = {
    "source": "whose",
    "probability_before": "P before",
    "probability": "P after",
    "percent": "percent",
    "log_odds": "log-odds",
    "log_odds_low": "from",
    "log_odds_high": "to",
}


@dataclass(frozen=True, repr=False)
class Ablation(Shown):
    """Results of `kntrace.ablate`.

    Attributes
    ----------
    path
        The folder they are kept in.
    settings
        What was changed, and how.
    groups
        The words of every group.
    table
        One row for every forward pass: `checkpoint`, `step`; `word` and `prompt` asked for;
        `source` (`kntrace.effects.SOURCES`), `of` (the word whose neurons were changed, "" for
        random ones) and `draw`; `method`, `dose`; how many `neurons` were changed, how many of
        them are `shared` with as many of the word's own, and their mean `size`, the absolute
        activation; then `probability`, `log_odds` and `rank` of the answer, and the
        summed probability of the answers of other words of the `same_group` and of
        `other_groups`, each also with nothing changed (`_before`).
    singles
        One row for every word and neuron silenced alone: `kind` (`own`, `random`), `score`,
        and what the answer loses, `probability_lost` and `log_odds_lost`, means over prompts.
    """

    path: Path
    settings: AblationSettings
    groups: Mapping[str, tuple[str, ...]]
    table: pd.DataFrame
    singles: pd.DataFrame

    @property
    def words(self) -> tuple[str, ...]:
        """All words, group by group."""
        return tuple(word for members in self.groups.values() for word in members)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Labels of the checkpoints, in the order of training."""
        return tuple(str(label) for label in self.table["checkpoint"].unique())

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over prompts and draws, see `kntrace.effects.summary.by_word`."""
        return by_word(self.table)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per checkpoint, method, dose and source, with 95 % intervals over words.

        `probability`, its `change`, the same in `percent` and in `log_odds`, each with `_low`
        and `_high`; `no_longer_first`: of the prompts that the answer came first after, the
        share after which it no longer does; `same_group`, `other_groups`: what the answers of
        other words gain.
        """
        return summarise(self.means, self.words)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """Paired differences between sources, in probability and log-odds, with intervals."""
        return compare(self.means, self.words)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """How scores go with what single neurons are worth, see `correlate`."""
        return correlate(self.singles)

    @cached_property
    def leaks(self) -> pd.DataFrame:
        """By the word whose neurons are changed: what its own answer and others' do."""
        return leaks(self.means)

    @cached_property
    def dataset(self) -> xr.Dataset:
        """Means over prompts, draws and partners, as labelled arrays.

        Dimensions `checkpoint`, `intervention` (the method: `sel` has an argument of that name),
        `dose`, `source`, `word`; variables `probability`, `change`, `log_odds` and others of
        `means`; coordinates `step` and `group`.
        """
        numbers = [
            name for name in self.means.columns if name not in (*CELL, "source", "word", "of")
        ]
        keys = ["checkpoint", "method", "dose", "source", "word"]
        flat = self.means.groupby(keys, observed=True, sort=False)[numbers].mean()
        cube = xr.Dataset.from_dataframe(flat).rename(method="intervention")
        order: dict[str, list[Any]] = {
            "checkpoint": list(self.checkpoints),
            "intervention": list(self.settings.methods),
            "dose": list(self.settings.doses),
            "source": [name for name in SOURCES if name in cube["source"].values],
            "word": list(self.words),
        }
        step = self.table.drop_duplicates("checkpoint").set_index("checkpoint")["step"]
        group = {word: name for name, members in self.groups.items() for word in members}
        return cube.reindex(order).assign_coords(
            step=("checkpoint", [int(step[label]) for label in order["checkpoint"]]),
            group=("word", [group[word] for word in order["word"]]),
        )

    @property
    def main(self) -> dict[str, Any]:
        """The cell that the text speaks of: last checkpoint, main method, main dose."""
        return {
            "checkpoint": self.checkpoints[-1],
            "method": self.settings.main_method,
            "dose": self.settings.main_dose,
        }

    @property
    def answer(self) -> str:
        """`yes`, `no` or `cannot tell`: do a word's own neurons carry its answer?"""
        return headline(*self._at_main())[0]

    @property
    def verdict(self) -> str:
        """The answer in a sentence."""
        return headline(*self._at_main())[1]

    @property
    def text(self) -> str:
        """A paragraph with the numbers behind the answer."""
        return paragraph(*self._at_main(), self.settings)

    def at(self, table: pd.DataFrame, **cell: Any) -> pd.DataFrame:
        """The rows of `summary` or `contrasts` at some values of their columns."""
        for name, value in cell.items():
            table = table[table[name] == value]
        return table

    def to_dict(self) -> dict[str, Any]:
        """Settings, answer and summaries, as what JSON can express."""
        return {
            "path": str(self.path),
            "settings": self.settings.model_dump(mode="json"),
            "main": self.main,
            "answer": self.answer,
            "verdict": self.verdict,
            "text": self.text,
            **{
                name: _records(getattr(self, name))
                for name in ("summary", "contrasts", "correlations")
            },
        }

    def _at_main(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return (
            self.at(self.summary, **self.main).set_index("source"),
            self.at(self.contrasts, **self.main).set_index(["of", "against"]),
        )

    def __str__(self) -> str:
        from kntrace.effects.story import as_text

        return as_text(self)

    def __repr__(self) -> str:
        return (
            f"Ablation({len(self.checkpoints)} checkpoints, {len(self.words)} words, "
            f"{len(self.table):,} forward passes, own neurons carry the answer: {self.answer})"
        )

    def _card(self) -> Card:
        summary = self._at_main()[0].reset_index()[list(_HEADS)].rename(columns=_HEADS)
        return Card(
            f"Ablation: {self.answer}",
            self.main,
            summary.to_dict("records"),
            (self.verdict, self.text),
        )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is not a number is None."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows
