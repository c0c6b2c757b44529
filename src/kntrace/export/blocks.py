"""A run's scores, one block after the other, so that memory stays flat whatever the run holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kntrace.archive import Run
from kntrace.errors import RunError
from kntrace.progress import Progress, silent

__all__ = ["ScoredBlock", "blocks", "refuse_means", "refuse_unfinished"]


@dataclass(frozen=True)
class ScoredBlock:
    """The scores of one word at one checkpoint, without the prompts that the word lacks.

    Attributes
    ----------
    checkpoint, word
        Positions in the run's suite and study.
    prompts
        Positions of the word's prompts in the archive's dimension `prompt`.
    score
        (prompt, layer, neuron) float32, in units of the objective.
    """

    checkpoint: int
    word: int
    prompts: npt.NDArray[np.intp]
    score: npt.NDArray[np.float32]


def blocks(
    run: Run, *, prompts: npt.NDArray[np.bool_] | None = None, progress: Progress = silent
) -> Iterator[ScoredBlock]:
    """Walk through all blocks, by checkpoint and then by word.

    Parameters
    ----------
    prompts
        Truth values along the archive's prompts: which to read; all unless given.
    progress
        Counts blocks in the stage `export`.

    Raises
    ------
    RunError
        If the run has kept only means over prompts, or if a block is missing or damaged; those
        before it were yielded.
    """
    refuse_means(run)
    refuse_unfinished(run)
    score = run.scores["score"]
    wanted = np.ones(score.sizes["prompt"], dtype=np.bool_) if prompts is None else prompts
    # A word has a prompt wherever the study says so, whatever the scores are.
    asked = [
        np.flatnonzero(wanted & [prompt is not None for prompt in run.study.rendered(word)])
        for word in run.study.words
    ]
    checkpoints, words = run.shape
    for checkpoint in range(checkpoints):
        for word in range(words):
            progress("export", checkpoint * words + word, checkpoints * words)
            values = score[checkpoint, word].values[asked[word]]
            if not np.isfinite(values).all():
                raise RunError(
                    f"scores that are no numbers in {run.describe(checkpoint, word)}",
                    where=run.path,
                    fix="See `kntrace status`.",
                )
            yield ScoredBlock(checkpoint, word, asked[word], values)
    progress("export", checkpoints * words, checkpoints * words)


def refuse_means(run: Run) -> None:
    """Raise `RunError` if the run has not kept the scores of every prompt."""
    if run.settings.keep == "means":
        name = "mean_score" if run.settings.top is None else "kept_score"
        raise RunError(
            "this run has kept only means over prompts; a row of an export is one prompt's score",
            where=run.path,
            expected="a run made without --keep means",
            fix=f"Read its means in Python: kntrace.open_run(RUN).scores[{name!r}].",
        )


def refuse_unfinished(run: Run) -> None:
    """Raise `RunError` unless every block is there; whether they are whole shows when read."""
    missing = run.missing()
    if missing:
        raise RunError(
            f"{len(missing)} of {run.shape[0] * run.shape[1]} blocks are missing, the first is "
            f"{run.describe(*missing[0])}",
            where=run.path,
            expected="a finished run",
            fix="`kntrace run` with the same study, suite and --out computes them.",
        )
