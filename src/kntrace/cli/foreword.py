"""How much a sweep will compute, and about how long it will take: from what was measured."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import kntrace
from kntrace.errors import KntraceError
from kntrace.progress import Progress, duration
from kntrace.study import Study
from kntrace.suite import Suite
from kntrace.suite.weights import size_in_words

__all__ = ["Foreword", "announce", "duration"]

_FLOAT32 = 4
_DIMS = ("checkpoint", "word", "layer", "neuron")


def announce(study: Study, suite: Suite, folder: Path) -> str:
    """Say what a sweep is about to compute, before any model is loaded."""
    words = len(study.words)
    prompts = sum(text is not None for word in study.words for text in study.rendered(word))
    return (
        f"Scoring {words} words ({prompts} prompts) x {len(suite)} checkpoints, "
        f"{words * len(suite):,} blocks, into {folder}"
    )


class Foreword:
    """A `Progress` that passes on what it hears, and tells once what the first block showed.

    A block is begun with a call that names it and ended with one that counts it, and what came
    before is the loading of its checkpoint; all other blocks and checkpoints are taken to last
    as long, and `processes` of them to be in hand at a time.
    """

    def __init__(
        self,
        progress: Progress,
        folder: Path,
        words: int,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        processes: int = 1,
    ) -> None:
        self._processes = processes
        self._progress = progress
        self._folder = folder
        self._words = words
        self._tell = tell
        self._clock = clock
        self._before = 0
        self._times: dict[str, float] = {}
        self._told = False

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Pass it on."""
        if stage == "sweep" and not self._told:
            self._look(done, total, detail)
        self._progress(stage, done, total, detail)

    def _look(self, done: int, total: int, detail: str) -> None:
        now = self._clock()
        if self._times and done > self._before:
            self._told = True
            start, last = next(iter(self._times.values())), list(self._times.values())[-1]
            self._tell(self._say(start, self._times.get(detail, last), now, total - done))
        # Several processes begin blocks before the first is done.
        self._times.setdefault(detail, now)
        self._before = done

    def _say(self, start: float, begun: float, ended: float, left: int) -> str:
        load, block = begun - start, ended - begun
        said = self._size()
        said += f"The first block took {duration(block)}, loading its checkpoint {duration(load)}"
        if not left:
            return f"{said}; it was the last one left"
        whole = left * block + (math.ceil(left / self._words) - 1) * load
        whole /= min(self._processes, left)
        return f"{said}: at that pace, {duration(whole)} for the {left:,} blocks left"

    def _size(self) -> str:
        """What is known of the model once its first block is there."""
        with contextlib.suppress(KntraceError):
            run = kntrace.open_run(self._folder)
            over = "mean_over" if run.settings.keep == "means" else "prompt"
            values = math.prod(run.sizes[dim] for dim in (*_DIMS, over))
            size = size_in_words(_FLOAT32 * values * (1 + run.settings.activations))
            return f"{run.layers} layers x {run.width:,} neurons, up to {size}. "
        return ""
