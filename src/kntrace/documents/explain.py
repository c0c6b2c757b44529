"""Turn what pydantic finds wrong in a file into one line that names the place and the remedy."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from kntrace.documents.nodes import DataPath, Document
from kntrace.errors import InputError
from kntrace.nearest import nearest

__all__ = [
    "Describe",
    "Entries",
    "Fault",
    "clean_text",
    "explain",
    "nearest_path",
    "one_name",
    "shown",
    "validate",
]

Model = TypeVar("Model", bound=BaseModel)

Describe = Callable[[DataPath], tuple[str, str]]
"""Given a path, what lies there ("prompt 2 of 'Cat'") and what should ("a question")."""

_SHOWN = 40
_MOST_NAMES = 10_000

# Line breaks and tabs may stand in a prompt. Other control characters, and halves of surrogate
# pairs (which cannot be written to a file), got there by accident.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


_SHOW = reprlib.Repr()
_SHOW.maxstring = _SHOW.maxother = _SHOW.maxlong = 80


class Fault(ValueError):  # noqa: N818 - a finding; `explain` makes the error of it
    """A fault found while validating, said of the thing at `path` ("is empty").

    `path` continues the path of the value that is being validated. A fault that is `whole`
    names its thing itself.
    """

    def __init__(
        self,
        says: str,
        *,
        path: DataPath = (),
        expected: str | None = None,
        fix: str | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__(says)
        self.says, self.path, self.expected, self.fix = says, path, expected, fix
        self.whole = whole


class Entries(BaseModel):
    """A frozen model that meets a key it does not know with the nearest one it does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: object) -> object:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    raise Fault(
                        f"unknown key {shown(key)}",
                        path=(key,),
                        expected=f"one of {', '.join(cls.model_fields)}",
                        fix=nearest(str(key), cls.model_fields),
                        whole=True,
                    )
        return value


def clean_text(text: str) -> str:
    """Refuse a text that is blank or holds control characters other than tab and line feed."""
    if not text.strip():
        raise Fault("is empty")
    control = _CONTROL.search(text)
    if control is not None:
        raise Fault(
            f"holds the character U+{ord(control.group()):04X}, which is no text", fix="Remove it."
        )
    return text


def one_name(text: str) -> str:
    """Refuse a name that is blank, has blanks around it, or spans lines."""
    clean_text(text)
    if "\n" in text or "\t" in text:
        raise Fault("holds a line break or a tab", fix="Remove it.")
    if text != text.strip():
        raise Fault("has blanks before or after it", fix="Remove them.")
    return text


def name_of_file(name: str, default: str) -> str:
    """Make the name of a file or folder, which may hold anything, one that `one_name` accepts."""
    printable = "".join(char if char.isprintable() else " " for char in name)
    return " ".join(printable.split()) or default


def shown(value: object) -> str:
    """Show what a file holds where something else was expected: short, however large it is."""
    return _SHOW.repr(value)


def nearest_path(path: Path) -> str | None:
    """Return "Did you mean …?" with the file or folder beside `path` whose name is closest."""
    try:
        names = [child.name for child in islice(path.parent.iterdir(), _MOST_NAMES)]
    except (OSError, ValueError):
        return None
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {str(path.parent / close[0])!r}?" if close else None


def validate(
    model: type[Model], document: Document, error: type[InputError], describe: Describe
) -> Model:
    """Build `model` from the document; a fault raises `error` with the line of the first one."""
    try:
        return model.model_validate(document.data)
    except ValidationError as failure:
        raise explain(failure, error, describe, document) from None


def explain(
    failure: ValidationError,
    error: type[InputError],
    describe: Describe,
    document: Document | None = None,
) -> InputError:
    """Turn a failed validation into one `error`: that of the fault that comes first."""
    faults = [_reword(item, describe, document) for item in failure.errors()]
    where = None
    path, (found, expected, fix) = faults[0]
    if document is not None:
        path, (found, expected, fix) = min(faults, key=lambda fault: document.line(fault[0]))
        where = document.where(path)
    if len(faults) > 1:
        others = "(One fault more.)" if len(faults) == 2 else f"({len(faults) - 1} faults more.)"
        fix = others if fix is None else f"{fix} {others}"
    return error(found, where=where, expected=expected, fix=fix)


def _reword(
    item: Any, describe: Describe, document: Document | None
) -> tuple[DataPath, tuple[str, str | None, str | None]]:
    """Return the path of a fault, and what was found, was expected and would help."""
    path: DataPath = tuple(part for part in item["loc"] if part != "[key]")
    fault = item.get("ctx", {}).get("error")
    if isinstance(fault, Fault):
        path += fault.path
        found = fault.says if fault.whole else f"{describe(path)[0]} {fault.says}"
        return path, (found, fault.expected, fault.fix)
    what, expected = describe(path)
    kind, given = item["type"], item["input"]
    if kind == "missing":
        return path, (f"{what} is missing", expected, None)
    if kind == "literal_error":
        choices = str(item["ctx"]["expected"])
        guess = nearest(given if isinstance(given, str) else "", re.findall(r"'([^']+)'", choices))
        return path, (f"{what} is {_in_words(given, '')}", choices, guess)
    raw = "" if document is None else document.node(path).raw
    fix = None
    if kind == "string_type" and raw:
        fix = f'Put it in quotes: "{raw}".' if len(raw) < _SHOWN else "Put it in quotes."
    elif kind == "int_type" and isinstance(given, str) and given.isdecimal():
        fix = "Remove the quotes."
    return path, (f"{what} is {_in_words(given, raw)}", expected, fix)


def _in_words(given: object, raw: str) -> str:
    if isinstance(given, str):
        return f"the text {_shorten(given)!r}"
    if isinstance(given, bool):
        return f"the truth value {raw or given}"
    if isinstance(given, int | float):
        return f"the number {_shorten(raw or str(given))}"
    if given is None:
        return "empty"
    return "a set of entries" if isinstance(given, dict) else "a list"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
