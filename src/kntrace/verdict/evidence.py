"""What was measured about the verdict rule, and what was not: numbers to be printed with it."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest

__all__ = ["LIMITS", "MEASURED", "MEASURED_ON", "Measured"]


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
    def yes_interval(self) -> tuple[float, float]:
        """Exact 95 % interval (Clopper and Pearson) of the rate of "yes".

        Where groups mean nothing that is the rate of false alarms, elsewhere the power.
        """
        found = binomtest(self.yes, self.suites).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


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

LIMITS: tuple[str, ...] = (
    "A false yes came in 1 of 18 suites with meaningless groups (95 % interval 0-27 %) and in 0 "
    "of 28 whose groups were meaningless but learnt at different times (0-12 %): that does not "
    "show a rate of 5 % or less.",
    "The thresholds were set after all these suites had been seen, and about 50 distances and 20 "
    "tests were tried on the same ones; some of the rates are optimistic.",
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
