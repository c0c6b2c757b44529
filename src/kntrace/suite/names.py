"""What the name of a checkpoint says, and which steps were asked for."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from kntrace.errors import SuiteError
from kntrace.suite.model import Checkpoint, Suite

__all__ = ["PAPER_STEPS", "STEP_FORMS", "Steps", "read_name", "read_steps", "select"]

Steps = str | Iterable[int] | None

PAPER_STEPS = (0, 512, 1000, 3000, 5000, *range(10_000, 140_001, 10_000), 143_000)
"""The 20 steps of Pythia that the paper looks at."""

_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_TOKENS = re.compile(r"tokens?[-_]?([0-9]+(?:\.[0-9]+)?)([kmbt]?)(?![a-z0-9])", re.IGNORECASE)
_STEP = re.compile(
    r"(?:step|checkpoint|ckpt|iter(?:ation)?)s?[-_]?([0-9]+)([km]?)(?![a-z0-9])", re.IGNORECASE
)
_NUMBER = re.compile(r"[0-9]+")
STEP_FORMS = "`paper`, `all`, or whole numbers such as 0,512,1000"
_SHOWN = 3


def read_name(name: str, *, alone: bool = False) -> tuple[int | None, int | None]:
    """Read (step, tokens) from the name of a folder or revision; None for what it lacks.

    The step is the last number that a word such as `step` or `checkpoint` announces
    (`stage1-step1000-tokens3B`, `step_20k`), otherwise the last number of all. `alone`: only
    an announced number or a name that is nothing but a number counts, since a checkpoint that
    stands by itself may well be called `pythia-410m`.
    """
    tokens = None
    found = _TOKENS.search(name)
    if found is not None:
        # In whole numbers, since 1.1 times a billion is not one in floating point.
        whole, _, fraction = found.group(1).partition(".")
        scale = _SCALE[found.group(2).lower()]
        tokens = int(whole) * scale + int(fraction or 0) * scale // 10 ** len(fraction)
        name = name[: found.start()] + name[found.end() :]
    announced = _STEP.findall(name)
    if announced:
        digits, unit = announced[-1]
        return int(digits) * _SCALE[unit.lower()], tokens
    numbers = _NUMBER.findall(name)
    if not numbers or (alone and numbers[-1] != name):
        return None, tokens
    return int(numbers[-1]), tokens


def read_steps(steps: Steps) -> tuple[int, ...] | None:
    """Return the steps that were asked for, in order; None for all there are.

    Raises
    ------
    SuiteError
        If they are not `paper`, `all`, or whole numbers from 0 that all differ.
    """
    if steps is None or steps == "all":
        return None
    if steps == "paper":
        return PAPER_STEPS
    if not isinstance(steps, Iterable):
        raise SuiteError(f"steps: {steps!r} is not a list", expected=STEP_FORMS)
    given: Sequence[Any] = steps.split(",") if isinstance(steps, str) else list(steps)
    numbers = [_step(item) for item in given]
    if not numbers:
        raise SuiteError("steps: an empty list", expected=STEP_FORMS)
    twice = [number for number, times in Counter(numbers).items() if times > 1]
    if twice:
        raise SuiteError(f"steps: {twice[0]} stands there twice", expected="each step once")
    return tuple(sorted(numbers))


def _step(item: Any) -> int:
    try:
        if isinstance(item, bool):
            raise TypeError
        number = int(item.strip()) if isinstance(item, str) else operator.index(item)
    except (TypeError, ValueError):
        raise SuiteError(f"steps: {item!r} is not a step", expected=STEP_FORMS) from None
    if number < 0:
        raise SuiteError(f"steps: {number} is negative", expected=STEP_FORMS)
    return number


def select(suite: Suite, steps: tuple[int, ...] | None) -> Suite:
    """Keep the checkpoints at `steps`; all of them for None.

    Raises
    ------
    SuiteError
        If one is not there; the message names the checkpoints beside it.
    """
    if steps is None:
        return suite
    at = {item.step: item for item in suite if item.step is not None}
    missing = [step for step in steps if step not in at]
    if missing:
        listed = "; ".join(f"{step} ({_neighbours(step, suite)})" for step in missing[:_SHOWN])
        more = f"; and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise SuiteError(
            f"no checkpoint at step {listed}{more}",
            where=f"suite {suite.name}",
            expected=f"steps among those of its {len(suite)} checkpoints",
        )
    return Suite(suite.name, tuple(at[step] for step in steps))


def _neighbours(step: int, suite: Suite) -> str:
    """Name the checkpoints before and after a step that is not there."""
    known: list[Checkpoint] = [item for item in suite if item.step is not None]
    before = [item.label for item in known if (item.step or 0) < step]
    after = [item.label for item in known if (item.step or 0) > step]
    if not known:
        return "no checkpoint's step is known"
    if not before:
        return f"the first is {after[0]}"
    if not after:
        return f"the last is {before[-1]}"
    return f"its neighbours are {before[-1]} and {after[0]}"
