"""Turnover: do a word's knowledge neurons stay the same ones through training?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from scipy.sparse import csr_array

from kntrace.errors import AnalysisError
from kntrace.figures.labels import fitted
from kntrace.figures.steps import StepAxis
from kntrace.figures.style import TEXT, tidy
from kntrace.formation import checkpoint_position
from kntrace.selection import Selection
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import draw_lines
from kntrace.views.lines import (
    known_lines,
    line_table,
    mean_line,
    role_lines,
    short,
    value_at,
    with_prompts,
)
from kntrace.views.sets import expected_jaccard, incidence, jaccard, per_layer
from kntrace.wording import read_wording

__all__ = ["Turnover", "TurnoverNumbers", "turnover"]

_Floats = npt.NDArray[np.float64]

_PANEL = "jaccard"
_CELLS = ("#f2f2f2", "#D55E00")


@dataclass(frozen=True)
class TurnoverNumbers:
    """What `turnover` found.

    Attributes
    ----------
    to_pivot
        (checkpoint, word, other word): Jaccard index of the word's neurons at a checkpoint with
        the other word's at the pivot; own neurons on the diagonal.
    to_first, to_previous
        (checkpoint, word): with its own at the first checkpoint, and at the one before (NaN at
        the first).
    chance, matched
        (checkpoint, word): mean Jaccard index with its own at the pivot of as many neurons
        drawn at random, out of all of them, or out of the layers in which they lie.
    neurons
        One row for every neuron that is ever a word's own: `word`, `group`, `layer`, `neuron`,
        `first` and `last` checkpoint at which it is, `settled`, that from which it is at all
        later ones ("" if not at the last), `times`, at how many, and `there`, a 1 or 0 for
        every checkpoint.
    pivot
        Label of the checkpoint that was compared with.
    """

    to_pivot: _Floats
    to_first: _Floats
    to_previous: _Floats
    chance: _Floats
    matched: _Floats
    neurons: pd.DataFrame
    pivot: str


def turnover(
    scores: xr.Dataset,
    selection: Selection,
    *,
    wording: str | None = None,
    pivot: int | str = -1,
) -> TurnoverNumbers:
    """Choose each word's neurons at every checkpoint, and compare them with those at the pivot.

    Parameters
    ----------
    scores
        As `Run.scores` gives them.
    selection
        How neurons are chosen, such as `TopK(50)`.
    wording
        The prompts to use; the study's first wording unless given.
    pivot
        Position or label of the checkpoint to compare with.

    Raises
    ------
    AnalysisError
        If there is no such checkpoint, or if a score is not a finite number.

    Notes
    -----
    Reads the archive once. The control that matters is another word's neurons: what all words
    share is stable too.
    """
    view = read_wording(scores, wording)
    end = checkpoint_position(view, pivot)
    sets = [
        incidence(selection.choose(scores, wording=wording, checkpoint=place))
        for place in range(len(view.checkpoints))
    ]
    pairs = zip(sets[1:], sets[:-1], strict=True)
    before = [np.diag(jaccard(one, former)) for one, former in pairs]
    width, neurons = scores.sizes["neuron"], sets[0].shape[1]
    return TurnoverNumbers(
        to_pivot=np.stack([jaccard(one, sets[end]) for one in sets]),
        to_first=np.stack([np.diag(jaccard(one, sets[0])) for one in sets]),
        to_previous=np.stack([np.full(len(view.words), np.nan), *before]),
        chance=np.stack([_by_chance(one, sets[end], neurons) for one in sets]),
        matched=np.stack([_by_chance(one, sets[end], width) for one in sets]),
        neurons=_lives(sets, view.checkpoints, scores),
        pivot=view.checkpoints[end],
    )


def _by_chance(some: csr_array, others: csr_array, drawn_from: int) -> _Floats:
    """Drawn out of each layer, or out of all of them if `drawn_from` says so."""
    pairs = zip(per_layer(some, drawn_from), per_layer(others, drawn_from), strict=True)
    return np.array([expected_jaccard(one, other, drawn_from) for one, other in pairs])


def _lives(sets: Sequence[csr_array], labels: Sequence[str], scores: xr.Dataset) -> pd.DataFrame:
    """When each neuron is a word's own, sorted by word, first and last appearance."""
    ever = sum(sets[1:], sets[0])
    word, column = ever.nonzero()
    there = np.stack([one.toarray()[word, column] > 0 for one in sets], axis=1)
    first = there.argmax(axis=1)
    last = there.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    absent = ~there
    settled = np.where(absent.any(axis=1), there.shape[1] - absent[:, ::-1].argmax(axis=1), 0)
    names = np.array([*labels, ""], dtype=np.str_)
    layer, neuron = np.divmod(column, scores.sizes["neuron"])
    table = pd.DataFrame(
        {
            "word": scores["word"].values[word],
            "group": scores["group"].values[word],
            "layer": scores["layer"].values[layer],
            "neuron": scores["neuron"].values[neuron],
            "first": names[first],
            "last": names[last],
            "settled": names[settled],
            "times": there.sum(axis=1),
            "there": ["".join("01"[int(cell)] for cell in row) for row in there],
        }
    )
    return table.iloc[np.lexsort((column, last, first, word))].reset_index(drop=True)


@dataclass(frozen=True)
class Turnover(FromText):
    """The view; see `turnover`.

    Attributes
    ----------
    pivot
        Position or label of the checkpoint to compare with; the last one unless given.
    word
        The word whose neurons are drawn one by one; unless given, the one with the median
        number of neurons.
    """

    pivot: int | str = -1
    word: str = ""
    name: str = "turnover"
    title: str = "Turnover of knowledge neurons"
    how_to_read: str = (
        "Left: how many of a word's neurons at a checkpoint are also its own at the pivot "
        "(Jaccard index; bands are 95 % intervals over words, bars over prompts), beside the "
        "neurons of other words at the pivot, random ones of the same layers and any random "
        "ones. What other words' neurons reach is stable without being about the word; only the "
        "distance of the red line from theirs is. A high agreement with the checkpoint before, "
        "at the very beginning, only says that nothing was trained yet. Right: every neuron that "
        "is ever one word's own, sorted by first and then last appearance, coloured where it is. "
        "Below: whether the answer is known at all; shaded where P(answer) is under the floor."
    )
    needs: tuple[str, ...] = ("kept_score",)

    def compute(self, asked: Asked) -> Found:
        """See `turnover`; the tables are `lines` and `neurons`."""
        # A label may look like a position.
        named = str(self.pivot) in asked.view.checkpoints
        pivot = str(self.pivot) if named else self.pivot
        found, rows = _measured(asked, pivot)
        less = [_measured(one, pivot)[1] for one in asked.less_prompts()]
        lines = line_table(asked, with_prompts(rows, less))
        word = self.word or _median_word(found.neurons)
        if word not in asked.view.words:
            raise AnalysisError(f"no word {word!r} in this run", expected="a word of the study")
        facts = {"drawn_word": word, **_facts(found, lines, asked.view.checkpoints)}
        return Found({"lines": lines, "neurons": found.neurons}, facts, _say(facts))

    def draw(self, found: Found) -> Figure:
        """Draw the lines, and one word's neurons beside them."""
        word = str(found.facts["drawn_word"])
        neurons = found.tables["neurons"]
        lives = neurons[neurons["word"] == word]

        def raster(ax: Axes, axis: StepAxis, width: float) -> None:
            _draw_lives(ax, axis, lives, width)

        heading = f"with the neurons at {found.facts['pivot']}, where nothing else is said"
        return draw_lines(
            *(found.main, {_PANEL: "Jaccard index"}),
            headings={_PANEL: heading},
            beside=raster,
            texts=(word,),
        )


def _measured(asked: Asked, pivot: int | str) -> tuple[TurnoverNumbers, list[dict[str, Any]]]:
    found = turnover(asked.scores, asked.selection, wording=asked.view.name, pivot=pivot)
    return found, [
        *role_lines(_PANEL, list(found.to_pivot), asked.codes),
        *mean_line(_PANEL, "previous", found.to_previous),
        *mean_line(_PANEL, "first", found.to_first),
        *mean_line(_PANEL, "matched", found.matched),
        *mean_line(_PANEL, "chance", found.chance),
        *known_lines(asked),
    ]


def _median_word(neurons: pd.DataFrame) -> str:
    sizes = neurons.groupby("word", sort=False).size()
    return str(sizes.sort_values(kind="stable").index[len(sizes) // 2])


def _facts(found: TurnoverNumbers, lines: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    places = {label: place for place, label in enumerate(labels)}
    end = places[found.pivot]
    words = found.to_pivot.shape[1]
    at_end = found.neurons[found.neurons["there"].str[end] == "1"]
    middle = (end or len(labels) - 1) // 2
    roles = ("own", "same_group", "other_group", "own_minus_other", "matched", "chance")
    return {
        "pivot": found.pivot,
        "middle": labels[middle],
        **{role: value_at(lines, _PANEL, role, labels[middle]) for role in roles},
        "first_checkpoint": labels[0],
        "own_at_first": value_at(lines, _PANEL, "own", labels[0]),
        "neurons_at_pivot": len(at_end) / words,
        "neurons_ever": len(found.neurons) / words,
        "first_seen": _quartiles(at_end["first"], places),
        "in_for_good": _quartiles(at_end["settled"][at_end["settled"] != ""], places),
    }


def _quartiles(labels: pd.Series[str], places: dict[str, int]) -> list[str]:
    """Labels by which a quarter, half and three quarters have come."""
    at = np.sort(labels.map(places).to_numpy(dtype=np.int64))
    names = list(places)
    return [names[at[int(share * (len(at) - 1))]] for share in (0.25, 0.5, 0.75)] if len(at) else []


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    said = [
        f"Half-way to {facts['pivot']}, at {facts['middle']}, a word's neurons agree with its "
        f"own at {facts['pivot']} to {short(facts['own'], prompts=True)} (Jaccard index), with "
        f"another group's words' to {short(facts['other_group'])}, random ones of the same "
        f"layers to {short(facts['matched'])}, any random ones to {short(facts['chance'])}; own "
        f"minus other: {short(facts['own_minus_other'], prompts=True)}.",
        f"At {facts['first_checkpoint']} it is {short(facts['own_at_first'])}. Of "
        f"{facts['neurons_at_pivot']:.0f} neurons a word at {facts['pivot']} there are "
        f"{facts['neurons_ever']:.0f} that are ever among its own.",
    ]
    if facts["first_seen"] and facts["in_for_good"]:
        said.append(
            f"A quarter, half and three quarters of those at {facts['pivot']} were first seen by "
            f"{', '.join(facts['first_seen'])}, and in for good by "
            f"{', '.join(facts['in_for_good'])}."
        )
    return tuple(said)


def _draw_lives(ax: Axes, axis: StepAxis, lives: pd.DataFrame, width: float) -> None:
    cells = np.array([[int(cell) for cell in row] for row in lives["there"]])
    rows = np.arange(len(cells) + 1)
    ax.pcolormesh(
        axis.edges, rows, cells, cmap=ListedColormap(_CELLS), vmin=0, vmax=1, rasterized=True
    )
    axis.apply(ax, width, cells=True)
    ax.set_ylim(len(cells), 0)
    tidy(ax)
    ax.spines[:].set_visible(False)
    ax.set_ylabel(f"{len(cells)} neurons that are ever its own", labelpad=2)
    ax.set_title(fitted(str(lives["word"].iloc[0]), width, TEXT), loc="left", pad=3, size=TEXT)
