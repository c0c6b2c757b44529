"""How much work something is, counted and not timed: the same on every machine, busy or not."""

from __future__ import annotations

import cProfile
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import kntrace

_OURS = str(Path(kntrace.__file__).parent)


def steps(work: Callable[[], object]) -> int:
    """How many steps `work` takes: calls of functions, Python's and C's, and lines of kntrace.

    A round of a loop, of a comprehension too, is a line. What a single call of C goes through
    does not show.
    """
    lines = 0

    def follow(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return follow if frame.f_code.co_filename.startswith(_OURS) else None

    re.purge()  # or patterns would be compiled anew from the 513th on
    profile, before = cProfile.Profile(), sys.gettrace()
    sys.settrace(follow)
    profile.enable()
    try:
        work()
    finally:
        profile.disable()
        sys.settrace(before)
    return lines + sum(entry.callcount for entry in profile.getstats())


def excess(prepared: Callable[[int], Callable[[], object]], size: int) -> float:
    """By how much more than the second `size` things the third are work: 0 if all are alike.

    `prepared(n)` returns the work on n things. If the work has a part that grows with the square
    of their number and is a share s of all at n, this is about 2 s `size` / n, far less than that.
    """
    prepared(size)()  # imports, and what is kept from then on
    one, two, three = (steps(prepared(times * size)) for times in (1, 2, 3))
    return (three - two) / (two - one) - 1


class TooManyCalls(BaseException):
    """No `Exception`, which what is tested may catch."""


@contextmanager
def at_most(most: int) -> Iterator[None]:
    """Stop what makes more than `most` calls of functions, instead of waiting for its end."""
    made = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal made
        if event in ("call", "c_call"):
            made += 1
            if made > most:
                sys.setprofile(None)
                raise TooManyCalls(f"more than {most:,} calls")

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)
