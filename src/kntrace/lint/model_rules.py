"""Rules that need the model: does the last checkpoint know the words at all?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from statistics import fmean

from kntrace.lint.finding import Remark
from kntrace.lint.views import ModelView

__all__ = ["unknown_word"]


def unknown_word(view: ModelView) -> Iterator[Remark]:
    """The last checkpoint cannot answer with the word after any of its prompts."""
    for word, answers in groupby(view.answered, key=lambda answered: answered.asked.word):
        found = list(answers)
        best = min(found, key=lambda answered: answered.rank)
        if best.rank >= view.top:
            mean = fmean(answered.probability for answered in found)
            yield Remark(
                f"after none of its {len(found)} prompts is the answer among the {view.top} "
                f"likeliest tokens; at best it is number {best.rank + 1}, its mean probability "
                f"is {mean:.2g}",
                word=word.text,
                prompt=best.asked.prompt,
                fix="Ask otherwise, or leave the word out: there is no knowledge to trace.",
            )
