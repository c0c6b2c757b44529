"""Labelled arrays in files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from archives import flip, truncate
from kntrace.archive import (
    load_array,
    save_array,
)
from kntrace.errors import RunError


def labelled() -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((3, 4, 5))
    values[0, 1, 2] = np.nan
    return xr.DataArray(
        values,
        dims=("word", "rank", "checkpoint"),
        coords={
            "word": ["Cat", "色/", "x"],
            "group": ("word", np.array(["a", "bb", "a"], dtype=object)),
            "step": ("checkpoint", np.arange(5)),
            "layer": (("word", "rank"), np.arange(12).reshape(3, 4)),
        },
        name="formation",
        attrs={"unit": "probability", "k": 4},
    )


def test_an_array_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = labelled()
    path = save_array(tmp_path / "new" / "formation.zarr", saved)
    expected = saved.assign_coords(group=saved["group"].astype(np.str_))
    xr.testing.assert_identical(load_array(path), expected)
    save_array(path, saved * 2)
    np.testing.assert_array_equal(load_array(path).values, 2 * saved.values)
    assert [item.name for item in path.parent.iterdir()] == ["formation.zarr"]


def test_an_array_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such array"):
        load_array(tmp_path / "none.zarr")
    path = save_array(tmp_path / "a.zarr", labelled())
    file = next(item for item in (path / "formation" / "c").rglob("*") if item.is_file())
    flip(file)
    with pytest.raises(RunError, match=r"of 'formation' is damaged.*make it again"):
        load_array(path)
    truncate(path / "formation" / "zarr.json")
    with pytest.raises(RunError, match=r"cannot be read.*make it again"):
        load_array(path)
