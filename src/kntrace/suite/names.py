"""What the name of a checkpoint says: its stage, its step, the tokens seen by then."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import regex

from kntrace.documents import nearest
from kntrace.errors import SuiteError
from kntrace.suite.model import Checkpoint, order

__all__ = ["Named", "Reader", "give_stages", "read_name", "reader"]

_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_TOKENS = re.compile(r"tokens?[-_]?([0-9]+(?:\.[0-9]+)?)([kmbt]?)(?![a-z0-9])", re.IGNORECASE)
_STEP = re.compile(
    r"(?:step|checkpoint|ckpt|iter(?:ation)?)s?[-_]?([0-9]+)([km]?)(?![a-z0-9])", re.IGNORECASE
)
# OLMo 2 trains several `ingredients` side by side in its second stage, each from step 0.
_STAGE = re.compile(
    r"(?<![a-z0-9])(?:stage|phase)[-_]?[0-9]+(?:[-_]ingredient[-_]?[0-9]+)?(?![a-z0-9])",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]+")
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmbt]?)", re.IGNORECASE)
_LONGEST_PATTERN = 1000
# A pattern may stand in a stranger's file, and some take longer than the world has existed.
_PATIENCE = 0.5
_GROUPS = ("step", "tokens", "stage")


class Named(NamedTuple):
    """What a name says; None for what it lacks. `rest` is what of it says none of these."""

    step: int | None = None
    tokens: int | None = None
    stage: str | None = None
    rest: str = ""


Reader = Callable[[str], Named | None]
"""Reads a name; None if it is not meant to be a checkpoint of the series."""


def read_name(name: str, *, alone: bool = False) -> Named:
    """Read stage, step and tokens from the name of a folder, repository or revision.

    The step is the last number that a word such as `step` or `checkpoint` announces
    (`stage1-step1000-tokens3B`, `step_20k`), otherwise the last number of all. `alone`: only
    an announced number or a name that is nothing but a number counts, since a checkpoint that
    stands by itself may well be called `pythia-410m`, and a branch `v2`.
    """
    tokens, rest = None, name
    found = _TOKENS.search(rest)
    if found is not None:
        tokens = _scaled(found.group(1), found.group(2))
        rest = rest[: found.start()] + rest[found.end() :]
    stage = _STAGE.search(rest)
    if stage is not None:
        read = _read_step(rest[: stage.start()] + rest[stage.end() :], alone=alone)
        if read[0] is not None:
            return Named(read[0], tokens, stage.group(), read[1])
    step, rest = _read_step(rest, alone=alone)
    return Named(step, tokens, None, rest)


def _read_step(name: str, *, alone: bool) -> tuple[int | None, str]:
    announced = list(_STEP.finditer(name))
    if announced:
        last = announced[-1]
        rest = name[: last.start()] + name[last.end() :]
        return _scaled(*last.groups()), rest.strip("-_. ")
    numbers = list(_NUMBER.finditer(name))
    if not numbers or (alone and numbers[-1].group() != name):
        return None, name
    return int(numbers[-1].group()), name.replace(numbers[-1].group(), "")


def _scaled(number: str, unit: str) -> int:
    # In whole numbers, since 1.1 times a billion is not one in floating point.
    whole, _, fraction = number.partition(".")
    scale = _SCALE[unit.lower()]
    part: int = int(fraction or 0) * scale // 10 ** len(fraction)
    return int(whole) * scale + part


def reader(pattern: str | None, *, alone: bool = False) -> Reader:
    """Make what reads names: by the user's pattern, otherwise by `read_name`.

    Parameters
    ----------
    pattern
        A regular expression with groups named `step`, `tokens` or `stage`, looked for anywhere
        in a name. Names without it are no checkpoints. Numbers may end in k, m, b or t; where
        only tokens are named, they count as steps.

    Raises
    ------
    SuiteError
        If it is no regular expression, or if its groups have other names.
    """
    if pattern is None:
        return lambda name: read_name(name, alone=alone)
    where, expected = f"pattern {pattern!r}", r"a regular expression such as run-(?P<step>\d+)"
    try:
        if len(pattern) > _LONGEST_PATTERN:
            raise ValueError(f"it has {len(pattern):,} characters")
        compiled = regex.compile(pattern)
    except (regex.error, ValueError, RecursionError, OverflowError, MemoryError) as fault:
        raise SuiteError(str(fault), where=where, expected=expected) from None
    for group in compiled.groupindex:
        if group not in _GROUPS:
            raise SuiteError(
                f"a group is called {group!r}",
                where=where,
                expected=", ".join(_GROUPS),
                fix=nearest(group, _GROUPS),
            )
    if not {"step", "tokens"} & {*compiled.groupindex}:
        raise SuiteError("no group is called step or tokens", where=where, expected=expected)
    return lambda name: _read_by(compiled, name)


def _read_by(pattern: Any, name: str) -> Named | None:
    try:
        found = pattern.search(name, timeout=_PATIENCE)
    except TimeoutError:
        raise SuiteError(
            f"it takes more than {_PATIENCE} s to look for it in {name!r}",
            where=f"pattern {pattern.pattern!r}",
            expected="a pattern without repetitions inside of repetitions",
        ) from None
    if found is None:
        return None
    values = {group: text for group, text in found.groupdict().items() if text}
    counts = {}
    for group in ("step", "tokens"):
        if group in values:
            count = _COUNT.fullmatch(values[group].strip())
            if count is None:
                raise SuiteError(
                    f"its group {group!r} finds {values[group]!r} in {name!r}",
                    where=f"pattern {pattern.pattern!r}",
                    expected="a number such as 1000, 20k or 1.1T",
                )
            counts[group] = _scaled(*count.groups())
    step = counts.get("step", counts.get("tokens"))
    if step is None:
        return None
    return Named(step, counts.get("tokens"), values.get("stage"))


def give_stages(
    named: Sequence[tuple[Checkpoint, Named]],
) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """Return the checkpoints with their stages, and those whose stage cannot be told.

    Where others name a stage, a name that says a step and nothing else belongs to the first
    one (as OLMo 2's); one that says something else besides belongs nowhere.
    """
    stages = [item for item, read in named if read.stage is not None]
    if not stages:
        return [item for item, _ in named], []
    first = min(stages, key=order).stage
    settled, unsettled = [], []
    for item, read in named:
        if read.stage is None and read.rest:
            unsettled.append(item)
        else:
            settled.append(item if read.stage is not None else replace(item, stage=first))
    return settled, unsettled
