"""Erasing a group's neurons: what their words lose, and what all other words lose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.effects.statistics import mean_over_sources, over_words
from kntrace.errors import AnalysisError
from kntrace.figures.style import INK, MUTED, TEXT, drawing, settle, tidy
from kntrace.selection import TopK
from kntrace.views.base import Asked, Found
from kntrace.views.drawing import shade_unknown, step_axis
from kntrace.views.layout import lay_out
from kntrace.views.lines import DIFFERENCE, known_lines, line_table, short
from kntrace.views.sets import incidence, matched_in_order

__all__ = ["Erase", "orders"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

ORDERS: dict[str, str] = {
    "frequency": "in most of the group's words' sets",
    "specific": "more in the group's than in other words' sets",
    "random": "random ones of the same layers as the most frequent",
}
"""In which order a group's neurons are erased."""

MEASURES: dict[str, str] = {
    "accuracy": "share of prompts whose answer comes first",
    "log_perplexity": "mean of -log P(answer), in nats",
    "log_odds": "mean log-odds of the answer",
    "probability": "mean P(answer)",
}
"""What is measured of words before and after."""

_DOSES = (20, 50, 100, 200)
_COLOURS = {"frequency": "#D55E00", "specific": "#0072B2", "random": INK}
_ASKED: dict[str, tuple[str, Any]] = {
    "own": ("the group's words", "-"),
    "other": ("words of other groups", (0, (4, 1.5))),
}


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
class Erase:
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
        "words, with 95 % intervals. Red: neurons in the order in which they are in most of the "
        "group's words' sets; blue: in which they are more in its own than in other words' sets; "
        "black: random ones of the same layers. What falls for other words as much as for own "
        "ones is not about the group. P(answer) near one hides what happens: the log-odds do "
        "not. Below, through training, where more than one checkpoint was changed."
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
        rows: list[dict[str, Any]] = []
        by_group: list[dict[str, Any]] = []
        neurons = asked.scores.sizes["layer"] * asked.scores.sizes["neuron"]
        doses = self._counts(neurons)
        if doses[-1] >= neurons:
            raise AnalysisError(
                f"a dose of {doses[-1]} neurons", expected=f"fewer than all {neurons:,}"
            )
        rankings = _rankings(asked, doses[-1])
        for place, opened in asked.opened("last"):
            before = _measured(opened, asked)
            for order in ORDERS:
                for dose in doses:
                    after = [_erased(opened, asked, ranking[order][:dose]) for ranking in rankings]
                    count = np.mean([len(ranking[order][:dose]) for ranking in rankings])
                    head = {"place": place, "order": order, "dose": dose, "neurons": count}
                    rows += [head | row for row in _effects(before, after, asked.codes)]
                    by_group += [head | row for row in _by_group(before, after, asked)]
        effects, groups = (self._placed(asked, part) for part in (rows, by_group))
        tables = {
            "effects": effects,
            "groups": groups,
            "lines": line_table(asked, known_lines(asked)),
        }
        facts = _facts(effects, doses)
        return Found(tables, facts, _say(facts))

    @staticmethod
    def _placed(asked: Asked, rows: list[dict[str, Any]]) -> pd.DataFrame:
        table = pd.DataFrame(rows)
        place = table.pop("place")
        table.insert(0, "checkpoint", [asked.view.checkpoints[at] for at in place])
        table.insert(1, "step", [int(asked.scores["step"].values[at]) for at in place])
        return table

    def prepare(self, found: Found) -> Found:
        """Return it as it is."""
        return found

    def draw(self, found: Found) -> Figure:
        """Draw accuracy and log-odds by dose at the last checkpoint, and through training."""
        with drawing():
            effects = found.main
            several = len(set(effects["checkpoint"])) > 1
            rows, heights = (("ab", "cd"), (46.0, 42.0)) if several else (("ab",), (46.0,))
            laid = lay_out(rows, heights, _handles())
            last = effects[effects["checkpoint"] == found.facts["last_checkpoint"]]
            for column, measure in enumerate(("accuracy", "log_odds")):
                _draw_doses(laid.axes["ab"[column]], last, measure)
                if several:
                    letter = "cd"[column]
                    ax, width = laid.axes[letter], laid.widths[letter]
                    _draw_steps(ax, effects, measure, found.tables["lines"], width)
            return settle(laid.figure, passes=2)

    def describe(self, found: Found) -> str:
        """The sentences that say what was found."""
        return " ".join(found.text)


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
        found.append({"frequency": frequency, "specific": specific, "random": random})
    return found


def _measured(opened: Any, asked: Asked) -> dict[str, _Floats]:
    """Every word's means over its prompts, (word,) each."""
    prompts = opened.prompts(asked.view.name)
    owner = np.repeat(np.arange(len(prompts)), [len(some) for some in prompts])
    answers = opened.ask([one for some in prompts for one in some])
    values = {
        "accuracy": (answers.rank == 0).astype(np.float64),
        "log_perplexity": -answers.log_probability,
        "log_odds": answers.log_odds,
        "probability": np.exp(answers.log_probability),
    }
    counts = np.bincount(owner)
    return {name: np.bincount(owner, weights=one) / counts for name, one in values.items()}


def _erased(opened: Any, asked: Asked, neurons: _Ints) -> dict[str, _Floats]:
    with opened.erased(neurons):
        return _measured(opened, asked)


def _effects(
    before: dict[str, _Floats], after: list[dict[str, _Floats]], codes: npt.NDArray[np.intp]
) -> Iterator[dict[str, Any]]:
    """Means over words: each when its own group is erased, and when another one is."""
    own = codes[:, None] == np.arange(len(after))
    for measure in MEASURES:
        values = np.stack([one[measure] for one in after], axis=1)  # (word, group erased)
        changes = values - before[measure][:, None]
        by_asked = {}
        for asked, there in (("own", own), ("other", ~own)):
            if not there.any():
                continue
            mean = np.array([_mean(row[some]) for row, some in zip(changes, there, strict=True)])
            by_asked[asked] = mean
        if len(by_asked) == 2:
            by_asked["own_minus_other"] = by_asked["own"] - by_asked["other"]
        start = float(before[measure].mean())
        for asked, mean in by_asked.items():
            found = over_words(mean_over_sources(mean[:, None]))
            whole = asked != "own_minus_other"
            if measure in ("accuracy", "probability"):
                # It can lose no more than there is, and gain no more than is missing.
                found = found.within(*((-start, 1 - start) if whole else DIFFERENCE))
            yield {
                "asked": asked,
                "measure": measure,
                "before": start if whole else float("nan"),
                "after": start + found.value if whole else float("nan"),
                "change": found.value,
                "low": found.low,
                "high": found.high,
                "percent": 100 * found.value / start if whole and start else float("nan"),
            }


def _by_group(
    before: dict[str, _Floats], after: list[dict[str, _Floats]], asked: Asked
) -> Iterator[dict[str, Any]]:
    names = list(dict.fromkeys(asked.groups))
    for code, values in enumerate(after):
        for who, there in (("own", asked.codes == code), ("other", asked.codes != code)):
            if there.any():
                yield {
                    "group": names[code],
                    "asked": who,
                    **{f"{name}_before": before[name][there].mean() for name in MEASURES},
                    **{name: values[name][there].mean() for name in MEASURES},
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
                        for name in ("before", "after", "change", "low", "high")
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
                f"{short(_change(one[f'{asked}_log_odds']))}"
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
    return {"value": found["change"], "low": found["low"], "high": found["high"]}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _handles() -> list[Line2D]:
    shown = [
        Line2D([], [], color=_COLOURS[order], label=name, linewidth=1.2)
        for order, name in ORDERS.items()
    ]
    return shown + [
        Line2D([], [], color=MUTED, linestyle=dashes, label=name)
        for name, dashes in _ASKED.values()
    ]


_LABELS = {"accuracy": "accuracy", "log_odds": "change of log-odds"}


def _draw_doses(ax: Axes, last: pd.DataFrame, measure: str) -> None:
    what = "change" if measure == "log_odds" else "after"
    part = last[last["measure"] == measure]
    for order, colour in reversed(_COLOURS.items()):
        for asked, (_, dashes) in _ASKED.items():
            rows = part[(part["order"] == order) & (part["asked"] == asked)]
            shift = rows[what] - rows["change"]
            ax.plot(rows["dose"], rows[what], color=colour, linestyle=dashes, marker="o",
                    markersize=2.2)  # fmt: skip
            ax.fill_between(
                *(rows["dose"], rows["low"] + shift, rows["high"] + shift),
                color=colour, alpha=0.12, linewidth=0,
            )  # fmt: skip
    start = part["before"].dropna()
    if what == "after" and len(start):
        ax.axhline(float(start.iloc[0]), color=MUTED, linestyle=":", linewidth=0.8)
        ax.set_ylim(-0.02, 1.02)
    doses = sorted(part["dose"].unique())
    ax.set_xscale("log")
    ax.set_xticks(doses, [f"{dose:.0f}" for dose in doses])
    ax.minorticks_off()
    ax.set_xlabel("neurons erased", labelpad=2)
    ax.set_ylabel(_LABELS[measure], labelpad=2)
    ax.set_title(f"at {last['checkpoint'].iloc[0]}", loc="left", pad=3, size=TEXT)
    tidy(ax, grid="y")


def _draw_steps(
    ax: Axes, effects: pd.DataFrame, measure: str, lines: pd.DataFrame, width: float
) -> None:
    axis = step_axis(lines)
    place = dict(zip(axis.labels, axis.places, strict=True))
    what = "change" if measure == "log_odds" else "after"
    most = effects["dose"].max()
    part = effects[(effects["measure"] == measure) & (effects["dose"] == most)]
    for order, colour in reversed(_COLOURS.items()):
        for asked, (_, dashes) in _ASKED.items():
            rows = part[(part["order"] == order) & (part["asked"] == asked)]
            x = [place[str(label)] for label in rows["checkpoint"]]
            ax.plot(x, rows[what], color=colour, linestyle=dashes, marker="o", markersize=2.2)
    axis.apply(ax, width)
    shade_unknown(ax, lines, axis)
    ax.set_ylabel(_LABELS[measure], labelpad=2)
    ax.set_title(f"{most:.0f} neurons erased, through training", loc="left", pad=3, size=TEXT)
    tidy(ax, grid="y")
