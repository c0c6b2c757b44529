"""How early a word's final knowledge neurons can be told: the top k then, and at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.sparse import csc_array
from scipy.stats import hypergeom

from kntrace.errors import AnalysisError
from kntrace.notebook import Card, Shown
from kntrace.progress import Progress, silent
from kntrace.wording import Wording, read_wording

__all__ = ["EARLY_COLUMNS", "Early", "early_neurons"]

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
_STAGE = "early neurons"
_ROUNDING = 1e-9
_ALPHA = 0.05
_HIGH = 0.975

EARLY_COLUMNS = ("word", "group", "checkpoint", "own", "same_group", "other_groups")


@dataclass(frozen=True, repr=False)
class Early(Shown):
    """What `early_neurons` found.

    Attributes
    ----------
    table
        One row a word and checkpoint: `own`, how many of the word's final knowledge neurons
        are among its k largest at that checkpoint; `same_group` and `other_groups`, how many
        of the final ones of other words are (means over these words; NaN without such).
    checkpoints
        One row a checkpoint: means over words of the three, and `p`, one-sided: is `own` more
        than if final sets were dealt out to the words at random?
    k, total_neurons
        Sizes of the sets, and number of neurons that they are chosen from.
    expected, high
        Mean overlap of two random sets of that size, k²/N, and what one pair exceeds once in
        forty times (hypergeometric).
    permutations, seed
        Of the test.
    """

    table: pd.DataFrame
    checkpoints: pd.DataFrame
    k: int
    total_neurons: int
    expected: float
    high: float
    permutations: int
    seed: int

    @property
    def told_from(self) -> str | None:
        """First checkpoint from which on p is at most .05: a word's own neurons can be told."""
        return _from(self.checkpoints, self.checkpoints["p"].to_numpy() <= _ALPHA)

    @property
    def half_from(self) -> str | None:
        """First checkpoint from which on the mean of `own` is at least half of k."""
        return _from(self.checkpoints, self.checkpoints["own"].to_numpy() >= self.k / 2)

    def to_dict(self) -> dict[str, Any]:
        """All but the tables, as what JSON can express."""
        fields = ("k", "total_neurons", "expected", "high", "permutations", "seed")
        return {name: getattr(self, name) for name in fields}

    def _card(self) -> Card:
        facts = {"k": self.k, "told from": self.told_from, "half of them from": self.half_from}
        rows = self.checkpoints.to_dict("records")
        return Card("How early final neurons can be told", facts, rows)

    def __str__(self) -> str:
        first = self.checkpoints.iloc[0]
        return (
            f"final neurons among the top {self.k:,} at the first checkpoint: "
            f"{first['own'] / self.k:.0%} (by chance {self.expected / self.k:.0%});\n"
            f"half of them from {self.half_from or 'no checkpoint'} on; told from other words' "
            f"from {self.told_from or 'no checkpoint'} on"
        )


def early_neurons(
    scores: xr.Dataset,
    chosen: xr.Dataset,
    *,
    permutations: int = 999,
    seed: int = 0,
    progress: Progress = silent,
) -> Early:
    """Compare the k largest scores at every checkpoint with the final knowledge neurons.

    Parameters
    ----------
    scores
        As `Run.scores` gives them.
    chosen
        Of `knowledge_neurons` from the same scores, or another selection; where words have
        different numbers of neurons, `k` of the result is their mean, rounded.
    permutations, seed
        How often the final sets are dealt out anew to the words, and the seed of that.
    progress
        Told of the checkpoints read.

    Raises
    ------
    AnalysisError
        If `chosen` is not of these scores' words, or a score is not a finite number.

    Notes
    -----
    Neurons that serve all words are among the top k early, so that an overlap beyond k²/N says
    little of a word; hence the comparison with other words' final sets. At the checkpoint that
    the neurons were chosen at, `own` is k by definition.

    Reads the whole archive once; W selections of the k largest at every checkpoint, and W² x k
    look-ups.
    """
    view = read_wording(scores, chosen.attrs.get("wording"))
    if list(view.words) != [str(word) for word in chosen["word"].values]:
        raise AnalysisError("knowledge neurons of other words than the scores'")
    if permutations < 1:
        raise AnalysisError(f"{permutations} permutations", expected="at least one")
    final = _final(scores, chosen)
    sizes, total = np.asarray(final.sum(axis=1), dtype=np.int64), final.shape[1]
    k = max(1, round(float(sizes.mean())))
    groups = chosen["group"].values
    rng = np.random.default_rng(seed)
    deals = rng.permuted(np.tile(np.arange(len(sizes)), (permutations, 1)), axis=1)
    tables, rows = [], []
    for place, label in enumerate(view.checkpoints):
        progress(_STAGE, place, len(view.checkpoints), label)
        common = _common(view, place, final, sizes)
        tables.append(_rows(common, view.words, groups, label))
        rows.append(_row(tables[-1], common, deals, label))
    progress(_STAGE, len(view.checkpoints), len(view.checkpoints))
    law = hypergeom(total, k, k)
    return Early(
        table=pd.concat(tables, ignore_index=True),
        checkpoints=pd.DataFrame(rows),
        k=k,
        total_neurons=total,
        expected=float(law.mean()),
        high=float(law.ppf(_HIGH)),
        permutations=int(permutations),
        seed=int(seed),
    )


def _final(scores: xr.Dataset, chosen: xr.Dataset) -> csc_array:
    """(word, neuron), counted through all layers: 1 where it is a knowledge neuron."""
    width = scores.sizes["neuron"]
    layer, neuron = (chosen[name].transpose("word", "rank").values for name in ("layer", "neuron"))
    word, rank = np.nonzero(layer >= 0)
    places = scores.indexes["layer"].get_indexer(pd.Index(layer[word, rank]))
    columns = scores.indexes["neuron"].get_indexer(pd.Index(neuron[word, rank]))
    if min(places.min(), columns.min()) < 0:
        raise AnalysisError("knowledge neurons that the scores have not")
    shape = (chosen.sizes["word"], scores.sizes["layer"] * width)
    ones = np.ones(len(word), dtype=np.int32)
    # As many numbers as there are knowledge neurons, not words times neurons.
    return csc_array((ones, (word, places * width + columns)), shape=shape)


def _common(
    view: Wording, checkpoint: int, final: csc_array, sizes: npt.NDArray[np.int64]
) -> _Floats:
    """(word, other word): the first's largest now, as many as it ends with, in the other's set."""
    common = np.empty((len(sizes), len(sizes)))
    for word, size in enumerate(sizes):
        now, _ = view.strongest(checkpoint, word, int(size))
        common[word] = final[:, now].sum(axis=1)
    return common


def _rows(
    common: _Floats, words: tuple[str, ...], groups: npt.NDArray[np.str_], label: str
) -> pd.DataFrame:
    same = groups[:, None] == groups
    other = ~same
    np.fill_diagonal(same, False)
    return pd.DataFrame(
        {
            "word": words,
            "group": groups,
            "checkpoint": label,
            "own": np.diag(common).astype(np.int64),
            "same_group": _row_means(common, same),
            "other_groups": _row_means(common, other),
        },
        columns=list(EARLY_COLUMNS),
    )


def _row(
    table: pd.DataFrame, common: _Floats, deals: npt.NDArray[np.intp], label: str
) -> dict[str, Any]:
    own = float(table["own"].mean())
    null = common[np.arange(len(common)), deals].mean(axis=1)
    return {
        "checkpoint": label,
        "own": own,
        "same_group": float(table["same_group"].mean()),
        "other_groups": float(table["other_groups"].mean()),
        "p": float((1 + (null >= own - _ROUNDING).sum()) / (1 + null.size)),
    }


def _row_means(values: _Floats, wanted: _Bools) -> _Floats:
    counts = wanted.sum(axis=1)
    total = np.where(wanted, values, 0.0).sum(axis=1)
    means: _Floats = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return means


def _from(checkpoints: pd.DataFrame, holds: npt.NDArray[Any]) -> str | None:
    """Label of the first row from which on `holds` is true to the end."""
    broken = np.flatnonzero(~holds.astype(np.bool_))
    first = int(broken[-1]) + 1 if broken.size else 0
    labels = checkpoints["checkpoint"].tolist()
    return str(labels[first]) if first < len(labels) else None
