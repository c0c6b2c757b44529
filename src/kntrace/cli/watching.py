"""`kntrace status --watch`: how far a run is, again and again, until it is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import kntrace
from kntrace.archive import Run, Seen, read_computing
from kntrace.cli.foreword import duration
from kntrace.cli.printing import out

__all__ = ["watch_run"]

_BAR = 30
_NAMED = 8


@dataclass(frozen=True)
class _Look:
    """What one look at a run showed."""

    done: int
    total: int
    detail: str
    computing: Sequence[Seen]


def watch_run(
    folder: Path,
    every: float,
    *,
    console: Console = out,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Count a run's blocks every so many seconds until all are there.

    A terminal shows a few lines that change; elsewhere a line is printed whenever a block was
    added. Ctrl-C is how one leaves before, and no failure.

    Raises
    ------
    RunError
        If `folder` is no run.
    """
    run = kntrace.open_run(folder)
    checkpoints, words = run.shape
    start, first = time.monotonic(), -1
    with _shown(console) as show:
        try:
            while True:
                missing = run.missing()
                done = checkpoints * words - len(missing)
                first = done if first < 0 else first
                detail = _detail(run, missing, done - first, time.monotonic() - start)
                alive = [seen for seen in read_computing(run.path) if seen.alive]
                show(_Look(done, checkpoints * words, detail, alive))
                if not missing:
                    return
                wait(every)
        except KeyboardInterrupt:
            return


def _detail(run: Run, missing: list[tuple[int, int]], added: int, seconds: float) -> str:
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
        said += f"; about {duration(len(missing) * seconds / added)} left"
    return said


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[_Look], None]]:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda look: live.update(_lines(look), refresh=True)
        return
    last = -1

    def print_changes(look: _Look) -> None:
        nonlocal last
        if look.done != last:
            said = f"{look.done} of {look.total} blocks, {look.detail}{_who(look)}"
            console.print(said, markup=False, soft_wrap=True)
        last = look.done

    yield print_changes


def _who(look: _Look) -> str:
    if look.done == look.total:
        return ""
    count = len(look.computing)
    return f"; {count or 'no'} process{'' if count == 1 else 'es'} at it"


def _lines(look: _Look) -> Group:
    bar = Table.grid(padding=(0, 1))
    counted = Text(f"{look.done} of {look.total} blocks{_who(look)}")
    bar.add_row(ProgressBar(look.total, look.done, width=_BAR), counted)
    told = [look.detail, *(f"  {seen}" for seen in look.computing[:_NAMED])]
    if len(look.computing) > _NAMED:
        told.append(f"  and {len(look.computing) - _NAMED} more")
    return Group(bar, *(Text(line, overflow="ellipsis", no_wrap=True) for line in told))
