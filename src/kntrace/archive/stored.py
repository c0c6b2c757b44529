"""What a run stores of a block: all of it, or means over prompts, and with how many bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kntrace.archive.rounding import ROUNDED, with_bits
from kntrace.archive.variables import MEANS, VARIABLES, Block
from kntrace.settings import Settings

__all__ = ["prompt_means", "stored"]

_WHOLE = {mean: whole for whole, mean in MEANS.items()}


def stored(
    block: Block,
    variables: Iterable[str],
    settings: Settings,
    wordings: Sequence[str],
    sizes: Mapping[str, int],
) -> dict[str, npt.NDArray[Any]]:
    """Turn a block into the numbers that a run with these settings keeps of it.

    Parameters
    ----------
    variables
        What the run has of a block, in the order in which it is to be written.
    wordings
        The wording of every prompt.
    sizes
        Of the run's dimensions.

    Raises
    ------
    ValueError
        If an array of the block has another shape than the run's.
    """
    kept = {}
    for name in variables:
        whole = _WHOLE.get(name, name)
        value = np.asarray(getattr(block, whole))
        expected = tuple(sizes[dim] for dim in VARIABLES[whole].dims[2:])
        if value.shape != expected:
            raise ValueError(f"{whole} has shape {value.shape}, this run's is {expected}")
        if name in _WHOLE:
            value = prompt_means(value, np.asarray(block.rank) >= 0, wordings)
        if name in ROUNDED and settings.keepbits is not None:
            value = with_bits(value, settings.keepbits)
        kept[name] = value
    return kept


def prompt_means(
    values: npt.NDArray[Any], asked: npt.NDArray[np.bool_], wordings: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Means over the prompts of every wording, (mean_over, ...); NaN where there are none."""
    names = list(dict.fromkeys(wordings))
    means = np.full((len(names), *values.shape[1:]), np.nan, dtype=np.float32)
    for place, name in enumerate(names):
        mine = asked & [wording == name for wording in wordings]
        if mine.any():
            means[place] = values[mine].mean(axis=0, dtype=np.float64)
    return means
