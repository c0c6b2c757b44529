"""The archive inside: how the variables and coordinates of a run lie in zarr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from numcodecs.vlen import VLenUTF8
from zarr.abc.store import Store
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore, MemoryStore

from kntrace.archive.bounded import opening
from kntrace.archive.chunks import CheckedStore, unpack
from kntrace.archive.identity import identity
from kntrace.archive.labelled import CODECS
from kntrace.archive.variables import (
    EVERY_COORDINATE,
    EVERY_VARIABLE,
    KEPT_DISTANCES,
    OF_WORDS,
    VARIABLES,
    Variable,
    kept,
    kept_coordinates,
    of_words,
)
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite

__all__ = [
    "FINGERPRINT_BYTES",
    "FORMAT",
    "coordinates",
    "create_arrays",
    "descriptions",
    "labelled_as",
    "open_dataset",
    "open_variable",
    "say_of_what",
    "sizes",
]

FORMAT = 2
FINGERPRINT_BYTES = 32


def sizes(study: Study, suite: Suite, layers: int, width: int, kept: int = 0) -> dict[str, int]:
    """Size of each dimension of a run's archive; `kept` neurons of the word with the most."""
    return {
        "checkpoint": len(suite),
        "word": len(study.words),
        "prompt": len(study.slots),
        "mean_over": len(_wordings(study)),
        "layer": layers,
        "neuron": width,
        "byte": FINGERPRINT_BYTES,
        "kept": kept,
        "other_word": len(study.words),
    }


def _wordings(study: Study) -> tuple[str, ...]:
    """Names of the wordings, the main one first."""
    return tuple(dict.fromkeys(wording for wording, _ in study.slots))


def labelled_as(
    scores: Path, study: Study, suite: Suite, settings: Settings, lengths: Mapping[str, int]
) -> bool:
    """Whether the archive has the labels of this study and suite."""
    for name, (_, values) in coordinates(study, suite, settings, lengths).items():
        text = values.dtype.kind == "U"
        stored = VLenUTF8().encode(values.astype(np.object_)) if text else values.tobytes()
        try:
            found = unpack(scores / name / "c" / "0", len(stored))
        except (OSError, ValueError, RuntimeError):
            return False
        if found.tobytes() != bytes(stored):
            return False
    return True


def coordinates(
    study: Study, suite: Suite, settings: Settings, sizes: Mapping[str, int]
) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Values of every coordinate, with the dimension it runs along."""
    steps = [-1 if item.step is None else item.step for item in suite.checkpoints]
    values: dict[str, Any] = {
        "checkpoint": [item.label for item in suite.checkpoints],
        "step": steps,
        "word": [word.text for word in study.words],
        "group": [word.group for word in study.words],
        "prompt": range(sizes["prompt"]),
        "wording": [wording for wording, _ in study.slots],
        "mean_over": _wordings(study),
        "layer": range(sizes["layer"]),
        "neuron": range(sizes["neuron"]),
    }
    return {
        name: (
            EVERY_COORDINATE[name].dims[0],
            np.array(values[name], dtype=_numpy_type(EVERY_COORDINATE[name])),
        )
        for name in kept_coordinates(settings)
    }


def _numpy_type(variable: Variable) -> Any:
    return np.str_ if variable.dtype == "string" else variable.dtype


def create_arrays(
    scores: Path, study: Study, suite: Suite, settings: Settings, sizes: Mapping[str, int]
) -> None:
    """Write the archive's description and its coordinates, and no scores."""
    attributes = {
        "kntrace_format": FORMAT,
        "run": identity(study, suite, settings),
        "study": study.digest,
        "suite": suite.digest,
        "settings": settings.digest,
    }
    arrays = _create_empty(LocalStore(scores), sizes, settings, attributes)
    for name, (_, values) in coordinates(study, suite, settings, sizes).items():
        text = values.dtype.kind == "U"
        arrays[name][:] = values.astype(np.object_) if text else values


def descriptions(sizes: Mapping[str, int], settings: Settings) -> dict[str, ArrayV3Metadata]:
    """What the archive says of each of its arrays: all but their attributes."""
    arrays = _create_empty(MemoryStore(), sizes, settings, {})
    return {name: cast("ArrayV3Metadata", array.metadata) for name, array in arrays.items()}


def _create_empty(
    store: Store, sizes: Mapping[str, int], settings: Settings, attributes: dict[str, Any]
) -> dict[str, zarr.Array[Any]]:
    group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    arrays = {}
    for name in (*kept(VARIABLES, settings), *of_words(settings)):
        variable = EVERY_VARIABLE[name]
        blocks = [dim for dim in variable.dims if dim in ("checkpoint", "word")]
        leading = 1 if name in OF_WORDS else len(blocks)
        shape = tuple(sizes[dim] for dim in variable.dims)
        arrays[name] = group.create_array(
            name,
            shape=shape,
            chunks=(1,) * leading + shape[leading:],
            dtype=variable.dtype,
            fill_value=variable.fill,
            compressors=CODECS,
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=variable.dims,
            attributes=_described(variable),
        )
    for name in kept_coordinates(settings):
        variable = EVERY_COORDINATE[name]
        shape = (sizes[variable.dims[0]],)
        arrays[name] = group.create_array(
            name,
            shape=shape,
            chunks=shape,
            dtype=variable.dtype,
            compressors=CODECS,
            dimension_names=variable.dims,
            attributes=_described(variable),
            config={"write_empty_chunks": True},
        )
    return arrays


def _described(variable: Variable) -> dict[str, Any]:
    described = {"description": variable.description}
    return described | {"unit": variable.unit} if variable.unit else described


def open_dataset(scores: Path) -> xr.Dataset:
    """Open the archive's variables, without their coordinates; nothing is read yet."""
    with opening():
        return xr.open_dataset(
            CheckedStore(scores, read_only=True),  # type: ignore[arg-type]
            engine="zarr",
            chunks=None,
            cache=False,
            decode_cf=False,
            drop_variables=list(EVERY_COORDINATE),
            consolidated=False,
            zarr_format=3,
        )


def say_of_what(dataset: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Give arrays that only some neurons are left of what their readers have to know.

    That is `top`, and how many checkpoints distances were taken over: also where just a part of
    the arrays is looked at.
    """
    if settings.top is not None:
        dataset["kept_score"].attrs["top"] = settings.top
        for name in KEPT_DISTANCES:
            dataset[name].attrs["checkpoints"] = dataset.sizes["checkpoint"]
    return dataset


def open_variable(scores: Path, name: str, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open one variable so that what is written to it is stored, whatever it is.

    zarr would leave out chunks that hold nothing but the fill value; here a block is done
    because it was written, not because of its values.
    """
    # The option of `open_array` reaches only new arrays; those that exist take the global one
    # as they find it.
    with opening(**{"array.write_empty_chunks": True}):
        return zarr.open_array(LocalStore(scores, read_only=mode == "r"), path=name, mode=mode)
