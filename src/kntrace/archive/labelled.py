"""One labelled array in a folder of its own, for results that are too large for a table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec

from kntrace.archive import described
from kntrace.archive.bounded import opening
from kntrace.archive.chunks import CheckedStore
from kntrace.archive.folder import write_failure
from kntrace.archive.plain import refuse_links
from kntrace.errors import RunError

__all__ = ["CODECS", "load_array", "save_array"]

CODECS: tuple[Any, ...] = (ZstdCodec(level=3), Crc32cCodec())
_DEEPEST = 12


def save_array(path: str | Path, array: xr.DataArray) -> Path:
    """Write `array` with its coordinates and attributes to the zarr folder `path`.

    An array that is already there is replaced once the new one is whole.

    Parameters
    ----------
    path
        Folder to write, its parent included if need be.
    array
        Numbers with any dimensions; coordinates of numbers or text; attributes that JSON can
        express. Stored in one chunk per entry of the first dimension.

    Raises
    ------
    RunError
        If the folder cannot be written or the disk is full.
    """
    path = Path(path)
    name = str(array.name or "values")
    # As objects, text is stored in the variable-length type that zarr 3 specifies.
    dataset = _with_text_as(array, np.object_).to_dataset(name=name)
    chunks = (1, *(max(size, 1) for size in array.shape[1:])) if array.ndim else ()
    encoding: dict[Any, dict[str, Any]] = {
        key: {"compressors": CODECS} for key in (name, *dataset.coords)
    }
    if array.ndim:
        encoding[name]["chunks"] = chunks
    partial, old = (
        path.with_name(path.name + ".new.partial"),
        path.with_name(path.name + ".partial"),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        dataset.to_zarr(partial, zarr_format=3, consolidated=False, encoding=encoding)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise write_failure(path, error) from error
    return path


def load_array(path: str | Path, sizes: Mapping[str, int] | None = None) -> xr.DataArray:
    """Read an array written by `save_array`, whole, into memory.

    Parameters
    ----------
    path
        The folder.
    sizes
        Its dimensions, where they are known; another array is refused.

    Raises
    ------
    RunError
        If there is none, or if it is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError("no such array", where=path, expected="a folder written by kntrace")
    refuse_links(path, depth=_DEEPEST)
    described.refuse_strange(path, sizes)
    try:
        with opening():
            dataset = xr.open_dataset(
                CheckedStore(path, read_only=True),  # type: ignore[arg-type]
                engine="zarr",
                consolidated=False,
                chunks=None,
                zarr_format=3,
            )
        (name,) = dataset.load().data_vars
    except Exception as error:
        # Damaged metadata can fail anywhere inside zarr and xarray, with any error.
        found = error.found if isinstance(error, RunError) else f"cannot be read: {error}"
        raise RunError(found, where=path, fix="Remove it and make it again.") from error
    return _with_text_as(dataset[name], np.str_)


def _with_text_as(array: xr.DataArray, dtype: type[np.generic]) -> xr.DataArray:
    """Convert the array's coordinates of text to `dtype`."""
    text = {
        name: (coord.dims, np.asarray(coord.values, dtype=np.object_).astype(np.str_).astype(dtype))
        for name, coord in array.coords.items()
        if coord.dtype.kind in "OTU"
    }
    return array.assign_coords(text)
