"""Do a word's synonyms, inverse questions and other wordings find its neurons too?

Knowledge that lies in neurons should be met by whatever asks for it (Niu et al. 2024): by the
same question in other words, by a synonym of the word, and by the question turned round. A study
offers the first by a further wording, and the others by `synonym_of` and `inverse_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kntrace.views.base import Asked
from kntrace.views.lines import COSINE, mean_line, role_lines, short, value_at
from kntrace.wording import Wording, read_wording, wordings_of

__all__ = ["LINKED", "linked_rows", "say_linked", "titles_of"]

_Floats = npt.NDArray[np.float64]

LINKED: dict[str, tuple[str, dict[str, Any]]] = {
    "synonym": ("its synonym", {"color": "#56B4E9", "marker": "v"}),
    "inverse": ("its inverse question", {"color": "#E69F00", "marker": "D"}),
}
"""How lines of linked words are called and drawn."""

_OTHER, _PAIRS = "other_wording", "linked"


def titles_of(asked: Asked) -> dict[str, str]:
    """The panels that the study offers, with what they show."""
    titles = {}
    if _others(asked):
        titles[_OTHER] = "cosine with other wordings"
    if asked.links:
        titles[_PAIRS] = "cosine with linked words"
    return titles


def linked_rows(asked: Asked) -> list[dict[str, Any]]:
    """Rows of `line_table`: cosines of words' mean scores, less the mean word.

    In `other_wording` each word in the wording asked for with itself (`own`) and with others in
    every further wording; in `linked` each with its synonym and its inverse, beside the other
    words of the same wording. `matched`: neurons shuffled within their layers.
    """
    rng = np.random.default_rng((asked.seed, 7))
    rows: list[dict[str, Any]] = []
    others = _others(asked)
    across: list[_Floats] = []
    within: list[_Floats] = []
    random: dict[str, list[_Floats]] = {_OTHER: [], _PAIRS: []}
    for place in range(len(asked.view.checkpoints)) if titles_of(asked) else ():
        here = _directions(asked.view, place)
        mixed = _mixed(here, asked, rng)
        if others:
            views = [read_wording(asked.scores, name) for name in others]
            there = [_directions(view, place) for view in views]
            across.append(np.mean([here @ one.T for one in there], axis=0))
            random[_OTHER].append(np.mean([np.diag(mixed @ one.T) for one in there], axis=0))
        if asked.links:
            within.append(_off_diagonal(here @ here.T))
            random[_PAIRS].append(np.diag(mixed @ here.T))
    if across:
        rows += role_lines(_OTHER, across, asked.codes, COSINE)
        rows += mean_line(_OTHER, "matched", np.stack(random[_OTHER]), COSINE)
    if within:
        rows += role_lines(_PAIRS, within, asked.codes, COSINE)
        rows += mean_line(_PAIRS, "matched", np.stack(random[_PAIRS]), COSINE)
        rows += _pairs(asked, within)
    return rows


def say_linked(lines: pd.DataFrame, panels: list[str], last: str) -> tuple[str, ...]:
    """What came out, a sentence a panel."""

    def of(panel: str, line: str) -> str:
        return short(value_at(lines, panel, line, last))

    said = []
    if _OTHER in panels:
        said.append(
            f"A word's mean scores in other wordings, at {last}: cosine with its own "
            f"{of(_OTHER, 'own')}, same group {of(_OTHER, 'same_group')}, other groups "
            f"{of(_OTHER, 'other_group')}, shuffled {of(_OTHER, 'matched')}; own minus other "
            f"{of(_OTHER, 'own_minus_other')}."
        )
    if _PAIRS in panels:
        there = [name for name in LINKED if _has(lines, name)]
        pairs = ", ".join(
            f"{LINKED[name][0]} {of(_PAIRS, name)} (minus other groups "
            f"{of(_PAIRS, f'{name}_minus_other')})"
            for name in there
        )
        said.append(
            f"Words that the study links, at {last}: cosine with {pairs}; with other words of "
            f"the group {of(_PAIRS, 'same_group')}, of other groups {of(_PAIRS, 'other_group')}, "
            f"shuffled {of(_PAIRS, 'matched')}."
        )
    return tuple(said)


def _others(asked: Asked) -> list[str]:
    """Further wordings in which every word has prompts."""
    names = asked.scores["wording"].values
    ranks = asked.scores["rank"].transpose("checkpoint", "word", "prompt").values
    there = np.asarray((ranks >= 0).any(axis=0))
    return [
        name
        for name in wordings_of(asked.scores)
        if name != asked.view.name and there[:, names == name].any(axis=1).all()
    ]


def _has(lines: pd.DataFrame, line: str) -> bool:
    return bool(((lines["panel"] == _PAIRS) & (lines["line"] == line)).any())


def _pairs(asked: Asked, within: list[_Floats]) -> Iterator[dict[str, Any]]:
    """Each kind of link, and how much it is above words of other groups, paired."""
    places = {word: place for place, word in enumerate(asked.view.words)}
    for kind, pairs in asked.links.items():
        values = np.full((len(within), len(places)), np.nan)
        beside = values.copy()
        for one, other in pairs:
            a, b = places[one], places[other]
            apart = (asked.codes != asked.codes[a]) & (np.arange(len(places)) != b)
            for at, matrix in enumerate(within):
                values[at, a] = matrix[a, b]
                beside[at, a] = matrix[a, apart].mean() if apart.any() else np.nan
        yield from mean_line(_PAIRS, kind, values, COSINE)
        yield from mean_line(_PAIRS, f"{kind}_minus_other", values - beside, (-2.0, 2.0))


def _directions(view: Wording, place: int) -> _Floats:
    """Mean scores of every word less the mean word, of length one, (word, neuron)."""
    rows = np.stack([view.mean(place, word).ravel() for word in range(len(view.words))])
    rows = rows - rows.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: _Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit


def _mixed(rows: _Floats, asked: Asked, rng: np.random.Generator) -> _Floats:
    layers = rows.reshape(len(rows), asked.scores.sizes["layer"], -1)
    return np.asarray(rng.permuted(layers, axis=2).reshape(rows.shape))


def _off_diagonal(matrix: _Floats) -> _Floats:
    found = matrix.copy()
    np.fill_diagonal(found, np.nan)
    return found
