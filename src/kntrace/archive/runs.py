"""A run: the folder that holds a study's scores over a suite's checkpoints.

The unit of work is the block, one word at one checkpoint. Its chunks are written one by one,
each of them whole or not at all, the scores last; it is done when all of them are there and
pass their checksum, whatever values they hold. So a run can be killed at any moment, and two
processes may write different blocks at once.

Unless `Run.sync` was called, chunks are not forced to the disk one by one (no fsync). After a
loss of power the last ones may be empty or torn; their checksum tells, and the next run computes
them again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from kntrace.archive import chunks, folder, layout
from kntrace.archive.identity import chosen_of, remedy, shortlist
from kntrace.archive.locks import changing
from kntrace.archive.provenance import read_record, write_record
from kntrace.archive.stored import stored
from kntrace.archive.variables import BLOCK_VARIABLES, VARIABLES, Block, kept, of_words
from kntrace.errors import RunError
from kntrace.notebook import Card, Shown
from kntrace.progress import Progress, silent
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite

__all__ = ["Run"]


class Run(Shown):
    """An opened run folder; get one from `open_run`, `create_run` or `kntrace.run`.

    Attributes
    ----------
    path
        The run folder.
    study, suite, settings
        What the run was made from: the frozen copies in its folder.
    layers, width
        Layers of the model, and neurons in each.
    kept
        Neurons kept of the word with the most; 0 where all are.
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
        kept: int = 0,
    ) -> None:
        self.path = path
        self.study = study
        self.suite = suite
        self.settings = settings
        self.layers = layers
        self.width = width
        self.kept = kept
        self._synced = False

    def __repr__(self) -> str:
        checkpoints, words = self.shape
        return (
            f"Run({str(self.path)!r}: {checkpoints} checkpoints x {words} words, "
            f"{self.layers} layers x {self.width} neurons{chosen_of(self.settings)})"
        )

    def _card(self) -> Card:
        checkpoints, words = self.shape
        total = checkpoints * words
        return Card(
            f"Run {self.path}",
            {
                "blocks done": f"{total - len(self.missing()):,} of {total:,}",
                "study": f"{self.study.name}: {words} words in {len(self.study.groups)} groups",
                "suite": f"{self.suite.name}: {checkpoints} checkpoints",
                "model": f"{self.layers} layers x {self.width:,} neurons{chosen_of(self.settings)}",
                "rule": self.settings.rule,
                "site": self.settings.site,
                "objective": self.settings.objective,
            },
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of checkpoints and of words: the blocks of the run."""
        return len(self.suite), len(self.study.words)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Size of each dimension of the archive."""
        return layout.sizes(self.study, self.suite, self.layers, self.width, self.kept)

    @property
    def block_variables(self) -> tuple[str, ...]:
        """Variables that hold a block, in the order in which they are written."""
        return kept(BLOCK_VARIABLES, self.settings)

    @property
    def scores(self) -> xr.Dataset:
        """All that was measured, as labelled arrays that are read when they are used.

        Dimensions `checkpoint`, `word`, `prompt`, `layer`, `neuron`; variables `score`,
        `activation` (unless the run keeps none), `gap`, `nodes`, `converged`, `probability`,
        `rank`, `fingerprint` (hex text, "" where there is none) and `baseline`, described in
        `kntrace.archive.VARIABLES`. Of a run that keeps only means over prompts, `mean_score`
        and `mean_activation` with the dimension `mean_over`, a wording's name, stand for the
        first two; where `kntrace.compact` made it, `kept_score` and `kept_activation` of the
        neurons in `kept_neuron`. Blocks that are not done read as NaN (`rank` and
        `converged`: -1, `nodes`: 0); use `require_complete` where that would mislead. Nothing
        read is kept in memory.
        """
        dataset = layout.open_dataset(self._scores).drop_vars("fingerprint")
        prints = [self.fingerprint(place) or "" for place in range(len(self.suite))]
        described = {"description": VARIABLES["fingerprint"].description}
        dataset = dataset.assign(
            fingerprint=("checkpoint", np.array(prints, dtype=np.str_), described)
        )
        labels = layout.coordinates(self.study, self.suite, self.settings, self.sizes)
        names = (*kept(VARIABLES, self.settings), *of_words(self.settings))
        return layout.say_of_what(dataset[list(names)], self.settings).assign_coords(labels)

    def missing(self) -> list[tuple[int, int]]:
        """List the blocks that are not there, as (checkpoint, word) positions in order.

        Costs one directory listing a variable, whatever the number of blocks.
        """
        return _pairs(~self._present())

    def unproven(self) -> list[tuple[int, int]]:
        """List the blocks that are there while what they were computed from is lost.

        That is the fingerprint of their weights or, in a run whose checkpoints have one, their
        baseline.
        """
        present, lost = self._present(), sorted(self._unproven_checkpoints())
        return [(place, int(word)) for place in lost for word in np.flatnonzero(present[place])]

    def _unproven_checkpoints(self) -> set[int]:
        based = self.settings.baseline != "zero"
        return {
            place
            for place in range(len(self.suite))
            if self.fingerprint(place) is None
            or (based and not chunks.intact(self._checkpoint_file("baseline", place)))
        }

    def damaged(
        self, progress: Progress = silent, checkpoints: Collection[int] | None = None
    ) -> list[tuple[int, int]]:
        """List the blocks that are there but fail a checksum, and those that are unproven.

        Reads every chunk, at the speed of the disk, of all checkpoints unless some are named;
        `progress` counts blocks in the stage `verify`.
        """
        present, lost = self._present(), self._unproven_checkpoints()
        torn = chunks.torn_words(self._scores, present.shape[1], of_words(self.settings))
        if checkpoints is not None:
            present[[place for place in range(len(present)) if place not in checkpoints]] = False
        damaged, done, total = [], 0, int(present.sum())
        # Checkpoint by checkpoint: a list of all blocks would grow with the run.
        for checkpoint, there in enumerate(present):
            pairs = [(checkpoint, int(word)) for word in np.flatnonzero(there)]
            found = chunks.intact_blocks(self._scores, pairs, self.block_variables)
            for pair in pairs:
                progress("verify", done, total, self.describe(*pair))
                done += 1
                if not next(found) or checkpoint in lost or pair[1] in torn:
                    damaged.append(pair)
        progress("verify", total, total)
        return damaged

    def require_complete(self, *, read: bool = True) -> None:
        """Raise `RunError`, naming what lacks, unless every block is done.

        Without `read`, damage that shows only when blocks are read is not looked for.
        """
        damaged = self.damaged if read else self.unproven
        for kind, pairs in (("missing", self.missing()), ("damaged", damaged())):
            if pairs:
                total = self.shape[0] * self.shape[1]
                named = shortlist([self.describe(*pair) for pair in pairs])
                raise RunError(
                    f"{len(pairs)} of {total} blocks are {kind}: {named}",
                    where=self.path,
                    expected="a finished run",
                    fix=remedy(self.settings.top),
                )

    def describe(self, checkpoint: int, word: int) -> str:
        """Name a block for a reader: its checkpoint's label and its word."""
        return f"{self.suite.checkpoints[checkpoint].label} · {self.study.words[word].text}"

    def write_block(self, checkpoint: int, word: int, block: Block) -> None:
        """Commit one block; a block already there is replaced, chunk by chunk.

        The fingerprint of the weights it comes from has to be written before.

        Raises
        ------
        RunError
            If it cannot be written; then it is not done, and all others are as they were.
        ValueError
            If the block's arrays do not have this run's shapes, or if the checkpoint has no
            fingerprint yet.
        """
        if not self._checkpoint_file("fingerprint", checkpoint).exists():
            label = self.suite.checkpoints[checkpoint].label
            raise ValueError(f"the fingerprint of {label!r} has to be written before its blocks")
        wordings = [wording for wording, _ in self.study.slots]
        values = stored(block, self.block_variables, self.settings, wordings, self.sizes)
        for name, value in values.items():
            self._write(name, (checkpoint, word), value)

    def fingerprint(self, checkpoint: int) -> str | None:
        """SHA-256 (hex) of the weights the checkpoint's blocks come from, None if not known."""
        if not chunks.intact(self._checkpoint_file("fingerprint", checkpoint)):
            return None
        return bytes(np.asarray(self._array("fingerprint", "r")[checkpoint])).hex()

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
        if value.size != layout.FINGERPRINT_BYTES:
            raise ValueError(f"{fingerprint!r} is not the SHA-256 of anything")
        # Blocks whose fingerprint was lost cannot be told from blocks of other weights, nor can
        # the baseline, which may have been measured on them.
        self._discard(checkpoint)
        self._checkpoint_file("baseline", checkpoint).unlink(missing_ok=True)
        self._write("fingerprint", (checkpoint,), value)

    def baseline(self, checkpoint: int) -> npt.NDArray[np.float32] | None:
        """Where the paths of the checkpoint's scores start, (layer, neuron); None: at zero.

        Raises
        ------
        RunError
            If it was written and is damaged.
        """
        file = self._checkpoint_file("baseline", checkpoint)
        if not file.exists():
            return None
        if not chunks.intact(file):
            raise RunError(
                f"the baseline of {self.suite.checkpoints[checkpoint].label!r} is damaged",
                where=self.path,
                fix="`kntrace run` with the same study, suite and --out computes its blocks again.",
            )
        return np.asarray(self._array("baseline", "r")[checkpoint], dtype=np.float32)

    def write_baseline(self, checkpoint: int, baseline: npt.ArrayLike) -> None:
        """Record where the paths start, after the fingerprint and before the first block.

        Never called for a run whose baseline is zero. A session that goes on with a run takes
        `Run.baseline` where there is one: what is measured again may differ in its last bit.

        Parameters
        ----------
        baseline
            (layer, neuron), stored as float32.

        Raises
        ------
        RunError
            If another one is recorded: its blocks have paths of their own, and nothing is
            overwritten.
        ValueError
            If it does not have this run's shape, holds a number that is not finite, or if the
            checkpoint has no fingerprint yet.
        """
        label = self.suite.checkpoints[checkpoint].label
        value = np.asarray(baseline, dtype=np.float32)
        if value.shape != (self.layers, self.width):
            raise ValueError(f"a baseline of shape {value.shape}, not {(self.layers, self.width)}")
        if not np.isfinite(value).all():
            raise ValueError(f"the baseline of {label!r} holds numbers that are not finite")
        if self.fingerprint(checkpoint) is None:
            raise ValueError(f"the fingerprint of {label!r} has to be written before its baseline")
        if chunks.intact(self._checkpoint_file("baseline", checkpoint)):
            if np.array_equal(np.asarray(self.baseline(checkpoint)), value):
                return
            raise RunError(
                f"the blocks of {label!r} were computed from another baseline",
                where=self.path,
                fix="Give another --out for a new run.",
            )
        # Blocks whose baseline is lost, or was zero, are not of this one.
        self._discard(checkpoint)
        self._write("baseline", (checkpoint,), value)

    def sync(self) -> None:
        """Force to the disk what is there, and from now on every chunk as it is written.

        Then a block that was committed outlives a loss of power. Costs two waits for the disk
        a chunk.
        """
        if not self._synced:
            os.sync()
            self._synced = True

    @property
    def provenance(self) -> dict[str, Any]:
        """How, when and with what the run was computed; empty if the record was removed."""
        return read_record(self.path)

    def intact(self, checkpoint: int, words: Collection[int]) -> list[int]:
        """Those of the words whose blocks at the checkpoint are there and pass their checksum."""
        pairs = [(checkpoint, word) for word in words]
        found = chunks.intact_blocks(self._scores, pairs, self.block_variables)
        return [word for word, whole in zip(words, found, strict=True) if whole]

    def update_provenance(
        self, entries: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> None:
        """Replace these entries of the record; values are whatever JSON can express.

        Where they follow from what the record says, a function of it makes them, while no
        other process changes it.
        """
        with changing(self.path):
            record = self.provenance
            made = entries(record) if callable(entries) else entries
            write_record(self.path, record | dict(made))

    @property
    def _scores(self) -> Path:
        return self.path / folder.SCORES

    def _checkpoint_file(self, variable: str, checkpoint: int) -> Path:
        """File of a variable that has one chunk a checkpoint."""
        return self._scores / variable / chunks.chunk_name(variable, checkpoint)

    @cached_property
    def _arrays(self) -> dict[tuple[str, str], zarr.Array[Any]]:
        return {}

    def _array(self, name: str, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
        if (name, mode) not in self._arrays:
            self._arrays[name, mode] = layout.open_variable(self._scores, name, mode)
        return self._arrays[name, mode]

    def _write(self, name: str, index: tuple[int, ...], value: npt.NDArray[Any]) -> None:
        chunk = tuple(slice(place, place + 1) for place in index)
        try:
            self._array(name, "r+")[chunk] = value[(None,) * len(index)]
        except OSError as error:
            raise folder.write_failure(self._scores / name, error) from error
        if self._synced:
            folder.force(self._scores / name / chunks.chunk_name(name, *index))

    def _discard(self, checkpoint: int) -> None:
        """Remove all blocks of one checkpoint, each one's commit mark first."""
        for word in range(len(self.study.words)):
            files = chunks.block_chunks(self._scores, checkpoint, word, self.block_variables)
            for file in reversed(files):
                file.unlink(missing_ok=True)

    def _present(self) -> npt.NDArray[np.bool_]:
        """Which blocks have all their chunks, as (checkpoint, word) truth values."""
        present = np.ones(self.shape, dtype=np.bool_)
        for name in self.block_variables:
            present &= chunks.existing(self._scores / name, self.shape)
        return present


def _pairs(found: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [(int(checkpoint), int(word)) for checkpoint, word in np.argwhere(found)]
