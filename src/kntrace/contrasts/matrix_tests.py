"""The tests of ecology on whole distance matrices, as scikit-bio computes them."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from kntrace.contrasts.compute import checked
from kntrace.errors import AnalysisError
from kntrace.labels import group_codes

__all__ = ["MATRIX_TESTS", "TEST_COLUMNS", "mantel", "matrix_tests"]

MATRIX_TESTS: dict[str, str] = {
    "permanova": "pseudo-F: squared distances between groups against those within",
    "anosim": "R: mean rank of distances between groups less that within, from -1 to 1",
    "permdisp": "F: whether groups differ in spread, which PERMANOVA can take for distance",
    "mantel": "rho: Spearman's correlation with the baseline's distances",
}
TEST_COLUMNS = ("test", "statistic", "p", "permutations")
# PERMDISP looks for centroids anew in every permutation, and takes 0.6 s for a thousand.
_MOST_OF_SPREAD = 199
_DIMENSIONS = 10
_LIBRARIES = ("torch", "jax", "cupy")


def matrix_tests(
    distances: xr.DataArray,
    groups: Mapping[str, Sequence[str]],
    baseline: xr.DataArray | None = None,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Test a distance matrix by PERMANOVA, ANOSIM, PERMDISP and Mantel.

    Parameters
    ----------
    distances
        (word, other_word), as `pairwise_distances` gives them.
    groups
        The words of every group.
    baseline
        Distances that Mantel's test compares with; without them, or where they are the same
        distance, it has no result.
    permutations, seed
        Of the labels; in Mantel's test of the words.

    Returns
    -------
    pd.DataFrame
        One row a test of `MATRIX_TESTS`: `test`, `statistic`, one-sided `p` (groups lie apart;
        spreads differ; the distances agree), and the `permutations` behind it, for PERMDISP
        no more than 199. NaN where a test does not apply: PERMANOVA
        and PERMDISP to distances that can be negative, as residual ranks are, and all of them
        where no two distances differ.

    Raises
    ------
    AnalysisError
        As `contrast`, and if the baseline is one for other words.

    Notes
    -----
    PERMDISP uses centroids in the space of the principal coordinates with the ten largest
    eigenvalues; negative ones, which distances that obey no triangle inequality have, are left
    out. None of the tests knows of learning time: see `kntrace.verdict`. Cost: permutations x
    W², about 0.1 s for 38 words, and about one second to load scikit-bio for the first time.

    References
    ----------
    Anderson 2001 (PERMANOVA), Clarke 1993 (ANOSIM), Anderson 2006 (PERMDISP), Mantel 1967.
    """
    if permutations < 1:
        raise AnalysisError(f"{permutations} permutations", expected="at least one")
    values = checked(distances)
    names = [str(word) for word in distances["word"].values]
    _, codes = group_codes(names, groups)
    off = values[np.triu_indices(len(values), 1)]
    if np.ptp(off) == 0:
        return _table({})
    skbio = _scikit_bio()
    drawn: dict[str, Any] = {"permutations": permutations, "seed": seed}
    # scikit-bio wants a diagonal of zeros; ours has them, a stranger's matrix may not.
    matrix = skbio.DistanceMatrix(_hollow(values))
    found = {"anosim": _result(skbio.anosim(matrix, codes, **drawn))}
    if off.min() >= 0:
        found["permanova"] = _result(skbio.permanova(matrix, codes, **drawn))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of negative eigenvalues, see the notes
            found["permdisp"] = _result(
                skbio.permdisp(
                    matrix,
                    codes,
                    test="centroid",
                    dimensions=min(_DIMENSIONS, len(names)),
                    permutations=min(_MOST_OF_SPREAD, permutations),
                    seed=seed,
                )
            )
    if baseline is not None and baseline.attrs.get("distance") != distances.attrs.get("distance"):
        found["mantel"] = *mantel(distances, baseline, **drawn), permutations
    return _table(found)


def mantel(
    first: xr.DataArray, second: xr.DataArray, *, permutations: int = 999, seed: int = 0
) -> tuple[float, float]:
    """Correlate two distance matrices of the same words.

    Parameters
    ----------
    first, second
        (word, other_word), symmetric.
    permutations, seed
        Of the words of one of them.

    Returns
    -------
    rho, p
        Spearman's correlation over the pairs, and its one-sided p-value: do the matrices agree?
        NaN where no two distances of one of them differ.

    Raises
    ------
    AnalysisError
        If the words differ or come in another order, or if a distance is not finite.

    References
    ----------
    Mantel 1967; computed by scikit-bio.
    """
    if [str(word) for word in first["word"].values] != [str(w) for w in second["word"].values]:
        raise AnalysisError("distances of other words, or in another order")
    skbio = _scikit_bio()
    one, two = (skbio.DistanceMatrix(_hollow(checked(matrix))) for matrix in (first, second))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of distances without variation
        rho, p, _ = skbio.mantel(
            one, two, method="spearman", alternative="greater", permutations=permutations, seed=seed
        )
    return float(rho), float(p)


def _table(found: Mapping[str, tuple[float, float, int]]) -> pd.DataFrame:
    nothing = (math.nan, math.nan, 0)
    rows = [(name, *found.get(name, nothing)) for name in MATRIX_TESTS]
    return pd.DataFrame(rows, columns=list(TEST_COLUMNS))


def _result(series: Any) -> tuple[float, float, int]:
    number = series["number of permutations"]
    return float(series["test statistic"]), float(series["p-value"]), int(number)


def _hollow(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    hollow = values.copy()
    np.fill_diagonal(hollow, 0.0)
    return hollow


def _scikit_bio() -> ModuleType:
    """Import scikit-bio's tests, and not the array libraries that it would look for."""
    with _hidden(_LIBRARIES):
        return importlib.import_module("skbio.stats.distance")


@contextlib.contextmanager
def _hidden(libraries: Sequence[str]) -> Iterator[None]:
    """Make libraries that are not loaded yet look as if they were not installed."""
    absent = [name for name in libraries if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
