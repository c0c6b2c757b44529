"""Where chance would put an area under the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import rankdata

from kntrace.labels import group_codes

__all__ = ["auc_bands"]

_LEVEL = (0.025, 0.975)


def auc_bands(
    matrices: Mapping[str, xr.DataArray],
    groups: Mapping[str, Sequence[str]],
    *,
    permutations: int,
    seed: int,
) -> dict[str, tuple[float, float, float]]:
    """Find, for every distance, the AUC and the middle 95 % of it under permuted labels.

    Parameters
    ----------
    matrices
        (word, other_word) distances of the same words, by name.
    groups
        The words of every group.
    permutations, seed
        How often labels are dealt out anew, and the seed; the same for all distances.

    Returns
    -------
    dict
        Name -> (auc, low, high).
    """
    first = next(iter(matrices.values()))
    words = [str(word) for word in first["word"].values]
    _, codes = group_codes(words, groups)
    i, j = np.triu_indices(len(words), 1)
    ranks = np.stack([rankdata(matrix.values[i, j]) for matrix in matrices.values()])
    found = _auc(ranks, codes[i] == codes[j])
    rng = np.random.default_rng(seed)
    null = np.empty((permutations, len(matrices)))
    for place in range(permutations):
        dealt = rng.permutation(codes)
        null[place] = _auc(ranks, dealt[i] == dealt[j])
    low, high = np.quantile(null, _LEVEL, axis=0)
    return {
        name: (float(found[at]), float(low[at]), float(high[at]))
        for at, name in enumerate(matrices)
    }


def _auc(ranks: npt.NDArray[np.float64], same: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mann-Whitney's statistic as a share, one for each row of ranks."""
    inside = int(same.sum())
    excess = ranks[:, same].sum(axis=1) - inside * (inside + 1) / 2
    share: npt.NDArray[np.float64] = 1 - excess / inside / (same.size - inside)
    return share
