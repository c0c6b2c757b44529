"""Labelled arrays as tables for files, and back, without the loss of a bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as parquet
import xarray as xr
from pandas.io.parsers import TextFileReader

from kntrace.analysis.declared import declared
from kntrace.contrasts import Contrast
from kntrace.emergence import EARLY_COLUMNS, Early, FormationTimes
from kntrace.labels import between_words
from kntrace.overlap import Overlap

__all__ = [
    "contrast_table",
    "early_table",
    "neuron_table",
    "neuron_times",
    "read_contrasts",
    "read_early",
    "read_neurons",
    "read_overlap",
    "read_pairs",
    "read_table",
    "write_overlap",
    "write_pairs",
]

_Places = npt.NDArray[np.integer]
# Pairs of words that are written or read at a time, unless one word has more.
_PIECE = 20_000
_PAIR = ("word", "group", "other_word", "other_group")
_LEVELS = ("overall", "macro", "group", "word")
# Columns of text: a word may be called "NA" or "1984", and stays that.
_TEXT = (*_PAIR, "distance", "level", "name", "test", "checkpoint")


def neuron_table(chosen: xr.Dataset) -> pd.DataFrame:
    """One row per word and rank: word, group, rank, layer, neuron, score."""
    words, ranks = chosen.sizes["word"], chosen.sizes["rank"]
    return pd.DataFrame(
        {
            "word": np.repeat(chosen["word"].values, ranks),
            "group": np.repeat(chosen["group"].values, ranks),
            "rank": np.tile(chosen["rank"].values, words),
            **{
                name: chosen[name].transpose("word", "rank").values.ravel()
                for name in ("layer", "neuron", "score")
            },
        }
    )


def read_neurons(
    path: Path, words: Sequence[str], groups: Sequence[str], k: int, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Read `neuron_table` of `k` neurons a word back."""
    columns, rows = ["layer", "neuron", "score"], parquet.read_metadata(path).num_rows
    if rows != len(words) * k:
        raise ValueError(f"{rows:,} rows for {len(words):,} words with {k:,} neurons each")
    table = pd.read_parquet(path, columns=columns)
    shape = len(words), k
    return xr.Dataset(
        {name: (("word", "rank"), table[name].to_numpy().reshape(shape)) for name in columns},
        coords={
            "word": np.array(words, dtype=np.str_),
            "group": ("word", np.array(groups, dtype=np.str_)),
            "rank": np.arange(shape[1], dtype=np.int64),
        },
        attrs=dict(attrs),
    )


def write_pairs(path: Path, matrices: Mapping[str, xr.DataArray]) -> None:
    """Write one row per pair of words, one column per distance, a few rows at a time."""
    _write_triangle(path, matrices, diagonal=False)


def read_pairs(
    path: Path,
    words: Sequence[str],
    groups: Sequence[str],
    attrs: Mapping[str, Mapping[str, Any]],
) -> dict[str, xr.DataArray]:
    """Read what `write_pairs` wrote back, as symmetric matrices with zero diagonal."""
    found = _read_triangle(path, list(attrs), len(words), np.float64, diagonal=False)
    return {
        name: between_words(found[name], words, groups, "distance", entry)
        for name, entry in attrs.items()
    }


def write_overlap(path: Path, overlap: Overlap) -> None:
    """Write one row per pair of words with the neurons in common; a word has all its own."""
    _write_triangle(path, {"overlap": overlap.matrix}, diagonal=True)


def read_overlap(
    path: Path, words: Sequence[str], groups: Sequence[str], entries: Mapping[str, Any]
) -> Overlap:
    """Read what `write_overlap` wrote back, with the statistics beside it."""
    found = _read_triangle(path, ["overlap"], len(words), np.int64, diagonal=True)["overlap"]
    matrix = between_words(found, words, groups, "overlap", {"unit": "neurons"})
    entries = declared(Overlap, entries, "matrix")
    return Overlap(matrix=matrix, **entries)


def contrast_table(contrasts: Mapping[str, Contrast]) -> pd.DataFrame:
    """One row per distance and overall, mean over groups, group or word."""
    parts = []
    for distance, found in contrasts.items():
        size = {"words": len(found.words)}
        overall = pd.DataFrame([{"name": "all", **size, **found.overall}])
        macro = pd.DataFrame([{"name": "mean of groups", **size, **found.macro}])
        groups = found.groups.rename(columns={"group": "name"})
        words = found.words.rename(columns={"word": "name"})
        for level, part in zip(_LEVELS, (overall, macro, groups, words), strict=True):
            parts.append(part.assign(distance=distance, level=level))
    table = pd.concat(parts, ignore_index=True)
    first = ["distance", "level", "name", "group"]
    # Counts have gaps where a level has none of them, and stay whole numbers.
    counts = dict.fromkeys(("words", "above", "others"), "Int64")
    return table[[*first, *(name for name in table if name not in first)]].astype(counts)


def read_contrasts(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Contrast]:
    """Read `contrast_table` back, with what `Contrast.to_dict` says beside it."""
    table = _read_csv(path)
    contrasts = {}
    for distance, entry in entries.items():
        overall, macro, groups, words = (
            table[(table["distance"] == distance) & (table["level"] == level)] for level in _LEVELS
        )
        contrasts[distance] = Contrast(
            distance=distance,
            words=_columns(words, {"name": "word"}, Contrast.WORD_COLUMNS),
            groups=_columns(groups, {"group": "", "name": "group"}, Contrast.GROUP_COLUMNS),
            overall=_row(_columns(overall, {}, ("above", "others", *Contrast.MEASURES))),
            macro=_row(_columns(macro, {}, Contrast.MEASURES)),
            permutations=entry["permutations"],
            seed=entry["seed"],
            notes=tuple(entry["notes"]),
        )
    return contrasts


def neuron_times(chosen: xr.Dataset, times: FormationTimes) -> pd.DataFrame:
    """One row per word and rank: which neuron it is, and its half-rise among the checkpoints."""
    table = neuron_table(chosen).drop(columns="score")
    return table.assign(half_rise=times.neurons.transpose("word", "rank").values.ravel())


def early_table(early: Early) -> pd.DataFrame:
    """One row per word and checkpoint, then one per checkpoint over all words."""
    over = early.checkpoints.assign(level="overall", word="", group="")
    table = pd.concat([early.table.assign(level="word"), over], ignore_index=True)
    return table[["level", *(name for name in table if name != "level")]]


def read_early(path: Path, entries: Mapping[str, Any]) -> Early:
    """Read `early_table` back, with what `Early.to_dict` says beside it."""
    table = _read_csv(path)
    words, over = (table[table["level"] == level] for level in ("word", "overall"))
    columns = ["checkpoint", "own", "same_group", "other_groups", "p"]
    return Early(
        table=words[list(EARLY_COLUMNS)].astype({"own": np.int64}).reset_index(drop=True),
        checkpoints=over[columns].reset_index(drop=True),
        **declared(Early, entries, "table", "checkpoints"),
    )


def read_table(path: Path, columns: Sequence[str], *, counts: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that was written as it is; `counts` are columns of whole numbers."""
    return _read_csv(path)[list(columns)].astype(dict.fromkeys(counts, np.int64))


def _columns(table: pd.DataFrame, names: Mapping[str, str], columns: Sequence[str]) -> pd.DataFrame:
    renamed = table.rename(columns=dict(names))[list(columns)].reset_index(drop=True)
    counts = {name: np.int64 for name in ("words", "above", "others") if name in columns}
    return renamed.astype(counts)


def _row(table: pd.DataFrame) -> dict[str, Any]:
    """Turn a table of one row into plain numbers by column."""
    return {str(name): column.item() for name, column in table.items()}


def _triangle(words: int, diagonal: bool) -> Iterator[tuple[_Places, _Places]]:
    """Pairs of words, the upper triangle row by row, as many rows at a time as make a piece."""
    start = 0
    while start < words:
        # Rows become shorter: as many as fit if all were as long as the first.
        stop = min(words, start + max(1, _PIECE // (words - start)))
        rows = np.arange(start, stop)
        others = [np.arange(row if diagonal else row + 1, words) for row in rows]
        yield np.repeat(rows, [len(some) for some in others]), np.concatenate(others)
        start = stop


def _write_triangle(path: Path, matrices: Mapping[str, xr.DataArray], *, diagonal: bool) -> None:
    one = next(iter(matrices.values()))
    words, groups = one["word"].values, one["group"].values
    values = {
        name: matrix.transpose("word", "other_word").values for name, matrix in matrices.items()
    }
    none: _Places = np.zeros(0, dtype=np.int64)
    with path.open("w", encoding="utf-8", newline="") as file:
        for first, second in chain([(none, none)], _triangle(len(words), diagonal)):
            named = (words[first], groups[first], words[second], groups[second])
            piece = pd.DataFrame(dict(zip(_PAIR, named, strict=True)))
            for name, matrix in values.items():
                piece[name] = matrix[first, second]
            # The piece of no rows, which comes first, is the header.
            piece.to_csv(file, index=False, lineterminator="\n", header=first is none)


def _read_triangle(
    path: Path, names: Sequence[str], words: int, kind: npt.DTypeLike, *, diagonal: bool
) -> dict[str, npt.NDArray[Any]]:
    """Read matrices back, a few rows at a time; raises `ValueError` if rows are not as many."""
    found = {name: np.zeros((words, words), dtype=kind) for name in names}
    with pd.read_csv(
        path, dtype=str, keep_default_na=False, usecols=[*_PAIR, *names], iterator=True
    ) as reader:
        for first, second in _triangle(words, diagonal):
            if not len(first):
                continue
            piece = _next(reader, len(first))
            if len(piece) < len(first):
                raise ValueError(f"fewer pairs than {words:,} words have")
            for name, matrix in found.items():
                matrix[first, second] = matrix[second, first] = _numbers(piece[name])
        if len(_next(reader, 1)):
            raise ValueError(f"more pairs than {words:,} words have")
    return found


def _next(reader: TextFileReader, rows: int) -> pd.DataFrame:
    try:
        return reader.get_chunk(rows)
    except StopIteration:
        return pd.DataFrame()


def _numbers(column: pd.Series[Any]) -> list[float]:
    """Numbers to the last bit, whatever pandas would make of them by itself."""
    return [float(value) if value else math.nan for value in column]


def _read_csv(path: Path) -> pd.DataFrame:
    """Read text as text, and numbers to the last bit, whatever pandas makes of them by itself."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in table:
        if name not in _TEXT:
            table[name] = _numbers(table[name])
    return table
