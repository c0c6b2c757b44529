"""Numbers through training as lines, each with its interval: what most views are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kntrace.effects.statistics import Estimate, jackknife, mean_over_sources, over_words
from kntrace.views.base import Asked

__all__ = [
    "ANY",
    "COSINE",
    "DIFFERENCE",
    "ROLES",
    "SHARE",
    "SIZE",
    "by_role",
    "known_lines",
    "line_table",
    "log_odds",
    "mean_line",
    "over_prompts",
    "role_lines",
    "short",
    "value_at",
    "with_prompts",
]

_Floats = npt.NDArray[np.float64]

SHARE, SIZE, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
"""Bounds of what is drawn, which its interval keeps to: of a share, of a size, and none."""
DIFFERENCE = COSINE = (-1.0, 1.0)
"""Bounds of the difference of two shares, and of a cosine."""

ROLES = ("own", "same_group", "other_group")

_OVER_PROMPTS = ("prompts_low", "prompts_high")

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
    panel: str,
    matrices: Sequence[_Floats],
    codes: npt.NDArray[np.intp],
    within: tuple[float, float] = SHARE,
) -> Iterator[dict[str, Any]]:
    """Rows of `line_table`: own, same group and other groups at every checkpoint.

    The lines `own_minus_other` and `same_minus_other` are paired differences, for their
    intervals.
    """
    for place, matrix in enumerate(matrices):
        roles = by_role(matrix, codes)
        for name, one in (("own_minus_other", "own"), ("same_minus_other", "same_group")):
            if {one, "other_group"} <= set(roles):
                roles[name] = roles[one] - roles["other_group"]
        for role, replicates in roles.items():
            low, high = within
            bounds = (low - high, high - low) if role.endswith("_minus_other") else within
            yield _row(panel, role, place, over_words(replicates), bounds)


def mean_line(
    panel: str, line: str, values: _Floats, bounds: tuple[float, float] = SHARE
) -> Iterator[dict[str, Any]]:
    """Rows of `line_table` for a mean over words, values (checkpoint, word) within `bounds`."""
    for place, row in enumerate(values):
        if np.isfinite(row).any():
            found = over_words(mean_over_sources(row[:, None]))
            yield _row(panel, line, place, found, bounds)


def known_lines(asked: Asked) -> Iterator[dict[str, Any]]:
    """Does the model know it yet? P(answer) and its log-odds, beside whatever is shown."""
    view = asked.view
    p = view.scores["probability"].transpose("checkpoint", "word", "prompt").values
    held = np.where(view.asked, p.astype(np.float64), np.nan)
    yield from mean_line("probability", "own", np.nanmean(held, axis=-1))
    yield from mean_line("log_odds", "own", np.nanmean(log_odds(held), axis=-1), ANY)


def line_table(asked: Asked, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row a mark: panel, line, checkpoint, step, value, low, high (95 %, over words).

    `prompts_low` and `prompts_high` are the interval over prompts, where there is one; the
    column `floor` is for the shading.
    """
    table = pd.DataFrame(list(rows)).drop(columns="bounds", errors="ignore")
    for name in _OVER_PROMPTS:
        if name not in table:
            table[name] = float("nan")
    labels, steps = asked.view.checkpoints, asked.scores["step"].values
    place = table.pop("place")
    table.insert(2, "checkpoint", [labels[at] for at in place])
    table.insert(3, "step", [int(steps[at]) for at in place])
    table["floor"] = asked.floor
    return table


def with_prompts(
    rows: Iterable[dict[str, Any]], less: Sequence[Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Give rows their interval over prompts, from the same rows with prompts left out.

    Parameters
    ----------
    rows
        Of `line_table`, with all prompts.
    less
        The same without one prompt of every word, see `Asked.less_prompts`; lines that are not
        there get no interval.
    """
    parts = [{_mark(row): row["value"] for row in some} for some in less]
    found = []
    for row in rows:
        rest = [part.get(_mark(row), float("nan")) for part in parts]
        found.append(row | over_prompts(row["value"], rest, row["bounds"]))
    return found


def over_prompts(
    value: float, rest: Sequence[float], bounds: tuple[float, float]
) -> dict[str, float]:
    """`prompts_low` and `prompts_high` of a number, from it with prompts left out in turn."""
    found = jackknife(value, rest).within(*bounds)
    return dict(zip(_OVER_PROMPTS, (found.low, found.high), strict=True))


def _mark(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["panel"], row["line"], row["place"]


def value_at(table: pd.DataFrame, panel: str, line: str, checkpoint: str) -> dict[str, float]:
    """Value and both intervals of one line at one checkpoint; NaN if there is no such mark."""
    here = (table["panel"] == panel) & (table["line"] == line)
    rows = table[here & (table["checkpoint"] == checkpoint)]
    names = ("value", "low", "high", *_OVER_PROMPTS)
    if not len(rows):
        return dict.fromkeys(names, float("nan"))
    found = rows.iloc[0]
    return {name: float(found[name]) for name in names}


def short(found: Mapping[str, float], digits: int = 2, *, prompts: bool = False) -> str:
    """Write a number with its interval, and on request that over prompts where there is one."""
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if np.isnan(value):
        return "–"
    said = f"{value:.{digits}f}"
    if np.isfinite(low):
        said += f" [{low:.{digits}f}, {high:.{digits}f}]"
    low, high = (found.get(name, float("nan")) for name in _OVER_PROMPTS)
    if prompts and np.isfinite(low):
        said += f" (over prompts [{low:.{digits}f}, {high:.{digits}f}])"
    return said.replace("-", "−")


def _row(
    panel: str, line: str, place: int, found: Estimate, bounds: tuple[float, float]
) -> dict[str, Any]:
    found = found.within(*bounds)
    head = {"panel": panel, "line": line, "place": place, "bounds": bounds}
    return {**head, "value": found.value, "low": found.low, "high": found.high}
