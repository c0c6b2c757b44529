"""Sets of neurons, one a word, as sparse rows; how much two share, and how much by chance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.sparse import csr_array
from scipy.stats import hypergeom

__all__ = [
    "expected_jaccard",
    "incidence",
    "jaccard",
    "matched_in_order",
    "members",
    "others_of_layers",
    "per_layer",
]

_Floats = npt.NDArray[np.float64]


def incidence(chosen: xr.Dataset) -> csr_array:
    """Which neurons are in each word's set: (word, layer * width + neuron) ones.

    Parameters
    ----------
    chosen
        As `kntrace.knowledge_neurons` gives it; places that a word leaves empty have layer -1.
    """
    layer = chosen["layer"].transpose("word", "rank").values
    neuron = chosen["neuron"].transpose("word", "rank").values
    layers, width = int(chosen.attrs["layers"]), int(chosen.attrs["width"])
    word, rank = np.nonzero(layer >= 0)
    column = layer[word, rank] * width + neuron[word, rank]
    ones = np.ones(len(word), dtype=np.int64)
    return csr_array((ones, (word, column)), shape=(len(layer), layers * width))


def jaccard(some: csr_array, others: csr_array) -> _Floats:
    """Neurons in both sets over neurons in either, (row, other row); NaN of two empty sets."""
    both = (some @ others.T).toarray().astype(np.float64)
    either = some.sum(axis=1)[:, None] + others.sum(axis=1)[None, :] - both
    share: _Floats = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    return share


def per_layer(sets: csr_array, width: int) -> list[tuple[int, ...]]:
    """How many neurons of each set lie in each layer."""
    rows, columns = sets.nonzero()
    counts = np.zeros((sets.shape[0], sets.shape[1] // width), dtype=np.int64)
    np.add.at(counts, (rows, columns // width), 1)
    return [tuple(row) for row in counts.tolist()]


def expected_jaccard(some: Sequence[int], others: Sequence[int], neurons: int) -> float:
    """Mean Jaccard index of two sets that are drawn at random, exactly.

    Parameters
    ----------
    some, others
        How many neurons each set has in every layer. With one entry each, they are drawn from
        the whole model; with one a layer, they keep their layers.
    neurons
        Neurons in a layer (or in the model).

    Notes
    -----
    What two sets share in one layer is hypergeometric, and independent of the other layers.
    """
    return _expected(tuple(some), tuple(others), neurons)


@lru_cache(maxsize=100_000)
def _expected(some: tuple[int, ...], others: tuple[int, ...], neurons: int) -> float:
    shared = np.ones(1)
    for one, other in zip(some, others, strict=True):
        if one and other:
            shared = np.convolve(shared, _pmf(*sorted((one, other)), neurons))
    both = np.arange(len(shared))
    either = sum(some) + sum(others) - both
    if not sum(some) + sum(others):
        return float("nan")
    return float((shared * both / either).sum())


@lru_cache(maxsize=100_000)
def _pmf(few: int, many: int, neurons: int) -> _Floats:
    return np.asarray(hypergeom.pmf(np.arange(few + 1), neurons, many, few))


def members(chosen: xr.Dataset) -> list[npt.NDArray[np.int64]]:
    """Every word's neurons, the strongest first, counted through all layers."""
    layer = chosen["layer"].transpose("word", "rank").values
    flat = layer * int(chosen.attrs["width"]) + chosen["neuron"].transpose("word", "rank").values
    return [flat[word][layer[word] >= 0] for word in range(len(layer))]


def others_of_layers(
    sets: Sequence[npt.NDArray[np.int64]], width: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """For every set as many random neurons in each of its layers, none of them in the set.

    Where a layer has too few others, all of them are taken. What is drawn for a word depends
    on the seed and on the word's place alone.
    """
    found = []
    for place, some in enumerate(sets):
        rng = np.random.default_rng((seed, place, 2))
        parts = [some[:0]]
        for layer in np.unique(some // width):
            whole = np.arange(layer * width, (layer + 1) * width)
            rest = rng.permutation(np.setdiff1d(whole, some))
            parts.append(rest[: int((some // width == layer).sum())])
        found.append(np.concatenate(parts).astype(np.int64))
    return found


def matched_in_order(
    ranking: npt.NDArray[np.int64], width: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """For every neuron of a ranking, in turn, a random one of its layer that is not in it.

    None is drawn twice; where a layer has too few others, some neurons find none.
    """
    layers = ranking // width
    rest = {}
    for layer in np.unique(layers):
        whole = np.arange(layer * width, (layer + 1) * width)
        rest[layer] = iter(rng.permutation(np.setdiff1d(whole, ranking)).tolist())
    found = [next(rest[layer], -1) for layer in layers]
    return np.array([one for one in found if one >= 0], dtype=np.int64)
