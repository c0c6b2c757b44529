"""The archive inside: how the variables and coordinates of a run lie in zarr."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.storage import LocalStore

from kntrace.archive.chunks import CheckedStore
from kntrace.archive.identity import identity
from kntrace.archive.labelled import CODECS
from kntrace.archive.variables import COORDINATES, VARIABLES, Variable, kept
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite

__all__ = [
    "FINGERPRINT_BYTES",
    "FORMAT",
    "coordinates",
    "create_arrays",
    "labelled_as",
    "open_dataset",
    "open_variable",
    "sizes",
]

FORMAT = 2
FINGERPRINT_BYTES = 32

_OPENING = threading.Lock()


def sizes(study: Study, suite: Suite, layers: int, width: int) -> dict[str, int]:
    """Size of each dimension of a run's archive."""
    return {
        "checkpoint": len(suite),
        "word": len(study.words),
        "prompt": len(study.slots),
        "layer": layers,
        "neuron": width,
        "byte": FINGERPRINT_BYTES,
    }


def labelled_as(
    dataset: xr.Dataset,
    study: Study,
    suite: Suite,
    settings: Settings,
    lengths: Mapping[str, int],
) -> bool:
    """Whether the archive has the variables of its settings, and its study's and suite's labels."""
    wanted = coordinates(study, suite, lengths)
    return set(dataset.variables) == {*kept(VARIABLES, settings), *wanted} and all(
        dataset[name].values.tolist() == values.tolist() for name, (_, values) in wanted.items()
    )


def coordinates(
    study: Study, suite: Suite, sizes: Mapping[str, int]
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
        "layer": range(sizes["layer"]),
        "neuron": range(sizes["neuron"]),
    }
    return {
        name: (variable.dims[0], np.array(values[name], dtype=_numpy_type(variable)))
        for name, variable in COORDINATES.items()
    }


def _numpy_type(variable: Variable) -> Any:
    return np.str_ if variable.dtype == "string" else variable.dtype


def create_arrays(
    scores: Path, study: Study, suite: Suite, settings: Settings, sizes: Mapping[str, int]
) -> None:
    """Write the archive's description and its coordinates, and no scores."""
    group = zarr.create_group(
        LocalStore(scores),
        zarr_format=3,
        attributes={
            "kntrace_format": FORMAT,
            "run": identity(study, suite, settings),
            "study": study.digest,
            "suite": suite.digest,
            "settings": settings.digest,
        },
    )
    for name in kept(VARIABLES, settings):
        variable = VARIABLES[name]
        leading = len([dim for dim in variable.dims if dim in ("checkpoint", "word")])
        shape = tuple(sizes[dim] for dim in variable.dims)
        group.create_array(
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
    for name, (dim, values) in coordinates(study, suite, sizes).items():
        variable = COORDINATES[name]
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=variable.dtype,
            compressors=CODECS,
            dimension_names=(dim,),
            attributes=_described(variable),
            config={"write_empty_chunks": True},
        )
        array[:] = values.astype(np.object_) if variable.dtype == "string" else values


def _described(variable: Variable) -> dict[str, Any]:
    described = {"description": variable.description}
    return described | {"unit": variable.unit} if variable.unit else described


def open_dataset(scores: Path) -> xr.Dataset:
    """Open the archive as it is, reading the coordinates and nothing else."""
    return xr.open_dataset(
        CheckedStore(scores, read_only=True),  # type: ignore[arg-type]
        engine="zarr",
        chunks=None,
        cache=False,
        consolidated=False,
    )


def open_variable(scores: Path, name: str, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open one variable so that what is written to it is stored, whatever it is.

    zarr would leave out chunks that hold nothing but the fill value; here a block is done
    because it was written, not because of its values.
    """
    # The option of `open_array` reaches only new arrays; those that exist take the global one
    # as they find it, hence the lock.
    with _OPENING, zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(LocalStore(scores, read_only=mode == "r"), path=name, mode=mode)
