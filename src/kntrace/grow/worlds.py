"""Worlds: who has which contexts, phrasings and frequency, and what text that gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kntrace.errors import SettingsError
from kntrace.grow.facts import (
    FACTS,
    FORMS,
    MORE_FACTS,
    NEUTRAL,
    STATEMENTS,
    SYLLABLES,
    TEMPLATE,
    Group,
)
from kntrace.study import Study, Word

__all__ = ["WORLDS", "Plan", "World", "make_world"]

_T = TypeVar("_T")

GROUPED, NEUTRAL_WORDING = "grouped", "neutral"

# How often a sentence is a context, a question with its answer, or else a statement; and how
# often the latter two use the neutral phrasings.
_CONTEXT, _QUESTION, _NEUTRAL = 0.5, 0.35, 0.15

_ALL = FACTS | MORE_FACTS


@dataclass(frozen=True)
class Plan:
    """What of a world follows the groups; the rest is dealt to the words at random.

    Attributes
    ----------
    contexts, phrasings
        Share of a word's contexts, and of the phrasings of its questions, that are those of
        its group: from 0 (none) to 1 (all).
    frequency
        Whether the words of the first group are the most frequent, and so on; otherwise every
        group has frequent and rare words alike.
    steepness
        How fast frequency falls from the most frequent word (rank r = 0) to the least (r = 1):
        it is in proportion to (1 + 37 r) ** -steepness.
    names
        Whether the names of the first group's words are one token long, those of the second
        group's two, and so on.
    forms
        Whether the study asks of every group in a form of its own. The corpus asks of every
        word in all forms alike, so that the model knows of no difference.
    words
        How many words of each group there are, dealt at random; None: all.
    groups
        The groups there are.
    """

    contexts: float
    phrasings: float
    frequency: bool
    steepness: float = 0.3
    names: bool = False
    forms: bool = False
    words: int | None = None
    groups: tuple[str, ...] = tuple(FACTS)


_TWO, _SIX = ("Countries", "Languages"), (*FACTS, *MORE_FACTS)


WORLDS: dict[str, Plan] = {
    "structured": Plan(contexts=1, phrasings=1, frequency=False),
    "flat": Plan(contexts=0, phrasings=0, frequency=False),
    "confounded": Plan(contexts=0, phrasings=0, frequency=True),
    "strongly_confounded": Plan(contexts=0, phrasings=0, frequency=True, steepness=0.7),
    "structured_confounded": Plan(contexts=1, phrasings=1, frequency=True),
    "contexts_only": Plan(contexts=1, phrasings=0, frequency=False),
    "phrasings_only": Plan(contexts=0, phrasings=1, frequency=False),
    "weak": Plan(contexts=0.5, phrasings=0.5, frequency=False),
    "weak_confounded": Plan(contexts=0.5, phrasings=0.5, frequency=True),
    "name_length": Plan(contexts=0, phrasings=0, frequency=False, names=True),
    "question_form": Plan(contexts=0, phrasings=0, frequency=False, forms=True),
    "structured_12": Plan(contexts=1, phrasings=1, frequency=False, words=3),
    "flat_12": Plan(contexts=0, phrasings=0, frequency=False, words=3),
    "structured_20": Plan(contexts=1, phrasings=1, frequency=False, words=5),
    "flat_20": Plan(contexts=0, phrasings=0, frequency=False, words=5),
    "structured_two": Plan(contexts=1, phrasings=1, frequency=False, groups=_TWO),
    "flat_two": Plan(contexts=0, phrasings=0, frequency=False, groups=_TWO),
    "structured_six": Plan(contexts=1, phrasings=1, frequency=False, groups=_SIX),
    "flat_six": Plan(contexts=0, phrasings=0, frequency=False, groups=_SIX),
}


@dataclass(frozen=True)
class _Entry:
    """Everything the world says of one word."""

    word: str
    name: str
    """What the corpus calls it, and what is to be answered."""
    group: str
    clues: tuple[str, ...]
    relations: tuple[tuple[str, tuple[str, ...]], ...]
    """Per clue: the noun of its questions and the three phrasings."""
    contexts: tuple[tuple[str, tuple[str, ...]], ...]
    """Sentences and the places that occur in them."""
    frequency: float
    forms: tuple[str, ...]
    """How the corpus asks of it."""
    asked: str
    """How the study asks of it."""


class World:
    """One dealing of a plan: the truth behind a corpus and its questions.

    Of the three phrasings of each of a word's facts one is held out: it occurs in the study's
    questions and never in the corpus, in either wording.

    Parameters
    ----------
    name
        A key of `WORLDS`.
    seed
        Of the dealing.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self._entries = _deal(make_plan(name), seed)
        self._frequencies = np.array([entry.frequency for entry in self._entries])

    def corpus(self, sentences: int, rng: np.random.Generator) -> list[str]:
        """Draw sentences; words come as often as their frequencies say."""
        words = rng.choice(len(self._entries), size=sentences, p=self._frequencies)
        return [self._sentence(self._entries[word], int(word), rng) for word in words]

    def _sentence(self, entry: _Entry, index: int, rng: np.random.Generator) -> str:
        kind = rng.random()
        if kind < _CONTEXT:
            text, places = entry.contexts[rng.integers(len(entry.contexts))]
            return text.format(w=entry.name, p=places[rng.integers(len(places))])
        relation = int(rng.integers(len(entry.clues)))
        taught = _taught(index, relation)
        phrasing = taught[rng.integers(len(taught))]
        noun, clause = _clause(entry, relation, phrasing, neutral=rng.random() < _NEUTRAL)
        if kind < _CONTEXT + _QUESTION:
            # A form that there is no choice of takes no random number.
            form = entry.forms[rng.integers(len(entry.forms)) if len(entry.forms) > 1 else 0]
            return _answered(form, noun, clause, entry.name)
        return STATEMENTS[rng.integers(len(STATEMENTS))].format(
            noun=noun, clause=clause, w=entry.name
        )

    def sentences(self) -> Iterator[str]:
        """Every sentence that a corpus of this world can hold, word by word."""
        for index, entry in enumerate(self._entries):
            for text, places in entry.contexts:
                yield from (text.format(w=entry.name, p=place) for place in places)
            for relation in range(len(entry.clues)):
                for phrasing, neutral in product(_taught(index, relation), (False, True)):
                    noun, clause = _clause(entry, relation, phrasing, neutral=neutral)
                    for form in entry.forms:
                        yield _answered(form, noun, clause, entry.name)
                    for statement in STATEMENTS:
                        yield statement.format(noun=noun, clause=clause, w=entry.name)

    def study(self) -> Study:
        """The questions in the held-out phrasings, in grouped and in neutral wording."""
        words = []
        for index, entry in enumerate(self._entries):
            prompts = {
                wording: tuple(
                    _question(
                        entry.asked,
                        *_clause(entry, relation, _held_out(index, relation), neutral=neutral),
                    )
                    for relation in range(len(entry.clues))
                )
                for wording, neutral in ((GROUPED, False), (NEUTRAL_WORDING, True))
            }
            words.append(
                Word(text=entry.word, answer=entry.name, group=entry.group, prompts=prompts)
            )
        return Study(name=f"{self.name} world", template=TEMPLATE, words=tuple(words))

    def truth(self) -> dict[str, Any]:
        """What was dealt, for the record: plain data, word by word."""
        plan = make_plan(self.name)
        return {
            "world": self.name,
            "seed": self.seed,
            "plan": {**asdict(plan), "groups": list(plan.groups)},
            "words": {
                entry.word: {
                    "group": entry.group,
                    "name": entry.name,
                    "frequency": round(entry.frequency, 6),
                    "clues": list(entry.clues),
                    "phrasings": [list(phrasings) for _, phrasings in entry.relations],
                    "held_out": [
                        phrasings[_held_out(index, relation)]
                        for relation, (_, phrasings) in enumerate(entry.relations)
                    ],
                    "contexts": [text for text, _ in entry.contexts],
                }
                for index, entry in enumerate(self._entries)
            },
        }

    def vocabulary(self) -> list[str]:
        """Every word that the corpus or a question can hold, in a fixed order.

        It begins with those of the four groups that most worlds have, so that models of these
        worlds are of one shape.
        """
        plan = make_plan(self.name)
        texts = [TEMPLATE, *STATEMENTS, NEUTRAL[0], *NEUTRAL[1], "which ?"]
        for name in dict.fromkeys((*FACTS, *plan.groups)):
            group = _ALL[name]
            texts += [group.noun, *group.contexts, *group.places]
            texts += [phrasing for relation in group.relations for phrasing in relation]
            texts += [text for word, clues in group.clues.items() for text in (word, *clues)]
        texts += SYLLABLES if plan.names else ()
        tokens = " ".join(texts).split()
        return list(dict.fromkeys(token for token in tokens if not token.startswith("{")))


def make_plan(name: str) -> Plan:
    """Look a plan up by name; raises `SettingsError` with the known ones."""
    if name not in WORLDS:
        raise SettingsError.unknown("world", name, WORLDS)
    return WORLDS[name]


def make_world(name: str, seed: int = 0) -> World:
    """Deal the named world; raises `SettingsError` for an unknown name."""
    return World(name, seed)


def _deal(plan: Plan, seed: int) -> list[_Entry]:
    rng = np.random.default_rng([2025, seed])
    groups = {name: _ALL[name] for name in plan.groups}
    all_relations = [
        (group.noun, phrasings) for group in groups.values() for phrasings in group.relations
    ]
    all_contexts = [(text, group.places) for group in groups.values() for text in group.contexts]
    # What only some worlds need has random numbers of its own: see below.
    spare = np.random.default_rng([2026, seed])
    members = {name: _members(plan, group, spare) for name, group in groups.items()}
    frequency = _frequencies(plan, [len(words) for words in members.values()], rng)
    entries: list[_Entry] = []
    for place, (name, group) in enumerate(groups.items()):
        for word in members[name]:
            clues = group.clues[word]
            # Both are drawn for every word in every world, so that worlds of one seed differ
            # only in what their plans say.
            dealt_relations = rng.choice(len(all_relations), len(clues), replace=False)
            dealt_contexts = rng.choice(len(all_contexts), len(group.contexts), replace=False)
            relations = _mixed(
                [(group.noun, phrasings) for phrasings in group.relations],
                [all_relations[one] for one in dealt_relations],
                plan.phrasings,
                turn=len(entries),
            )
            contexts = _mixed(
                [(text, group.places) for text in group.contexts],
                [all_contexts[one] for one in dealt_contexts],
                plan.contexts,
                turn=len(entries),
            )
            syllables = spare.choice(SYLLABLES, place) if plan.names else ()
            entries.append(
                _Entry(
                    word,
                    " ".join([word, *syllables]),
                    name,
                    clues,
                    relations,
                    contexts,
                    float(frequency[len(entries)]),
                    FORMS if plan.forms else FORMS[:1],
                    FORMS[place] if plan.forms else FORMS[0],
                )
            )
    return entries


def _members(plan: Plan, group: Group, rng: np.random.Generator) -> list[str]:
    """The words of a group that are in the world, in table order."""
    words = list(group.clues)
    if plan.words is None:
        return words
    return [words[place] for place in sorted(rng.permutation(len(words))[: plan.words])]


def _mixed(own: Sequence[_T], dealt: Sequence[_T], share: float, *, turn: int) -> tuple[_T, ...]:
    """Keep a share of `own` where it stands, and fill the other places with what was dealt.

    Which places are kept goes round with `turn`, so that the words of a group keep all alike.
    """
    kept = {own[(turn + place) % len(own)] for place in range(round(share * len(own)))}
    others = (one for one in dealt if one not in kept)
    return tuple(one if one in kept else next(others) for one in own)


def _frequencies(plan: Plan, sizes: Sequence[int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Frequencies of all words in table order, summing to one."""
    total = sum(sizes)
    if plan.frequency:
        rank = (np.arange(total) + 0.5) / total
    else:
        rank = np.concatenate([(rng.permutation(size) + 0.5) / size for size in sizes])
    frequency = (1 + 37 * rank) ** -plan.steepness
    return np.asarray(frequency / frequency.sum())


def _held_out(word: int, relation: int) -> int:
    return (word + relation) % 3


def _taught(word: int, relation: int) -> list[int]:
    return [one for one in range(3) if one != _held_out(word, relation)]


def _clause(entry: _Entry, relation: int, phrasing: int, *, neutral: bool) -> tuple[str, str]:
    noun, phrasings = NEUTRAL if neutral else entry.relations[relation]
    return noun, phrasings[phrasing].format(x=entry.clues[relation])


def _question(form: str, noun: str, clause: str) -> str:
    return form.format(noun=noun, clause=clause)


def _answered(form: str, noun: str, clause: str, name: str) -> str:
    return f"{TEMPLATE.format(question=_question(form, noun, clause))} {name}"
