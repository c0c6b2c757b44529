"""One AUC of several runs: random effects, and how far the runs differ among themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from kntrace.comparison.members import Member, Shared
from kntrace.contrasts import contrast

__all__ = ["ESTIMATE_COLUMNS", "FEW", "POOLED_COLUMNS", "VERDICT", "estimates", "pooled"]

FEW = 5
"""With fewer runs the spread between runs is hardly known."""

VERDICT = "verdict"
"""Row of the adjusted AUC that verdicts rest on."""

ESTIMATE_COLUMNS = ("distance", "run", "auc", "se")
POOLED_COLUMNS = (
    *("distance", "runs", "few", "auc", "se", "low", "high"),
    *("tau2", "i2", "q", "q_p", "next_low", "next_high"),
)

_ENDS = ("low", "high", "next_low", "next_high")

_Floats = npt.NDArray[np.float64]


def estimates(members: Sequence[Member], shared: Shared, names: Sequence[str]) -> pd.DataFrame:
    """One row a distance and run: AUC, the mean over groups, and its standard error over words.

    They are those of the run's analysis, or, where it has words that are not common, computed
    again of the common words. Under the name `verdict`: the adjusted AUC of the run's verdict,
    which is of all its words.
    """
    rows: list[tuple[object, ...]] = []
    for name in names:
        for member in members:
            found = member.analysis.contrasts[name].macro
            if shared.left_out[member.label]:
                # Neither the AUC nor the jackknife needs a permutation.
                matrix = member.matrix(name, shared.words)
                found = contrast(matrix, shared.groups, permutations=1).macro
            rows.append((name, member.label, found["auc"], found["auc_se"]))
    for member in members:
        verdict = member.analysis.verdict
        rows.append((VERDICT, member.label, verdict.adjusted_auc, verdict.standard_error))
    return pd.DataFrame(rows, columns=list(ESTIMATE_COLUMNS))


def pooled(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Combine the runs' estimates of every distance by a random-effects model.

    Parameters
    ----------
    table
        As `estimates` gives it.

    Returns
    -------
    pooled
        One row a distance. `auc`, its standard error `se`, and `tau2`, the variance between
        runs, after DerSimonian and Laird; `low` and `high`, a 95 % interval of Student's t with
        runs - 1 degrees of freedom, its error scaled after Hartung, Knapp, Sidik and Jonkman
        where that makes it wider; `i2`, share of the variation that the errors do not explain;
        Cochran's `q` and its p-value `q_p` (all runs have the same AUC); `next_low` and
        `next_high`, within which another run is to be expected (95 %, runs - 2 degrees of
        freedom); `few`, whether there are fewer than five runs. NaN where there are fewer than
        two estimates with a standard error above zero.
    notes
        What was left out, and why.

    Notes
    -----
    Computed by `statsmodels.stats.meta_analysis.combine_effects`; where the runs differ less
    than their errors, DerSimonian and Laird's variance would be negative, and is 0.

    References
    ----------
    DerSimonian and Laird 1986; Higgins and Thompson 2002 (I²); Röver, Knapp and Friede 2015
    (the interval); Higgins, Thompson and Spiegelhalter 2009 (the next run).
    """
    rows, notes = [], []
    for name, part in table.groupby("distance", sort=False):
        effect, error = (part[column].to_numpy(dtype=np.float64) for column in ("auc", "se"))
        usable = np.isfinite(effect) & np.isfinite(error) & (error > 0)
        lost = part["run"].to_numpy()[~usable].tolist()
        if lost:
            notes.append(
                f"{name}: no standard error, and so no part in the mean over runs: "
                f"{', '.join(map(str, lost))}"
            )
        row = {"distance": name, **_combined(effect[usable], error[usable])}
        if name != VERDICT:
            # An AUC has bounds, which the interval of a few runs would pass; an adjusted one has
            # none.
            row |= {end: float(np.clip(row[end], 0.0, 1.0)) for end in _ENDS}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(POOLED_COLUMNS)), tuple(notes)


def _combined(effect: _Floats, error: _Floats) -> dict[str, Any]:
    runs = len(effect)
    row: dict[str, Any] = dict.fromkeys(POOLED_COLUMNS[1:], math.nan)
    row |= {"runs": runs, "few": runs < FEW}
    if runs < 2:
        return row
    # Here and not above, since figures and reports import this module for other things.
    from statsmodels.stats.meta_analysis import combine_effects

    # A variance between runs that comes out negative has no root, and is not used; runs that
    # are equal to the last bit have no I².
    with np.errstate(all="ignore"):
        found = combine_effects(effect, error**2, method_re="dl")
    varied = found.tau2 > 0
    tau2 = float(found.tau2) if varied else 0.0
    auc = float(found.mean_effect_re if varied else found.mean_effect_fe)
    se = float(found.sd_eff_w_re if varied else found.sd_eff_w_fe)
    scale = float(found.scale_hksj_re if varied else found.scale_hksj_fe)
    half = float(student.isf(0.025, runs - 1)) * se * math.sqrt(max(scale, 1.0))
    row |= {"auc": auc, "se": se, "low": auc - half, "high": auc + half, "tau2": tau2}
    row |= {"i2": max(0.0, float(found.i2)) if found.q > 0 else 0.0, "q": max(0.0, float(found.q))}
    row["q_p"] = float(found.test_homogeneity().pvalue)
    if runs > 2:
        spread = float(student.isf(0.025, runs - 2)) * math.sqrt(tau2 + se**2)
        row |= {"next_low": auc - spread, "next_high": auc + spread}
    return row
