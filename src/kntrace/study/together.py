"""What the words of a study must be to one another to stand in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kntrace.documents import DataPath, Fault, nearest

if TYPE_CHECKING:
    from kntrace.study.model import Word

__all__ = ["LINKS", "LONG_FORM_KEYS", "MAIN", "check_words"]

MAIN = "main"
"""The wording of prompts that a file gives as a plain list."""

# A mapping with one of these keys is a word in its long form, not a mapping of wordings.
LINKS = ("synonym_of", "inverse_of")
LONG_FORM_KEYS = ("answer", "prompts", "alternatives", *LINKS)

MOST_WORDS, MOST_WORDINGS = 100_000, 100
"""More than any study needs; a file that has more is damaged, or meant to fill the memory."""


def check_words(words: Sequence[Word]) -> None:
    """Raise a `Fault` unless these words can stand in one study."""
    if not words:
        raise Fault("the study has no words", path=("groups",), whole=True)
    if len(words) > MOST_WORDS:
        raise Fault(
            f"the study has {len(words):,} words",
            path=("groups",),
            expected=f"at most {MOST_WORDS:,}",
            whole=True,
        )
    group_of: dict[str, str] = {}
    earlier: set[str] = set()
    group = words[0].group
    for word in words:
        if word.text in group_of:
            raise Fault(
                f"stands a second time, after the one in group {group_of[word.text]!r}",
                path=_place(word),
                expected="each word once, in one group",
            )
        if word.group != group and word.group in earlier:
            raise Fault(
                f"is apart from the other words of group {word.group!r}",
                path=_place(word),
                expected="the words of one group beside one another",
            )
        group_of[word.text] = group = word.group
        earlier.add(group)
    for word in words:
        _check_links(word, group_of)
    _check_wordings(words)


def _check_links(word: Word, group_of: dict[str, str]) -> None:
    for key in LINKS:
        other = getattr(word, key)
        if other and (other == word.text or other not in group_of):
            raise Fault(
                f"has {key}: {other}, which is "
                f"{'the word itself' if other == word.text else 'no word of the study'}",
                path=_place(word),
                expected="another word of the study, with prompts of its own",
                fix=nearest(other, [text for text in group_of if text != word.text]),
            )


def _check_wordings(words: Sequence[Word]) -> None:
    uses = Counter(wording for word in words for wording in word.prompts)
    first = next(iter(uses))
    if len(uses) > MOST_WORDINGS:
        raise Fault(
            f"the study has {len(uses):,} wordings",
            path=("groups",),
            expected=f"at most {MOST_WORDINGS}",
            fix="A wording is a way of asking that many words share.",
            whole=True,
        )
    # Names are compared once each, not once for every word that lacks one.
    alike = {
        wording: {
            other
            for other in uses
            if uses[other] > uses[wording] and nearest(wording, [other], cutoff=0.75)
        }
        for wording in uses
    }
    for word in words:
        if len(word.prompts) == len(uses):
            continue
        absent = [wording for wording in uses if wording not in word.prompts]
        for wording in word.prompts:
            # A wording of few words with nearly the name of a more common one is a slip: it
            # would quietly add columns to the scores that are empty for all other words.
            common = [other for other in absent if other in alike[wording]]
            guess = nearest(wording, common, cutoff=0.75)
            if guess is not None:
                raise Fault(
                    f"has prompts in the wording {wording!r}, as only {uses[wording]} of "
                    f"{len(words)} words have",
                    path=_place(word),
                    expected="the wordings of the other words, or a name unlike theirs",
                    fix=guess,
                )
        if first in absent:
            raise Fault(
                f"has no prompts in the wording {first!r}, only in {', '.join(word.prompts)}",
                path=_place(word),
                expected=f"prompts of every word in the study's first wording (a plain list is "
                f"the wording {MAIN!r})",
                fix=nearest(next(iter(word.prompts)), LONG_FORM_KEYS),
            )


def _place(word: Word) -> DataPath:
    return ("groups", word.group, word.text)
