"""The verdict: do words of one group form alike, beyond being learnt at the same time?

Words learnt at the same time look alike to every distance, whatever they mean, and permuting
labels freely does not notice. So the rule compares neuron identity, takes learning time out of
the ranks of the pairs, and shuffles labels only among words learnt at about the same time. Its
thresholds, its error rates as measured, and its limits are part of it.
"""

from kntrace.verdict.account import account
from kntrace.verdict.answer import Answer, Verdict, combine
from kntrace.verdict.card import card_of as _card_of  # noqa: F401 - gives verdicts their looks
from kntrace.verdict.evidence import (
    LIMITS,
    MEASURED,
    MEASURED_ON,
    VALIDATED,
    VALIDATED_ON,
    Measured,
)
from kntrace.verdict.rule import VerdictRule

__all__ = [
    "LIMITS",
    "MEASURED",
    "MEASURED_ON",
    "VALIDATED",
    "VALIDATED_ON",
    "Answer",
    "Measured",
    "Verdict",
    "VerdictRule",
    "account",
    "combine",
]
