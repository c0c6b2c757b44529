"""How a verdict shows itself in a notebook.

It stands apart from the verdict: the files of the rule and of its answers are as they were when
the rule was validated, to the letter (`FROZEN_FILES` in benchmarks/cases.py).
"""

from __future__ import annotations

from kntrace.notebook import Card, Shown
from kntrace.verdict.answer import Verdict

__all__ = ["card_of"]


def card_of(verdict: Verdict) -> Card:
    """The answer, why, and the numbers it rests on."""
    return Card(
        f"Verdict: {verdict.answer}",
        {
            "p": verdict.p,
            "adjusted AUC": verdict.adjusted_auc,
            "90 % interval": f"{verdict.low:.3f} to {verdict.high:.3f}",
            "leverage": verdict.leverage,
            "time explained by groups": f"{verdict.time_share:.0%}",
            "wording": verdict.wording,
        },
        notes=(verdict.reason,),
    )


for _name, _method in {
    "_card": card_of,
    "__repr__": Shown.__repr__,
    "_repr_html_": Shown._repr_html_,
}.items():
    setattr(Verdict, _name, _method)
