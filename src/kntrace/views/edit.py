"""Editing a fact: value vectors moved from the old answer to a new one, and moved back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.effects.statistics import mean_over_sources, over_words
from kntrace.errors import AnalysisError
from kntrace.figures.style import INK, drawing, settle, tidy
from kntrace.views.base import Asked, Found
from kntrace.views.layout import lay_out
from kntrace.views.lines import ANY, DIFFERENCE, SHARE, short
from kntrace.views.sets import incidence, matched_in_order, members

__all__ = ["Edit"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

WHOSE: dict[str, str] = {
    "own": "the word's own neurons",
    "other": "another group's word's neurons",
    "random": "random neurons of the same layers",
}
"""Whose value vectors are moved."""

MEASURES: dict[str, str] = {
    "success": "the new answer comes first",
    "forgotten": "the old answer came first, and no longer does",
    "log_odds": "change of the new answer's log-odds",
    "log_odds_old": "change of the old answer's log-odds",
    "probability": "change of P(new answer)",
    "same_group": "rise of log-perplexity, other words of the group",
    "other_groups": "rise of log-perplexity, words of other groups",
}
"""What is measured of every edit."""

_ROWS = {"unembedding": "o", "embedding": "s"}
_COLOURS = {"own": "#D55E00", "other": "#009E73", "random": INK}
_COMMON = 0.3


@dataclass(frozen=True)
class Edit:
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
        "green: as many of a word of another group; black: random ones of the same layers. Means "
        "over words with 95 % intervals. An edit that works as well with green or black does not "
        "show where the fact is; one that costs other words as much is no edit of a fact. The "
        "two rows are one where a model ties them. Log-odds beside the share that succeed, since "
        "few answers flip."
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
        rows: list[dict[str, Any]] = []
        for place, opened in asked.opened("last"):
            head = {
                "checkpoint": asked.view.checkpoints[place],
                "step": int(asked.scores["step"].values[place]),
            }
            one = _Checkpoint(asked, place, opened, (self.take, self.add))
            for by in list(_ROWS)[: 1 if opened.tied else 2]:
                for whose, some in sets.items():
                    for word, target in enumerate(targets):
                        found = one.edit(word, target, some[word], by)
                        rows.append(head | {"rows": by, "whose": whose} | found)
        edits = pd.DataFrame(rows)
        summary = pd.DataFrame(list(_summary(edits)))
        facts = self._facts(summary, edits)
        return Found({"summary": summary, "edits": edits}, facts, _say(facts))

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
        other, random = [], []
        for word, some in enumerate(own):
            rng = np.random.default_rng((asked.seed, word, 4))
            there = np.flatnonzero(asked.codes != asked.codes[word])
            from_word = rare[int(rng.choice(there))] if len(there) else some[:0]
            other.append(np.setdiff1d(from_word, some, assume_unique=True)[: len(some)])
            random.append(matched_in_order(some, asked.scores.sizes["neuron"], rng))
        return {"own": own, "other": other, "random": random}

    def _facts(self, summary: pd.DataFrame, edits: pd.DataFrame) -> dict[str, Any]:
        last = summary["checkpoint"].iloc[-1]
        here = summary[summary["checkpoint"] == last]
        facts: dict[str, Any] = {
            "last_checkpoint": str(last),
            "checkpoints": int(summary["checkpoint"].nunique()),
            "words": int(edits["word"].nunique()),
            "neurons": float(edits[edits["whose"] == "own"]["neurons"].mean()),
            "rows": list(dict.fromkeys(here["rows"])),
        }
        for row in here.to_dict("records"):
            name = f"{row['rows']}_{row['whose']}_{row['measure']}"
            facts[name] = {part: float(row[part]) for part in ("value", "low", "high")}
        return facts

    def prepare(self, found: Found) -> Found:
        """Return it as it is."""
        return found

    def draw(self, found: Found) -> Figure:
        """Draw what the edits do at the last checkpoint, to their own word and to others."""
        with drawing():
            laid = lay_out(("abc",), (46.0,), _handles(found.facts["rows"]))
            table = found.main
            last = table[table["checkpoint"] == found.facts["last_checkpoint"]]
            panels = {
                "share of prompts": ("success", "forgotten"),
                "change of log-odds": ("log_odds", "log_odds_old"),
                "rise of log-perplexity (nats)": ("same_group", "other_groups"),
            }
            for ax, (label, measures) in zip(laid.axes.values(), panels.items(), strict=True):
                _draw(ax, last, measures, label)
            return settle(laid.figure, passes=2)

    def describe(self, found: Found) -> str:
        """The sentences that say what was found."""
        return " ".join(found.text)


class _Checkpoint:
    """One checkpoint: what it answers as it is, and after an edit."""

    def __init__(self, asked: Asked, place: int, opened: Any, scale: tuple[float, float]) -> None:
        self.asked, self.opened, self.scale = asked, opened, scale
        self.prompts = opened.prompts(asked.view.name)
        # One prompt a word says what becomes of the others.
        self.firsts = [some[0] for some in self.prompts]
        self.before = opened.ask(self.firsts).log_probability
        self.activation = np.stack(
            [asked.mean("activation", place, word).ravel() for word in range(len(asked.view.words))]
        )

    def edit(self, word: int, target: int, neurons: _Ints, rows: str) -> dict[str, Any]:
        """Change the word's answer into the target's, look at all words, and change it back."""
        old = self.prompts[word]
        answer = self.prompts[target][0].answer
        new = [replace(one, answer=answer) for one in old]
        tokens = (old[0].answer[0], answer[0])
        signs = np.where(self.activation[word, neurons] < 0, -1.0, 1.0)
        was = [self.opened.ask(part) for part in (old, new)]
        with self.opened.edited(neurons, signs, tokens, rows, self.scale):
            now = [self.opened.ask(part) for part in (old, new)]
            others = self.before - self.opened.ask(self.firsts).log_probability
        codes = self.asked.codes
        same = codes == codes[word]
        same[word] = False
        # The new answer's own word gains from the edit: it is no bystander.
        same[target] = False
        gained = np.exp(now[1].log_probability) - np.exp(was[1].log_probability)
        lost = (was[0].rank == 0) & (now[0].rank > 0)
        return {
            "word": self.asked.view.words[word],
            "group": self.asked.groups[word],
            "target": self.asked.view.words[target],
            "neurons": len(neurons),
            "success": float((now[1].rank == 0).mean()),
            "forgotten": float(lost.mean()),
            "log_odds": float((now[1].log_odds - was[1].log_odds).mean()),
            "log_odds_old": float((now[0].log_odds - was[0].log_odds).mean()),
            "probability": float(gained.mean()),
            "same_group": _mean(others[same]),
            "other_groups": _mean(others[codes != codes[word]]),
        }


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


def _summary(edits: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Means over words, and own less the two controls, paired."""
    keys = ["checkpoint", "step", "rows"]
    for (checkpoint, step, by), part in edits.groupby(keys, sort=False):
        for measure in MEASURES:
            values = {
                str(whose): some[measure].to_numpy(dtype=np.float64)
                for whose, some in part.groupby("whose", sort=False)
            }
            for other in ("other", "random"):
                values[f"own_minus_{other}"] = values["own"] - values[other]
            for whose, one in values.items():
                shares = DIFFERENCE if whose.startswith("own_minus") else SHARE
                bounds = {"success": shares, "forgotten": shares, "probability": DIFFERENCE}
                found = over_words(mean_over_sources(one[:, None]))
                found = found.within(*bounds.get(measure, ANY))
                yield {
                    "checkpoint": checkpoint,
                    "step": step,
                    "rows": by,
                    "whose": whose,
                    "measure": measure,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                }


def _mean(values: _Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    said = []
    for by in facts["rows"]:

        def of(whose: str, measure: str, by: str = by) -> str:
            return short(facts[f"{by}_{whose}_{measure}"])

        said.append(
            f"{facts['last_checkpoint']}, {facts['neurons']:.0f} neurons of each of "
            f"{facts['words']} words moved along the rows of the {by}: the new answer comes "
            f"first in {of('own', 'success')} of the prompts (another group's neurons "
            f"{of('other', 'success')}, random ones {of('random', 'success')}); its log-odds "
            f"change by {of('own', 'log_odds')} ({of('other', 'log_odds')}, "
            f"{of('random', 'log_odds')}). Other words' log-perplexity rises by "
            f"{of('own', 'same_group')} in the group and {of('own', 'other_groups')} in other "
            f"groups ({of('other', 'same_group')} and {of('other', 'other_groups')} with another "
            f"group's neurons, {of('random', 'same_group')} and "
            f"{of('random', 'other_groups')} with random ones)."
        )
    if len(facts["rows"]) == 1:
        said.append("The model ties its input embedding to its unembedding: there is one edit.")
    return tuple(said)


def _handles(rows: list[str]) -> list[Line2D]:
    shown = [
        Line2D([], [], color=_COLOURS[whose], label=name, linewidth=1.2)
        for whose, name in WHOSE.items()
    ]
    return shown + [
        Line2D([], [], color="#6b6b6b", marker=_ROWS[by], linestyle="", markersize=3.5,
               label=f"rows of the {'input ' if by == 'embedding' else ''}{by}")
        for by in rows
    ]  # fmt: skip


_SHORT = {
    "success": "new answer\nfirst",
    "forgotten": "old answer\nno longer first",
    "log_odds": "new answer",
    "log_odds_old": "old answer",
    "same_group": "same group",
    "other_groups": "other groups",
}


def _draw(ax: Axes, last: pd.DataFrame, measures: tuple[str, ...], label: str) -> None:
    rows = list(dict.fromkeys(last["rows"]))
    for place, measure in enumerate(measures):
        for turn, whose in enumerate(WHOSE):
            for column, by in enumerate(rows):
                some = last[
                    (last["measure"] == measure) & (last["whose"] == whose) & (last["rows"] == by)
                ]
                x = place + 0.24 * (turn - 1) + 0.09 * (column - (len(rows) - 1) / 2)
                value = float(some["value"].iloc[0])
                ax.vlines(x, some["low"], some["high"], color=_COLOURS[whose], linewidth=0.9)
                ax.plot(x, value, marker=_ROWS[by], color=_COLOURS[whose], markersize=3.2)
    ax.axhline(0, color=INK, linewidth=0.5)
    ax.set_xticks(range(len(measures)), [_SHORT[measure] for measure in measures])
    ax.set_xlim(-0.5, len(measures) - 0.5)
    ax.set_ylabel(label, labelpad=2)
    tidy(ax, grid="y")
