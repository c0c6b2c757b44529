"""`kntrace status --watch`: how far a run is, again and again, until it is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import kntrace
from kntrace.archive import Run
from kntrace.cli.foreword import duration
from kntrace.cli.printing import out

__all__ = ["watch_run"]

_BAR = 30


def watch_run(
    folder: Path,
    every: float,
    *,
    console: Console = out,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Count a run's blocks every so many seconds until all are there.

    A terminal shows one line that changes; elsewhere a line is printed whenever a block was
    added. Ctrl-C is how one leaves before, and no failure.

    Raises
    ------
    RunError
        If `folder` is no run.
    """
    run = kntrace.open_run(folder)
    start, at_start = time.monotonic(), -1
    with _shown(console) as show:
        try:
            while True:
                missing = run.missing()
                done = _total(run) - len(missing)
                at_start = done if at_start < 0 else at_start
                show(done, _total(run), _detail(run, missing, done - at_start, start))
                if not missing:
                    return
                wait(every)
        except KeyboardInterrupt:
            return


def _total(run: Run) -> int:
    checkpoints, words = run.shape
    return checkpoints * words


def _detail(run: Run, missing: list[tuple[int, int]], added: int, start: float) -> str:
    """Which checkpoint is in hand, and how long the rest would take at the pace seen so far."""
    if not missing:
        return "all done"
    lacking = Counter(checkpoint for checkpoint, _ in missing)
    checkpoints, words = run.shape
    place = next((one for one, count in sorted(lacking.items()) if count < words), min(lacking))
    said = (
        f"{checkpoints - len(lacking)} of {checkpoints} checkpoints; "
        f"{run.suite.checkpoints[place].label}: {words - lacking[place]} of {words} words"
    )
    if added:
        left = len(missing) * (time.monotonic() - start) / added
        said += f"; about {duration(left)} left"
    return said


Show = Callable[[int, int, str], None]


@contextmanager
def _shown(console: Console) -> Iterator[Show]:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            yield lambda *state: live.update(_line(*state), refresh=True)
        return
    last = -1

    def print_changes(done: int, total: int, detail: str) -> None:
        nonlocal last
        if done != last:
            console.print(f"{done} of {total} blocks, {detail}", markup=False, soft_wrap=True)
        last = done

    yield print_changes


def _line(done: int, total: int, detail: str) -> Group:
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total, done, width=_BAR), Text(f"{done} of {total} blocks"))
    return Group(bar, Text(detail, overflow="ellipsis", no_wrap=True))
