"""Distances with something else taken out of them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from kntrace.errors import AnalysisError

__all__ = ["regress_out"]

# Residuals equal up to rounding are equal: ties must not be broken by noise in the last digit.
_DIGITS = 9


def regress_out(distances: xr.DataArray, *baselines: xr.DataArray) -> xr.DataArray:
    """Take out of a distance what a straight line in other distances' ranks explains.

    The pairs are ranked by the distance and by each baseline; what remains of the former after
    least squares on the latter is a distance in ranks, of either sign.

    Parameters
    ----------
    distances, baselines
        (word, other_word), as `pairwise_distances` gives them, over the same words.

    Returns
    -------
    xr.DataArray
        (word, other_word), symmetric, with zero diagonal; attribute `distance` is, for
        instance, "emd | probability_curve".

    Raises
    ------
    AnalysisError
        If no baseline is given, or one for other words.

    Notes
    -----
    Taking out the curves of P(answer) in this way removes much, but not all, of what learning
    time does to a distance: on grown suites whose groups meant nothing but were learnt one
    after the other, the identity distance so corrected was still called significant in 13 of
    21. Judge by `kntrace.verdict`.
    """
    words = distances["word"].values
    if not baselines:
        raise AnalysisError("no baseline to regress out", expected="one distance or more")
    for baseline in baselines:
        if not np.array_equal(baseline["word"].values, words):
            raise AnalysisError(
                "a baseline for other words, or in another order",
                where=baseline.attrs.get("distance"),
                expected="the words of the distance it is taken out of",
            )
    upper = np.triu_indices(len(words), 1)
    columns = [rankdata(baseline.values[upper]) for baseline in baselines]
    design = np.stack([np.ones(len(upper[0])), *columns], axis=1)
    ranks = rankdata(distances.values[upper])
    coefficients = np.linalg.lstsq(design, ranks, rcond=None)[0]
    matrix = np.zeros(distances.shape)
    matrix[upper] = np.round(ranks - design @ coefficients, _DIGITS)
    names = ", ".join(str(baseline.attrs.get("distance")) for baseline in baselines)
    return distances.copy(data=matrix + matrix.T).assign_attrs(
        distance=f"{distances.attrs.get('distance')} | {names}",
        description=f"residual ranks of {distances.attrs.get('distance')} given {names}",
        unit="ranks",
        metric=False,
    )
