"""Whether the regular expressions of a tokenizer can be counted on to end.

A tokenizer cuts text with expressions out of its `tokenizer.json`, which may be a stranger's.
The library that runs them (Oniguruma) goes back and tries again, at worst as often as there are
ways to share the text among repetitions: 2^n ways for `(a+)+` and n letters. It gives up after
ten million tries, and panics, which no `except Exception` catches; but just below that it may
take a fifth of a second for every letter of a text, and for every expression.

So only such expressions are used as must end soon. A repetition may repeat only what has one
length and no choice in it, and at most two repetitions may stand in a row of an alternative:
with n letters, n² tries from each of them, which is milliseconds for a word of a hundred letters
and three seconds for one of a thousand. The expressions of GPT-2, Llama 3, Qwen, o200k and the
others in `tests/test_patterns.py` are of that kind.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["fault_of_pattern"]

_LONGEST = 10_000
_DEEPEST = 20
_LARGEST = 10_000
_REPETITIONS, _OPTIONAL = 2, 8
"""In one alternative, one after the other."""
_ROWS_OF_TWO = 10
"""Alternatives with as many repetitions; o200k has four."""

_INTERVAL = re.compile(r"\{(\d*)(,?)(\d*)\}")
_SIGN = re.compile(r"\\(?:[pP]\{[^{}]*\}|x\{[^{}]*\}|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|.)", re.S)
_GROUP = re.compile(r"\(\?(?:[:=!>]|<[=!]|<[A-Za-z_]\w*>|[im-]*:)")
_FROM_HERE = re.compile(r"\(\?[im-]+\)")


def fault_of_pattern(pattern: str) -> str | None:
    """Say why a regular expression may take forever; None if it must end soon.

    Costs about a microsecond a character.
    """
    if len(pattern) > _LONGEST:
        return f"it has {len(pattern):,} characters"
    reader = _Reader(pattern)
    try:
        found = reader.alternatives()
        if reader.at < len(pattern):
            raise _RefusedError("a bracket is closed that was not opened")
    except _RefusedError as refused:
        return str(refused)
    if found.repetitions > _REPETITIONS:
        return f"{found.repetitions} repetitions stand in a row"
    if found.optional > _OPTIONAL:
        return f"{found.optional} optional parts stand in a row"
    if reader.rows_of_two > _ROWS_OF_TWO:
        return f"{reader.rows_of_two} of its alternatives have several repetitions in a row"
    return None


class _RefusedError(Exception):
    """An expression that is not to be used, or not understood; says why."""


class _Part(NamedTuple):
    """A part of an expression.

    Whether it always takes as much text, in one way; how many repetitions and optional parts
    stand in a row, in the worst of its alternatives; and its length when it is written out.
    """

    sure: bool = True
    repetitions: int = 0
    optional: int = 0
    size: int = 1


@dataclass
class _Reader:
    text: str
    at: int = 0
    depth: int = 0
    rows_of_two: int = 0

    def alternatives(self) -> _Part:
        """Read up to the end, or to the bracket that closes."""
        found = [self._row()]
        while self._next() == "|":
            self.at += 1
            found.append(self._row())
        self.rows_of_two += sum(part.repetitions > 1 for part in found)
        return _Part(
            len(found) == 1 and found[0].sure,
            max(part.repetitions for part in found),
            max(part.optional for part in found),
            sum(part.size for part in found),
        )

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _row(self) -> _Part:
        parts = [_Part()]
        while self._next() not in ("", "|", ")"):
            start = self.at
            part = self._one()
            parts.append(self._repeated(part, start))
        return _Part(
            all(part.sure for part in parts),
            sum(part.repetitions for part in parts),
            sum(part.optional for part in parts),
            sum(part.size for part in parts),
        )

    def _one(self) -> _Part:
        """Read one sign, set or group."""
        sign = self._next()
        if sign == "[":
            self._set()
        elif sign == "(":
            return self._group()
        elif sign == "\\":
            return self._escaped()
        elif sign in "*+?":
            raise _RefusedError(f"{sign} repeats nothing")
        else:
            self.at += 1
        return _Part()

    def _escaped(self) -> _Part:
        found = _SIGN.match(self.text, self.at)
        if found is None:
            raise _RefusedError("it ends with \\")
        kind = found.group()[1]
        if kind in "123456789gk":
            raise _RefusedError(f"{found.group()} refers to another part of it")
        if kind in "RX":
            raise _RefusedError(f"{found.group()} stands for signs of any number")
        self.at = found.end()
        return _Part()

    def _set(self) -> None:
        """Read a set of characters, with the sets inside it."""
        depth = 0
        while True:
            sign = self._next()
            if sign == "":
                raise _RefusedError("[ is not closed")
            if sign == "\\":
                self._escaped_in_set()
                continue
            self.at += 1
            if sign == "[":
                depth += 1
                self.at += self._next() == "^"
                if self._next() == "]":
                    raise _RefusedError("a set begins with ]")
            elif sign == "]":
                depth -= 1
                if depth == 0:
                    return

    def _escaped_in_set(self) -> None:
        found = _SIGN.match(self.text, self.at)
        if found is None:
            raise _RefusedError("it ends with \\")
        self.at = found.end()

    def _group(self) -> _Part:
        rest = _FROM_HERE.match(self.text, self.at)
        if rest is not None:  # (?i) holds for what follows, further alternatives included
            self.at = rest.end()
            return self.alternatives()
        found = _GROUP.match(self.text, self.at)
        if found is None and self.text[self.at + 1 : self.at + 2] in ("?", "*"):
            raise _RefusedError(
                f"{self.text[self.at : self.at + 4]} is a group of an uncommon kind"
            )
        self.at = self.at + 1 if found is None else found.end()
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _RefusedError(f"groups are nested more than {_DEEPEST} deep")
        part = self.alternatives()
        if self._next() != ")":
            raise _RefusedError("( is not closed")
        self.at += 1
        self.depth -= 1
        return part

    def _repeated(self, part: _Part, start: int) -> _Part:
        """Read how often what was read is repeated."""
        times = self._times()
        if times is None:
            return part
        # What ends an alternative matches or does not: nothing after it asks for another way.
        if self._times() is not None and (self.depth or self._next() not in ("", "|")):
            raise _RefusedError(f"{self.text[start : self.at]} repeats a repetition")
        least, most = times
        size = part.size * int(most) if most < math.inf else part.size
        if size > _LARGEST:
            raise _RefusedError(
                f"{self.text[start : self.at]} is written out at a length of {size:,}"
            )
        if most <= 1:
            return _Part(least == most, part.repetitions, part.optional + 1, size)
        if not part.sure:
            raise _RefusedError(
                f"{self.text[start : self.at]} repeats what has several lengths or ways"
            )
        return _Part(least == most, part.repetitions + (least != most), part.optional, size)

    def _times(self) -> tuple[float, float] | None:
        """Read one sign of repetition: how often at least and at most."""
        sign = self._next()
        if sign in ("*", "+", "?") and sign:
            self.at += 1
            self.at += self._next() in ("?", "+") and self._next() != ""  # lazy, or for good
            return float(sign == "+"), 1.0 if sign == "?" else math.inf
        found = _INTERVAL.match(self.text, self.at)
        if found is None or not any(found.group(1, 3)):
            return None
        low, comma, high = found.groups()
        self.at = found.end()
        least = float(low or 0)
        most = float(high) if high else (math.inf if comma else least)
        if self._next() == "?":
            self.at += 1
            least = least if comma else 0.0
        return min(least, most), max(least, most)
