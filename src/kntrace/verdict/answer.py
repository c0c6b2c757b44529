"""A verdict: the answer, why, and the numbers it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from kntrace.errors import AnalysisError

__all__ = ["Answer", "Verdict", "combine"]

Answer = Literal["yes", "no", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """An answer and the numbers it rests on.

    Attributes
    ----------
    answer
        `yes`, `no` or `cannot tell`.
    reason
        Why, in words.
    wording
        The wording whose numbers these are; after `combine`, the one that decided.
    p
        One-sided, of `auc` against labels shuffled among words of like learning time.
    auc
        Of same-group pairs closer than other-group pairs, learning time regressed out.
    null_mean, null_sd
        Mean and standard deviation of `auc` under these shuffles.
    adjusted_auc, standard_error
        0.5 + (auc - null_mean) / leverage, and null_sd / leverage.
    low, high
        90 % interval of `adjusted_auc`: 1.645 standard errors to either side.
    leverage
        How far a shuffle can take labels apart, from 1 (freely) to 0 (groups and learning
        time are the same thing).
    time_share
        Share of the variance of learning time that groups explain (eta squared).
    words, groups, permutations, seed
        What went in.
    """

    answer: Answer
    reason: str
    wording: str
    p: float
    auc: float
    null_mean: float
    null_sd: float
    adjusted_auc: float
    standard_error: float
    low: float
    high: float
    leverage: float
    time_share: float
    words: int
    groups: int
    permutations: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """All fields, as what JSON can express."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verdict:
        """Build a verdict from what `to_dict` gave; other entries are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def __str__(self) -> str:
        return (
            f"{self.answer}: {self.reason}\n"
            f"(wording {self.wording}: p = {self.p:.3f}, adjusted AUC {self.adjusted_auc:.3f} "
            f"[{self.low:.3f}, {self.high:.3f}], leverage {self.leverage:.2f}, "
            f"groups explain {self.time_share:.0%} of learning time)"
        )


def combine(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Put the verdicts of a study's wordings together.

    Yes if all say yes, no if all say no, and otherwise it cannot be told. The numbers are those
    of the wording that decided: among equal answers the one with the weakest evidence, and
    else the first that does not say yes.

    Raises
    ------
    AnalysisError
        If there is no verdict.
    """
    if not verdicts:
        raise AnalysisError("no verdicts to combine", expected="one for every wording")
    if len(verdicts) == 1:
        return next(iter(verdicts.values()))
    answers = {verdict.answer for verdict in verdicts.values()}
    if answers == {"yes"}:
        weakest = max(verdicts.values(), key=lambda verdict: (verdict.p, -verdict.adjusted_auc))
        return replace(weakest, reason=f"in every wording, {weakest.reason}")
    if answers == {"no"}:
        weakest = max(verdicts.values(), key=lambda verdict: verdict.high)
        return replace(weakest, reason=f"in every wording, {weakest.reason}")
    said = "; ".join(f"{name}: {verdict.answer}" for name, verdict in verdicts.items())
    decided = next(verdict for verdict in verdicts.values() if verdict.answer != "yes")
    return replace(
        decided,
        answer="cannot tell",
        reason=f"the wordings of the questions do not agree on yes or no ({said}).",
    )
