"""Score words at one checkpoint and commit them, in whatever process, on whatever machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from kntrace.archive import Block, Computing, Run
from kntrace.errors import ModelError
from kntrace.study import Study
from kntrace.suite import Checkpoint
from kntrace.sweep.admission import Job, admit, start_paths
from kntrace.sweep.block import compute_block
from kntrace.sweep.loading import made_ready

if TYPE_CHECKING:
    from kntrace.attribution import Engine

__all__ = ["Told", "score"]


class Told(Protocol):
    """Who hears how the scoring of a checkpoint goes on."""

    def at(self, says: str) -> None:
        """Something is begun, in words."""

    def ready(self, run: Run, threads: int, seconds: float) -> None:
        """The checkpoint was loaded and admitted, with so many threads, in that time."""

    def done(self, says: str) -> None:
        """A block was committed."""


def score(
    job: Job,
    place: int,
    checkpoint: Checkpoint,
    words: Iterable[int],
    device: str,
    told: Told,
    *,
    who: str,
    run: Run | None = None,
) -> Run:
    """Load one checkpoint, make sure that it belongs to the run, and score `words`.

    Parameters
    ----------
    place, checkpoint
        Where it comes in the suite, and where it is to be read.
    words
        Asked one by one, as each is needed.
    who
        What `status` calls this process.
    run
        The run, if it is open already.

    Raises
    ------
    ModelError, RunError, SuiteError, HubError
        If the checkpoint cannot be loaded, scored, or admitted to the run.
    """
    began = time.monotonic()
    told.at(f"loading {checkpoint.label}")
    with made_ready(
        checkpoint,
        job.study,
        job.settings,
        device,
        allow_bin=job.allow_bin,
        memory=job.memory,
    ) as ready:
        run = admit(job, place, ready, run)
        start_paths(job, place, run, ready)
        told.ready(run, _threads_in_use(), time.monotonic() - began)
        with Computing(run.path, who) as computing:
            computing.tell(checkpoint.label, 0)
            for count, word in enumerate(words):
                says = run.describe(place, word)
                told.at(says)
                computing.tell(says, count)
                run.write_block(place, word, _block(job.study, ready.engine, word, says))
                told.done(says)
    return run


def _block(study: Study, engine: Engine, word: int, says: str) -> Block:
    asked = study.words[word]
    try:
        return compute_block(
            engine, study.rendered(asked), asked.answer, study.answer_form, asked.alternatives
        )
    except ModelError as error:
        where = f"{says}: {error.where or ''}".rstrip(": ")
        raise ModelError(
            error.found, where=where, expected=error.expected, fix=error.fix
        ) from error


def _threads_in_use() -> int:
    import torch

    return torch.get_num_threads()
