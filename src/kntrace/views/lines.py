"""Numbers through training as lines, each with its interval: what most views are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kntrace.effects.statistics import Estimate, mean_over_sources, over_words
from kntrace.views.base import Asked

__all__ = [
    "ANY",
    "DIFFERENCE",
    "ROLES",
    "SHARE",
    "SIZE",
    "by_role",
    "known_lines",
    "line_table",
    "log_odds",
    "mean_line",
    "role_lines",
    "short",
    "value_at",
]

_Floats = npt.NDArray[np.float64]

SHARE, SIZE, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
"""Bounds of what is drawn, which its interval keeps to: of a share, of a size, and none."""
DIFFERENCE = (-1.0, 1.0)
"""Bounds of the difference of two shares."""

ROLES = ("own", "same_group", "other_group")

# The last float32 below one: the archive's probabilities cannot say more.
_CEILING = 1 - 2.0**-24
_FLOOR = float(np.finfo(np.float32).tiny)


def log_odds(probability: npt.ArrayLike) -> _Floats:
    """Logarithm of P / (1 - P), as far as float32 can tell P from 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=np.float64), _FLOOR, _CEILING)
    return np.asarray(np.log(p) - np.log1p(-p))


def by_role(matrix: _Floats, codes: npt.NDArray[np.intp]) -> dict[str, _Floats]:
    """Mean over the word itself, over words of its group, and over words of other groups.

    Parameters
    ----------
    matrix
        (word, other word) values, NaN where there is none.
    codes
        (word,) group of every word.

    Returns
    -------
    dict
        By role, (1 + word, word): for all words, and with each word left out in turn, both as
        the one and as the other; so that an interval comes from leaving words out. Roles that
        no word can play are left out.
    """
    same = codes[:, None] == codes
    off = ~np.eye(len(codes), dtype=np.bool_)
    parts = {
        "own": np.diag(matrix)[:, None],
        "same_group": np.where(same & off, matrix, np.nan),
        "other_group": np.where(~same, matrix, np.nan),
    }
    return {
        role: mean_over_sources(part) for role, part in parts.items() if np.isfinite(part).any()
    }


def role_lines(
    panel: str, matrices: Sequence[_Floats], codes: npt.NDArray[np.intp]
) -> Iterator[dict[str, Any]]:
    """Rows of `line_table` for shares: own, same group and other groups at every checkpoint.

    The lines `own_minus_other` and `same_minus_other` are paired differences, for their
    intervals.
    """
    for place, matrix in enumerate(matrices):
        roles = by_role(matrix, codes)
        for name, one in (("own_minus_other", "own"), ("same_minus_other", "same_group")):
            if {one, "other_group"} <= set(roles):
                roles[name] = roles[one] - roles["other_group"]
        for role, replicates in roles.items():
            bounds = DIFFERENCE if role.endswith("_minus_other") else SHARE
            yield _row(panel, role, place, over_words(replicates).within(*bounds))


def mean_line(
    panel: str, line: str, values: _Floats, bounds: tuple[float, float] = SHARE
) -> Iterator[dict[str, Any]]:
    """Rows of `line_table` for a mean over words, values (checkpoint, word) within `bounds`."""
    for place, row in enumerate(values):
        if np.isfinite(row).any():
            found = over_words(mean_over_sources(row[:, None]))
            yield _row(panel, line, place, found.within(*bounds))


def known_lines(asked: Asked) -> Iterator[dict[str, Any]]:
    """Does the model know it yet? P(answer) and its log-odds, beside whatever is shown."""
    view = asked.view
    p = view.scores["probability"].transpose("checkpoint", "word", "prompt").values
    held = np.where(view.asked, p.astype(np.float64), np.nan)
    yield from mean_line("probability", "own", np.nanmean(held, axis=-1))
    yield from mean_line("log_odds", "own", np.nanmean(log_odds(held), axis=-1), ANY)


def line_table(asked: Asked, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row a mark: panel, line, checkpoint, step, value, low, high (95 %, over words).

    The column `floor` is for the shading.
    """
    table = pd.DataFrame(list(rows))
    labels, steps = asked.view.checkpoints, asked.scores["step"].values
    place = table.pop("place")
    table.insert(2, "checkpoint", [labels[at] for at in place])
    table.insert(3, "step", [int(steps[at]) for at in place])
    table["floor"] = asked.floor
    return table


def value_at(table: pd.DataFrame, panel: str, line: str, checkpoint: str) -> dict[str, float]:
    """Value, low and high of one line at one checkpoint; NaN if there is no such mark."""
    here = (table["panel"] == panel) & (table["line"] == line)
    rows = table[here & (table["checkpoint"] == checkpoint)]
    if not len(rows):
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    found = rows.iloc[0]
    return {name: float(found[name]) for name in ("value", "low", "high")}


def short(found: Mapping[str, float], digits: int = 2) -> str:
    """Write a number with its interval."""
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if np.isnan(value):
        return "–"
    said = f"{value:.{digits}f}"
    if np.isfinite(low):
        said += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return said.replace("-", "−")


def _row(panel: str, line: str, place: int, found: Estimate) -> dict[str, Any]:
    head = {"panel": panel, "line": line, "place": place}
    return {**head, "value": found.value, "low": found.low, "high": found.high}
