"""Studies as files: kntrace's own form, and the plain one of the paper's public code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, RootModel, ValidationError, model_validator

from kntrace.documents import (
    DataPath,
    Document,
    Entries,
    Fault,
    explain,
    name_of_file,
    nearest,
    parse_document,
    read_document,
    validate,
)
from kntrace.errors import StudyError
from kntrace.study.model import (
    Alternatives,
    AnswerForm,
    Link,
    Name,
    Prompts,
    Study,
    Template,
    Text,
    Word,
)
from kntrace.study.together import LINKS, LONG_FORM_KEYS, MAIN, check_words

__all__ = ["bundled_studies", "load_study"]

_BUNDLED = files("kntrace") / "studies"
_WHAT = "a study file or the name of a bundled study"
_PLAIN = "{word: [questions]}"


def load_study(
    source: str | Path,
    *,
    groups: str | Path | Mapping[str, Sequence[str]] | None = None,
) -> Study:
    """Read a study.

    Parameters
    ----------
    source
        A YAML or JSON file, or the name of a study that comes with kntrace (`similar-words`;
        write `./similar-words` for a file of that name). The file has the keys `name`,
        `template`, `answer_form` and `groups`, of which only the last is needed; `groups`
        maps each group to its words, and each word to a list of prompts, or to several such
        lists by wording, or to `answer`, `alternatives`, `synonym_of`, `inverse_of` and
        `prompts`. The plain form
        `{word: [questions]}` of the paper's public code is read too.
    groups
        For the plain form, which has none: `{group: [words]}`, or a YAML or JSON file of it.
        Its order becomes the order of the study.

    Raises
    ------
    StudyError
        If a file cannot be read or what it says cannot be meant. The message has the file and
        the line of the first fault.
    """
    if not str(source):
        raise StudyError("the study's name is empty", expected=_WHAT)
    bundled = str(source) in bundled_studies()
    document = _open_bundled(str(source)) if bundled else _open_file(Path(source))
    name = name_of_file(Path(source).stem, "study")
    if groups is not None:
        return _from_plain(document, groups, name)
    if _is_plain(document.data):
        raise StudyError(
            f"the file has the plain form {_PLAIN}, which does not say the words' groups",
            where=document.where(),
            expected="groups",
            fix="Give them as {group: [words]} with groups= (--groups on the command line).",
        )
    return validate(_StudyFile, document, StudyError, _describe).study(name)


def bundled_studies() -> tuple[str, ...]:
    """Names of the studies that come with kntrace."""
    names = [Path(entry.name) for entry in _BUNDLED.iterdir()]
    return tuple(sorted(name.stem for name in names if name.suffix == ".yaml"))


def _open_bundled(name: str) -> Document:
    text = (_BUNDLED / f"{name}.yaml").read_text(encoding="utf-8")
    return parse_document(text, f"bundled study {name}", StudyError)


def _open_file(path: Path) -> Document:
    try:
        return read_document(path, StudyError, what=_WHAT)
    except StudyError as failure:
        if failure.fix is None and not path.suffix and path.name == str(path):
            guess = nearest(path.name, bundled_studies())
            failure = StudyError(
                failure.found,
                where=failure.where,
                expected=failure.expected,
                fix=guess or f"Bundled: {', '.join(bundled_studies())}.",
            )
        raise failure from None


# kntrace's own form


class _Entry(Entries):
    """What a file says of one word, in any of the three forms."""

    answer: Text | None = None
    alternatives: Alternatives = ()
    synonym_of: Link = ""
    inverse_of: Link = ""
    prompts: Prompts

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {"prompts": _by_wording(value)}
        if not any(key in value or _misspells(key, value) for key in LONG_FORM_KEYS):
            return {"prompts": value}
        if "prompts" not in value:
            return value
        return {**value, "prompts": _by_wording(value["prompts"])}

    def word(self, text: str, group: str) -> Word:
        return Word(
            text=text,
            group=group,
            answer=self.answer or text,
            alternatives=self.alternatives,
            synonym_of=self.synonym_of,
            inverse_of=self.inverse_of,
            prompts=self.prompts,
        )


def _misspells(key: str, value: dict[Any, Any]) -> bool:
    """Say whether something in `value`, which cannot be a wording's list, was meant as `key`."""
    return any(
        nearest(str(found), [key]) is not None and isinstance(content, dict | str)
        for found, content in value.items()
    )


def _by_wording(prompts: Any) -> Any:
    if prompts is None:
        return {}
    return prompts if isinstance(prompts, dict) else {MAIN: prompts}


def _not_empty(value: Any) -> Any:
    if not value:
        raise Fault("is empty")
    return value


_Words = Annotated[dict[Name, _Entry], AfterValidator(_not_empty)]


class _StudyFile(Entries):
    """The content of a study file."""

    name: Name | None = None
    template: Template | None = None
    answer_form: AnswerForm = "as_follows"
    groups: Annotated[dict[Name, _Words], AfterValidator(_not_empty)]

    def words(self) -> tuple[Word, ...]:
        return tuple(
            entry.word(text, group)
            for group, words in self.groups.items()
            for text, entry in words.items()
        )

    @model_validator(mode="after")
    def _words_fit_together(self) -> Self:
        check_words(self.words())
        return self

    def study(self, default_name: str) -> Study:
        return Study(
            name=self.name or default_name,
            template=self.template,
            answer_form=self.answer_form,
            words=self.words(),
        )


def _describe(path: DataPath) -> tuple[str, str]:
    """Name what lies at `path` in a study file, and what should."""
    if path[:1] != ("groups",):
        expected = {"name": "a text", "template": "a text with {question} in it"}
        part = str(path[0]) if path else "study"
        return f"the {part}", expected.get(part, "as_follows, space or no_space")
    if len(path) == 1:
        return "`groups`", "groups of words, each word with its prompts"
    if len(path) == 2:
        return f"the group {path[1]!r}", "words, each with its prompts"
    word, rest = path[2], path[3:]
    if not rest:
        return f"the word {word!r}", "a list of prompts"
    if rest[0] == "answer":
        return f"the answer of {word!r}", "a text"
    if rest[0] == "alternatives":
        return f"the alternatives of {word!r}", "a list of other answers"
    if rest[0] in LINKS:
        return f"`{rest[0]}` of {word!r}", "a word of the study"
    wording = f" in the wording {rest[1]!r}" if len(rest) > 1 and rest[1] != MAIN else ""
    if len(rest) < 3:
        return f"the list of prompts of {word!r}{wording}", "a list of questions"
    return f"prompt {int(rest[2]) + 1} of {word!r}{wording}", "a question in words"


# The plain form


class _PlainFile(RootModel[dict[Name, _Entry]]):
    """The content of a file `{word: [questions]}`."""


class _GroupsFile(RootModel[dict[Name, Annotated[tuple[Name, ...], AfterValidator(_not_empty)]]]):
    """The content of a file `{group: [words]}`."""

    @model_validator(mode="after")
    def _each_word_once(self) -> Self:
        _not_empty(self.root)
        seen: dict[str, str] = {}
        for group, words in self.root.items():
            for place, word in enumerate(words):
                if word in seen:
                    raise Fault(
                        f"the word {word!r} stands in group {seen[word]!r} already",
                        path=(group, place),
                        expected="each word once, in one group",
                        whole=True,
                    )
                seen[word] = group
        return self


def _is_plain(data: dict[str, Any]) -> bool:
    """Say whether a file without groups was meant to be `{word: [questions]}`."""
    named = any(key in data and not isinstance(data[key], list) for key in _StudyFile.model_fields)
    return bool(data) and not named and not any(isinstance(value, dict) for value in data.values())


def _from_plain(
    document: Document, groups: str | Path | Mapping[str, Sequence[str]], name: str
) -> Study:
    if isinstance(document.data.get("groups"), dict):
        raise StudyError(
            "the file has groups of its own",
            where=document.where(("groups",)),
            fix="Leave groups= (--groups) out.",
        )
    entries = validate(_PlainFile, document, StudyError, _describe_plain).root
    members, where = _read_groups(groups)
    group_of = {word: group for group, words in members.items() for word in words}
    for word, group in group_of.items():
        if word not in entries:
            raise StudyError(
                f"the word {word!r} of group {group!r} has no questions in {document.name}",
                where=where((group, members[group].index(word))),
                expected=f"the words of {document.name}",
                fix=nearest(word, entries),
            )
    for word in entries:
        if word not in group_of:
            raise StudyError(
                f"the word {word!r} is in no group",
                where=document.where((word,)),
                expected="every word in one group",
                fix=nearest(word, group_of) or "Add it to a group, or take its questions out.",
            )
    words = tuple(entries[word].word(word, group) for word, group in group_of.items())
    try:
        check_words(words)
    except Fault as fault:
        raise StudyError(
            f"{_describe(fault.path)[0]} {fault.says}",
            where=document.where(fault.path[2:]),
            expected=fault.expected,
        ) from None
    return Study(name=name, words=words)


def _read_groups(
    groups: str | Path | Mapping[str, Sequence[str]],
) -> tuple[dict[str, tuple[str, ...]], Any]:
    """Return the groups, and what turns a path in them into a place for messages."""
    if not isinstance(groups, Mapping):
        document = read_document(Path(groups), StudyError, what="a groups file, {group: [words]}")
        return validate(_GroupsFile, document, StudyError, _describe_groups).root, document.where
    try:
        read = _GroupsFile.model_validate(dict(groups)).root
    except ValidationError as failure:
        raise explain(failure, StudyError, _describe_groups) from None
    return read, lambda path: f"groups[{path[0]!r}]"


def _describe_plain(path: DataPath) -> tuple[str, str]:
    if not path:
        return "the file", _PLAIN
    return _describe(("groups", "", *path))


def _describe_groups(path: DataPath) -> tuple[str, str]:
    if not path:
        return "the list of groups", "{group: [words]}"
    if len(path) == 1:
        return f"the group {path[0]!r}", "a list of words"
    return f"word {int(path[1]) + 1} of group {path[0]!r}", "a word"
