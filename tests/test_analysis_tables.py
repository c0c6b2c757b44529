"""Tables of all pairs of words: piece by piece the same bytes as at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from kntrace.analysis import tables
from kntrace.overlap import Overlap

# Words that tables of other makes take for something else.
WORDS = ("NA", "1984", 'say "so", twice', "naïve 色", "a\nb", "ant", "bat")
GROUPS = ("Odd", "Odd", "Odd", "null", "null", "Beasts", "Beasts")

STATISTICS: dict[str, Any] = dict.fromkeys(("expected", "expected_sd", "within", "between"), 1.5)
STATISTICS |= {"chance": 0.0, "p": 0.5, "groups": {}}
STATISTICS |= dict.fromkeys(("total_neurons", "permutations", "seed"), 99)


def matrix(words: int, seed: int) -> xr.DataArray:
    values = np.random.default_rng(abs(seed)).standard_normal((words, words)) * 10.0 ** (7 * seed)
    values = np.triu(values, 1) + np.triu(values, 1).T
    names, groups = np.array(WORDS[:words]), np.array(GROUPS[:words])
    return xr.DataArray(
        values,
        dims=("word", "other_word"),
        coords={
            "word": names,
            "group": ("word", groups),
            "other_word": names,
            "other_group": ("other_word", groups),
        },
    )


def at_once(path: Path, matrices: dict[str, xr.DataArray], diagonal: int) -> None:
    """The whole table in memory, then in the file."""
    one = next(iter(matrices.values()))
    first, second = np.triu_indices(len(one), diagonal)
    words, groups = one["word"].values, one["group"].values
    columns = {"word": words[first], "group": groups[first]}
    columns |= {"other_word": words[second], "other_group": groups[second]}
    table = pd.DataFrame(columns | {name: m.values[first, second] for name, m in matrices.items()})
    table.to_csv(path, index=False, lineterminator="\n")


@pytest.mark.parametrize("piece", [1, 5, 20_000])
@pytest.mark.parametrize("words", [1, 2, 3, 7])
def test_pieces_make_the_bytes_of_the_whole(
    words: int, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_PIECE", piece)
    matrices = {"emd": matrix(words, 1), "emd | hub": matrix(words, -2)}
    at_once(tmp_path / "whole.csv", matrices, 1)
    tables.write_pairs(tmp_path / "pieces.csv", matrices)
    assert (tmp_path / "pieces.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    attrs = {"emd": {"unit": "probability²"}, "emd | hub": {"unit": ""}}
    found = tables.read_pairs(tmp_path / "pieces.csv", WORDS[:words], GROUPS[:words], attrs)
    for name, expected in matrices.items():
        xr.testing.assert_identical(
            found[name], expected.rename("distance").assign_attrs(attrs[name])
        )

    common = (abs(matrix(words, 1)) * 1e-5).astype(np.int64)
    common.values[np.diag_indices(words)] = 9
    overlap = Overlap(matrix=common.rename("overlap").assign_attrs(unit="neurons"), **STATISTICS)
    at_once(tmp_path / "whole.csv", {"overlap": common}, 0)
    tables.write_overlap(tmp_path / "pieces.csv", overlap)
    assert (tmp_path / "pieces.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    again = tables.read_overlap(tmp_path / "pieces.csv", WORDS[:words], GROUPS[:words], STATISTICS)
    xr.testing.assert_identical(again.matrix, overlap.matrix)


@pytest.mark.parametrize("piece", [1, 8, 20_000])
@pytest.mark.parametrize("diagonal", [True, False])
def test_pieces_hold_every_pair_in_order(
    piece: int, diagonal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_PIECE", piece)
    pieces = list(tables._triangle(9, diagonal))
    first, second = (np.concatenate(places) for places in zip(*pieces, strict=True))
    np.testing.assert_array_equal([first, second], np.triu_indices(9, 0 if diagonal else 1))
    assert max(len(some) for some, _ in pieces) <= max(piece, 9)


@pytest.mark.parametrize("rows", [-1, 1])
def test_other_than_all_pairs_are_refused(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_PIECE", 5)
    tables.write_pairs(tmp_path / "pairs.csv", {"emd": matrix(4, 1)})
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    lines = lines[:rows] if rows < 0 else [*lines, lines[-1]]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="pairs than 4 words have"):
        tables.read_pairs(tmp_path / "pairs.csv", WORDS[:4], GROUPS[:4], {"emd": {}})
