"""Which formats there are, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kntrace.documents import name_of_file
from kntrace.errors import SettingsError, StudyError
from kntrace.study.importing.gather import Shared, gather
from kntrace.study.importing.relations import (
    read_counterfact,
    read_json,
    read_lre,
    read_pararel,
)
from kntrace.study.importing.rows import Row, json_lines, read_csv, read_jsonl
from kntrace.study.model import AnswerForm, Study

__all__ = ["FORMATS", "Imported", "detect_format", "import_study"]


def _each(read: Callable[[Path, list[str]], Iterator[Row]]) -> Callable[..., Iterator[Row]]:
    def read_all(files: Sequence[Path], notes: list[str], mask: str | None) -> Iterator[Row]:
        if mask is not None:
            raise StudyError(
                f"the mask {mask!r}, but prompts of a table are taken as they are",
                expected="a mask only with ParaRel",
            )
        for path in files:
            yield from read(path, notes)

    return read_all


FORMATS: dict[str, Callable[[Sequence[Path], list[str], str | None], Iterator[Row]]] = {
    "csv": _each(read_csv),
    "jsonl": _each(read_jsonl),
    "lre": read_lre,
    "pararel": read_pararel,
    "counterfact": read_counterfact,
}
"""What turns files into rows, by the format's name."""

_TABLES = ("csv", "jsonl")


@dataclass(frozen=True)
class Imported:
    """A study that was read from files of another make.

    Attributes
    ----------
    study
        The study.
    format
        A key of `FORMATS`.
    notes
        What was left out or changed, one sentence each.
    """

    study: Study
    format: str
    notes: tuple[str, ...]


def import_study(
    files: Sequence[str | Path],
    format_name: str | None = None,
    *,
    name: str | None = None,
    template: str | None = None,
    answer_form: AnswerForm = "as_follows",
    mask: str | None = None,
    shared: Shared = "refuse",
    prompts: int | None = None,
    min_prompts: int = 1,
) -> Imported:
    """Make a study from files of another make.

    Parameters
    ----------
    files
        One or more files of one format.
    format_name
        A key of `FORMATS`: `csv` and `jsonl` (word, group, prompt; if need be answer and
        wording), `lre`, `pararel`, `counterfact`. Where it is not given, the files have to
        show it beyond doubt.
    name
        The study's name; that of the first file unless given.
    template, answer_form
        As in a study.
    mask
        How a masked language model's mask is written; for ParaRel only.
    shared, prompts, min_prompts
        What to do with words of two groups, and how many prompts a word keeps and needs; see
        `kntrace.study.importing.gather.gather`.

    Raises
    ------
    StudyError
        If a file cannot be read, if its format is unclear, or if it says something that cannot
        be meant; the message has the file and the line, sample or case.
    SettingsError
        If an option is none of those that exist.

    Notes
    -----
    Cost: some microseconds a prompt.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise StudyError("no files", expected="at least one to import")
    if format_name is None:
        format_name = _one_format(paths)
    elif format_name not in FORMATS:
        raise SettingsError.unknown("format", format_name, FORMATS)
    notes: list[str] = []
    study = gather(
        FORMATS[format_name](paths, notes, mask),
        notes,
        name=name or name_of_file(paths[0].stem, "study"),
        template=template,
        answer_form=answer_form,
        shared=shared,
        # A table is written by hand; data sets of facts have the same fact more than once.
        repeats=format_name not in _TABLES,
        prompts=prompts,
        min_prompts=min_prompts,
    )
    return Imported(study, format_name, tuple(notes))


def detect_format(path: Path) -> str:
    """Say which format a file has, if it shows it beyond doubt.

    Raises
    ------
    StudyError
        If it does not.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return "csv"
    found: set[str] = set()
    if suffix in (".jsonl", ".ndjson"):
        entry, _ = next(json_lines(path))
        found = _shown_by_line(entry)
    elif suffix == ".json":
        found = _shown_by(read_json(path))
    if len(found) != 1:
        raise StudyError(
            "the file does not show which format it has",
            where=path,
            expected=f"one of {', '.join(FORMATS)}",
            fix="Say it with --format.",
        )
    return found.pop()


def _shown_by_line(entry: dict[str, Any]) -> set[str]:
    found = {"jsonl"} if {"word", "group", "prompt"} <= entry.keys() else set()
    if "pattern" in entry or {"sub_label", "obj_label"} <= entry.keys():
        found.add("pararel")
    return found


def _shown_by(data: Any) -> set[str]:
    if isinstance(data, list):
        first = data[0] if data else None
        return (
            {"counterfact"} if isinstance(first, dict) and "requested_rewrite" in first else set()
        )
    if isinstance(data, dict) and {"prompt_templates", "samples"} <= data.keys():
        return {"lre"}
    return set()


def _one_format(paths: Sequence[Path]) -> str:
    found = {detect_format(path): path for path in paths}
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise StudyError(
            f"{first} is {one}, but {second} is {other}", expected="files of one format"
        )
    return next(iter(found))
