"""Erasing a group's neurons: what their words lose, and what all other words lose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from kntrace.effects.statistics import mean_over_sources, over_words
from kntrace.errors import AnalysisError
from kntrace.selection import TopK
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.erase_figure import ORDERS, draw_erased
from kntrace.views.lines import ANY, DIFFERENCE, known_lines, line_table, over_prompts, short
from kntrace.views.parts import Tables
from kntrace.views.sets import incidence, matched_in_order

__all__ = ["Erase", "orders"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

MEASURES: dict[str, str] = {
    "accuracy": "share of prompts whose answer comes first",
    "log_perplexity": "mean of -log P(answer), in nats",
    "log_odds": "mean log-odds of the answer",
    "probability": "mean P(answer)",
}
"""What is measured of words before and after."""

_DOSES = (20, 50, 100, 200)


def orders(sets: _Floats, means: _Floats, members: npt.NDArray[np.bool_]) -> tuple[_Ints, _Ints]:
    """Rank the neurons that are in any of a group's sets: by frequency, and by how much its own.

    Parameters
    ----------
    sets
        (word, neuron) ones and zeros.
    means
        (word, neuron) mean scores, which decide between equals.
    members
        (word,) the words of the group.

    Returns
    -------
    frequency, specific
        Neurons, the first to be erased first: by the number of the group's sets that have
        them; by the share of the group's sets less the share of all others'.
    """
    there = np.flatnonzero(sets[members].any(axis=0))
    inside = sets[members][:, there].mean(axis=0)
    outside = sets[~members][:, there].mean(axis=0) if (~members).any() else 0 * inside
    score = means[members][:, there].mean(axis=0)
    less = means[~members][:, there].mean(axis=0) if (~members).any() else 0 * score
    return (
        there[np.lexsort((-score, -inside))],
        there[np.lexsort((less - score, -(inside - outside)))],
    )


@dataclass(frozen=True)
class Erase(FromText):
    """The view: a group's value vectors set to zero (Dai et al. 2022), and undone.

    Attributes
    ----------
    doses
        How many neurons are erased together, as whole numbers with commas between them; 20, 50,
        100 and 200, as far as they are at most a quarter of the model's, unless given.
    """

    doses: str = ""
    name: str = "erase"
    title: str = "Erasing a group's neurons"
    how_to_read: str = (
        "The value vectors of a group's neurons are set to zero, at every token, and all words "
        "are asked. Full lines: words of that group; dashed: words of other groups; means over "
        "words, bands are 95 % intervals over words, bars over prompts. Red: neurons in the "
        "order in which they are in most of the group's words' sets; blue: in which they are "
        "more in its own than in other words' sets; black: random ones of the same layers; pink: "
        "of any layer. What falls for other words as much as for own ones is not about the "
        "group. P(answer) near one hides what happens: the log-odds do not. Below, through "
        "training: at the first checkpoint nothing is known that could be lost."
    )
    needs: tuple[str, ...] = ("mean_score", "probability")

    def __post_init__(self) -> None:
        self._counts(1)

    def _counts(self, neurons: int) -> tuple[int, ...]:
        """The doses, ascending."""
        if not self.doses:
            usual = tuple(dose for dose in _DOSES if dose <= neurons // 4)
            return usual or (max(1, neurons // 4),)
        try:
            found = sorted({int(part) for part in self.doses.split(",")})
        except ValueError:
            found = []
        if not found or found[0] < 1:
            raise AnalysisError(
                f"doses = {self.doses!r}", expected="whole numbers of neurons, such as 20,50"
            )
        return tuple(found)

    def compute(self, asked: Asked) -> Found:
        """Erase every group at every dose; tables `effects`, `lines` and `groups`."""
        neurons = asked.scores.sizes["layer"] * asked.scores.sizes["neuron"]
        doses = self._counts(neurons)
        if doses[-1] >= neurons:
            raise AnalysisError(
                f"a dose of {doses[-1]} neurons", expected=f"fewer than all {neurons:,}"
            )
        rankings = _rankings(asked, doses[-1])

        def measure(place: int, opened: Any) -> Tables:
            return self._measure(asked, place, opened, rankings, doses)

        parts = [found for _, found in asked.measured(self, measure, "ends")]
        effects, groups = (
            pd.concat([found[name] for found in parts], ignore_index=True)
            for name in ("effects", "groups")
        )
        tables = {
            "effects": effects,
            "groups": groups,
            "lines": line_table(asked, known_lines(asked)),
        }
        facts = _facts(effects, doses)
        return Found(tables, facts, _say(facts))

    def _measure(
        self,
        asked: Asked,
        place: int,
        opened: Any,
        rankings: list[dict[str, _Ints]],
        doses: tuple[int, ...],
    ) -> dict[str, pd.DataFrame]:
        """Erase every group in every order at one checkpoint."""
        effects: list[dict[str, Any]] = []
        groups: list[dict[str, Any]] = []
        before = _Answers(opened, asked)
        for order in ORDERS:
            for dose in doses:
                after = []
                for ranking in rankings:
                    with opened.erased(ranking[order][:dose]):
                        after.append(_Answers(opened, asked))
                head = {
                    "checkpoint": asked.view.checkpoints[place],
                    "step": int(asked.scores["step"].values[place]),
                    "order": order,
                    "dose": dose,
                    "neurons": np.mean([len(ranking[order][:dose]) for ranking in rankings]),
                }
                effects += [head | row for row in _effects(before, after, asked)]
                groups += [head | row for row in _by_group(before, after, asked)]
        return {"effects": pd.DataFrame(effects), "groups": pd.DataFrame(groups)}

    def draw(self, found: Found) -> Figure:
        """Draw accuracy and log-odds by dose at the last checkpoint, and through training."""
        return draw_erased(found)


def _rankings(asked: Asked, most: int) -> list[dict[str, _Ints]]:
    """Every group's neurons in every order, of the run's last checkpoint."""
    last = len(asked.view.checkpoints) - 1
    # Sets as large as the largest dose, so that the orders have something to choose from.
    by = asked.selection if asked.select else TopK(most)
    chosen = by.choose(asked.scores, wording=asked.view.name, checkpoint=last)
    sets = incidence(chosen).toarray().astype(np.float64)
    means = np.stack([asked.view.mean(last, word).ravel() for word in range(len(sets))])
    found = []
    for code in range(int(asked.codes.max()) + 1):
        frequency, specific = orders(sets, means, asked.codes == code)
        rng = np.random.default_rng((asked.seed, code, 3))
        random = matched_in_order(frequency[:most], asked.scores.sizes["neuron"], rng)
        rest = np.setdiff1d(np.arange(sets.shape[1]), frequency[:most])
        found.append(
            {
                "frequency": frequency,
                "specific": specific,
                "random": random,
                "anywhere": rng.permutation(rest)[: len(frequency[:most])],
            }
        )
    return found


class _Answers:
    """What every word's prompts are answered, by measure."""

    def __init__(self, opened: Any, asked: Asked) -> None:
        prompts = opened.prompts(asked.view.name)
        self._owner = np.repeat(np.arange(len(prompts)), [len(some) for some in prompts])
        self._turn = np.concatenate([np.arange(len(some)) for some in prompts])
        answers = opened.ask([one for some in prompts for one in some])
        self._values = {
            "accuracy": (answers.rank == 0).astype(np.float64),
            "log_perplexity": -answers.log_probability,
            "log_odds": answers.log_odds,
            "probability": np.exp(answers.log_probability),
        }

    def of(self, measure: str, out: int | None = None) -> _Floats:
        """Means over each word's prompts, (word,); one of every word may be left out."""
        kept = self._turn != (-1 if out is None else out)
        owner, values = self._owner[kept], self._values[measure][kept]
        return np.bincount(owner, weights=values) / np.bincount(owner)


def _effects(before: _Answers, after: list[_Answers], asked: Asked) -> Iterator[dict[str, Any]]:
    """Means over words: each when its own group is erased, and when another one is."""
    own = asked.codes[:, None] == np.arange(len(after))
    for measure in MEASURES:
        start = float(before.of(measure).mean())
        less = [_changes(before, after, own, measure, out) for out in range(asked.left_out)]
        for who, mean in _changes(before, after, own, measure).items():
            whole, share = who != "own_minus_other", measure in ("accuracy", "probability")
            bounds = ANY
            if share:
                # It can lose no more than there is, and gain no more than is missing.
                bounds = (-start, 1 - start) if whole else DIFFERENCE
            found = over_words(mean_over_sources(mean[:, None])).within(*bounds)
            rest = [float(np.nanmean(one[who])) for one in less]
            yield {
                "asked": who,
                "measure": measure,
                "before": start if whole else float("nan"),
                "after": start + found.value if whole else float("nan"),
                "change": found.value,
                "low": found.low,
                "high": found.high,
                **over_prompts(found.value, rest, bounds),
                # Of logarithms a percentage means nothing.
                "percent": 100 * found.value / start if whole and share and start else math.nan,
            }


def _changes(
    before: _Answers,
    after: list[_Answers],
    own: npt.NDArray[np.bool_],
    measure: str,
    out: int | None = None,
) -> dict[str, _Floats]:
    """Every word's change when its own group is erased, and when others are, (word,) each."""
    values = np.stack([one.of(measure, out) for one in after], axis=1)  # (word, group erased)
    changes = values - before.of(measure, out)[:, None]
    found = {
        who: np.array([_mean(row[some]) for row, some in zip(changes, there, strict=True)])
        for who, there in (("own", own), ("other", ~own))
        if there.any()
    }
    if len(found) == 2:
        found["own_minus_other"] = found["own"] - found["other"]
    return found


def _by_group(before: _Answers, after: list[_Answers], asked: Asked) -> Iterator[dict[str, Any]]:
    names = list(dict.fromkeys(asked.groups))
    for code, values in enumerate(after):
        for who, there in (("own", asked.codes == code), ("other", asked.codes != code)):
            if there.any():
                yield {
                    "group": names[code],
                    "asked": who,
                    **{f"{name}_before": before.of(name)[there].mean() for name in MEASURES},
                    **{name: values.of(name)[there].mean() for name in MEASURES},
                }


def _facts(effects: pd.DataFrame, doses: tuple[int, ...]) -> dict[str, Any]:
    last = effects["checkpoint"].iloc[-1]
    here = effects[(effects["checkpoint"] == last)]
    facts: dict[str, Any] = {
        "last_checkpoint": str(last),
        "checkpoints": int(effects["checkpoint"].nunique()),
        "doses": list(doses),
    }
    for dose in dict.fromkeys((doses[0], doses[-1])):
        for order in ORDERS:
            part = here[(here["order"] == order) & (here["dose"] == dose)]
            facts[f"{order}_{dose}"] = {
                "neurons": float(part["neurons"].iloc[0]),
                **{
                    f"{row['asked']}_{row['measure']}": {
                        name: float(row[name])
                        for name in (
                            *("before", "after", "change", "low", "high"),
                            *("prompts_low", "prompts_high"),
                        )
                    }
                    for row in part.to_dict("records")
                },
            }
    return facts


def _mean(values: _Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    said = []
    for dose in dict.fromkeys((facts["doses"][0], facts["doses"][-1])):
        parts = []
        for order, name in ORDERS.items():
            one = facts[f"{order}_{dose}"]
            words = [
                f"{who} words {_points(one[f'{asked}_accuracy'])}, log-perplexity "
                f"{_points(one[f'{asked}_log_perplexity'])}, P "
                f"{_percent(one[f'{asked}_probability'])}, log-odds "
                f"{short(_change(one[f'{asked}_log_odds']), prompts=True)}"
                for asked, who in (("own", "own"), ("other", "other groups'"))
                if f"{asked}_accuracy" in one
            ]
            parts.append(f"{name} ({one['neurons']:.0f} neurons): {'; '.join(words)}")
        said.append(
            f"{facts['last_checkpoint']}, {dose} of a group's neurons erased: accuracy and "
            "log-perplexity before and after, changes of P(answer) and of its log-odds. "
            f"{'. '.join(_capital(part) for part in parts)}."
        )
    return tuple(said)


def _points(found: dict[str, float]) -> str:
    return f"{found['before']:.2f} to {found['after']:.2f}"


def _percent(found: dict[str, float]) -> str:
    return f"{100 * found['change'] / found['before']:+.1f} %".replace("-", "−")


def _change(found: dict[str, float]) -> dict[str, float]:
    return found | {"value": found["change"]}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
