"""From rows to estimates: every effect over words, and own against other neurons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from kntrace.effects.settings import SOURCES
from kntrace.effects.statistics import (
    Estimate,
    mean_over_sources,
    over_words,
    ratio_over_words,
)

__all__ = ["CELL", "PAIRS", "by_word", "compare", "correlate", "leaks", "summarise"]

CELL = ("checkpoint", "step", "method", "dose")
PAIRS = (
    ("own", "same_group"),
    ("own", "other_group"),
    ("own", "matched"),
    ("own", "random"),
    ("same_group", "other_group"),
)
"""What is held against what; the last pair says whether neurons are shared within groups."""

_MEANS = ("neurons", "shared", "size", "probability", "probability_before", "change", "log_odds")
_SUMS = ("first", "lost", "same_group", "other_groups")

_Floats = npt.NDArray[np.float64]


def by_word(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over prompts and draws: one row per cell, source, word and word whose neurons these are.

    `change` and `log_odds` are differences to the answer as it is, `first` and `lost` the shares
    of prompts whose answer came first before and no longer does, `same_group` and
    `other_groups` the change of the summed probability of other words' answers.
    """
    wide = table.assign(
        change=table["probability"] - table["probability_before"],
        log_odds=table["log_odds"] - table["log_odds_before"],
        first=(table["rank_before"] == 0).astype(np.float64),
        lost=((table["rank_before"] == 0) & (table["rank"] > 0)).astype(np.float64),
        same_group=table["same_group"] - table["same_group_before"],
        other_groups=table["other_groups"] - table["other_groups_before"],
    )
    keys = [*CELL, "source", "word", "of"]
    columns = [*_MEANS, *_SUMS]
    found = wide.groupby(keys, observed=True, sort=False)[columns].mean()
    return found.reset_index()


def summarise(means: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """One row per checkpoint, method, dose and source: what became of the answers."""
    rows = []
    for head, sources in _cells(means, words):
        for source, cell in sources.items():
            after, before = cell["probability"], cell["probability_before"]
            percent = ratio_over_words(after, before).within(0, np.inf)
            first = float(np.nansum(cell["first"][0]))
            rows.append(
                {
                    **head,
                    "source": source,
                    "words": int(np.isfinite(after[0]).sum()),
                    **{name: over_words(cell[name]).value for name in ("neurons", "shared")},
                    "size": over_words(cell["size"]).value,
                    "probability_before": over_words(before).value,
                    **_spread("probability", over_words(after).within(0, 1)),
                    **_spread("change", over_words(cell["change"]).within(-1, 1)),
                    **_spread("percent", percent, lambda x: 100 * (x - 1)),
                    **_spread("log_odds", over_words(cell["log_odds"])),
                    "no_longer_first": float(np.nansum(cell["lost"][0])) / first
                    if first
                    else float("nan"),
                    **{
                        name: over_words(cell[name]).value
                        for name in ("same_group", "other_groups")
                    },
                }
            )
    return pd.DataFrame(rows)


def compare(means: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """Paired differences over the words that have both: own minus others, in P and log-odds."""
    rows = []
    for head, sources in _cells(means, words):
        for one, other in PAIRS:
            if one not in sources or other not in sources:
                continue
            differences = {
                name: sources[one][name] - sources[other][name] for name in ("change", "log_odds")
            }
            rows.append(
                {
                    **head,
                    "of": one,
                    "against": other,
                    "words": int(np.isfinite(differences["change"][0]).sum()),
                    **_spread("change", over_words(differences["change"]).within(-1, 1)),
                    **_spread("log_odds", over_words(differences["log_odds"])),
                }
            )
    numbers = [f"{name}{end}" for name in ("change", "log_odds") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*CELL, "of", "against", "words", *numbers])


def leaks(means: pd.DataFrame) -> pd.DataFrame:
    """One row per word whose neurons are changed: what its own answer and others' do.

    Returns
    -------
    pandas.DataFrame
        Per checkpoint, method and dose: `of`; the mean `change` of P and of `log_odds` of its
        `own` answer, of other words' of its group (`same_group`) and of other groups
        (`other_group`), and how many words were asked for in each.
    """
    named = means[means["source"].isin(["own", "same_group", "other_group"])]
    plain = named.astype(dict.fromkeys(("of", "source", "method"), object))
    keys = [*CELL, "of", "source"]
    each = plain.assign(words=1).groupby(keys, observed=True, sort=False)
    found = each.agg({"change": "mean", "log_odds": "mean", "words": "size"}).reset_index()
    table = found.pivot_table(index=[*CELL, "of"], columns="source", sort=False)
    table.columns = ["_".join(reversed(names)) for names in table.columns.to_list()]
    return table.reset_index()


def correlate(singles: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation, per word, of scores with what is lost when one neuron is silenced.

    Returns
    -------
    pandas.DataFrame
        One row per checkpoint and kind of neuron: words, neurons per word, and mean and
        quartiles over words of Spearman's correlation, with losses in P and in log-odds.
    """
    rows = []
    for (checkpoint, step, kind), part in singles.groupby(
        ["checkpoint", "step", "kind"], observed=True, sort=False
    ):
        each = [_word_correlations(word) for _, word in part.groupby("word", observed=True)]
        found = np.array([one for one in each if np.isfinite(one).all()]).reshape(-1, 2)
        row: dict[str, Any] = {
            "checkpoint": checkpoint,
            "step": step,
            "kind": kind,
            "words": len(found),
            "neurons": len(part) / max(part["word"].nunique(), 1),
        }
        for name, values in zip(("probability", "log_odds"), found.T, strict=True):
            low, middle, high = (
                np.quantile(values, (0.25, 0.5, 0.75)) if len(values) else (np.nan,) * 3
            )
            row |= {
                f"{name}": float(values.mean()) if len(values) else float("nan"),
                f"{name}_median": float(middle),
                f"{name}_lower_quartile": float(low),
                f"{name}_upper_quartile": float(high),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _word_correlations(word: pd.DataFrame) -> tuple[float, float]:
    if len(word) < 3 or word["score"].min() == word["score"].max():
        return float("nan"), float("nan")
    found = [
        spearmanr(word["score"], word[name]).statistic
        if word[name].min() < word[name].max()
        else np.nan
        for name in ("probability_lost", "log_odds_lost")
    ]
    return float(found[0]), float(found[1])


@dataclass(frozen=True)
class _Places:
    """Where words stand."""

    place: dict[str, int]

    def matrix(self, part: pd.DataFrame, name: str) -> _Floats:
        """(word asked for, word whose neurons these are), or one column where nobody's."""
        row = part["word"].map(self.place).to_numpy(dtype=np.intp)
        of = part["of"].map(self.place)
        alone = bool(of.isna().all())
        column = np.zeros(len(part), np.intp) if alone else of.to_numpy(dtype=np.intp)
        found = np.full((len(self.place), 1 if alone else len(self.place)), np.nan)
        found[row, column] = part[name].to_numpy(dtype=np.float64)
        return found


def _cells(
    means: pd.DataFrame, words: Sequence[str]
) -> Iterator[tuple[dict[str, Any], dict[str, dict[str, _Floats]]]]:
    """Per checkpoint, method and dose: for every source, every quantity's replicates."""
    places = _Places({word: place for place, word in enumerate(words)})
    plain = means.astype(dict.fromkeys(("word", "of", "source", "method"), object))
    for key, cell in plain.groupby(list(CELL), observed=True, sort=False):
        parts = {str(source): part for source, part in cell.groupby("source", sort=False)}
        yield (
            dict(zip(CELL, key, strict=True)),
            {
                source: {
                    name: mean_over_sources(places.matrix(parts[source], name))
                    for name in (*_MEANS, *_SUMS)
                }
                for source in SOURCES
                if source in parts
            },
        )


def _spread(name: str, found: Estimate, scale: Any = float) -> dict[str, float]:
    return {
        name: scale(found.value),
        f"{name}_low": scale(found.low),
        f"{name}_high": scale(found.high),
    }
