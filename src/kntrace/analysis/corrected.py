"""Every distance beside what is left of it once something else is taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from kntrace.analysis.matrices import BASELINE
from kntrace.distance import Correction, HubCorrection, PairCovariate, correct

__all__ = ["corrected_distances"]

# With fewer words a word effect each leaves nothing.
_WORDS_FOR_EFFECTS = 4


def corrected_distances(
    matrices: Mapping[str, xr.DataArray], covariates: Sequence[Correction] = ()
) -> tuple[dict[str, xr.DataArray], tuple[str, ...]]:
    """Correct every distance but the baseline.

    Parameters
    ----------
    matrices
        By name, the baseline `probability_curve` among them.
    covariates
        What else is known of the words.

    Returns
    -------
    dict
        By name, such as "emd | hub": each distance without what the baseline explains, without
        word effects, without each covariate, and, if there are covariates, without the baseline
        and all covariates together.
    tuple of str
        What was left out, and why.

    Raises
    ------
    AnalysisError
        If a covariate does not know a word, or if there are too few words for all covariates.
    """
    curves = PairCovariate(BASELINE, matrices[BASELINE], "the curves of P(answer)")
    sets: list[tuple[Correction, ...]] = [(curves,)]
    notes: tuple[str, ...] = ()
    if matrices[BASELINE].sizes["word"] >= _WORDS_FOR_EFFECTS:
        sets.append((HubCorrection(),))
    else:
        notes = ("word effects were not taken out: there are too few words",)
    sets += [(covariate,) for covariate in covariates]
    if covariates:
        sets.append((curves, *covariates))
    plain = [matrix for name, matrix in matrices.items() if name != BASELINE]
    # By correction first, then by distance: tables that list them keep the old ones in front.
    found = [correct(matrix, *chosen) for chosen in sets for matrix in plain]
    return {str(matrix.attrs["distance"]): matrix for matrix in found}, notes
