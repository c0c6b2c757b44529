"""Agreement of prompts: do a word's prompts find the same neurons, and only its own?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from kntrace.errors import AnalysisError
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import LOOKS, draw_lines
from kntrace.views.lines import (
    DIFFERENCE,
    known_lines,
    line_table,
    mean_line,
    short,
    value_at,
    with_prompts,
)
from kntrace.views.linked import LINKED, linked_rows, say_linked, titles_of

__all__ = ["Agreement", "agreement", "gram"]

_Floats = npt.NDArray[np.float64]
_LINES = ("own", "same_group", "other_group", "matched")
_PANELS = {
    "agreement": "agreement of prompts",
    "agreement_centred": "agreement, less the mean word",
}


def gram(vectors: npt.ArrayLike) -> _Floats:
    """Cosines of all vectors with one another, (vector, vector); 0 for a vector of nothing."""
    rows = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return np.asarray(unit @ unit.T)


def agreement(cosines: npt.ArrayLike) -> float:
    """How far n vectors point the same way: (s² - 1) / (n - 1).

    s is the largest singular value of the vectors, each of length one: 1 where all are the
    same (or opposite), 0 where they are at right angles, |cosine| for two.

    Parameters
    ----------
    cosines
        (vector, vector), see `gram`; NaN comes out of a single vector.

    References
    ----------
    Niu et al. 2024.
    """
    matrix = np.asarray(cosines, dtype=np.float64)
    if len(matrix) < 2:
        return float("nan")
    # The Gram matrix of unit vectors has the squares of their singular values.
    return float((np.linalg.eigvalsh(matrix)[-1] - 1) / (len(matrix) - 1))


@dataclass(frozen=True)
class Agreement(FromText):
    """The view; see `agreement`.

    Attributes
    ----------
    draws
        How many sets of other words' prompts are drawn for every word, of its group and of
        others each.
    """

    draws: int = 8
    name: str = "agreement"
    title: str = "Agreement of a word's prompts"
    how_to_read: str = (
        "How far the scores of a word's prompts point the same way (1: the same neurons in the "
        "same proportions, 0: nothing in common; bands are 95 % intervals over words, bars over "
        "prompts). Beside them as many prompts of different words, of the word's group and of "
        "other groups, one prompt a word; and the word's prompts with the neurons of every layer "
        "shuffled. Left as they are, right less the mean over words, so that what every prompt "
        "finds does not count. Agreement in an untrained network is about the text of the "
        "prompts, not about what is known: only what own prompts have above other words' is "
        "about the word. Where the study has the same questions in other words (another "
        "wording), or names synonyms and inverse questions of its words, a further row shows "
        "whether those find the word's neurons too."
    )
    needs: tuple[str, ...] = ("score",)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise AnalysisError(f"{self.draws} draws", expected="1 or more")

    def compute(self, asked: Asked) -> Found:
        """See `agreement`; the table is `lines`.

        Notes
        -----
        Holds the scores of one checkpoint, all words and prompts.
        """
        rows, less = _measured(asked, self.draws)
        linked, titles = linked_rows(asked), titles_of(asked)
        lines = line_table(asked, (*with_prompts(rows, less), *linked, *known_lines(asked)))
        first, last = asked.view.checkpoints[0], asked.view.checkpoints[-1]
        facts: dict[str, Any] = {
            f"{panel}_{line}_{when}": value_at(lines, panel, line, label)
            for panel in _PANELS
            for line in (*_LINES, "own_minus_other")
            for when, label in (("first", first), ("last", last))
        }
        facts |= {"first_checkpoint": first, "last_checkpoint": last, "linked": titles}
        said = (*_say(facts), *say_linked(lines, list(titles), last))
        return Found({"lines": lines}, facts, said)

    def draw(self, found: Found) -> Figure:
        """Draw the lines, as they are and less what all words share."""
        titles = _PANELS | dict(found.facts["linked"])
        looks = LOOKS | {"matched": ("shuffled within layers", LOOKS["matched"][1])} | LINKED
        return draw_lines(found.main, titles, looks=looks)


def _measured(asked: Asked, draws: int) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Lines with all prompts, and with one prompt of every word left out of all sets in turn."""
    sets = _sets(asked, draws)
    turns = asked.turns[asked.view.asked]
    kept = [np.ones(len(turns), dtype=np.bool_), *(turns != out for out in range(asked.left_out))]
    owner = np.repeat(np.arange(len(asked.view.words)), asked.view.asked.sum(axis=1))
    rng = np.random.default_rng(asked.seed)
    shape = (len(asked.view.checkpoints), len(asked.view.words))
    found = [
        {panel: {line: np.full(shape, np.nan) for line in _LINES} for panel in _PANELS}
        for _ in kept
    ]
    for place in range(shape[0]):
        vectors = np.concatenate(
            [
                asked.values("score", place, word).reshape(-1, _neurons(asked))
                for word in range(shape[1])
            ]
        )
        means = np.stack([vectors[owner == word].mean(axis=0) for word in range(shape[1])])
        for panel, rows in (
            ("agreement", vectors),
            ("agreement_centred", vectors - means.mean(axis=0)),
        ):
            cosines, shuffled = gram(rows), gram(_shuffled(rows, asked, rng))
            for some, with_these in zip(found, kept, strict=True):
                for word, by_line in enumerate(sets):
                    values = [(cosines, line, rows_of) for line, rows_of in by_line.items()]
                    for matrix, line, rows_of in (*values, (shuffled, "matched", by_line["own"])):
                        some[panel][line][place, word] = _mean_agreement(
                            matrix, [one[with_these[one]] for one in rows_of]
                        )
    whole, *less = ([*_rows(some)] for some in found)
    return whole, less


def _rows(found: dict[str, dict[str, _Floats]]) -> Iterator[dict[str, Any]]:
    for panel, lines in found.items():
        for line, values in lines.items():
            yield from mean_line(panel, line, values)
        difference = lines["own"] - lines["other_group"]
        yield from mean_line(panel, "own_minus_other", difference, DIFFERENCE)


def _neurons(asked: Asked) -> int:
    return int(asked.scores.sizes["layer"] * asked.scores.sizes["neuron"])


def _sets(asked: Asked, draws: int) -> list[dict[str, list[npt.NDArray[np.intp]]]]:
    """Which prompts are compared, as rows of all prompts: own, and those of different words."""
    counts = asked.view.asked.sum(axis=1)
    start = np.concatenate([[0], np.cumsum(counts)])
    rng = np.random.default_rng((asked.seed, 1))
    found = []
    for word, count in enumerate(counts):
        same = asked.codes == asked.codes[word]
        same[word] = False
        others = {"same_group": same, "other_group": asked.codes != asked.codes[word]}
        sets = {"own": [np.arange(start[word], start[word + 1])]}
        for line, members in others.items():
            # The word itself is one of them; two words at least.
            wanted = min(max(int(count), 2) - 1, int(members.sum()))
            sets[line] = [
                np.array(
                    [
                        start[one] + rng.integers(counts[one])
                        for one in (word, *rng.permutation(np.flatnonzero(members))[:wanted])
                    ]
                )
                for _ in range(draws if wanted else 0)
            ]
        found.append(sets)
    return found


def _mean_agreement(cosines: _Floats, draws: list[npt.NDArray[np.intp]]) -> float:
    found = [agreement(cosines[np.ix_(rows, rows)]) for rows in draws]
    known = [one for one in found if not np.isnan(one)]
    return float(np.mean(known)) if known else float("nan")


def _shuffled(rows: _Floats, asked: Asked, rng: np.random.Generator) -> _Floats:
    """The neurons of every layer in another order, another one for every prompt."""
    layers = rows.reshape(len(rows), asked.scores.sizes["layer"], -1)
    return rng.permuted(layers, axis=2).reshape(rows.shape)


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    def sentence(panel: str, when: str) -> str:
        own, same, other, matched = (short(facts[f"{panel}_{line}_{when}"]) for line in _LINES)
        return f"own {own}, same group {same}, other groups {other}, shuffled {matched}"

    return tuple(
        f"{head} {facts['first_checkpoint']}: {sentence(panel, 'first')}; at "
        f"{facts['last_checkpoint']}: {sentence(panel, 'last')}; own minus other "
        f"{short(facts[f'{panel}_own_minus_other_last'], prompts=True)}."
        for panel, head in (
            ("agreement", "Agreement of prompts at"),
            ("agreement_centred", "Less the mean word, at"),
        )
    )
