"""How many knowledge neurons two words have in common, and how many chance would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.errors import AnalysisError
from kntrace.labels import group_codes

__all__ = ["Overlap", "neuron_overlap"]

_Floats = npt.NDArray[np.float64]
_Codes = npt.NDArray[np.intp]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Overlap:
    """What `neuron_overlap` found.

    Attributes
    ----------
    matrix
        (word, other_word) int64: neurons that both words have; on the diagonal, the number of
        the word's own.
    expected
        Mean overlap of two words if each drew its neurons at random out of `total_neurons`:
        k²/N, the mean of the hypergeometric distribution.
    expected_sd
        Standard deviation of one pair's overlap under that distribution.
    within, between
        Mean overlap of pairs of the same group and of pairs of different groups.
    chance
        Mean of `within` minus `between` over permutations of the labels.
    p
        One-sided permutation p-value of `within` minus `between`.
    groups
        For every group the mean overlap `within` it (None for a group of one word) and
        `between` its words and others.
    total_neurons, permutations, seed
        What was given.
    """

    matrix: xr.DataArray
    expected: float
    expected_sd: float
    within: float
    between: float
    chance: float
    p: float
    groups: dict[str, dict[str, float | None]]
    total_neurons: int
    permutations: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """All but the matrix, as what JSON can express."""
        fields = ("expected", "expected_sd", "within", "between", "chance", "p")
        given = ("total_neurons", "permutations", "seed")
        plain: dict[str, Any] = {name: getattr(self, name) for name in (*fields, *given)}
        return plain | {"groups": {name: dict(row) for name, row in self.groups.items()}}

    def __str__(self) -> str:
        return (
            f"knowledge neurons in common: {self.within:.1f} within groups, "
            f"{self.between:.1f} between\n"
            f"(by chance {self.expected:.1f} ± {self.expected_sd:.1f}; within above between: "
            f"p = {self.p:.3f})"
        )


def neuron_overlap(
    chosen: xr.Dataset,
    groups: Mapping[str, Sequence[str]],
    *,
    total_neurons: int,
    permutations: int = 999,
    seed: int = 0,
) -> Overlap:
    """Count the knowledge neurons that words have in common (the paper's figure 5).

    Parameters
    ----------
    chosen
        Of `knowledge_neurons`. A word with fewer neurons than others has layer -1 in the
        places that it leaves empty.
    groups
        The words of every group.
    total_neurons
        Neurons of the model, out of which they were chosen.
    permutations, seed
        How often the labels are dealt out anew, group sizes kept, and the seed of that.

    Raises
    ------
    AnalysisError
        If words and groups do not match or give nothing to compare, or if `total_neurons` is
        smaller than a word's number of neurons.
    """
    if permutations < 1:
        raise AnalysisError(f"{permutations} permutations", expected="at least one")
    names = [str(word) for word in chosen["word"].values]
    labels, codes = group_codes(names, groups)
    member = _membership(chosen)
    common = member @ member.T
    sizes = np.diag(common).astype(np.float64)
    if sizes.max() > total_neurons:
        raise AnalysisError(
            f"{int(sizes.max())} knowledge neurons of one word out of {total_neurons} in all",
            expected="total_neurons to be the number of neurons of the model",
        )
    first, second = np.triu_indices(len(names), 1)
    pairs = common[first, second].astype(np.float64)
    mean, variance = _hypergeometric(sizes[first], sizes[second], total_neurons)
    within, between = _means(pairs, codes, first, second)
    null = _null_excess(pairs, codes, first, second, permutations, seed)
    found = within - between
    words, names_of = chosen["word"].values, chosen["group"].values
    return Overlap(
        matrix=xr.DataArray(
            common,
            dims=("word", "other_word"),
            coords={
                "word": words,
                "group": ("word", names_of),
                "other_word": words,
                "other_group": ("other_word", names_of),
            },
            name="overlap",
            attrs={"unit": "neurons"},
        ),
        expected=float(mean.mean()),
        expected_sd=float(np.sqrt(variance.mean())),
        within=within,
        between=between,
        chance=float(null.mean()),
        p=float((1 + (null >= found - _ROUNDING).sum()) / (1 + permutations)),
        groups={
            label: _group_means(pairs, codes, first, second, place)
            for place, label in enumerate(labels)
        },
        total_neurons=int(total_neurons),
        permutations=int(permutations),
        seed=int(seed),
    )


def _membership(chosen: xr.Dataset) -> npt.NDArray[np.int64]:
    """(word, neuron) ones and zeros over the neurons that any word has."""
    layer = chosen["layer"].transpose("word", "rank").values
    neuron = chosen["neuron"].transpose("word", "rank").values
    held = layer >= 0
    _, code = np.unique(np.stack([layer[held], neuron[held]]), axis=1, return_inverse=True)
    member = np.zeros((len(layer), int(code.max()) + 1), dtype=np.int64)
    member[np.nonzero(held)[0], code] = 1
    return member


def _hypergeometric(first: _Floats, second: _Floats, total: int) -> tuple[_Floats, _Floats]:
    """Mean and variance of the overlap of two random sets of these sizes."""
    mean = first * second / total
    spread = (total - first) * (total - second) / (total * max(total - 1, 1))
    variance: _Floats = mean * spread
    return mean, variance


def _means(pairs: _Floats, codes: _Codes, first: _Codes, second: _Codes) -> tuple[float, float]:
    """Mean overlap of the pairs within groups and of those between."""
    same = codes[first] == codes[second]
    return float(pairs[same].mean()), float(pairs[~same].mean())


def _null_excess(
    pairs: _Floats, codes: _Codes, first: _Codes, second: _Codes, permutations: int, seed: int
) -> _Floats:
    """Within minus between under permuted labels."""
    rng = np.random.default_rng(seed)
    null = np.empty(permutations)
    for place in range(permutations):
        within, between = _means(pairs, rng.permutation(codes), first, second)
        null[place] = within - between
    return null


def _group_means(
    pairs: _Floats, codes: _Codes, first: _Codes, second: _Codes, group: int
) -> dict[str, float | None]:
    left, right = codes[first] == group, codes[second] == group
    inside, across = pairs[left & right], pairs[left ^ right]
    return {
        "within": float(inside.mean()) if inside.size else None,
        "between": float(across.mean()),
    }
