"""The archive of a run that keeps some neurons: filled from another run's, in one go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from kntrace.archive import chunks, folder, layout
from kntrace.archive.opening import being_made
from kntrace.archive.rounding import with_bits
from kntrace.archive.runs import Run
from kntrace.archive.stored import prompt_means
from kntrace.archive.variables import BLOCK_VARIABLES, KEPT, MEANS
from kntrace.errors import RunError

__all__ = ["Compacted", "Means", "compacted"]

_OF_CHECKPOINTS = ("fingerprint", "baseline")


class Means:
    """Means over prompts of a run's blocks, whether it has kept every prompt or only them.

    They are what `--keep means` stores, to the last bit.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._scores = run.scores
        self._ranks = self._scores["rank"].values
        self._wordings = [wording for wording, _ in run.study.slots]
        self._last: tuple[tuple[str, int, int], npt.NDArray[np.float32]]
        self._last = ("", 0, 0), np.empty(0, dtype=np.float32)

    def of(self, name: str, checkpoint: int, word: int) -> npt.NDArray[np.float32]:
        """Means of `score` or `activation`, (mean_over, layer, neuron); NaN without prompts."""
        # Each wording asks for the block.
        if self._last[0] != (name, checkpoint, word):
            self._last = (name, checkpoint, word), self._read(name, checkpoint, word)
        return self._last[1]

    def _read(self, name: str, checkpoint: int, word: int) -> npt.NDArray[np.float32]:
        if self._run.settings.keep == "means":
            block = self._scores[MEANS[name]].variable[checkpoint, word]
            return np.asarray(block.values, dtype=np.float32)
        values = self._scores[name].variable[checkpoint, word].values
        means = prompt_means(values, self._ranks[checkpoint, word] >= 0, self._wordings)
        bits = self._run.settings.keepbits
        return means if bits is None else with_bits(means, bits)


class Compacted:
    """The archive while it is being filled."""

    def __init__(self, source: Run, scores: Path) -> None:
        self._source = source.path / folder.SCORES
        self._scores = scores
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def copy_checkpoint(self, checkpoint: int) -> None:
        """Take over what is known of a checkpoint's weights."""
        for name in _OF_CHECKPOINTS:
            self._copy(name, checkpoint)

    def copy_block(self, checkpoint: int, word: int) -> None:
        """Take over all of a block but its scores and activations."""
        for name in BLOCK_VARIABLES:
            if name not in KEPT:
                self._copy(name, checkpoint, word)

    def write_block(self, checkpoint: int, word: int, name: str, value: npt.NDArray[Any]) -> None:
        """Write a variable of a block."""
        self._write(name, (checkpoint, word), value)

    def write_word(self, name: str, word: int, value: npt.NDArray[Any]) -> None:
        """Write what holds for all checkpoints of a word."""
        self._write(name, (word,), value)

    def _copy(self, name: str, *index: int) -> None:
        file = Path(name) / chunks.chunk_name(name, *index)
        if name == "baseline" and not (self._source / file).exists():
            return  # it is zero
        if not chunks.intact(self._source / file):
            raise RunError("missing, or damaged", where=self._source / file, fix="See its status.")
        shutil.copyfile(self._source / file, self._scores / file)

    def _write(self, name: str, index: tuple[int, ...], value: npt.NDArray[Any]) -> None:
        if name not in self._arrays:
            self._arrays[name] = layout.open_variable(self._scores, name, "r+")
        chunk = tuple(slice(place, place + 1) for place in index)
        self._arrays[name][chunk] = value[(None,) * len(index)]


@contextmanager
def compacted(
    source: Run, path: str | Path, *, top: int, kept: int, activations: bool, record: dict[str, Any]
) -> Iterator[Compacted]:
    """Make the run folder `path` of a source's study and suite; it is a run once all is there.

    Parameters
    ----------
    top
        Neurons a word and checkpoint that are among those kept.
    kept
        Neurons kept of the word with the most.
    activations
        Whether those of kept neurons are kept.
    record
        What the provenance says beside that of the source.

    Raises
    ------
    RunError
        If `path` is a run already, or something else, or cannot be written; or if what is read
        of the source is damaged.
    """
    settings = source.settings.model_copy(
        update={"keep": "means", "top": top, "activations": activations}
    )
    sizes = layout.sizes(source.study, source.suite, source.layers, source.width, kept)
    entries = source.provenance | record
    with being_made(path, source.study, source.suite, settings, sizes, entries) as scores:
        yield Compacted(source, scores)
        audited = source.path / folder.AUDIT
        if audited.is_dir():
            shutil.copytree(audited, Path(path) / folder.AUDIT, dirs_exist_ok=True)
        # The source may be deleted next: nothing of this may be on its way to the disk then.
        os.sync()
