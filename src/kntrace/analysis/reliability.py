"""How well distances repeat from one half of the prompts to the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr

from kntrace.analysis.corrected import corrected_distances
from kntrace.analysis.matrices import distance_matrices
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.progress import Progress, silent
from kntrace.wording import read_wording

__all__ = ["MOST_WORDS", "RELIABILITY_COLUMNS", "evenly_drawn", "split_half"]

RELIABILITY_COLUMNS = ("distance", "words", "pairs", "halves", "reliability", "ceiling")
# 780 pairs say enough of how well ranks repeat, whatever the number of words.
MOST_WORDS = 40
# Pairs of three words: fewer have no order to repeat.
_FEWEST_WORDS = 3
_STAGE = "reliability"


def split_half(
    scores: xr.Dataset,
    names: Sequence[str],
    k: int,
    *,
    progress: Progress = silent,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Split every word's prompts into two halves and compare the distances from each.

    Parameters
    ----------
    scores
        As `Run.scores` gives them; the main wording is used.
    names
        Distances, the baseline among them.
    k
        Knowledge neurons a word, the k strongest of each half.
    progress
        Told of the halves, in the stage `reliability`.

    Returns
    -------
    reliability
        One row a distance, then one a distance without the baseline, or word effects: number of
        `words` and `pairs`; `halves`, Spearman's correlation over the pairs between the two
        halves (every other prompt against the rest); `reliability`, the same for all prompts by
        the formula of Spearman and Brown, 2r / (1 + r), 0 where the halves do not agree; and
        the noise `ceiling`, its square root: the correlation that even the distances without
        noise would have with the measured ones.
    notes
        Which words were left out, and why; all, where only means over prompts were kept.

    Notes
    -----
    A word with a single prompt has no halves and is left out; of more than 40 words, 40 are
    taken evenly from the groups. Halves of prompts say nothing of another training: two seeds
    agree far less. Cost: that of all distances, twice, for at most 40 words.

    References
    ----------
    Spearman 1910; Brown 1910; Nili et al. 2014 for noise ceilings.
    """
    view = read_wording(scores)
    if not view.every_prompt:
        note = "no reliability: the run has kept only means over prompts, which have no halves"
        return pd.DataFrame(columns=list(RELIABILITY_COLUMNS)), (note,)
    asked = view.asked
    several = np.flatnonzero(asked.sum(axis=1) > 1)
    single = [str(word) for word in scores["word"].values[asked.sum(axis=1) < 2]]
    notes = []
    if single:
        notes.append(f"reliability leaves out words with one prompt: {', '.join(single)}")
    if len(several) < _FEWEST_WORDS:
        return pd.DataFrame(columns=list(RELIABILITY_COLUMNS)), tuple(notes)
    used = several[evenly_drawn(scores["group"].values[several], MOST_WORDS)]
    if len(used) < len(several):
        notes.append(f"reliability was computed on {len(used)} words, evenly drawn from the groups")
    found = []
    for half in range(2):
        progress(_STAGE, half, 2, f"half {half + 1} of the prompts")
        found.append(_half(scores, used, half, names, k))
    progress(_STAGE, 2, 2)
    rows = [_row(name, first, found[1][name]) for name, first in found[0].items()]
    return pd.DataFrame(rows, columns=list(RELIABILITY_COLUMNS)), tuple(notes)


def evenly_drawn(groups: npt.NDArray[np.str_], most: int) -> npt.NDArray[np.intp]:
    """Positions of at most so many words, as evenly from the groups as can be."""
    turn = np.zeros(len(groups), dtype=np.intp)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        turn[members] = np.arange(len(members))
    return np.sort(np.argsort(turn, kind="stable")[:most])


def _half(
    scores: xr.Dataset,
    words: npt.NDArray[np.intp],
    half: int,
    names: Sequence[str],
    k: int,
) -> Mapping[str, xr.DataArray]:
    """All distances from every other prompt of the words."""
    view = read_wording(scores)
    mine = view.scores.isel(word=words)
    asked = view.asked[words]
    in_turn = np.cumsum(asked, axis=1) - 1
    kept = xr.DataArray(asked & (in_turn % 2 == half), dims=("word", "prompt"))
    # A prompt whose answer has no rank is one that the word does not have.
    data = mine.assign(rank=mine["rank"].where(kept, -1))
    formation = formation_processes(data, knowledge_neurons(data, k))
    matrices = distance_matrices(data, formation, names, silent)
    return matrices | corrected_distances(matrices)[0]


def _row(name: str, first: xr.DataArray, second: xr.DataArray) -> tuple[object, ...]:
    upper = np.triu_indices(first.sizes["word"], 1)
    one, two = first.values[upper], second.values[upper]
    r = math.nan
    if np.ptp(one) > 0 and np.ptp(two) > 0:
        r = float(spearmanr(one, two).statistic)
    whole = r if math.isnan(r) else 2 * r / (1 + r) if r > 0 else 0.0
    return name, first.sizes["word"], len(one), r, whole, math.sqrt(whole)
