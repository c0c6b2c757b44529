"""One word's row of distances by itself: its share above, its AUC, and what chance gives it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from kntrace.contrasts.pairs import ROUNDING, Bools, Codes, Floats
from kntrace.contrasts.result import Contrast
from kntrace.multiple import benjamini_hochberg, holm

__all__ = ["p_value", "word_table"]


def word_table(
    values: Floats, names: Sequence[str], labels: Sequence[str], codes: Codes, shuffles: Codes
) -> pd.DataFrame:
    """One row a word.

    A word keeps its group and the group its size: chance is another choice of its mates among
    all other words. `shuffles` are orders of these, (permutation, word - 1), the first of which
    are taken for mates.
    """
    rows = []
    for place, name in enumerate(names):
        others = np.arange(len(names)) != place
        mates = int((codes == codes[place]).sum()) - 1
        row: dict[str, Any] = dict.fromkeys(Contrast.WORD_COLUMNS, math.nan)
        row |= {"word": name, "group": labels[codes[place]]}
        row |= {"others": len(names) - 1 - mates, "above": 0}
        if mates and row["others"]:
            same = (codes == codes[place])[others]
            row |= _measured(values[place, others], same, shuffles[:, :mates])
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(Contrast.WORD_COLUMNS))
    for name in ("share_p", "p"):
        table[f"{name}_holm"] = holm(table[name].to_numpy())
        table[f"{name}_bh"] = benjamini_hochberg(table[name].to_numpy())
    return table


def _measured(row: Floats, same: Bools, chance: Codes) -> dict[str, float]:
    ranks = rankdata(row)
    others = int((~same).sum())
    found = np.flatnonzero(same)[None]
    above, threshold = _above(row, found)
    null = _above(row, chance)[0] / others
    auc, null_auc = _auc(ranks, found)[0], _auc(ranks, chance)
    share = float(above[0] / others)
    with_self = others / (others + 1)
    return {
        "threshold": float(threshold[0]),
        "above": int(above[0]),
        "share_above": share,
        "share_above_with_self": float(above[0] / (others + 1)),
        "chance": float(null.mean()),
        "chance_with_self": float(null.mean() * with_self),
        "share_p": p_value(share, null),
        "auc": float(auc),
        "p": p_value(float(auc), null_auc),
    }


def _above(row: Floats, mates: Codes) -> tuple[Floats, Floats]:
    """How many others lie beyond the mean of the mates, and that mean; (choice of mates,)."""
    near = row[mates]
    threshold = near.mean(axis=1)
    limit = threshold + ROUNDING * np.abs(near).mean(axis=1)
    beyond = len(row) - np.searchsorted(np.sort(row), limit, side="right")
    above: Floats = (beyond - (near > limit[:, None]).sum(axis=1)).astype(np.float64)
    return above, threshold


def _auc(ranks: Floats, mates: Codes) -> Floats:
    """Mann and Whitney's statistic as a share: mates nearer than others."""
    inside = mates.shape[1]
    excess = ranks[mates].sum(axis=1) - inside * (inside + 1) / 2
    share: Floats = 1 - excess / inside / (len(ranks) - inside)
    return share


def p_value(found: float, null: Floats) -> float:
    """One-sided; the labels as they are count as one of the ways to deal them out."""
    if math.isnan(found):
        return math.nan
    return float((1 + (null >= found - ROUNDING).sum()) / (1 + null.size))
