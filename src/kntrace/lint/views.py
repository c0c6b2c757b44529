"""What the rules of each stage look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from kntrace.documents import DataPath, Document
from kntrace.errors import StudyError
from kntrace.study import Study, Word

if TYPE_CHECKING:
    from kntrace.lint.reader import Read, Reader

__all__ = ["Answered", "Asked", "FileView", "ModelView", "StudyView", "TokenView", "Written"]


class Written(NamedTuple):
    """A prompt of a word as it stands in a file, before anything was checked."""

    group: str
    word: str
    wording: str
    prompt: str
    path: DataPath


@dataclass(frozen=True)
class FileView:
    """A study's file, which may be wrong in every way.

    Attributes
    ----------
    document
        The file as a tree; None if it is neither YAML nor JSON.
    failure
        Why `load_study` refused it; None if it did not.
    """

    document: Document | None
    failure: StudyError | None

    @cached_property
    def groups(self) -> dict[str, dict[str, Any]]:
        """Whatever looks like groups of words."""
        data = self.document.data if self.document is not None else {}
        groups = data.get("groups") if isinstance(data, dict) else None
        if not isinstance(groups, dict):
            return {}
        return {name: words for name, words in groups.items() if isinstance(words, dict)}

    def where(self, path: DataPath) -> str | None:
        """Return `file:line` of what lies at `path`."""
        return self.document.where(path) if self.document is not None else None

    def prompts(self) -> Iterator[Written]:
        """Walk through whatever looks like a prompt."""
        for group, words in self.groups.items():
            for word, entry in words.items():
                yield from _prompts(group, word, entry)


def _prompts(group: str, word: str, entry: Any) -> Iterator[Written]:
    path: DataPath = ("groups", group, word)
    if isinstance(entry, dict) and "prompts" in entry:
        entry, path = entry["prompts"], (*path, "prompts")
    lists = entry if isinstance(entry, dict) else {"": entry}
    for wording, prompts in lists.items():
        here = (*path, wording) if wording else path
        for place, prompt in enumerate(prompts if isinstance(prompts, list) else ()):
            if isinstance(prompt, str):
                yield Written(group, word, wording, prompt, (*here, place))


class Asked(NamedTuple):
    """A prompt of a word as the model reads it."""

    word: Word
    wording: str
    prompt: str


@dataclass(frozen=True)
class StudyView:
    """A study that could be read."""

    study: Study

    @cached_property
    def asked(self) -> tuple[Asked, ...]:
        """All prompts, by word."""
        slots = self.study.slots
        return tuple(
            Asked(word, wording, prompt)
            for word in self.study.words
            for (wording, _), prompt in zip(slots, self.study.rendered(word), strict=True)
            if prompt is not None
        )


@dataclass(frozen=True)
class TokenView(StudyView):
    """A study and a tokenizer.

    Attributes
    ----------
    reader
        The tokenizer, and what the configuration says of its model.
    answer_tokens
        What the run will do with answers of several tokens, as in `Settings`.
    """

    reader: Reader
    answer_tokens: str = "error"

    @cached_property
    def read(self) -> tuple[Read, ...]:
        """All prompts with their tokens, or with the reason why they have none."""
        form = self.study.answer_form
        return tuple(self.reader.read(asked, form) for asked in self.asked)


@dataclass(frozen=True)
class Answered:
    """How a model answers one prompt.

    Attributes
    ----------
    probability
        Of the whole answer after the prompt.
    rank
        Tokens more probable than the answer's first.
    """

    asked: Asked
    probability: float
    rank: int


@dataclass(frozen=True)
class ModelView(StudyView):
    """A study, and how the last checkpoint answers its prompts.

    Attributes
    ----------
    answered
        The prompts that can be read, with their answers.
    top
        A word is known if its answer is among this many likeliest tokens after one prompt.
    """

    answered: tuple[Answered, ...]
    top: int
