"""Which checkpoints of a series are wanted: named schedules and explicit steps."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kntrace.documents import nearest
from kntrace.errors import SuiteError
from kntrace.suite.model import Checkpoint

__all__ = ["PAPER_STEPS", "STEP_FORMS", "Schedule", "Steps", "read_steps", "select"]

Steps = str | Iterable[int] | None

PAPER_STEPS = (0, 512, 1000, 3000, 5000, *range(10_000, 140_001, 10_000), 143_000)
"""The 20 steps of Pythia that the paper looks at."""

STEP_FORMS = "`paper`, `all`, `log:N`, `linear:N`, `every:K`, or whole numbers such as 0,512,1000"
_RELATIVE = re.compile(r"\s*(log|linear|every)\s*:\s*([0-9]{1,18})\s*")
_WORDS = ("paper", "all", "log", "linear", "every")
_SHOWN = 3


@dataclass(frozen=True)
class Schedule:
    """Which steps are wanted.

    Attributes
    ----------
    kind
        `all` there are; these `steps`; `count` of them, spaced evenly by step (`linear`) or by
        the logarithm of step + 1 (`log`), the first and the last included; those that are
        multiples of `count` (`every`).
    steps
        Ascending; only for the kind `steps`.
    count
        N or K.
    """

    kind: Literal["all", "steps", "log", "linear", "every"]
    steps: tuple[int, ...] = ()
    count: int = 0

    def may_want(self, step: int | None) -> bool:
        """Whether a checkpoint at this step can be among those wanted."""
        return self.kind != "steps" or step in self.steps


def read_steps(steps: Steps) -> Schedule:
    """Read which checkpoints were asked for.

    Raises
    ------
    SuiteError
        If it is none of `STEP_FORMS`, or if a step occurs twice.
    """
    if steps is None or steps == "all":
        return Schedule("all")
    if steps == "paper":
        return Schedule("steps", PAPER_STEPS)
    if not isinstance(steps, Iterable):
        raise SuiteError(f"steps: {steps!r} is not a list", expected=STEP_FORMS)
    if isinstance(steps, str) and (relative := _RELATIVE.fullmatch(steps)):
        kind, count = relative.groups()
        if int(count) < 1:
            raise SuiteError(f"steps: {steps!r} asks for none", expected=f"{kind}:1 or more")
        return Schedule(kind, count=int(count))  # type: ignore[arg-type]
    given: Sequence[Any] = steps.split(",") if isinstance(steps, str) else list(steps)
    numbers = [_step(item) for item in given]
    if not numbers:
        raise SuiteError("steps: an empty list", expected=STEP_FORMS)
    twice = [number for number, times in Counter(numbers).items() if times > 1]
    if twice:
        raise SuiteError(f"steps: {twice[0]} stands there twice", expected="each step once")
    return Schedule("steps", tuple(sorted(numbers)))


def _step(item: Any) -> int:
    try:
        if isinstance(item, bool):
            raise TypeError
        number = int(item.strip()) if isinstance(item, str) else operator.index(item)
    except (TypeError, ValueError):
        word = item.partition(":")[0].strip() if isinstance(item, str) else ""
        raise SuiteError(
            f"steps: {item!r} is not a step", expected=STEP_FORMS, fix=nearest(word, _WORDS)
        ) from None
    if number < 0:
        raise SuiteError(f"steps: {number} is negative", expected=STEP_FORMS)
    return number


def select(
    name: str, found: Sequence[Checkpoint], wanted: Schedule, *, fix: str | None = None
) -> tuple[Checkpoint, ...]:
    """Keep the checkpoints that are wanted.

    Parameters
    ----------
    name
        What messages call the series.
    found
        Its checkpoints in order.
    fix
        What the reader can do about a step that is not there.

    Raises
    ------
    SuiteError
        If a step is not there (the message names the checkpoints beside it) or is there in
        several stages; if more are asked for than there are.
    """
    if wanted.kind == "all":
        return tuple(found)
    at: dict[int, list[Checkpoint]] = defaultdict(list)
    for item in found:
        if item.step is not None:
            at[item.step].append(item)
    if wanted.kind == "steps":
        _refuse_missing(name, [step for step in wanted.steps if step not in at], found, fix)
        steps = list(wanted.steps)
    else:
        steps = _spaced(name, sorted(at), wanted, fix)
    for step in steps if wanted.kind == "steps" else at:
        if len(at[step]) > 1:
            raise _several(name, step, at[step])
    return tuple(at[step][0] for step in steps)


def _spaced(name: str, there: list[int], wanted: Schedule, fix: str | None) -> list[int]:
    """Choose among the steps that are there, by a schedule that names none."""
    where, asked = f"suite {name}", f"{wanted.kind}:{wanted.count}"
    if not there:
        raise SuiteError(f"no checkpoint's step is known, which {asked} needs", where=where)
    if wanted.kind == "every":
        chosen = [step for step in there if step % wanted.count == 0]
        if not chosen:
            raise SuiteError(
                f"no step is a multiple of {wanted.count}",
                where=where,
                expected=f"steps among those there are, {there[0]} to {there[-1]}",
                fix=fix,
            )
        return chosen
    if wanted.count > len(there):
        raise SuiteError(
            f"{asked} asks for more than the {len(there)} checkpoints there are",
            where=where,
            expected=f"{wanted.kind}:{len(there)} at most, or all",
            fix=fix,
        )
    places = [math.log1p(step) if wanted.kind == "log" else float(step) for step in there]
    return [there[place] for place in _evenly(places, wanted.count)]


def _evenly(places: list[float], count: int) -> list[int]:
    """Choose `count` of the ascending `places` so that they lie as evenly as they can.

    Evenly spaced targets from the first place to the last are each given a place of their own,
    so that the distances add up to the least possible; as many steps as places times targets.
    """
    if count == 1:
        return [len(places) - 1]
    span = places[-1] - places[0]
    best, choices = [0.0] * (len(places) + 1), []
    for number in range(count):
        target = places[0] + span * number / (count - 1)
        # best[j]: the least sum when the targets so far use only the first j places.
        following, chose = [math.inf] * (len(places) + 1), [False] * (len(places) + 1)
        for place in range(number, len(places)):
            with_it = best[place] + abs(places[place] - target)
            chose[place + 1] = with_it < following[place]
            following[place + 1] = min(with_it, following[place])
        best = following
        choices.append(chose)
    chosen, place = [], len(places)
    for chose in reversed(choices):
        while not chose[place]:
            place -= 1
        place -= 1
        chosen.append(place)
    return chosen[::-1]


def _several(name: str, step: int, items: Sequence[Checkpoint]) -> SuiteError:
    staged = all(item.stage is not None for item in items)
    labels = " and ".join(item.label for item in items[:_SHOWN])
    return SuiteError(
        f"several checkpoints are at step {step}: {labels}",
        where=f"suite {name}",
        expected="one checkpoint a step",
        fix="Choose a stage (stage=, --stage)."
        if staged
        else "Leave all but one out with a pattern (pattern=, --pattern).",
    )


def _refuse_missing(
    name: str, missing: Sequence[int], found: Sequence[Checkpoint], fix: str | None
) -> None:
    if not missing:
        return
    listed = "; ".join(f"{step} ({_neighbours(step, found)})" for step in missing[:_SHOWN])
    more = f"; and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    raise SuiteError(
        f"no checkpoint at step {listed}{more}",
        where=f"suite {name}",
        expected=f"steps among those of its {len(found)} checkpoints",
        fix=fix,
    )


def _neighbours(step: int, found: Sequence[Checkpoint]) -> str:
    """Name the checkpoints before and after a step that is not there."""
    known = sorted(
        (item for item in found if item.step is not None), key=lambda item: item.step or 0
    )
    before = [item.label for item in known if (item.step or 0) < step]
    after = [item.label for item in known if (item.step or 0) > step]
    if not known:
        return "no checkpoint's step is known"
    if not before:
        return f"the first is {after[0]}"
    if not after:
        return f"the last is {before[-1]}"
    return f"its neighbours are {before[-1]} and {after[0]}"
