"""Read-out: which tokens a word's neurons write, and whether its answer is among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kntrace.errors import AnalysisError
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import SMALL, TEXT, tidy
from kntrace.selection import TopK
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import LOOKS, draw_lines
from kntrace.views.lines import (
    known_lines,
    line_table,
    mean_line,
    role_lines,
    short,
    value_at,
    with_prompts,
)
from kntrace.views.parts import Tables
from kntrace.views.sets import members, others_of_layers

__all__ = ["ReadOut"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

_PANEL = "below"


@dataclass(frozen=True)
class ReadOut(FromText):
    """The view; see `kntrace.probes.read_out`.

    Attributes
    ----------
    neurons
        How many of a word's neurons are read, the strongest first.
    chosen_at
        `last`: a word's neurons are those of the run's last checkpoint, read at every
        checkpoint; `each`: those of the checkpoint that is read. The other of the two is shown
        beside it.
    top
        How many of the tokens that a neuron promotes most are named.
    """

    neurons: int = 50
    chosen_at: Literal["last", "each"] = "last"
    top: int = 10
    name: str = "read_out"
    title: str = "Read-out: what a word's neurons write"
    how_to_read: str = (
        "Every neuron adds its value vector (a column of the down-projection) times its "
        "activation to what the model predicts from. Left: of that vector, sent through the "
        "final norm and the unembedding with the sign of the activation, the share of all tokens "
        "that lie below the word's own answer (1: the answer is what the neuron promotes most; "
        "0.5: chance), mean over a word's neurons; bands are 95 % intervals over words, bars "
        "over prompts. Beside it what neurons of other words and random ones of the same layers "
        "do for the same answer, and neurons chosen at the checkpoint itself: choosing by scores "
        "already prefers neurons that promote the answer, in an untrained network too, so that "
        "only what own neurons have above the others' counts. Right: the same by layer (blue: "
        "above chance). Early layers write for later ones, and cannot be expected to read as "
        "tokens. The first checkpoint is the control of a network that knows nothing."
    )
    needs: tuple[str, ...] = ("mean_score", "mean_activation", "probability")

    def __post_init__(self) -> None:
        if self.neurons < 1 or self.top < 1:
            raise AnalysisError(
                f"neurons = {self.neurons}, top = {self.top}", expected="1 or more each"
            )
        if self.chosen_at not in ("last", "each"):
            raise AnalysisError(f"chosen_at = {self.chosen_at!r}", expected="last or each")

    def compute(self, asked: Asked) -> Found:
        """Read every checkpoint; tables `lines`, `layers`, and at the last one `tokens`."""
        last = [self._own(one, -1) for one in (asked, *asked.less_prompts())]
        rows: list[dict[str, Any]] = []
        layers: list[pd.DataFrame] = []
        places: list[int] = []
        tokens = pd.DataFrame()

        def measure(place: int, opened: Any) -> Tables:
            return self._measure(asked, place, opened, last)

        for place, found in asked.measured(self, measure, "all"):
            places.append(place)
            rows += found["lines"].assign(place=place).to_dict("records")  # type: ignore[arg-type]
            layers.append(found["layers"])
            tokens = found["tokens"]
        # A token taken at random lies above half of the others.
        half = np.full((len(asked.view.checkpoints), 1), 0.5)
        rows += [row for row in mean_line(_PANEL, "chance", half) if row["place"] in places]
        table = line_table(asked, [*rows, *known_lines(asked)])
        tables = {
            "lines": table,
            "layers": pd.concat(layers, ignore_index=True),
            "tokens": tokens,
        }
        facts = self._facts(tables, [asked.view.checkpoints[place] for place in places])
        return Found(tables, facts, _say(facts))

    def _measure(
        self, asked: Asked, place: int, opened: Any, last: list[list[_Ints]]
    ) -> dict[str, pd.DataFrame]:
        """Read one checkpoint: with all prompts, and with one of every word left out in turn."""
        there = [self._own(one, place) for one in (asked, *asked.less_prompts())]
        mine, others = (last, there) if self.chosen_at == "last" else (there, last)
        random = others_of_layers(mine[0], asked.scores.sizes["neuron"], asked.seed)
        sets = [one for some in (*mine, *others) for one in some]
        one = _Checkpoint(asked, place, opened, (*sets, *random), self.top)
        rows = [
            *one.lines(mine[0], others[0]),
            *mean_line(_PANEL, "matched", one.own_only(random)[None]),
        ]
        less = [one.lines(mine[turn + 1], others[turn + 1], turn) for turn in range(len(mine) - 1)]
        return {
            "lines": pd.DataFrame(with_prompts(rows, less)).drop(columns=["place", "bounds"]),
            "layers": pd.DataFrame(one.by_layer(mine[0], random)),
            "tokens": one.tokens(mine[0]),
        }

    def _own(self, asked: Asked, place: int) -> list[_Ints]:
        """Every word's strongest neurons, counted through all layers."""
        neurons = asked.scores.sizes["layer"] * asked.scores.sizes["neuron"]
        by = asked.selection if asked.select else TopK(min(self.neurons, neurons))
        chosen = by.choose(asked.scores, wording=asked.view.name, checkpoint=place)
        return [some[: self.neurons] for some in members(chosen)]

    def _facts(self, tables: dict[str, pd.DataFrame], labels: list[str]) -> dict[str, Any]:
        lines, layers = tables["lines"], tables["layers"]
        roles = ("own", "same_group", "other_group", "matched", "other_choice", "own_minus_other")
        there = layers[layers["checkpoint"] == labels[-1]].dropna(subset=["own"])
        best = there.iloc[int(there["own"].to_numpy().argmax())] if len(there) else None
        sizes = tables["tokens"].groupby("word").size()
        return {
            "chosen_at": self.chosen_at,
            "neurons": float(sizes.mean()) if len(sizes) else 0.0,
            "checkpoints": len(labels),
            "first_checkpoint": labels[0],
            "last_checkpoint": labels[-1],
            **{
                f"{role}_{when}": value_at(lines, _PANEL, role, label)
                for role in roles
                for when, label in (("first", labels[0]), ("last", labels[-1]))
            },
            "best_layer": None if best is None else int(best["layer"]),
            "best_layer_own": None if best is None else float(best["own"]),
            "best_layer_matched": None if best is None else float(best["matched"]),
            "in_top": float((tables["tokens"]["rank"] < self.top).mean()) if len(sizes) else None,
            "top": self.top,
        }

    def draw(self, found: Found) -> Figure:
        """Draw the lines, and the map of layers and checkpoints beside them."""
        last = found.facts["chosen_at"] == "last"
        looks = {name: LOOKS[name] for name in ("own", "same_group", "other_group", "matched")}
        other = "own, chosen at each checkpoint" if last else "own, chosen at the last checkpoint"
        looks["other_choice"] = (other, LOOKS["first"][1])
        looks["chance"] = ("by chance", LOOKS["chance"][1])

        def layers(ax: Axes, axis: StepAxis, width: float) -> None:
            _draw_layers(ax, axis, found.tables["layers"], width)

        return draw_lines(
            *(found.main, {_PANEL: "tokens below the answer"}),
            headings={_PANEL: "a word's answer in its neurons' value vectors"},
            beside=layers,
            looks=looks,
        )


class _Checkpoint:
    """What the value vectors of one checkpoint say, of all neurons that are asked about."""

    def __init__(
        self, asked: Asked, place: int, opened: Any, sets: tuple[_Ints, ...], top: int
    ) -> None:
        self.asked, self.place, self.opened, self.top = asked, place, opened, top
        self.read = np.unique(np.concatenate(sets))
        self.answers: _Ints = opened.answers(asked.view.name)
        self.found = opened.read_out(self.read, self.answers, top)
        words = range(len(asked.view.words))
        if not asked.view.every_prompt:
            means = [asked.mean("activation", place, word).ravel()[self.read] for word in words]
            self.activation, self.less = np.stack(means), []
            return
        activations = []
        for word in words:
            values = asked.values("activation", place, word)
            activations.append(values.reshape(len(values), -1)[:, self.read])
        self.activation = np.stack([one.mean(axis=0) for one in activations])
        turns = [asked.turns[word][asked.view.asked[word]] for word in words]
        self.less = [
            np.stack(
                [one[t != turn].mean(axis=0) for one, t in zip(activations, turns, strict=True)]
            )
            for turn in range(asked.left_out)
        ]

    def value(self, word: int, neurons: _Ints, turn: int | None = None) -> _Floats:
        """Share of tokens below the word's answer, (neuron,), signed as at the word's prompts.

        Parameters
        ----------
        turn
            Which prompt of every word is left out; none unless given.
        """
        at = np.searchsorted(self.read, neurons)
        activation = self.activation if turn is None else self.less[turn]
        sign = (activation[word, at] < 0).astype(np.intp)
        return np.asarray(self.found.below[at, sign, word], dtype=np.float64)

    def lines(
        self, mine: list[_Ints], others: list[_Ints], turn: int | None = None
    ) -> list[dict[str, Any]]:
        """Rows of `line_table` for own neurons, other words', and those of the other choice."""
        other = np.array([_mean(self.value(word, some, turn)) for word, some in enumerate(others)])
        return [
            *role_lines(_PANEL, [self.matrix(mine, turn)], self.asked.codes),
            *mean_line(_PANEL, "other_choice", other[None]),
        ]

    def matrix(self, sets: list[_Ints], turn: int | None = None) -> _Floats:
        """(word, other word): the word's answer in the other one's neurons; NaN if it has none."""
        return np.array(
            [[_mean(self.value(w, some, turn)) for some in sets] for w in range(len(sets))]
        )

    def own_only(self, sets: list[_Ints]) -> _Floats:
        """(word,): each word's answer in one set of neurons."""
        return np.array([_mean(self.value(word, some)) for word, some in enumerate(sets)])

    def by_layer(self, own: list[_Ints], random: list[_Ints]) -> list[dict[str, Any]]:
        """One row a layer: means over words of what its own neurons there and random ones do."""
        width = self.asked.scores.sizes["neuron"]
        rows = []
        for layer, number in enumerate(self.asked.scores["layer"].values):
            parts = [[some[some // width == layer] for some in sets] for sets in (own, random)]
            values = [
                [self.value(word, some).mean() for word, some in enumerate(part) if len(some)]
                for part in parts
            ]
            rows.append(
                {
                    "checkpoint": self.asked.view.checkpoints[self.place],
                    "layer": int(number),
                    "own": _mean(np.array(values[0])),
                    "matched": _mean(np.array(values[1])),
                    "neurons": sum(len(some) for some in parts[0]),
                }
            )
        return rows

    def tokens(self, own: list[_Ints]) -> pd.DataFrame:
        """One row for every word's own neuron: its place, the answer's rank, what it promotes."""
        width, size = self.asked.scores.sizes["neuron"], self.opened.vocabulary
        rows = []
        for word, neurons in enumerate(own):
            scores = self.asked.view.mean(self.place, word).ravel()
            for neuron in neurons.tolist():
                at = int(np.searchsorted(self.read, neuron))
                activation = float(self.activation[word, at])
                sign = int(activation < 0)
                below = float(self.found.below[at, sign, word])
                names = [self.opened.token(int(one)) for one in self.found.top[at, sign]]
                rows.append(
                    {
                        "word": self.asked.view.words[word],
                        "group": self.asked.groups[word],
                        "layer": neuron // width,
                        "neuron": neuron % width,
                        "score": float(scores[neuron]),
                        "activation": activation,
                        "rank": round((1 - below) * (size - 1)),
                        "below": below,
                        "promotes": " | ".join(names),
                    }
                )
        columns = [
            "word",
            "group",
            "layer",
            "neuron",
            "score",
            "activation",
            "rank",
            "below",
            "promotes",
        ]
        return pd.DataFrame(rows, columns=columns)


def _mean(values: _Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    def sentence(when: str) -> str:
        return (
            f"own neurons {short(facts[f'own_{when}'], prompts=True)}, same group "
            f"{short(facts[f'same_group_{when}'])}, other groups "
            f"{short(facts[f'other_group_{when}'])}, random ones of the same layers "
            f"{short(facts[f'matched_{when}'])}"
        )

    own, other = "the last checkpoint", "each checkpoint"
    if facts["chosen_at"] == "each":
        own, other = other, own
    said = [
        f"Share of tokens below a word's answer in the value vectors of {facts['neurons']:.0f} "
        f"neurons chosen at {own} (0.5 by chance), read at {facts['first_checkpoint']}: "
        f"{sentence('first')}; at {facts['last_checkpoint']}: {sentence('last')}; own minus "
        f"other groups' {short(facts['own_minus_other_last'], prompts=True)}.",
        f"Chosen at {other} instead, own neurons have {short(facts['other_choice_first'])} at "
        f"{facts['first_checkpoint']}: the choice by itself prefers neurons that promote the "
        "answer.",
    ]
    if facts["best_layer"] is not None:
        said.append(
            f"The answer reads best in layer {facts['best_layer']} "
            f"({facts['best_layer_own']:.2f}, random ones there "
            f"{facts['best_layer_matched']:.2f}); it is among the first {facts['top']} tokens of "
            f"{facts['in_top']:.0%} of the words' own neurons."
        )
    return tuple(said)


def _draw_layers(ax: Axes, axis: StepAxis, layers: pd.DataFrame, width: float) -> None:
    names = sorted(layers["layer"].unique())
    cells = (
        layers.pivot_table(index="layer", columns="checkpoint", values="own", dropna=False)
        .reindex(index=names, columns=list(axis.labels))
        .to_numpy(dtype=np.float64)
    )
    edges = np.arange(len(names) + 1) - 0.5
    mesh = ax.pcolormesh(axis.edges, edges, cells, cmap="RdBu", vmin=0, vmax=1, rasterized=True)
    axis.apply(ax, width, cells=True)
    ax.set_yticks(range(0, len(names), max(1, len(names) // 8)))
    ax.set_yticklabels([f"{names[int(at)]:.0f}" for at in ax.get_yticks()])
    ax.set_ylabel("layer", labelpad=2)
    ax.set_title("own neurons, by layer", loc="left", pad=3, size=TEXT)
    tidy(ax)
    ax.spines[:].set_visible(False)
    figure = ax.get_figure()
    if figure is not None:
        bar = figure.colorbar(mesh, ax=ax, pad=0.02, fraction=0.05)
        bar.outline.set_visible(False)
        bar.set_label("tokens below the answer", labelpad=2)
        bar.ax.tick_params(labelsize=SMALL, width=0.6, length=2, pad=2)
