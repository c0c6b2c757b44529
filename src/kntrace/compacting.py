"""From a finished run a small one, which keeps only the neurons that are ever chosen.

A sweep cannot know which neurons a later checkpoint will choose, and the formation process of a
chosen neuron needs its scores at every checkpoint. So the others are left out afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kntrace.analysis.files import run_identity
from kntrace.archive import Run, mirrored, open_run, writing
from kntrace.archive.compacted import Compacted, Means, compacted
from kntrace.archive.folder import SCORES
from kntrace.archive.variables import KEPT_DISTANCES
from kntrace.distance import ScoresDistance, find_distance
from kntrace.errors import RunError, SettingsError
from kntrace.progress import Progress, silent
from kntrace.selection import default_k
from kntrace.wording import Wording, wordings_of

__all__ = ["compact", "sizes"]

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


def compact(
    run: Run,
    out: str | Path,
    *,
    top: int | None = None,
    activations: bool | None = None,
    progress: Progress = silent,
) -> Run:
    """Make of a finished run a small one that can be analysed in its stead.

    Of every word it keeps the neurons that are among its `top` strongest at any checkpoint in
    any wording, with their mean scores (and activations) at every checkpoint and in every
    wording; the distances `identity` and `cosine` of every wording, and the sum of the sizes of
    each layer's scores, which are over all neurons; and gaps, nodes, probabilities and ranks as
    they are. An analysis of it with `top` neurons or fewer gives the numbers that one of the
    means gives, to the last bit.

    Parameters
    ----------
    run
        A finished run, of prompts or of means. It is only read.
    out
        The run folder to make, or its URL.
    top
        How many neurons of a word can be chosen later; 1,000, or one in forty of a model with
        fewer than 40,000 neurons, unless given.
    activations
        Whether the activations of the neurons are kept; as the run has it unless given. No
        analysis asks for them.
    progress
        Told of the words whose neurons were found, in the stage `chosen neurons`, of the
        checkpoints whose distances were computed, in stages of their names, and of the blocks
        written, in the stage `write`.

    Returns
    -------
    Run
        The opened run; `settings.top` is `top`, `settings.keep` is `means`.

    Raises
    ------
    RunError
        If the run is not finished, is damaged or was compacted before, or if `out` is another
        run already, lies in the run, or cannot be written.
    SettingsError
        If `top` is not a number of the model's neurons, or if the run has kept no activations.
    AnalysisError
        If a score is not a finite number.

    Notes
    -----
    `out` is a run once all of it is there; a call that was killed is begun anew by the same
    call, and one that was not does nothing. Before it is one, everything is forced to the disk.

    Reads the scores twice, and once more for each distance and wording. Holds one block, the
    neurons found, and what `identity` holds.
    """
    with mirrored(out) as place:
        wanted = _refuse(run, place, top, activations)
        both = run.settings.activations if activations is None else activations
        if (place / SCORES).exists():
            _refuse_another(run, open_run(place), wanted, both)
            return open_run(out)
        with writing(place):
            source = _Source(run)
            neurons = source.ever_chosen(wanted, progress)
            matrices = {name: source.distances(name, progress) for name in KEPT_DISTANCES}
            record = {
                "of": run_identity(run),
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "kntrace": version("kntrace"),
            }
            with compacted(
                *(run, place),
                top=wanted,
                kept=max(map(len, neurons)),
                activations=both,
                record={"compacted": record},
            ) as archive:
                source.write(archive, neurons, matrices, both, progress)
    return open_run(out)


def sizes(run: Run, made: Run) -> dict[str, Any]:
    """How much smaller `made`, which was compacted of `run`, is.

    Returns
    -------
    dict
        `neurons` of the model; `kept` of them of a word, in the mean, and `most`; `bytes` of its
        scores and all beside them, and `bytes_before`.
    """
    kept = (made.scores["kept_neuron"].values >= 0).sum(axis=1)
    before, after = (
        sum(file.stat().st_size for file in (one.path / SCORES).rglob("*") if file.is_file())
        for one in (run, made)
    )
    return {
        "neurons": run.layers * run.width,
        "kept": float(kept.mean()),
        "most": int(kept.max()),
        "bytes": after,
        "bytes_before": before,
    }


def _refuse(run: Run, out: Path, top: int | None, activations: bool | None) -> int:
    """Raise an error unless all that is asked can be done; give the number of neurons."""
    if run.settings.top is not None:
        raise RunError(
            "this run was compacted before",
            where=run.path,
            expected="one that has kept all neurons",
            fix="Compact the run that it was made from, again with another --top.",
        )
    if activations and not run.settings.activations:
        raise SettingsError(
            "activations of a run that has kept none", expected="none, as the run has it"
        )
    neurons = run.layers * run.width
    wanted = default_k(run.scores) if top is None else top
    if not 1 <= wanted <= neurons:
        raise SettingsError(
            f"top = {wanted}", expected=f"a whole number from 1 to {neurons:,}, of the neurons"
        )
    if out.resolve().is_relative_to(run.path.resolve()):
        raise RunError("lies in the run itself", where=out, expected="a folder beside it")
    run.require_complete(read=False)
    return wanted


def _refuse_another(run: Run, made: Run, top: int, activations: bool) -> None:
    """Raise `RunError` unless `made` is what would be made, and whole."""
    of = made.provenance.get("compacted")
    same = isinstance(of, dict) and of.get("of") == run_identity(run)
    if not same or (made.settings.top, made.settings.activations) != (top, activations):
        raise RunError("a run already, and another", where=made.path, expected="a new name")
    made.require_complete()


@dataclass(frozen=True)
class _View(Wording):
    """A wording whose scores are what `--keep means` has of it."""

    means: Means = field(kw_only=True)
    row: int = field(kw_only=True)

    def known(self, checkpoint: int, word: int) -> _Floats:
        found = self.means.of("score", checkpoint, word)[self.row]
        if not np.isfinite(found).all():
            raise self._unfinished(checkpoint, word, "scores")
        return np.asarray(found, dtype=np.float64)


class _Source:
    """The run that is compacted, as means over prompts."""

    def __init__(self, run: Run) -> None:
        self.run, self.means = run, Means(run)
        self.labels = [checkpoint.label for checkpoint in run.suite]
        self.words = [word.text for word in run.study.words]
        self.views = tuple(self._views())

    def _views(self) -> Iterator[_View]:
        scores = self.run.scores
        ranks = scores["rank"].values
        for row, name in enumerate(wordings_of(scores)):
            mine = np.flatnonzero(scores["wording"].values == name)
            asked = np.logical_or.reduce(ranks[:, :, mine] >= 0, axis=0)
            yield _View(name, scores.isel(prompt=mine), asked, means=self.means, row=row)

    def ever_chosen(self, top: int, progress: Progress) -> list[_Ints]:
        """Of every word the neurons among its strongest at any checkpoint, in any wording."""
        found = []
        for word, name in enumerate(self.words):
            progress("chosen neurons", word, len(self.words), name)
            ever = np.zeros(self.run.layers * self.run.width, dtype=np.bool_)
            for checkpoint in range(len(self.labels)):
                for view in self._asking(word):
                    ever[view.strongest(checkpoint, word, top)[0]] = True
            found.append(np.flatnonzero(ever).astype(np.int64))
        progress("chosen neurons", len(self.words), len(self.words))
        return found

    def _asking(self, word: int) -> list[_View]:
        """The wordings in which a word has a prompt."""
        return [view for view in self.views if view.asked[word].any()]

    def distances(self, name: str, progress: Progress) -> _Floats:
        """A distance in every wording, (word, mean_over, other word).

        NaN in a wording in which not all words have a prompt.
        """
        distance = cast("ScoresDistance", find_distance(name))
        size = len(self.words)
        found = np.full((size, len(self.views), size), np.nan)
        for row, view in enumerate(self.views):
            if view.asked.any(axis=1).all():
                upper = np.triu(distance.pairwise(view, progress), 1)
                found[:, row] = upper + upper.T
        return found

    def write(
        self,
        archive: Compacted,
        neurons: Sequence[_Ints],
        matrices: dict[str, _Floats],
        activations: bool,
        progress: Progress,
    ) -> None:
        """Fill the archive."""
        most, total = max(map(len, neurons)), len(self.labels) * len(self.words)
        for checkpoint in range(len(self.labels)):
            archive.copy_checkpoint(checkpoint)
        for word, some in enumerate(neurons):
            listed = np.full(most, -1, dtype=np.int32)
            listed[: len(some)] = some
            archive.write_word("kept_neuron", word, listed)
            for name, matrix in matrices.items():
                archive.write_word(name, word, matrix[word])
            layers = []
            for checkpoint in range(len(self.labels)):
                done = word * len(self.labels) + checkpoint
                progress("write", done, total, self.run.describe(checkpoint, word))
                archive.copy_block(checkpoint, word)
                scores = self.means.of("score", checkpoint, word)
                layers.append(np.abs(scores).sum(axis=-1, dtype=np.float64))
                if activations:
                    values = _of(self.means.of("activation", checkpoint, word), some, most)
                    archive.write_block(checkpoint, word, "kept_activation", values)
                archive.write_block(checkpoint, word, "kept_score", _of(scores, some, most))
            archive.write_word("layer_size", word, np.stack(layers))
        progress("write", total, total)


def _of(means: npt.NDArray[np.float32], neurons: _Ints, most: int) -> npt.NDArray[np.float32]:
    """What is kept of means (mean_over, layer, neuron): (mean_over, kept), filled up with NaN."""
    found = np.full((len(means), most), np.nan, dtype=np.float32)
    found[:, : len(neurons)] = means.reshape(len(means), -1)[:, neurons]
    return found
