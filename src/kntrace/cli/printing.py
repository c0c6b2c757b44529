"""How commands speak: results, remarks, progress bars, and the last line of a failure."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from kntrace.errors import InputError, KntraceError, StoppedError
from kntrace.progress import Progress, silent

__all__ = ["bars", "err", "fail", "hush", "out", "print_json", "say", "tell", "warn"]

# Results go to standard output, everything said on the way to standard error, so that
# `kntrace status RUN --json | jq` works. Both have colours only where a terminal shows them, and
# none if NO_COLOR is set.
out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def hush(quiet: bool) -> bool:
    """Take note of --quiet: what goes to standard error on the way is not said."""
    err.quiet = quiet
    return quiet


@contextlib.contextmanager
def bars(quiet: bool) -> Iterator[Progress]:
    """Draw progress with an estimate on standard error, if a person is looking.

    Ctrl-C inside becomes an error of kntrace, which typer does not swallow.
    """
    try:
        if quiet or not err.is_terminal:
            yield silent
        else:
            with RichProgress(*_COLUMNS, console=err) as drawn:
                yield _Tasks(drawn)
    except KeyboardInterrupt as stop:
        said = str(stop) or "Stopped. The same command goes on where it was."
        raise StoppedError(said) from None


_BAR = 16
_COLUMNS = (
    TextColumn("{task.description:<9}"),
    BarColumn(bar_width=_BAR),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
    TextColumn("{task.fields[detail]}", markup=False),
)
# What comes before the detail, beside the stage: bar, "1234/12345", two times, and "left".
_TAKEN = _BAR + 10 + 7 + 7 + 4 + 6


class _Tasks:
    """A `Progress` that gives every stage a bar of its own, in one line of the terminal."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, completed=done, detail="")
        room = self._bars.console.width - _TAKEN - max(9, *map(len, self._tasks))
        shown = detail if len(detail) <= room else f"{detail[: max(room - 1, 0)]}…"
        self._bars.update(self._tasks[stage], completed=done, total=total, detail=shown)


def say(result: object) -> None:
    """Print a result as it describes itself; words of a study are text, never markup."""
    _print(out, str(result))


def tell(text: str) -> None:
    """Say on standard error what is being done, unless --quiet."""
    _print(err, text)


def _print(console: Console, text: str) -> None:
    # A terminal wraps between words; where a program reads, a line stays one.
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


def warn(text: str) -> None:
    """Say on standard error what nobody should overlook, --quiet or not."""
    print(f"Careful: {text}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a result for a script to read."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def fail(error: KntraceError) -> NoReturn:
    """End with one line on standard error and the error's exit code."""
    kinds = {InputError: "input: ", StoppedError: ""}
    kind = next((said for of, said in kinds.items() if isinstance(error, of)), "failure: ")
    print(f"kntrace: {kind}{error}", file=sys.stderr)
    sys.exit(error.exit_code)
