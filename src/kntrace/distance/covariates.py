"""Covariates from a user's csv file: a number per word, or per pair of words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import xarray as xr

from kntrace.distance.base import Matrix
from kntrace.distance.corrections import PairCovariate, WordCovariate
from kntrace.documents import Rows, read_csv
from kntrace.errors import AnalysisError

__all__ = ["read_covariate"]

_WORD, _OTHER = "word", "other_word"
_FORMS = (
    "a header and columns `word` and numbers (one row a word), `word`, `other_word` and numbers "
    "(one row a pair), or the words themselves as columns (a square of numbers)"
)
_Key = TypeVar("_Key")


def read_covariate(
    path: str | Path, words: Sequence[str], column: str | None = None
) -> WordCovariate | PairCovariate:
    """Read a covariate from a csv file (UTF-8, comma, a header).

    Parameters
    ----------
    path
        One of three forms. One row a word: a column `word`, and columns of numbers. One row a
        pair: columns `word` and `other_word`, and columns of numbers; one direction is enough.
        A square: a column `word`, and one column for every word, symmetric.
    words
        The words that need a value; what the file says of others is passed over.
    column
        Which column of numbers; may be left out where there is one.

    Returns
    -------
    WordCovariate or PairCovariate
        By the name of its column, or of the file where this is a square.

    Raises
    ------
    AnalysisError
        If the file cannot be read or has none of these forms, if there is no such column, if a
        word or a pair is missing or stands there twice with different numbers, or if a cell is
        not a finite number.
    """
    path = Path(path)
    header, rows = read_csv(path, AnalysisError, _FORMS)
    if _WORD not in header:
        raise AnalysisError("no column `word`", where=path, expected=_FORMS)
    numbers = [name for name in header if name not in (_WORD, _OTHER)]
    if _OTHER in header:
        chosen = _chosen(path, numbers, column)
        return PairCovariate(chosen, _pairs(path, rows, words, chosen), f"{chosen} of {path.name}")
    if column is None and set(words) <= set(numbers):
        return PairCovariate(path.stem, _square(path, rows, words), f"the matrix {path.name}")
    chosen = _chosen(path, numbers, column)
    values: dict[str, float] = {}
    for line, row in enumerate(rows, start=2):
        if row[_WORD] in words:
            _enter(values, row[_WORD], row, chosen, path, line)
    return WordCovariate(chosen, values, f"difference in {chosen} of {path.name}")


def _chosen(path: Path, numbers: Sequence[str], column: str | None) -> str:
    """The column asked for, or the only one."""
    known = ", ".join(numbers[:20])
    if column is not None:
        if column in numbers:
            return column
        raise AnalysisError(
            f"no column {column!r}", where=path, expected=f"one of {known}" if known else _FORMS
        )
    if len(numbers) == 1:
        return numbers[0]
    raise AnalysisError(
        f"{len(numbers)} columns of numbers" if numbers else "no column of numbers",
        where=path,
        expected=f"one, or its name after a colon: one of {known}" if numbers else _FORMS,
    )


def _enter(
    values: dict[_Key, float], key: _Key, row: dict[str, str], column: str, path: Path, line: int
) -> None:
    """Put a cell's number under `key`, which may have the same number already."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    where = f"{path}, row {line}"
    if not math.isfinite(value):
        raise AnalysisError(
            f"{row[column]!r} in the column {column!r}", where=where, expected="a finite number"
        )
    if values.setdefault(key, value) != value:
        raise AnalysisError(
            f"{value:g} for {key!r}, which has {values[key]:g} further up",
            where=where,
            expected="one number",
        )


def _pairs(path: Path, rows: Rows, words: Sequence[str], column: str) -> xr.DataArray:
    places = {word: place for place, word in enumerate(words)}
    values: dict[tuple[str, str], float] = {}
    for line, row in enumerate(rows, start=2):
        first, second = row[_WORD], row[_OTHER]
        if first in places and second in places and first != second:
            key = (first, second) if places[first] < places[second] else (second, first)
            _enter(values, key, row, column, path, line)
    return _labelled(path, values, words)


def _square(path: Path, rows: Rows, words: Sequence[str]) -> xr.DataArray:
    places = {word: place for place, word in enumerate(words)}
    values: dict[tuple[str, str], float] = {}
    for line, row in enumerate(rows, start=2):
        for other in words:
            first = row[_WORD]
            if first in places and first != other:
                key = (first, other) if places[first] < places[other] else (other, first)
                _enter(values, key, row, other, path, line)
    return _labelled(path, values, words)


def _labelled(
    path: Path, values: dict[tuple[str, str], float], words: Sequence[str]
) -> xr.DataArray:
    matrix: Matrix = np.zeros((len(words), len(words)))
    for i, j in zip(*np.triu_indices(len(words), 1), strict=True):
        pair = words[int(i)], words[int(j)]
        if pair not in values:
            raise AnalysisError(
                f"no value for the words {pair[0]!r} and {pair[1]!r}",
                where=path,
                expected="one number for every pair",
            )
        matrix[i, j] = matrix[j, i] = values[pair]
    names = np.array(words, dtype=np.str_)
    return xr.DataArray(
        matrix, dims=(_WORD, _OTHER), coords={_WORD: names, _OTHER: names}, name="covariate"
    )
