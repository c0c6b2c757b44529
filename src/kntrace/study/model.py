"""The study itself, whatever file it came from."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from kntrace.documents import (
    DataPath,
    Entries,
    Fault,
    clean_text,
    explain,
    one_name,
    write_yaml,
)
from kntrace.errors import StudyError
from kntrace.notebook import Card, Shown
from kntrace.study.together import LINKS, LONG_FORM_KEYS, MAIN, check_words

__all__ = [
    "Alternatives",
    "AnswerForm",
    "Link",
    "Name",
    "Prompts",
    "Study",
    "Template",
    "Text",
    "Word",
]

AnswerForm = Literal["as_follows", "space", "no_space"]

_PLACE = "{question}"


def _template(text: str) -> str:
    clean_text(text)
    places = text.count(_PLACE)
    if places != 1:
        raise Fault(
            f"holds {_PLACE} {'twice' if places == 2 else f'{places} times'}"
            if places
            else f"holds no {_PLACE}",
            expected=f"{_PLACE} exactly once, where the question goes",
            fix="Leave the template out to use the questions as they are." if not places else None,
        )
    return text


def _questions(prompts: tuple[str, ...]) -> tuple[str, ...]:
    if not prompts:
        raise Fault("is empty", expected="at least one question")
    first: dict[str, int] = {}
    for place, prompt in enumerate(prompts):
        if first.setdefault(prompt, place) != place:
            raise Fault(
                f"is the same as prompt {first[prompt] + 1}",
                path=(place,),
                expected="each prompt once, since their mean is taken",
            )
    return prompts


def _alternatives(texts: tuple[str, ...]) -> tuple[str, ...]:
    seen: set[str] = set()
    for place, text in enumerate(texts):
        if text in seen:
            raise Fault("stands there twice", path=(place,), expected="each alternative once")
        seen.add(text)
    return texts


def _wordings(prompts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if not prompts:
        raise Fault("is empty", expected="at least one question")
    return prompts


Name = Annotated[str, AfterValidator(one_name)]
Text = Annotated[str, AfterValidator(clean_text)]
Template = Annotated[str, AfterValidator(_template)]
Prompts = Annotated[
    dict[Name, Annotated[tuple[Text, ...], AfterValidator(_questions)]],
    AfterValidator(_wordings),
]
Link = Annotated[str, AfterValidator(lambda text: one_name(text) if text else text)]
Alternatives = Annotated[tuple[Text, ...], AfterValidator(_alternatives)]


class Word(Entries):
    """A word, and what the model is asked so that it answers with it.

    Attributes
    ----------
    text
        The word, by which everything else names it; unique in its study.
    group
        The group it belongs to.
    answer
        The text the model should go on with; the word itself where none is given.
    prompts
        Wording -> questions, before the template is put around them.
    alternatives
        Other answers, against which the objective `logit_difference` holds this one.
    synonym_of, inverse_of
        Another word of the study: this one says the same in another word ("Feline" of "Cat"),
        or its prompts ask the same fact the other way round ("Meow": what does a cat say?).
        The view `agreement` compares their neurons; "" for none.
    """

    text: Name
    group: Name
    answer: Text = ""  # never stays empty: the validator below puts the word in its place
    prompts: Prompts
    alternatives: Alternatives = ()
    synonym_of: Link = ""
    inverse_of: Link = ""

    @model_validator(mode="before")
    @classmethod
    def _answer_is_the_word(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("answer") and "text" in value:
            return {**value, "answer": value["text"]}
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _one_error(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as failure:
            raise explain(failure, StudyError, _describe_word) from None


class Study(Shown, Entries):
    """Groups of words with their prompts: what is asked of every checkpoint.

    Attributes
    ----------
    name
        What reports call it. No part of `digest`.
    template
        Text put around every question, in place of its `{question}`; None: the questions
        are the prompts.
    answer_form
        How the answer joins the prompt: `as_follows` = as it stands in running text, `space`
        and `no_space` = by itself, with or without one leading space.
    words
        All words, those of one group beside one another.

    Raises
    ------
    StudyError
        If anything in it is empty, doubled, or of the wrong kind.
    """

    name: Name
    template: Template | None = None
    answer_form: AnswerForm = "as_follows"
    words: tuple[Word, ...]

    @model_validator(mode="after")
    def _words_fit_together(self) -> Self:
        check_words(self.words)
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _one_error(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as failure:
            raise explain(failure, StudyError, _describe) from None

    def _card(self) -> Card:
        prompts = sum(len(texts) for word in self.words for texts in word.prompts.values())
        return Card(
            f"Study {self.name}",
            {"words": len(self.words), "groups": len(self.groups), "prompts": prompts},
            [
                {"group": group, "words": len(words), "which": ", ".join(words)}
                for group, words in self.groups.items()
            ],
        )

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group -> its words, both in the order of the file."""
        groups: dict[str, list[str]] = {}
        for word in self.words:
            groups.setdefault(word.group, []).append(word.text)
        return {group: tuple(words) for group, words in groups.items()}

    @cached_property
    def wordings(self) -> tuple[str, ...]:
        """The wordings, the main one first; `("main",)` where the prompts are plain lists."""
        return tuple(dict.fromkeys(wording for word in self.words for wording in word.prompts))

    @cached_property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """The places for prompts, (wording, number from 0), as many as the fullest word needs."""
        return tuple(
            (wording, place)
            for wording in self.wordings
            for place in range(max(len(word.prompts.get(wording, ())) for word in self.words))
        )

    def rendered(self, word: Word | str) -> tuple[str | None, ...]:
        """Return the prompts of `word` as the model reads them, one for each of `slots`.

        None stands where the word has fewer prompts than others.

        Raises
        ------
        StudyError
            If the study has no such word.
        """
        if isinstance(word, str):
            word = self._word(word)
        before, _, after = (self.template or _PLACE).partition(_PLACE)
        rendered: list[str | None] = []
        for wording, number in self.slots:
            prompts = word.prompts.get(wording, ())
            rendered.append(before + prompts[number] + after if number < len(prompts) else None)
        return tuple(rendered)

    def _word(self, text: str) -> Word:
        for word in self.words:
            if word.text == text:
                return word
        raise StudyError(f"the study {self.name!r} has no word {text!r}")

    @cached_property
    def links(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Pairs of words by what the first is to the second: `synonym` or `inverse`."""
        return {
            key.removesuffix("_of"): pairs
            for key in LINKS
            if (
                pairs := tuple(
                    (word.text, getattr(word, key)) for word in self.words if getattr(word, key)
                )
            )
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content, whatever file spelt it and whatever the study is called.

        The order of words, wordings and prompts counts, since it is that of the scores.
        """
        content = {
            "template": self.template,
            "answer_form": self.answer_form,
            "wordings": self.wordings,
            "words": [
                [
                    word.text,
                    word.group,
                    word.answer,
                    [[wording, word.prompts.get(wording, ())] for wording in self.wordings],
                    *([word.alternatives] if word.alternatives else []),
                    *([_links(word)] if _links(word) else []),
                ]
                for word in self.words
            ],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """Write the study as YAML that `load_study` reads back to an equal one."""
        groups: dict[str, dict[str, Any]] = {}
        for word in self.words:
            groups.setdefault(word.group, {})[word.text] = _shortest_form(word)
        content: dict[str, Any] = {"name": self.name}
        if self.template is not None:
            content["template"] = self.template
        return write_yaml(content | {"answer_form": self.answer_form, "groups": groups})


def _shortest_form(word: Word) -> Any:
    prompts: Any = {wording: list(texts) for wording, texts in word.prompts.items()}
    links = _links(word)
    if word.alternatives:
        links = {"alternatives": list(word.alternatives), **links}
    if links:
        return {"answer": word.answer, **links, "prompts": prompts}
    if word.answer != word.text or any(key in prompts for key in LONG_FORM_KEYS):
        return {"answer": word.answer, "prompts": prompts}
    return prompts[MAIN] if list(prompts) == [MAIN] else prompts


def _links(word: Word) -> dict[str, Any]:
    return {key: getattr(word, key) for key in LINKS if getattr(word, key)}


def _describe(path: DataPath) -> tuple[str, str]:
    """Name what lies at `path` in a study that was built in Python."""
    if path[:1] == ("groups",):  # from check_words
        return f"the word {path[2]!r}", ""
    return f"the study's {'.'.join(map(str, path))}", "what `Study` says of it"


def _describe_word(path: DataPath) -> tuple[str, str]:
    """Name what lies at `path` in a word that was built in Python."""
    return f"the word's {'.'.join(map(str, path))}", "what `Word` says of it"
