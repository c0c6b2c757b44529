"""Read YAML 1.2 or JSON from a file, and refuse in one line what is neither."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.resolver import VersionedResolver

from kntrace.documents.explain import nearest_path
from kntrace.documents.nodes import Document, Event, Limits, Scalar, compose
from kntrace.errors import InputError

__all__ = ["each_line", "parse_document", "parse_json", "read_document", "read_text"]

MAX_BYTES = 64 * 2**20
_PIECE = 2**20

# The YAML reader is written in Python: this many entries take it some seconds.
_YAML_LIMITS = Limits(250_000, "Split the file, or write it as JSON, which is read much faster.")
_JSON_LIMITS = Limits(1_000_000, "Split the file.")
_MOST_YAML = 8 * 2**20

_INK = re.compile(r"\S")
_LONG_LINE = 1000
_TAG = "tag:yaml.org,2002:"
_RESOLVER = VersionedResolver(version=(1, 2))
# What YAML 1.2 allows in a file. Line ends, tabs and all that can be printed.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Possessive, or a long text would be remembered character by character.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\]]|[^\s{}\[\]:,"]++')


def read_document(path: str | Path, error: type[InputError], *, what: str) -> Document:
    """Read a file; `what` says in messages what it should have been ("a study file").

    A suffix `.json` makes it JSON, `.yaml` or `.yml` YAML; otherwise, and for YAML files that
    hold JSON, the content decides. Costs about 40 µs an entry in YAML and 5 µs in JSON.

    Raises
    ------
    error
        If the file is absent, a folder, unreadable, over 64 MB, not UTF-8, or is neither
        YAML nor JSON with a mapping at its root.
    """
    path = Path(path)
    return parse_document(read_text(path, error, what=what), str(path), error, path.suffix.lower())


def read_text(path: str | Path, error: type[InputError], *, what: str) -> str:
    """Read a file as text, whatever is in it; raises `error` as `read_document` does."""
    return _decode(_bytes(Path(path), error, what), str(path), error)


def parse_document(
    text: str, name: str, error: type[InputError], suffix: str = ".yaml"
) -> Document:
    """Parse the text of a file that messages shall call `name`."""
    if suffix == ".json":
        parse_json(text, name, error)
    elif not _is_json(text, name, error):
        _check_yaml_text(text, name, error)
        events = _yaml_events(text, name, error)
        return Document(name, compose(events, name, error, _YAML_LIMITS))
    return Document(name, compose(_json_events(text), name, error, _JSON_LIMITS))


def _bytes(path: Path, error: type[InputError], what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = b""
            # Asked for all at once, room would be made for the largest file there may be.
            while len(content) <= MAX_BYTES and (piece := file.read(_PIECE)):
                content += piece
    except FileNotFoundError:
        raise error(
            f"there is no file {str(path)!r}", expected=what, fix=nearest_path(path)
        ) from None
    except IsADirectoryError:
        raise error("this is a folder", where=path, expected=what) from None
    except ValueError as failure:  # a NUL in the name
        raise error(f"no file can be called {str(path)!r}: {failure}", expected=what) from None
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise error(f"cannot be read: {reason}", where=path, expected=what) from None
    if len(content) > MAX_BYTES:
        raise error(
            f"the file is larger than {MAX_BYTES // 2**20} MB",
            where=path,
            expected=what,
            fix="Is it the right file?",
        )
    return content


def _decode(content: bytes, name: str, error: type[InputError]) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error("the file is UTF-16", where=name, expected="UTF-8", fix="Save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        raise error(
            f"the byte 0x{content[failure.start]:02x} is not UTF-8",
            where=f"{name}:{line}",
            expected="a text file in UTF-8",
            fix="Save it as UTF-8.",
        ) from None
    return text.replace("\r\n", "\n")


def each_line(text: str) -> Iterator[tuple[int, str]]:
    """Walk through the lines that are not blank, with their numbers from 1 on.

    Blank ones cost next to nothing, and no list of the lines is made.
    """
    start, number = 0, 1
    while (ink := _INK.search(text, start)) is not None:
        number += text.count("\n", start, ink.start())
        begin = max(start, text.rfind("\n", start, ink.start()) + 1)
        end = text.find("\n", ink.start())
        if end < 0:
            yield number, text[begin:]
            return
        yield number, text[begin:end]
        start, number = end + 1, number + 1


# JSON


def parse_json(text: str, name: str, error: type[InputError]) -> Any:
    """Parse JSON that may come from a stranger, whatever is at its root.

    Raises
    ------
    error
        If it is no JSON, is nested too deeply, or has more than a million entries.
    """
    _refuse_many(text, name, error)
    try:
        return json.loads(text)
    except json.JSONDecodeError as failure:
        start = text.lstrip()[:1]
        problem = failure.msg[:1].lower() + failure.msg[1:].removesuffix(" at")
        raise error(
            f"not valid JSON: {problem} (column {failure.colno})",
            where=f"{name}:{failure.lineno}",
            fix="If this is YAML, give the file the suffix .yaml."
            if start not in ("{", "[", "")
            else None,
        ) from None
    except ValueError:
        # A whole number of thousands of digits, which would take long to read.
        return json.loads(text, parse_int=float)
    except RecursionError:
        raise error("brackets are nested too deeply", where=name) from None


def _is_json(text: str, name: str, error: type[InputError]) -> bool:
    """Say whether a file that need not be JSON is JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    _refuse_many(text, name, error)
    try:
        json.loads(text, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_many(text: str, name: str, error: type[InputError]) -> None:
    """Refuse JSON of too many entries before an object is made of each."""
    most, fix = _JSON_LIMITS
    # There are no more entries than signs that part or open them, which are fast to count.
    if sum(map(text.count, ",[{")) < most // 2:
        return
    if next(islice(_JSON_TOKEN.finditer(text), most, None), None) is not None:
        raise error(f"the file has more than {most:,} entries", where=name, fix=fix)


def _json_events(text: str) -> Iterator[Event]:
    """Walk through a text that is known to be valid JSON."""
    line, counted = 1, 0
    for match in _JSON_TOKEN.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        token = match.group()
        if token in "}]":
            yield Event("end", line)
        elif token in "{[":
            yield Event("mapping" if token == "{" else "sequence", line)
        else:
            yield Event("scalar", line, _json_scalar(token), token)


def _json_scalar(token: str) -> Scalar:
    try:
        value: Scalar = json.loads(token)
    except ValueError:  # a whole number of thousands of digits
        return float("inf")
    return value


# YAML


def _check_yaml_text(text: str, name: str, error: type[InputError]) -> None:
    """Refuse early, and clearly, what the YAML reader would take long or explain badly."""
    strange = _FORBIDDEN.search(text)
    if strange is not None:
        raise error(
            f"the character U+{ord(strange.group()):04X} cannot stand in a YAML file",
            where=f"{name}:{text.count(chr(10), 0, strange.start()) + 1}",
            expected="text",
            fix="Remove it, or write it as an escape in double quotes.",
        )
    for number, line in each_line(text):
        content = line.strip()
        if content.startswith(("#", "---", "%")):
            continue
        if ":" not in line and content[0] not in "{?&!":
            raise error(
                f"the file begins with {_shorten(content)!r}, not with a named entry",
                where=f"{name}:{number}",
                expected="lines of the form `key: …`",
            )
        break
    else:
        raise error("the file is empty", where=f"{name}:1", expected="lines of the form `key: …`")
    if len(text) > _MOST_YAML:
        raise error(
            f"the file is YAML of more than {_MOST_YAML // 2**20} MB",
            where=name,
            fix=_YAML_LIMITS.fix,
        )


def _yaml_events(text: str, name: str, error: type[InputError]) -> Iterator[Event]:
    documents = 0
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            kind, line = type(event).__name__, event.start_mark.line + 1
            documents += kind == "DocumentStartEvent"
            if documents > 1:
                raise error("a second document begins here (---)", where=f"{name}:{line}")
            if kind == "ScalarEvent":
                yield _yaml_scalar(event, f"{name}:{line}", error)
            elif kind == "AliasEvent":
                yield Event("alias", line, anchor=event.anchor)
            elif kind in ("MappingStartEvent", "SequenceStartEvent"):
                container: Literal["mapping", "sequence"] = (
                    "mapping" if kind == "MappingStartEvent" else "sequence"
                )
                _refuse_tag(event, ("map", "seq"), f"{name}:{line}", error)
                yield Event(container, line, anchor=event.anchor)
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                yield Event("end", line)
    except YAMLError as failure:
        raise _yaml_failure(failure, text, name, error) from None
    except RecursionError:
        raise error("brackets or indents are nested too deeply", where=name) from None
    except InputError:
        raise
    except Exception as failure:
        # The YAML reader meets some escapes of characters that do not exist with Python's errors.
        raise error(f"not valid YAML: {failure}", where=name) from None


def _yaml_scalar(event: Any, where: str, error: type[InputError]) -> Event:
    line = event.start_mark.line + 1
    tag = _refuse_tag(event, ("str", "int", "float", "bool", "null"), where, error)
    if tag is None:
        # Quoted scalars are texts; dates and merge keys are none of YAML 1.2's own types.
        plain = not event.style
        tag = str(_RESOLVER.resolve(ScalarNode, event.value, (plain, not plain)))
        tag = tag.removeprefix(_TAG)
    raw = event.value
    value: Scalar = raw
    if tag == "null":
        value = None
    elif tag == "bool":
        value = raw.lower() == "true"
    elif tag in ("int", "float"):
        value = _number(raw, tag)
    return Event("scalar", line, value, raw, event.anchor)


def _number(raw: str, tag: str) -> Scalar:
    digits = raw.replace("_", "").lower()
    try:
        if tag == "float":
            return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
        for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
            if prefix in digits:
                return int(digits, base)
        return int(digits)
    except ValueError:  # thousands of digits, or a tag that does not fit
        return float("nan")


def _refuse_tag(
    event: Any, allowed: tuple[str, ...], where: str, error: type[InputError]
) -> str | None:
    """Return the short name of the event's tag, None if it has none."""
    tag = None if event.tag is None else str(event.tag)
    if tag is None:
        return None
    if tag == "!":
        return "str" if "str" in allowed else None
    short = tag.removeprefix(_TAG)
    if short not in allowed:
        raise error(
            f"the YAML tag {tag.replace(_TAG, '!!')!r} has no meaning here",
            where=where,
            fix="Remove it; put a text that begins with ! in quotes.",
        )
    return short


def _yaml_failure(failure: YAMLError, text: str, name: str, error: type[InputError]) -> InputError:
    if not isinstance(failure, MarkedYAMLError):
        return error(f"not valid YAML: {failure}", where=name)
    mark = failure.problem_mark or failure.context_mark
    if failure.context_mark is not None and "end of stream" in str(failure.problem):
        mark = failure.context_mark  # where what never ends begins
    line = 1 if mark is None else mark.line + 1
    lines = {n: content for n, content in each_line(text) if n in (line, line - 1)}
    # A tab may have been read on with the line before it, and the fault be noticed after it.
    # In braces, tabs are allowed.
    for number in (line, line - 1) if not text.lstrip().startswith("{") else ():
        if re.match(r" *\t\s*\S", lines.get(number, "")):
            return error(
                "the line is indented with a tab",
                where=f"{name}:{number}",
                expected="spaces",
                fix="Replace the tab by spaces; YAML allows no other indent.",
            )
    parts = [str(part) for part in (failure.context, failure.problem) if part] or ["unreadable"]
    return error(
        f"not valid YAML: {', '.join(parts)}",
        where=f"{name}:{line}",
        fix=_yaml_advice(parts, lines.get(line, "")[:_LONG_LINE]),
    )


def _yaml_advice(problem: list[str], line: str) -> str | None:
    if "quoted" in problem[0] and "end of stream" in problem[-1]:
        return "Close the quote, or put the whole text in double quotes."
    if re.search(r":\s.*:(\s|$)", line) or re.match(r"\s*-\s.*:(\s|$)", line):
        return "A text that holds a colon and a blank must stand in quotes."
    if re.match(r"\s*(-\s+|[^\s:]+:\s+)[`@%&*!|>\[\]{}'\"]", line):
        return "A text that begins with a special character must stand in quotes."
    return None


def _shorten(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
