"""p-values of several tests read together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control

__all__ = ["benjamini_hochberg", "holm"]

_Floats = npt.NDArray[np.float64]


def holm(p_values: Sequence[float] | _Floats) -> _Floats:
    """Adjust p-values so that at most a share alpha of families holds any false alarm at alpha.

    Tests without a p-value (NaN) are no members of the family.

    References
    ----------
    Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1.0)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float] | _Floats) -> _Floats:
    """Adjust p-values so that, in the mean, at most a share alpha of the alarms is false.

    Tests without a p-value (NaN) are no members of the family.

    References
    ----------
    Benjamini and Hochberg 1995; computed by `scipy.stats.false_discovery_control`.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        adjusted[known] = false_discovery_control(p[known], method="bh")
    return adjusted
