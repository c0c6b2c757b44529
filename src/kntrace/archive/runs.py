"""A run: the folder that holds a study's scores over a suite's checkpoints.

The unit of work is the block, one word at one checkpoint. Its chunks are written one by one,
each of them whole or not at all, the scores last; it is done when all of them are there and
pass their checksum, whatever values they hold. So a run can be killed at any moment, and two
processes may write different blocks at once.

Chunks are not forced to the disk one by one (no fsync). After a loss of power the last ones
may be empty or torn; their checksum tells, and the next run computes them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.storage import LocalStore

from kntrace.archive import chunks, folder
from kntrace.archive.identity import identity
from kntrace.archive.labelled import CODECS
from kntrace.archive.variables import BLOCK_VARIABLES, COORDINATES, VARIABLES, Block, Variable
from kntrace.errors import KntraceError, RunError
from kntrace.progress import Progress, silent
from kntrace.settings import Settings
from kntrace.study import Study, load_study
from kntrace.suite import Suite, load_suite

__all__ = ["Run", "create_run", "open_run"]

_FORMAT = 1
_FINGERPRINT_BYTES = 32


class Run:
    """An opened run folder; get one from `open_run`, `create_run` or `kntrace.run`.

    Attributes
    ----------
    path
        The run folder.
    study, suite, settings
        What the run was made from: the frozen copies in its folder.
    layers, width
        Layers of the model, and neurons in each.
    """

    def __init__(
        self,
        path: Path,
        study: Study,
        suite: Suite,
        settings: Settings,
        *,
        layers: int,
        width: int,
    ) -> None:
        self.path = path
        self.study = study
        self.suite = suite
        self.settings = settings
        self.layers = layers
        self.width = width

    def __repr__(self) -> str:
        checkpoints, words = self.shape
        return (
            f"Run({str(self.path)!r}: {checkpoints} checkpoints x {words} words, "
            f"{self.layers} layers x {self.width} neurons)"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of checkpoints and of words: the blocks of the run."""
        return len(self.suite), len(self.study.words)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Size of each dimension of the archive."""
        return _sizes(self.study, self.suite, self.layers, self.width)

    @property
    def scores(self) -> xr.Dataset:
        """All that was measured, as labelled arrays that are read when they are used.

        Dimensions `checkpoint`, `word`, `prompt`, `layer`, `neuron`; variables `score`, `gap`,
        `probability`, `rank` and `fingerprint` (hex text, "" where there is none), described
        in `kntrace.archive.VARIABLES`. Blocks that are not done read as NaN (rank: -1); use
        `require_complete` where that would mislead. Nothing read is kept in memory.
        """
        dataset = _open_dataset(self._scores).drop_vars("fingerprint")
        prints = [self.fingerprint(place) or "" for place in range(len(self.suite))]
        described = {"description": VARIABLES["fingerprint"].description}
        return dataset.assign(
            fingerprint=("checkpoint", np.array(prints, dtype=np.str_), described)
        ).assign_coords(_coordinates(self.study, self.suite, self.sizes))

    def missing(self) -> list[tuple[int, int]]:
        """List the blocks that are not there, as (checkpoint, word) positions in order.

        Costs one directory listing a variable, whatever the number of blocks.
        """
        return _pairs(~self._present())

    def damaged(self, progress: Progress = silent) -> list[tuple[int, int]]:
        """List the blocks that are there but fail a checksum, or whose fingerprint does.

        Reads every chunk, at the speed of the disk; `progress` counts blocks in the stage
        `verify`.
        """
        present = _pairs(self._present())
        unproven = {
            place for place in {pair[0] for pair in present} if self.fingerprint(place) is None
        }
        damaged = []
        for done, (checkpoint, word) in enumerate(present):
            progress("verify", done, len(present), self.describe(checkpoint, word))
            files = chunks.block_chunks(self._scores, checkpoint, word)
            if checkpoint in unproven or not all(map(chunks.intact, files)):
                damaged.append((checkpoint, word))
        progress("verify", len(present), len(present))
        return damaged

    def require_complete(self) -> None:
        """Raise `RunError`, naming what lacks, unless every block is done."""
        from kntrace.archive.identity import shortlist

        for kind, pairs in (("missing", self.missing()), ("damaged", self.damaged())):
            if pairs:
                total = self.shape[0] * self.shape[1]
                named = shortlist([self.describe(*pair) for pair in pairs])
                raise RunError(
                    f"{len(pairs)} of {total} blocks are {kind}: {named}",
                    where=self.path,
                    expected="a finished run",
                    fix="`kntrace run` with the same study, suite and --out computes them.",
                )

    def describe(self, checkpoint: int, word: int) -> str:
        """Name a block for a reader: its checkpoint's label and its word."""
        return f"{self.suite.checkpoints[checkpoint].label} · {self.study.words[word].text}"

    def write_block(self, checkpoint: int, word: int, block: Block) -> None:
        """Commit one block; a block already there is replaced, chunk by chunk.

        Raises
        ------
        RunError
            If it cannot be written; then it is not done, and all others are as they were.
        ValueError
            If the block's arrays do not have this run's shapes.
        """
        for name in BLOCK_VARIABLES:
            value = np.asarray(getattr(block, name))
            expected = tuple(self.sizes[dim] for dim in VARIABLES[name].dims[2:])
            if value.shape != expected:
                raise ValueError(f"{name} has shape {value.shape}, this run's is {expected}")
        for name in BLOCK_VARIABLES:
            self._write(name, (checkpoint, word), np.asarray(getattr(block, name)))

    def fingerprint(self, checkpoint: int) -> str | None:
        """SHA-256 (hex) of the weights the checkpoint's blocks come from, None if not known."""
        place = self._scores / "fingerprint" / chunks.chunk_name("fingerprint", checkpoint)
        if not chunks.intact(place):
            return None
        return bytes(np.asarray(self._array("fingerprint")[checkpoint])).hex()

    def write_fingerprint(self, checkpoint: int, fingerprint: str) -> None:
        """Record the weights' SHA-256 (hex), before the checkpoint's first block is written.

        Raises
        ------
        RunError
            If another one is recorded: the weights have changed, and nothing is overwritten.
        """
        recorded = self.fingerprint(checkpoint)
        if recorded == fingerprint:
            return
        if recorded is not None:
            label = self.suite.checkpoints[checkpoint].label
            raise RunError(
                f"the weights of {label!r} have changed since its blocks were computed "
                f"(fingerprint {recorded[:12]}, now {fingerprint[:12]})",
                where=self.path,
                fix="Bring the former weights back, or give another --out for a new run.",
            )
        value = np.frombuffer(bytes.fromhex(fingerprint), dtype=np.uint8)
        if value.size != _FINGERPRINT_BYTES:
            raise ValueError(f"a fingerprint has {_FINGERPRINT_BYTES} bytes, not {value.size}")
        # Blocks whose fingerprint was lost cannot be told from blocks of other weights.
        self._discard(checkpoint)
        self._write("fingerprint", (checkpoint,), value)

    @property
    def provenance(self) -> dict[str, Any]:
        """How, when and with what the run was computed; empty if the record was removed."""
        place = self.path / folder.PROVENANCE
        try:
            record = json.loads(place.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            record = error
        if not isinstance(record, dict):
            raise RunError(
                "the record of how the run was computed cannot be read",
                where=place,
                fix="Remove the file: it holds no scores.",
            )
        return record

    def update_provenance(self, entries: Mapping[str, Any]) -> None:
        """Replace these entries of the record; values are whatever JSON can express."""
        record = self.provenance | dict(entries)
        text = json.dumps(record, indent=2, ensure_ascii=False)
        folder.write_text(self.path / folder.PROVENANCE, text + "\n")

    @property
    def _scores(self) -> Path:
        return self.path / folder.SCORES

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array]:
        return {}

    def _array(self, name: str) -> zarr.Array:
        if name not in self._arrays:
            # Chunks that hold only the fill value are chunks all the same: a block is done
            # because it was written, not because of its values.
            self._arrays[name] = zarr.open_array(
                LocalStore(self._scores),
                path=name,
                mode="r+",
                config={"write_empty_chunks": True},
            )
        return self._arrays[name]

    def _write(self, name: str, index: tuple[int, ...], value: npt.NDArray[Any]) -> None:
        chunk = tuple(slice(place, place + 1) for place in index)
        try:
            self._array(name)[chunk] = value[(None,) * len(index)]
        except OSError as error:
            raise folder.write_failure(self._scores / name, error) from error

    def _discard(self, checkpoint: int) -> None:
        """Remove all blocks of one checkpoint, each one's commit mark first."""
        for word in range(len(self.study.words)):
            for file in reversed(chunks.block_chunks(self._scores, checkpoint, word)):
                file.unlink(missing_ok=True)

    def _present(self) -> npt.NDArray[np.bool_]:
        """Which blocks have all their chunks, as (checkpoint, word) truth values."""
        listed = [chunks.existing(self._scores / name, self.shape) for name in BLOCK_VARIABLES]
        return np.logical_and.reduce(listed)


def create_run(
    path: str | Path,
    study: Study,
    suite: Suite,
    settings: Settings,
    *,
    layers: int,
    width: int,
) -> Run:
    """Make the run folder `path`, empty of scores.

    The folder becomes a run in one last step, so that a run killed while it is being made
    leaves something that the next call completes.

    Raises
    ------
    RunError
        If `path` is a run already, a file, or a folder with something else in it, or cannot
        be written.
    """
    path = Path(path)
    folder.claim_folder(path)
    if (path / folder.SCORES).exists():
        raise RunError("a run already", where=path, fix="Open it with kntrace.open_run.")
    folder.remove_leftovers(path)
    begun = path / folder.BEGUN
    try:
        begun.mkdir()
        for name in (folder.ANALYSIS, folder.FIGURES):
            (path / name).mkdir(exist_ok=True)
        folder.write_text(path / folder.STUDY, study.to_yaml())
        folder.write_text(path / folder.SUITE, suite.to_yaml())
        folder.write_text(path / folder.SETTINGS, settings.to_yaml())
        folder.write_text(path / folder.PROVENANCE, "{}\n")
        _create_arrays(begun, study, suite, settings, _sizes(study, suite, layers, width))
        begun.rename(path / folder.SCORES)
    except OSError as error:
        raise folder.write_failure(path, error) from error
    return open_run(path)


def open_run(path: str | Path) -> Run:
    """Open the run folder `path`, finished or not.

    Raises
    ------
    RunError
        If there is no run, if it cannot be read, or if the frozen copies of its study, suite
        or settings were changed since it was made.
    """
    path = Path(path)
    _refuse_no_run(path)
    try:
        attributes = dict(zarr.open_group(LocalStore(path / folder.SCORES), mode="r").attrs)
        dataset = _open_dataset(path / folder.SCORES)
        found = {str(dim): size for dim, size in dataset.sizes.items()}
        version, layers, width = attributes["kntrace_format"], found["layer"], found["neuron"]
    except Exception as error:
        # Damaged metadata can fail anywhere inside zarr and xarray, with any error.
        raise RunError(
            f"the archive's description cannot be read ({type(error).__name__}: {error})",
            where=path / folder.SCORES,
            fix="Bring the folder back from a copy, or remove it and run again.",
        ) from error
    if version != _FORMAT:
        raise RunError(
            f"an archive of format {version}",
            where=path / folder.SCORES,
            expected=f"format {_FORMAT}",
            fix="Use the version of kntrace that made it.",
        )
    study, suite, settings = _frozen_copies(path, attributes)
    run = Run(path, study, suite, settings, layers=layers, width=width)
    wanted = {dim: size for dim, size in run.sizes.items() if dim in found}
    labels = _coordinates(study, suite, run.sizes)
    if found != wanted or any(
        dataset[name].values.tolist() != values.tolist() for name, (_, values) in labels.items()
    ):
        raise RunError("its labels are not those of its study and suite", where=path)
    return run


def _refuse_no_run(path: Path) -> None:
    if not path.exists():
        raise RunError("no such folder", where=path, expected="a run folder")
    if path.is_dir() and (path / folder.SCORES).is_dir():
        return
    if (path / folder.BEGUN).is_dir():
        raise RunError(
            "this run was stopped while it was being made",
            where=path,
            fix="Give the same `kntrace run` again.",
        )
    kind = "a folder without scores.zarr" if path.is_dir() else "a file"
    raise RunError(kind, where=path, expected="a run folder, as `kntrace run` makes it")


def _frozen_copies(path: Path, attributes: Mapping[str, Any]) -> tuple[Study, Suite, Settings]:
    """Read what the run was made from, and check it against the archive's own record."""
    try:
        study = load_study(path / folder.STUDY)
        suite = load_suite(path / folder.SUITE)
        settings = Settings.from_yaml((path / folder.SETTINGS).read_text(encoding="utf-8"))
    except KntraceError as error:
        raise RunError(f"a frozen copy cannot be read: {error}", where=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"a frozen copy cannot be read: {error}", where=path) from error
    for name, digest in (
        ("study", study.digest),
        ("suite", suite.digest),
        ("settings", settings.digest),
    ):
        if attributes.get(name) != digest:
            raise RunError(
                "changed since the run was made, so that the scores are not what it says",
                where=path / f"{name}.yaml",
                fix="Bring the former file back, or remove the folder and run again.",
            )
    return study, suite, settings


def _sizes(study: Study, suite: Suite, layers: int, width: int) -> dict[str, int]:
    return {
        "checkpoint": len(suite),
        "word": len(study.words),
        "prompt": len(study.slots),
        "layer": layers,
        "neuron": width,
        "byte": _FINGERPRINT_BYTES,
    }


def _coordinates(
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


def _create_arrays(
    scores: Path, study: Study, suite: Suite, settings: Settings, sizes: Mapping[str, int]
) -> None:
    """Write the archive's description and its coordinates, and no scores."""
    group = zarr.create_group(
        LocalStore(scores),
        zarr_format=3,
        attributes={
            "kntrace_format": _FORMAT,
            "run": identity(study, suite, settings),
            "study": study.digest,
            "suite": suite.digest,
            "settings": settings.digest,
        },
    )
    for name, variable in VARIABLES.items():
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
    for name, (dim, values) in _coordinates(study, suite, sizes).items():
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


def _described(variable: Variable) -> dict[str, str]:
    described = {"description": variable.description}
    return described | {"unit": variable.unit} if variable.unit else described


def _open_dataset(scores: Path) -> xr.Dataset:
    return xr.open_dataset(
        chunks.CheckedStore(scores, read_only=True),  # type: ignore[arg-type]
        engine="zarr",
        chunks=None,
        cache=False,
        consolidated=False,
    )


def _pairs(found: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [(int(checkpoint), int(word)) for checkpoint, word in np.argwhere(found)]
