"""What the verdict is validated on: kinds of grown suites, one recipe, and seeds never used before.

All of this was written down before the first of these suites was grown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FROZEN = "194c56a1"
"""The commit at which the rule was fixed."""

FROZEN_FILES = (
    "src/kntrace/verdict/rule.py",
    "src/kntrace/verdict/answer.py",
)
"""What must be as it was then. That the distance it judges gives the same numbers, and the rule
the same answers, a test makes sure (tests/test_validation.py)."""

FIRST_SEED = 100
"""Seeds below served while the rule was looked for, or for the first fifteen suites."""

RECIPE: Mapping[str, Any] = {
    "layers": 3,
    "hidden": 64,
    "heads": 4,
    "steps": 500,
    "batch": 32,
    "checkpoints": 12,
    "learning_rate": 4e-3,
}
"""How every suite is grown, but for what its case says.

A fifth of the work of the suites that the rule was found on (4 x 96, 600 steps of 64 sentences),
chosen on one flat suite of seed 9 because its answers are learnt as well (P(answer) .92).
"""

SETTINGS: Mapping[str, Any] = {"rule": "gauss_legendre", "nodes": 8}
"""How it is scored: a fixed rule takes half the time and changed no AUC by over .001."""

Truth = Literal["nothing", "meaning", "wording"]


@dataclass(frozen=True)
class Case:
    """One kind of suite.

    Attributes
    ----------
    name
        What its records are called by.
    title
        What it is, for tables.
    truth
        What the words of a group share: `nothing`, so that "yes" is false; `meaning`, so that
        it is right; or only the `wording` of their questions.
    often
        How many of its suites are grown in one round, compared with the others.
    world
        A key of `kntrace.grow.WORLDS`.
    recipe, settings
        Where it departs from `RECIPE` and `SETTINGS`.
    """

    name: str
    title: str
    truth: Truth
    often: float
    world: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


_LLAMA = {"architecture": "llama"}

_ALL = (
    Case("flat", "flat", "nothing", 2, "flat"),
    Case("confounded", "flat, frequency mildly along the groups", "nothing", 2, "confounded"),
    Case(
        "strongly_confounded",
        "flat, frequency strongly along the groups",
        "nothing",
        2,
        "strongly_confounded",
    ),
    Case("structured", "structured", "meaning", 1, "structured"),
    Case("weak", "weakly structured", "meaning", 1, "weak"),
    Case(
        "weak_confounded",
        "weakly structured, frequency along the groups",
        "meaning",
        1,
        "weak_confounded",
    ),
    Case("contexts_only", "only contexts shared", "meaning", 1, "contexts_only"),
    Case("phrasings_only", "only wording shared", "wording", 1, "phrasings_only"),
    Case(
        "question_form",
        "flat, each group asked in a form of its own",
        "nothing",
        1,
        "question_form",
    ),
    Case(
        "names_mean",
        "flat, names longer by group, all tokens scored",
        "nothing",
        1,
        "name_length",
        settings={"answer_tokens": "mean"},
    ),
    Case(
        "names_first",
        "flat, names longer by group, first token scored",
        "nothing",
        0.5,
        "name_length",
        settings={"answer_tokens": "first"},
    ),
    Case("flat_12", "flat, 12 words", "nothing", 1, "flat_12"),
    Case("flat_20", "flat, 20 words", "nothing", 1, "flat_20"),
    Case("flat_two", "flat, 23 words in two groups", "nothing", 1, "flat_two"),
    Case("flat_six", "flat, 50 words in six groups", "nothing", 1, "flat_six"),
    Case("flat_llama", "flat, Llama", "nothing", 1, "flat", recipe=_LLAMA),
    Case("structured_12", "structured, 12 words", "meaning", 0.5, "structured_12"),
    Case("structured_20", "structured, 20 words", "meaning", 0.5, "structured_20"),
    Case("structured_two", "structured, 23 words in two groups", "meaning", 0.5, "structured_two"),
    Case("structured_six", "structured, 50 words in six groups", "meaning", 0.5, "structured_six"),
    Case("structured_llama", "structured, Llama", "meaning", 0.5, "structured", recipe=_LLAMA),
)
CASES: dict[str, Case] = {case.name: case for case in _ALL}


def order(names: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Cases and seeds in the order of growing: the numbers of suites rise evenly.

    A case that is grown twice a round is always about twice as far as one grown once.
    """
    places = [
        ((number + 1) / CASES[name].often, place, name, seed)
        for place, name in enumerate(names)
        for number, seed in enumerate(seeds)
    ]
    for _, _, name, seed in sorted(places):
        yield name, seed
