"""Rows of a table: one prompt of one word each, from csv or json lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kntrace.documents import (
    Fault,
    clean_text,
    each_line,
    nearest,
    one_name,
    parse_json,
    read_text,
    shown,
)
from kntrace.errors import StudyError
from kntrace.study.together import MAIN

__all__ = ["Row", "json_lines", "read_csv", "read_jsonl"]

NEEDED = ("word", "group", "prompt")
KNOWN = (*NEEDED, "answer", "wording")

# An empty cell of one of these says the same as none.
_MAY_LACK = ("answer", "wording")


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of one word.

    Attributes
    ----------
    word, group, prompt
        As in a study.
    where
        `file:line`, for messages.
    answer
        What the model should answer; None: the word.
    wording
        The wording that the prompt belongs to.
    """

    word: str
    group: str
    prompt: str
    where: str
    answer: str | None = None
    wording: str = MAIN


def read_csv(path: Path, notes: list[str]) -> Iterator[Row]:
    """Read a table with the columns word, group and prompt, in any order.

    Optional columns are `answer` and `wording`; others are left out, which is noted. Cells are
    separated by commas, or by tabs in a file `.tsv`; a cell with a comma or a line break in it
    stands in double quotes.
    """
    text = read_text(path, StudyError, what="a csv file with the columns word, group, prompt")
    comma = "\t" if path.suffix.lower() == ".tsv" else ","
    table = csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    line = 1
    try:
        header = [cell.strip().lower() for cell in next(table, [])]
        _check_header(header, f"{path}:1", comma)
        _note_others(header, path, notes)
        line = table.line_num + 1
        for cells in table:
            where, line = f"{path}:{line}", table.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise StudyError(
                    f"{len(cells)} cells",
                    where=where,
                    expected=f"{len(header)}, as the first line has",
                    fix="Put a text with commas in double quotes." if comma == "," else None,
                )
            yield _row(dict(zip(header, cells, strict=True)), where)
    except csv.Error as error:
        raise StudyError(
            f"not valid csv: {error}", where=f"{path}:{line}", fix="Close the double quotes."
        ) from None


def read_jsonl(path: Path, notes: list[str]) -> Iterator[Row]:
    """Read a file with one JSON object a line: word, group, prompt, if need be answer, wording."""
    told = False
    for entry, where in json_lines(path):
        if not told:
            _note_others(entry, path, notes)
            told = True
        absent = [name for name in NEEDED if name not in entry]
        if absent:
            raise StudyError(
                f"no {absent[0]!r}",
                where=where,
                expected="the keys word, group and prompt",
                fix=nearest(absent[0], [key for key in entry if key not in KNOWN]),
            )
        yield _row(entry, where)


def json_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Walk through a file of one JSON object a line, each with its `file:line`."""
    text = read_text(path, StudyError, what="a file with one JSON object a line")
    found = False
    for number, line in each_line(text):
        where = f"{path}:{number}"
        try:
            entry = parse_json(line, where, StudyError)
        except StudyError as error:
            raise StudyError(error.found, where=where, expected="one JSON object a line") from None
        if not isinstance(entry, dict):
            raise StudyError("no JSON object", where=where, expected="one JSON object a line")
        found = True
        yield entry, where
    if not found:
        raise StudyError("the file is empty", where=path, expected="one JSON object a line")


def _check_header(header: list[str], where: str, comma: str) -> None:
    if not any(header):
        raise StudyError("the file is empty", where=where, expected=f"columns {', '.join(NEEDED)}")
    for name in NEEDED:
        if name not in header:
            other = next((sign for sign in ";\t|," if sign != comma and sign in header[0]), None)
            raise StudyError(
                f"no column {name!r} among {', '.join(map(repr, header))[:120]}",
                where=where,
                expected=f"the columns {', '.join(NEEDED)}, named in the first line",
                fix="Separate the cells by commas, or by tabs in a file .tsv."
                if other is not None and len(header) == 1
                else nearest(name, [found for found in header if found not in KNOWN]),
            )
    twice = next((name for name in KNOWN if header.count(name) > 1), None)
    if twice is not None:
        raise StudyError(f"two columns {twice!r}", where=where, expected="each once")


def _note_others(names: Iterable[str], path: Path, notes: list[str]) -> None:
    others = [name for name in names if name not in KNOWN]
    if others:
        notes.append(f"{path}: left out {', '.join(map(repr, others))}")


def _row(cells: dict[str, Any], where: str) -> Row:
    values: dict[str, str] = {}
    for name in KNOWN:
        value = cells.get(name)
        if name in _MAY_LACK and value in (None, ""):
            continue
        check = clean_text if name in ("prompt", "answer") else one_name
        if not isinstance(value, str):
            raise StudyError(f"the {name} is {shown(value)}", where=where, expected="a text")
        try:
            check(value)
        except Fault as fault:
            raise StudyError(f"the {name} {fault.says}", where=where, fix=fault.fix) from None
        values[name] = value
    return Row(**values, where=where)
