"""One block tried for real: how long it took, and what it held."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kntrace.archive import Run
from kntrace.archive.chunks import block_chunks
from kntrace.archive.folder import SCORES
from kntrace.models.placement import SPREAD
from kntrace.progress import Progress
from kntrace.study import Study
from kntrace.sweep.admission import Job
from kntrace.sweep.fetching import Access, fetching
from kntrace.sweep.reckoning import kept_of_words
from kntrace.sweep.scoring import score

__all__ = ["Trial", "computing", "prompts_of_words", "speed_of", "try_block"]

# A second block is timed where the first, which also warms up, took no longer than this.
_WORTH_A_SECOND = 30.0


@dataclass(frozen=True)
class Trial:
    """What was measured: one checkpoint loaded, one block of it scored and written.

    Attributes
    ----------
    checkpoint, word, prompts, kept
        Which block, how many prompts it has, and of how many (or means of them) it keeps scores.
    device, threads
        On what.
    loading, scoring
        Seconds for the checkpoint and for the block; the second of two where the first took
        under half a minute.
    archive
        Bytes of the block on the disk.
    memory
        Most bytes that the process held, of the device's own memory if it has one.
    speed
        Float32 operations a second of a large matrix product on this device, right after.
    """

    checkpoint: str
    word: str
    prompts: int
    kept: int
    device: str
    threads: int
    loading: float
    scoring: float
    archive: int
    memory: int
    speed: float


def prompts_of_words(study: Study) -> list[int]:
    """How many prompts each word has."""
    return [sum(text is not None for text in study.rendered(word)) for word in study.words]


class _Clock:
    """A `Told` that takes the times of a trial."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = 0.0
        self.run: Run | None = None
        self.threads, self.loading, self.scoring = 0, 0.0, 0.0

    def words(self, first: int, second: int) -> Iterator[int]:
        """One word, and another if that takes no longer than it is worth."""
        yield first
        if second != first and self.scoring < _WORTH_A_SECOND:
            yield second

    def at(self, says: str) -> None:
        self._progress("trial", 0, 1, says)
        self._began = time.monotonic()

    def ready(self, run: Run, threads: int, seconds: float) -> None:
        self.run, self.threads, self.loading = run, threads, seconds

    def done(self, says: str) -> None:
        self.scoring = time.monotonic() - self._began
        self.says = says


def try_block(job: Job, device: str, access: Access, progress: Progress) -> Trial:
    """Score and write a block of the job's only checkpoint, of a word with the most prompts."""
    counts = prompts_of_words(job.study)
    # Of the most prompts, so that the memory is enough for the others; ones of them are alike.
    most = sorted(range(len(counts)), key=lambda word: -counts[word])[:2]
    clock, (checkpoint,) = _Clock(progress), job.suite.checkpoints
    with fetching(job.path, [checkpoint], [0], None, access) as fetched:
        here = fetched.turn(checkpoint, clock.at)
        run = score(
            replace(job, commits=fetched.commits),
            0,
            here,
            clock.words(most[0], most[-1]),
            device,
            clock,
            who="trial",
        )
    word = next(word for word in reversed(most) if run.intact(0, [word]))
    chunks = block_chunks(run.path / SCORES, 0, word, run.block_variables)
    progress("trial", 1, 1)
    return Trial(
        checkpoint.label,
        job.study.words[word].text,
        counts[word],
        kept_of_words(job.study, job.settings)[word],
        device,
        clock.threads,
        clock.loading,
        clock.scoring,
        sum(file.stat().st_size for file in chunks),
        _memory(computing(device)),
        speed_of(computing(device)),
    )


def computing(device: str) -> str:
    """The device that computes; of a model that is spread, the first of those that may."""
    import torch

    if device != SPREAD:
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _memory(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_reserved(device))
    # macOS counts bytes, Linux kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def speed_of(device: str, size: int = 1024, least: float = 0.3) -> float:
    """Operations a second of products of two float32 matrices, the best of a few."""
    import torch

    one = torch.rand(size, size, device=device)
    best, began = float("inf"), time.monotonic()
    while time.monotonic() - began < least:
        start = time.monotonic()
        (one @ one).sum().item()
        best = min(best, time.monotonic() - start)
    return 2 * size**3 / best
