"""What was measured about the verdict rule, and what was not: numbers to be printed with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scipy.stats import binomtest

__all__ = ["LIMITS", "MEASURED", "MEASURED_ON", "VALIDATED", "VALIDATED_ON", "Measured"]

# Written by benchmarks/error_rates.py from the suites' records, which lie beside it.
_NUMBERS = json.loads(Path(__file__).with_name("validated.json").read_text(encoding="utf-8"))

_AIM = 0.05


@dataclass(frozen=True)
class Measured:
    """How often the rule gave each answer on grown suites of one kind, both wordings together.

    Attributes
    ----------
    world
        Kind of suite.
    meant
        Whether groups mean something there, so that "yes" is right.
    suites, yes, no, cannot_tell
        Numbers of suites, each grown from its own seed.
    """

    world: str
    meant: bool
    suites: int
    yes: int
    no: int
    cannot_tell: int

    @cached_property
    def yes_interval(self) -> tuple[float, float]:
        """Exact 95 % interval (Clopper and Pearson) of the rate of "yes".

        Where groups mean nothing that is the rate of false alarms, elsewhere the power.
        """
        found = binomtest(self.yes, self.suites).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.yes_interval
        return f"{self.yes} of {self.suites} ({100 * low:.0f}-{100 * high:.0f} %)"


MEASURED_ON = (
    "102 grown GPT-NeoX suites (4 layers x 96, 600 steps, 12 checkpoints; six of them 4 x 128 and "
    "16 checkpoints), 38 words in 4 groups, grouped and neutral wording judged together"
)

MEASURED: tuple[Measured, ...] = (
    Measured("flat: groups mean nothing", False, 18, 1, 16, 1),
    Measured("flat, word frequency mildly along the groups", False, 7, 0, 5, 2),
    Measured("flat, word frequency strongly along the groups", False, 21, 0, 13, 8),
    Measured("structured: groups share contexts and wording", True, 14, 14, 0, 0),
    Measured("structured, word frequency along the groups", True, 8, 8, 0, 0),
    Measured("weakly structured", True, 12, 12, 0, 0),
    Measured("weakly structured, word frequency along the groups", True, 18, 11, 0, 7),
    Measured("only the wording of groups is shared", True, 4, 4, 0, 0),
)

VALIDATED_ON = (
    f"{sum(suite['yes'] + suite['no'] + suite['cannot tell'] for suite in _NUMBERS['suites'])} "
    "suites grown from fresh seeds after the rule was fixed (3 layers x 64, 500 steps, 12 "
    "checkpoints; GPT-NeoX with 38 words in 4 groups unless it says otherwise)"
)

VALIDATED: tuple[Measured, ...] = tuple(
    Measured(
        suite["world"],
        suite["shared"] != "nothing",
        suite["yes"] + suite["no"] + suite["cannot tell"],
        suite["yes"],
        suite["no"],
        suite["cannot tell"],
    )
    for suite in _NUMBERS["suites"]
)
"""The validation: the rule came first, the seeds after it."""


# The worlds that the rule was looked for on come first among those that share nothing.
_NULL = tuple(row for row in VALIDATED if not row.meant)
_KNOWN, _OTHER = _NULL[:3], _NULL[3:]
_WORDING = tuple(row for row in VALIDATED if "wording" in row.world)
_MEANING = tuple(row for row in VALIDATED if row.meant and row not in _WORDING)


def _rates(rows: tuple[Measured, ...]) -> str:
    return "; ".join(f"{row.world}: {row}" for row in rows) or "no suite yet"


def _shown() -> str:
    """For which worlds the validation shows a rate of false yes of 5 % or less."""
    worlds = [row.world for row in _NULL if row.yes_interval[1] <= _AIM]
    if not worlds:
        return (
            "A rate of 5 % or less is shown for none of these worlds: that takes 72 suites of one."
        )
    return f"A rate of 5 % or less is shown for these and no other worlds: {'; '.join(worlds)}."


def _others() -> str:
    """False yes in the worlds that are confounded in other ways, or otherwise large or built."""
    found = [row for row in _OTHER if row.yes]
    said = f": {_rates(tuple(found))}" if found else ""
    return (
        f"In {len(_OTHER)} other worlds whose groups mean nothing (asked in different forms, named "
        "in different numbers of tokens, with other numbers of words or groups, another "
        f"architecture) it came in {sum(row.yes for row in found)} of "
        f"{sum(row.suites for row in _OTHER)} suites{said}; too few of each to show a rate."
    )


LIMITS: tuple[str, ...] = (
    "With the rule fixed beforehand, on seeds that were never used before, a false yes came in "
    f"(exact 95 % interval in brackets) {_rates(_KNOWN)}. {_shown()}",
    f"{_others()} Further ways of being confounded were not tried.",
    "The thresholds were set on 102 earlier suites, after all of them had been seen, and about 50 "
    "distances and 20 tests were tried on the same ones; the rates on those are optimistic: a "
    "false yes in 1 of 18 flat suites (0-27 %) and in 0 of 28 confounded ones (0-12 %).",
    "With one wording and alpha .05 the rule said yes to 6.4 % (95 % interval 4.3-8.7 %) of 920 "
    "fresh label sets without meaning, and to 8.6 % where frequency went mildly along the groups; "
    "alpha is .025 for that reason.",
    "Yes does not tell shared meaning from shared question wording: where only the wording was "
    f"shared it came in {'; '.join(map(str, _WORDING)) or 'no suite yet'}.",
    "No means an adjusted excess of the AUC under .10, and is no proof of absence: where groups "
    f"do share meaning it came in {sum(row.no for row in _MEANING)} of "
    f"{sum(row.suites for row in _MEANING)} suites, and yes in {sum(row.yes for row in _MEANING)}.",
    "The rates are those of two wordings that must agree; one wording alone is less protected.",
    "Measured on toy worlds of 12 to 50 words in 2 to 6 groups and two small architectures, on no "
    "real suite.",
)
