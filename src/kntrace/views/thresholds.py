"""Sets by threshold: the neurons that stand out in most prompts, and which of them are anyone's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.sparse import csr_array

from kntrace.errors import AnalysisError
from kntrace.selection import Threshold
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import LOOKS, draw_lines
from kntrace.views.lines import (
    SIZE,
    known_lines,
    line_table,
    mean_line,
    role_lines,
    short,
    value_at,
    with_prompts,
)
from kntrace.views.sets import expected_jaccard, incidence, jaccard, per_layer

__all__ = ["Thresholds", "inverse_frequency", "shared_by", "weighted_jaccard", "without"]

_Floats = npt.NDArray[np.float64]
_MOST_PROMPTS = 3


def shared_by(sets: csr_array) -> npt.NDArray[np.int64]:
    """How many words have each neuron in their set, (layer * width + neuron,)."""
    return np.asarray(sets.sum(axis=0), dtype=np.int64).ravel()


def without(sets: csr_array, neurons: npt.NDArray[np.bool_]) -> csr_array:
    """The sets less these neurons."""
    kept = csr_array(sets.multiply(~neurons[None, :]))
    kept.eliminate_zeros()
    return kept


def inverse_frequency(sets: csr_array) -> _Floats:
    """Weight of each neuron, log(words / (1 + words that have it)), and never below 0.

    A neuron in all sets would have a negative weight; it says nothing of any word, so its
    weight is nothing (Chen et al. 2024 let it be negative).
    """
    return np.asarray(np.maximum(np.log(sets.shape[0] / (1 + shared_by(sets))), 0.0))


def weighted_jaccard(sets: csr_array, weight: _Floats) -> _Floats:
    """Weight of the neurons in both sets over that of those in either, (word, other word)."""
    scaled = csr_array(sets.multiply(weight[None, :]))
    both = (scaled @ sets.T).toarray()
    size = np.asarray(sets @ weight)
    either = size[:, None] + size[None, :] - both
    share: _Floats = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 1e-12)
    return share


@dataclass(frozen=True)
class Thresholds(FromText):
    """The view: coarse and refined sets (Dai et al. 2022), common neurons apart.

    Attributes
    ----------
    threshold
        Share of a prompt's largest score that a neuron of its coarse set has at least.
    min_prompts
        In how many of the word's prompts it must be: 3, or all of them where a word has fewer,
        unless given (0).
    common
        Neurons in more than this share of all words' sets are common ones.
    """

    threshold: float = 0.2
    min_prompts: int = 0
    common: float = 0.3
    name: str = "threshold_sets"
    title: str = "Sets by threshold, and what is common to them"
    how_to_read: str = (
        "A word's set holds the neurons whose score is at least a share of the prompt's largest, "
        "in enough of its prompts; prompts that are not known (P(answer) under the floor) give "
        "none, since something is always largest, in a network that knows nothing too. Left: how "
        "much the sets of two words share (Jaccard index; bands are 95 % intervals over words, "
        "bars over prompts), beside random sets of the same layers and of any. Right: the same "
        "less the common neurons, those in the sets of very many words. Groups are seen only "
        "where the blue line is above the green."
    )
    needs: tuple[str, ...] = ("score",)

    def __post_init__(self) -> None:
        Threshold(self.threshold, self.min_prompts or 1)
        if not 0 < self.common <= 1:
            raise AnalysisError(f"a share of {self.common}", expected="above 0, at most 1")

    def compute(self, asked: Asked) -> Found:
        """Choose sets at every checkpoint; tables `lines`, `neurons` (at the last), `common`."""
        fewest = int(asked.view.asked.sum(axis=1).min())
        prompts = self.min_prompts or min(_MOST_PROMPTS, fewest)
        selection = Threshold(self.threshold, prompts, asked.floor)
        labels = asked.view.checkpoints
        chosen, sets, common, rows = self._measured(asked, selection)
        less = [
            # With a prompt less a word cannot be asked for all it had.
            self._measured(one, replace(selection, min_prompts=min(prompts, fewest - 1)))[-1]
            for one in asked.less_prompts()
        ]
        rows = [row for row in with_prompts(rows, less) if row["line"] != "own_minus_other"]
        tables = {
            "lines": line_table(asked, rows),
            "neurons": _neurons(chosen, sets[-1], common[-1], asked),
            "common": _common(sets, common, asked),
        }
        facts = self._facts(tables, labels[0], labels[-1]) | {"selection": selection.spec}
        return Found(tables, facts, self._say(facts))

    def _measured(
        self, asked: Asked, selection: Threshold
    ) -> tuple[Any, list[csr_array], list[npt.NDArray[np.bool_]], list[dict[str, Any]]]:
        """What is chosen at the last checkpoint; every one's sets, common neurons, lines."""

        def choose(by: Threshold) -> list[Any]:
            return [
                by.choose(asked.scores, wording=asked.view.name, checkpoint=place)
                for place in range(len(asked.view.checkpoints))
            ]

        chosen, careless = choose(selection), choose(replace(selection, floor=0.0))
        sets = [incidence(one) for one in chosen]
        limit = self.common * len(asked.view.words)
        common = [shared_by(one) > limit for one in sets]
        rare = [without(one, apart) for one, apart in zip(sets, common, strict=True)]
        rows = [
            *_shared("shared", sets, asked),
            *_shared("shared_without_common", rare, asked),
            *role_lines("shared_weighted", [_weighted(one) for one in sets], asked.codes),
            *mean_line("size", "own", _sizes(sets), SIZE),
            *mean_line("size", "no_floor", _sizes([incidence(one) for one in careless]), SIZE),
            *mean_line("size", "without_common", _sizes(rare), SIZE),
            *known_lines(asked),
        ]
        return chosen[-1], sets, common, rows

    def _facts(self, tables: dict[str, pd.DataFrame], first: str, last: str) -> dict[str, Any]:
        lines, common = tables["lines"], tables["common"]
        at_end = common[common["checkpoint"] == last]
        panels = ("shared", "shared_without_common", "shared_weighted")
        return {
            "first_checkpoint": first,
            "last_checkpoint": last,
            "size": value_at(lines, "size", "own", last),
            "size_without_floor_at_first": value_at(lines, "size", "no_floor", first),
            "common": len(at_end),
            "common_in_layer_0": int((at_end["layer"] == 0).sum()),
            **{
                f"{panel}_{role}": value_at(lines, panel, role, last)
                for panel in panels
                for role in ("same_group", "other_group", "same_minus_other", "matched", "chance")
                if panel != "shared_weighted" or role not in ("matched", "chance")
            },
        }

    def _say(self, facts: dict[str, Any]) -> tuple[str, ...]:
        return (
            f"By {facts['selection']} a word has {short(facts['size'], 1)} neurons at "
            f"{facts['last_checkpoint']}. Without a floor it would have "
            f"{short(facts['size_without_floor_at_first'], 1)} at {facts['first_checkpoint']}: a "
            "threshold relative to the largest finds neurons in any network.",
            f"{facts['common']} neurons are in the sets of more than {self.common:.0%} of the "
            f"words, {facts['common_in_layer_0']} of them in layer 0.",
            f"Same group {short(facts['shared_same_group'])}, other groups "
            f"{short(facts['shared_other_group'])}, random ones of the same layers "
            f"{short(facts['shared_matched'])}, any random ones {short(facts['shared_chance'])} "
            "(Jaccard index); less the common ones "
            f"{short(facts['shared_without_common_same_group'])} and "
            f"{short(facts['shared_without_common_other_group'])}, difference "
            f"{short(facts['shared_without_common_same_minus_other'], prompts=True)}; weighted by "
            "how few words have a neuron, difference "
            f"{short(facts['shared_weighted_same_minus_other'], prompts=True)}.",
        )

    def draw(self, found: Found) -> Figure:
        """Draw what two words' sets share, with the common neurons and without."""
        lines = found.main
        panels = {
            "shared": "shared (Jaccard index)",
            "shared_without_common": "shared, less common neurons",
        }
        looks = {name: LOOKS[name] for name in ("same_group", "other_group", "matched", "chance")}
        looks["own"] = ("P(answer)", LOOKS["own"][1])
        return draw_lines(lines, panels, looks=looks)


def _shared(panel: str, sets: list[csr_array], asked: Asked) -> Iterator[dict[str, Any]]:
    """Lines of what words share with one another, and of random sets of the same layers."""
    matrices = []
    width = asked.scores.sizes["neuron"]
    everywhere = width * asked.scores.sizes["layer"]
    drawn = {"matched": width, "chance": everywhere}
    shape = (len(sets), len(asked.view.words))
    random = {line: np.full(shape, np.nan) for line in drawn}
    for place, one in enumerate(sets):
        matrix = jaccard(one, one)
        np.fill_diagonal(matrix, np.nan)
        matrices.append(matrix)
        for line, of in drawn.items():
            counts = per_layer(one, of)
            # Every word with the next: as many pairs as words are enough for a mean.
            for word, mine in enumerate(counts):
                random[line][place, word] = expected_jaccard(mine, counts[word - 1], of)
    yield from role_lines(panel, matrices, asked.codes)
    for line, values in random.items():
        yield from mean_line(panel, line, values)


def _weighted(sets: csr_array) -> _Floats:
    matrix = weighted_jaccard(sets, inverse_frequency(sets))
    np.fill_diagonal(matrix, np.nan)
    return matrix


def _sizes(sets: list[csr_array]) -> _Floats:
    return np.stack([np.asarray(one.sum(axis=1), dtype=np.float64).ravel() for one in sets])


def _neurons(
    chosen: Any, sets: csr_array, common: npt.NDArray[np.bool_], asked: Asked
) -> pd.DataFrame:
    """Each word's neurons at the last checkpoint, the largest weighted score first."""
    layer = chosen["layer"].transpose("word", "rank").values
    neuron = chosen["neuron"].transpose("word", "rank").values
    score = chosen["score"].transpose("word", "rank").values
    word, rank = np.nonzero(layer >= 0)
    column = layer[word, rank] * asked.scores.sizes["neuron"] + neuron[word, rank]
    weight = inverse_frequency(sets)[column]
    table = pd.DataFrame(
        {
            "word": np.array(asked.view.words)[word],
            "group": np.array(asked.groups)[word],
            "layer": layer[word, rank],
            "neuron": neuron[word, rank],
            "score": score[word, rank],
            "words": shared_by(sets)[column],
            "common": common[column].astype(np.int64),
            "weight": weight,
            "weighted_score": weight * score[word, rank],
        }
    )
    return table.iloc[np.lexsort((-table["weighted_score"], word))].reset_index(drop=True)


def _common(
    sets: list[csr_array], common: list[npt.NDArray[np.bool_]], asked: Asked
) -> pd.DataFrame:
    parts = []
    for place, (one, apart) in enumerate(zip(sets, common, strict=True)):
        column = np.flatnonzero(apart)
        layer, neuron = np.divmod(column, asked.scores.sizes["neuron"])
        parts.append(
            pd.DataFrame(
                {
                    "checkpoint": np.full(len(column), asked.view.checkpoints[place], dtype=object),
                    "layer": layer,
                    "neuron": neuron,
                    "words": shared_by(one)[column],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
