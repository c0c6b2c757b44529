"""What was measured about the verdict rule, and what was not: numbers to be printed with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
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

    @property
    def interval(self) -> tuple[float, float]:
        """Exact two-sided 95 % interval (Clopper and Pearson) of the share of yes."""
        found = binomtest(self.yes, self.suites).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.yes} of {self.suites} ({100 * low:.0f}-{100 * high:.0f} %)"


MEASURED_ON = (
    "102 grown GPT-NeoX suites (3 layers x 64, 500 steps, 12 checkpoints; six of them 4 x 128 and "
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


def _false_yes() -> str:
    """What the validation says of false yes, world by world."""
    null = [row for row in VALIDATED if not row.meant]
    shown = [row.world for row in null if row.interval[1] <= _AIM]
    rates = "; ".join(f"{row.world}: {row}" for row in null)
    return (
        "On fresh seeds, with the rule fixed beforehand, a false yes came in (exact 95 % interval "
        f"in brackets) {rates}. A rate of 5 % or less is shown "
        + (
            f"for {', '.join(shown)} only."
            if shown
            else "for none of these worlds: more suites are needed."
        )
    )


LIMITS: tuple[str, ...] = (
    _false_yes(),
    "The thresholds were set on 102 earlier suites, after all of them had been seen, and about 50 "
    "distances and 20 tests were tried on the same ones; the rates on those are optimistic (a "
    "false yes in 1 of 18 flat suites, 0-27 %, and in 0 of 28 confounded ones, 0-12 %).",
    "With one wording and alpha .05 the rule said yes to 6.4 % (95 % interval 4.3-8.7 %) of 920 "
    "fresh label sets without meaning; alpha is .025 for that reason.",
    "Yes does not tell shared meaning from shared question wording; neutral wording guards "
    "against the latter.",
    "No means an adjusted excess of the AUC under .10, and is no proof of absence.",
    "Confounding was tried through word frequency and learning time only, not through "
    "tokenization, word length or the form of the questions.",
    "The rates are those of two wordings that must agree; one wording alone is less protected.",
    "Mild confounding is thin (7 suites), and label sets without meaning were called significant "
    "most often there: 8.6 % at alpha .05.",
    "Measured on toy worlds of 38 words in 4 groups and one small architecture, on no real suite.",
)
