"""Editing a fact: value vectors moved from the old answer to a new one, and moved back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from kntrace.effects.statistics import mean_over_sources, over_words
from kntrace.errors import AnalysisError
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.edit_figure import ROWS, draw_edits
from kntrace.views.lines import (
    ANY,
    DIFFERENCE,
    SHARE,
    known_lines,
    line_table,
    over_prompts,
    short,
)
from kntrace.views.parts import Tables
from kntrace.views.sets import incidence, matched_in_order, members
from kntrace.wording import wordings_of

__all__ = ["Edit"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

MEASURES: dict[str, str] = {
    "success": "the new answer comes first",
    "forgotten": "the old answer came first, and no longer does",
    "log_odds": "change of the new answer's log-odds",
    "log_odds_old": "change of the old answer's log-odds",
    "probability": "change of P(new answer)",
    "same_group": "rise of log-perplexity, other words of the group",
    "other_groups": "rise of log-perplexity, words of other groups",
    "reworded": "the new answer comes first in other wordings",
    "synonym": "change of the log-odds of a synonym's own answer",
    "inverse": "change of the log-odds of an inverse question's answer",
}
"""What is measured of every edit; the last three where the study offers them."""

_LINKED = ("synonym", "inverse")
_PER_PROMPT = ("success", "forgotten", "log_odds", "log_odds_old", "probability")

_COMMON = 0.3


@dataclass(frozen=True)
class Edit(FromText):
    """The view: Dai et al.'s edit of a fact, and undone.

    Attributes
    ----------
    neurons
        How many of a word's neurons are moved, the strongest first.
    take, add
        How many times its own length a value vector is moved away from the old answer's row,
        and towards the new one's.
    """

    neurons: int = 20
    take: float = 1.0
    add: float = 8.0
    name: str = "edit"
    title: str = "Editing an answer"
    how_to_read: str = (
        "Every word's answer is changed to that of another word of its group: the value vectors "
        "of some of its neurons are moved from the old answer's row of the unembedding (circles) "
        "or of the input embedding (squares) to the new one's. Red: the word's own neurons; "
        "green: as many of a word of another group; black: random ones of the same layers; pink: "
        "of any layer. Means over words; thin lines are 95 % intervals over words. An edit that "
        "works as well with green or black does not show where the fact is; one that costs other "
        "words as much is no edit of a fact. The two rows are one where a model ties them. "
        "Log-odds beside the share that succeed, since few answers flip."
    )
    needs: tuple[str, ...] = ("mean_score", "mean_activation", "probability")

    def __post_init__(self) -> None:
        if self.neurons < 1 or self.take < 0 or self.add < 0:
            raise AnalysisError(
                f"neurons = {self.neurons}, take = {self.take:g}, add = {self.add:g}",
                expected="1 neuron or more, and lengths of 0 or more",
            )

    def compute(self, asked: Asked) -> Found:
        """Edit every word in every way; tables `summary` and `edits`."""
        targets = _targets(asked)
        sets = self._sets(asked)

        def measure(place: int, opened: Any) -> Tables:
            return self._measure(asked, place, opened, targets, sets)

        parts = [found for _, found in asked.measured(self, measure, "ends")]
        edits, less = (
            pd.concat([found[name] for found in parts], ignore_index=True)
            for name in ("edits", "less")
        )
        summary = pd.DataFrame(list(_summary(edits, less)))
        facts = self._facts(summary, edits, asked.floor)
        tables = {
            "summary": summary,
            "edits": edits,
            "lines": line_table(asked, known_lines(asked)),
        }
        return Found(tables, facts, _say(facts))

    def _measure(
        self,
        asked: Asked,
        place: int,
        opened: Any,
        targets: list[int],
        sets: dict[str, list[_Ints]],
    ) -> dict[str, pd.DataFrame]:
        """Edit every word in every way at one checkpoint."""
        one = _Checkpoint(asked, place, opened, (self.take, self.add))
        edits: list[dict[str, Any]] = []
        less: list[dict[str, Any]] = []
        for by in list(ROWS)[: 1 if opened.tied else 2]:
            for whose, some in sets.items():
                for word, target in enumerate(targets):
                    head = {
                        "checkpoint": asked.view.checkpoints[place],
                        "step": int(asked.scores["step"].values[place]),
                        "rows": by,
                        "whose": whose,
                    }
                    found, without = one.edit(word, target, some[word], by)
                    edits.append(head | found)
                    less += [head | {"out": out} | part for out, part in enumerate(without)]
        columns = ("checkpoint", "step", "rows", "whose", "out", *_PER_PROMPT)
        return {
            "edits": pd.DataFrame(edits),
            "less": pd.DataFrame(less, columns=None if less else columns),
        }

    def _sets(self, asked: Asked) -> dict[str, list[_Ints]]:
        """Every word's neurons at the last checkpoint, and those that are moved in their stead.

        Neurons common to many words are left out, as an edit of one fact must.
        """
        chosen = asked.selection.choose(asked.scores, wording=asked.view.name)
        table = incidence(chosen)
        having = np.asarray(table.sum(axis=0)).ravel()
        common = having > max(_COMMON * table.shape[0], 1)
        rare = [some[~common[some]] for some in members(chosen)]
        own = [some[: self.neurons] for some in rare]
        other, random, anywhere = [], [], []
        for word, some in enumerate(own):
            rng = np.random.default_rng((asked.seed, word, 4))
            there = np.flatnonzero(asked.codes != asked.codes[word])
            from_word = rare[int(rng.choice(there))] if len(there) else some[:0]
            other.append(np.setdiff1d(from_word, some, assume_unique=True)[: len(some)])
            random.append(matched_in_order(some, asked.scores.sizes["neuron"], rng))
            rest = np.setdiff1d(np.arange(table.shape[1]), some)
            anywhere.append(rng.permutation(rest)[: len(some)])
        return {"own": own, "other": other, "random": random, "anywhere": anywhere}

    def _facts(self, summary: pd.DataFrame, edits: pd.DataFrame, floor: float) -> dict[str, Any]:
        last = summary["checkpoint"].iloc[-1]
        here = summary[summary["checkpoint"] == last]
        facts: dict[str, Any] = {
            "last_checkpoint": str(last),
            "checkpoints": int(summary["checkpoint"].nunique()),
            "words": int(edits["word"].nunique()),
            "neurons": float(edits[edits["whose"] == "own"]["neurons"].mean()),
            "rows": list(dict.fromkeys(here["rows"])),
            "first_checkpoint": str(summary["checkpoint"].iloc[0]),
            "known": {
                str(label): int((one.groupby("word")["before"].first() >= floor).sum())
                for label, one in edits.groupby("checkpoint", sort=False)
            },
            "floor": floor,
        }
        parts = ("value", "low", "high", "prompts_low", "prompts_high")
        for row in here.to_dict("records"):
            name = f"{row['rows']}_{row['whose']}_{row['measure']}"
            facts[name] = {part: float(row[part]) for part in parts}
        start = summary[summary["checkpoint"] == facts["first_checkpoint"]]
        for row in start[start["measure"].isin(("success", "log_odds"))].to_dict("records"):
            name = f"first_{row['rows']}_{row['whose']}_{row['measure']}"
            facts[name] = {part: float(row[part]) for part in parts}
        return facts

    def draw(self, found: Found) -> Figure:
        """Draw what the edits do at the last checkpoint, to their own word and to others."""
        return draw_edits(found)


class _Checkpoint:
    """One checkpoint: what it answers as it is, and after an edit."""

    def __init__(self, asked: Asked, place: int, opened: Any, scale: tuple[float, float]) -> None:
        self.asked, self.opened, self.scale = asked, opened, scale
        self.prompts = opened.prompts(asked.view.name)
        # One prompt a word says what becomes of the others.
        self.firsts = [some[0] for some in self.prompts]
        self.before = opened.ask(self.firsts).log_probability
        self.reworded = [
            opened.prompts(name) for name in wordings_of(asked.scores) if name != asked.view.name
        ]
        places = {word: place for place, word in enumerate(asked.view.words)}
        # By word, those that say the same of it or ask it the other way round, either way about.
        self.linked: dict[str, dict[int, list[int]]] = {}
        for kind, pairs in asked.links.items():
            there = self.linked.setdefault(kind, {})
            for one, other in pairs:
                there.setdefault(places[one], []).append(places[other])
                there.setdefault(places[other], []).append(places[one])
        self.activation = np.stack(
            [asked.mean("activation", place, word).ravel() for word in range(len(asked.view.words))]
        )

    def edit(
        self, word: int, target: int, neurons: _Ints, rows: str
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Change the word's answer into the target's, look at all words, and change it back.

        Returns what came out, and the measures of the word's own prompts without each of them.
        """
        old = self.prompts[word]
        answer = self.prompts[target][0].answer
        new = [replace(one, answer=answer) for one in old]
        other = [replace(one, answer=answer) for some in self.reworded for one in some[word]]
        tokens = (old[0].answer[0], answer[0])
        signs = np.where(self.activation[word, neurons] < 0, -1.0, 1.0)
        was = [self.opened.ask(part) for part in (old, new)]
        linked_was = self._linked(word)
        with self.opened.edited(neurons, signs, tokens, rows, self.scale):
            now = [self.opened.ask(part) for part in (old, new)]
            others = self.before - self.opened.ask(self.firsts).log_probability
            reworded = self.opened.ask(other).rank == 0 if other else np.empty(0)
            linked = self._linked(word)
        codes = self.asked.codes
        same = codes == codes[word]
        same[word] = False
        # The new answer's own word gains from the edit: it is no bystander.
        same[target] = False
        prompts = {
            "success": (now[1].rank == 0).astype(np.float64),
            "forgotten": ((was[0].rank == 0) & (now[0].rank > 0)).astype(np.float64),
            "log_odds": now[1].log_odds - was[1].log_odds,
            "log_odds_old": now[0].log_odds - was[0].log_odds,
            "probability": np.exp(now[1].log_probability) - np.exp(was[1].log_probability),
        }
        found = {
            "word": self.asked.view.words[word],
            "group": self.asked.groups[word],
            "target": self.asked.view.words[target],
            "neurons": len(neurons),
            "before": float(np.exp(was[0].log_probability).mean()),
            **{name: float(value.mean()) for name, value in prompts.items()},
            "same_group": _mean(others[same]),
            "other_groups": _mean(others[codes != codes[word]]),
            "reworded": _mean(np.asarray(reworded, dtype=np.float64)),
            **{name: _mean(linked[name] - linked_was[name]) for name in _LINKED},
        }
        turns = np.arange(len(old))
        return found, [
            {name: float(value[turns != out].mean()) for name, value in prompts.items()}
            for out in range(self.asked.left_out)
        ]

    def _linked(self, word: int) -> dict[str, _Floats]:
        """Log-odds of the own answers of the words linked with it, by kind of link."""
        found = {}
        for kind in _LINKED:
            prompts = [
                one for u in self.linked.get(kind, {}).get(word, []) for one in self.prompts[u]
            ]
            found[kind] = self.opened.ask(prompts).log_odds if prompts else np.empty(0)
        return found


def _targets(asked: Asked) -> list[int]:
    """For every word another one of its group, or of any group if it has none."""
    rng = np.random.default_rng((asked.seed, 5))
    found = []
    for word, code in enumerate(asked.codes):
        there = np.flatnonzero(asked.codes == code)
        there = there[there != word]
        if not len(there):
            there = np.delete(np.arange(len(asked.codes)), word)
        if not len(there):
            raise AnalysisError("a single word", expected="another word, whose answer to take")
        found.append(int(rng.choice(there)))
    return found


def _summary(edits: pd.DataFrame, less: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Means over words, and own less the controls, paired; with their intervals."""
    keys = ["checkpoint", "step", "rows"]
    outs = sorted(less["out"].unique()) if len(less) else []
    for (checkpoint, step, by), part in edits.groupby(keys, sort=False):
        here = less[(less["checkpoint"] == checkpoint) & (less["rows"] == by)]
        without = [here[here["out"] == out] for out in outs]
        for measure in MEASURES:
            values = _by_whose(part, measure)
            rest = [_by_whose(one, measure) if measure in _PER_PROMPT else {} for one in without]
            for whose, one in values.items():
                shares = DIFFERENCE if whose.startswith("own_minus") else SHARE
                bounds = {
                    **dict.fromkeys(("success", "forgotten", "reworded"), shares),
                    "probability": DIFFERENCE,
                }.get(measure, ANY)
                found = over_words(mean_over_sources(one[:, None])).within(*bounds)
                without_one = [_mean(part.get(whose, one[:0])) for part in rest]
                yield {
                    "checkpoint": checkpoint,
                    "step": step,
                    "rows": by,
                    "whose": whose,
                    "measure": measure,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    **over_prompts(found.value, without_one, bounds),
                }


def _by_whose(part: pd.DataFrame, measure: str) -> dict[str, _Floats]:
    """Every word's value, by whose neurons were moved, and own less each of the others."""
    values = {
        str(whose): some[measure].to_numpy(dtype=np.float64)
        for whose, some in part.groupby("whose", sort=False)
    }
    for other in [name for name in values if name != "own"]:
        values[f"own_minus_{other}"] = values["own"] - values[other]
    return values


def _mean(values: _Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    said = []
    for by in facts["rows"]:

        def of(whose: str, measure: str, by: str = by, *, prompts: bool = False) -> str:
            return short(facts[f"{by}_{whose}_{measure}"], prompts=prompts)

        said.append(
            f"{facts['last_checkpoint']}, {facts['neurons']:.0f} neurons of each of "
            f"{facts['words']} words moved along the rows of the {by}: the new answer comes "
            f"first in {of('own', 'success', prompts=True)} of the prompts (another group's "
            f"neurons {of('other', 'success')}, random ones {of('random', 'success')}, of any "
            f"layer {of('anywhere', 'success')}); its log-odds change by "
            f"{of('own', 'log_odds', prompts=True)} ({of('other', 'log_odds')}, "
            f"{of('random', 'log_odds')}, {of('anywhere', 'log_odds')}), its P by "
            f"{of('own', 'probability')}. Other words' log-perplexity rises by "
            f"{of('own', 'same_group')} in the group and {of('own', 'other_groups')} in other "
            f"groups ({of('other', 'same_group')} and {of('other', 'other_groups')} with another "
            f"group's neurons, {of('random', 'same_group')} and "
            f"{of('random', 'other_groups')} with random ones)."
        )
        for measure, what in (
            ("reworded", "In other wordings the new answer comes first in {} of the prompts"),
            ("synonym", "The log-odds of synonyms' own answers change by {}"),
            ("inverse", "The log-odds of inverse questions' answers change by {}"),
        ):
            if not np.isnan(facts[f"{by}_own_{measure}"]["value"]):
                said.append(
                    f"{what.format(of('own', measure))} (another group's neurons "
                    f"{of('other', measure)}, random ones {of('random', measure)})."
                )
    known = facts["known"]
    said.append(
        "Of the old answers "
        + ", ".join(f"{count} of {facts['words']} are known at {at}" for at, count in known.items())
        + f" (P(answer) at {facts['floor']:g} or more)."
    )
    if facts["first_checkpoint"] != facts["last_checkpoint"]:
        by, first = facts["rows"][0], facts["first_checkpoint"]
        said.append(
            f"At {first}, along the rows of the {by}, own neurons bring the new answer first in "
            f"{short(facts[f'first_{by}_own_success'])} of the prompts and change its log-odds by "
            f"{short(facts[f'first_{by}_own_log_odds'])}."
        )
    if len(facts["rows"]) == 1:
        said.append("The model ties its input embedding to its unembedding: there is one edit.")
    return tuple(said)
