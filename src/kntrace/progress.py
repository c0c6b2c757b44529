"""How long work tells what it is doing.

Work reports through one callable, so that the command line can draw it with rich, a notebook
with tqdm, and a test can collect it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

__all__ = ["Bars", "Progress", "duration", "silent"]


class Progress(Protocol):
    """Called again and again while `stage` goes from `done` = 0 to `done` = `total`.

    `detail` names what is in hand (a checkpoint, a word). Calls are cheap; a caller may make
    one for every item.
    """

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Say that `done` of `total` items of `stage` are finished."""


def silent(stage: str, done: int, total: int, detail: str = "") -> None:
    """A `Progress` that says nothing."""


def duration(seconds: float) -> str:
    """A length of time as a person would say it: `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 100 * 60), ("h", 3600, 72 * 3600)):
        if seconds < most:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


class Bars:
    """A `Progress` that draws one tqdm bar a stage, in a terminal or a notebook.

    Use it as a context manager, so that a bar cut short by an exception is closed.
    """

    def __init__(self) -> None:
        self._stage: str | None = None
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Draw the bar of `stage`, closing the one of the stage before."""
        if stage != self._stage:
            from tqdm.auto import tqdm

            self._close()
            self._stage = stage
            self._bar = tqdm(total=total, desc=stage, initial=done)
        self._bar.total = total
        self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, None
