"""Suite files: checkpoints listed by hand, or whole places of them, in any mixture."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StrictInt, field_validator, model_validator

from kntrace.documents import (
    DataPath,
    Entries,
    Fault,
    clean_text,
    name_of_file,
    one_name,
    read_document,
    validate,
)
from kntrace.errors import SuiteError
from kntrace.suite.folders import FILE, absolute
from kntrace.suite.found import Found
from kntrace.suite.model import GGUF, LARGEST, Checkpoint, Suite, check_series, order
from kntrace.suite.names import read_name
from kntrace.suite.revisions import may_be_repository, may_be_series
from kntrace.suite.schedules import read_steps

__all__ = ["SuiteEntry", "find_gguf", "find_in_file", "load_listed"]

Expand = Callable[[str | Path, "SuiteEntry"], Found]
"""Finds the checkpoints of an entry that stands for many."""


def _not_empty(entries: tuple[SuiteEntry, ...]) -> tuple[SuiteEntry, ...]:
    if not entries:
        raise Fault("is empty", expected="at least one checkpoint")
    return entries


_Count = Annotated[StrictInt, Field(ge=0, le=LARGEST)]
_Name = Annotated[str, AfterValidator(one_name)]
_Text = Annotated[str, AfterValidator(clean_text)]


class SuiteEntry(Entries):
    """What a suite file says of one checkpoint, or, with `steps`, of many in one place."""

    label: _Name | None = None
    step: _Count | None = None
    tokens: _Count | None = None
    stage: _Name | None = None
    folder: _Text | None = None
    file: _Text | None = None
    repository: _Text | None = None
    revision: _Name | None = None
    steps: _Text | None = None
    pattern: _Text | None = None

    @field_validator("steps")
    @classmethod
    def _a_schedule(cls, steps: str | None) -> str | None:
        try:
            read_steps(steps)
        except SuiteError as error:
            raise Fault(
                error.found.removeprefix("steps: "),
                expected=error.expected,
                fix=error.fix,
                whole=True,
            ) from None
        return steps

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> Self:
        named = [name for name in _PLACES if getattr(self, name) is not None]
        if len(named) != 1:
            several = f"both a {' and a '.join(named)}" if named else "none of the three"
            raise Fault(f"has {several}", expected="a folder, a file or a repository")
        for name, path in (("folder", self.folder), ("file", self.file)):
            if path is not None and path.lower().endswith(GGUF) != (name == "file"):
                raise Fault(
                    f"has the {name} {path!r}",
                    expected=f"a file whose name ends in {GGUF}, or a folder whose name does not",
                )
        if self.repository is None and self.revision is not None:
            raise Fault("has a revision, but no repository", expected="a repository with it")
        series = self.steps is not None and may_be_series(self.repository or "")
        if self.repository is not None and not (may_be_repository(self.repository) or series):
            raise Fault(
                f"has the repository {self.repository!r}", expected="owner/name, as on the hub"
            )
        return self

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if self.file is not None and self.steps is not None:
            raise Fault("has both steps and a file", expected="a file, which is one checkpoint")
        if self.steps is None:
            if self.pattern is not None:
                raise Fault("has a pattern, but no steps", expected="`steps: all` with it")
            return self
        for name in ("label", "step", "tokens", "revision"):
            if getattr(self, name) is not None:
                raise Fault(
                    f"has both steps and a {name}",
                    expected="one checkpoint, or with `steps` those of a whole place",
                )
        return self

    def place(self, base: Path) -> str | Path:
        """Return the folder, the file or the repository."""
        local = self.folder or self.file
        if local is None:
            return self.repository or ""
        return absolute(base / os.path.expanduser(local))  # noqa: PTH111

    def checkpoint(self, base: Path) -> Checkpoint:
        """Return the one checkpoint that this entry is."""
        place = self.place(base)
        if isinstance(place, Path):
            label = self.label or (place.stem if self.file else place.name)
            return Checkpoint(label, self.step, self.tokens, str(place), None, self.stage)
        # Where each checkpoint is a repository of its own, all revisions are called main.
        label = self.label or self.revision or place.partition("/")[2]
        revision = self.revision or "main"
        return Checkpoint(label, self.step, self.tokens, place, revision, self.stage)


_PLACES = ("folder", "file", "repository")


class _SuiteFile(Entries):
    """The content of a suite file."""

    name: _Name | None = None
    checkpoints: Annotated[tuple[SuiteEntry, ...], AfterValidator(_not_empty)]

    @model_validator(mode="after")
    def _form_a_series(self) -> Self:
        # What stands for many is not known yet; the whole is checked when it is.
        if all(entry.steps is None for entry in self.checkpoints):
            check_series([entry.checkpoint(Path("/")) for entry in self.checkpoints])
        return self


def find_gguf(path: Path) -> Found:
    """Take a GGUF file for the one checkpoint that it is."""
    path = absolute(path)
    said = read_name(path.stem, alone=True)
    only = Checkpoint(path.stem, said.step, said.tokens, str(path), None, said.stage)
    return Found(name_of_file(path.stem, "suite"), (only,))


def load_listed(path: Path) -> Suite:
    """Read a suite file that lists every checkpoint, as kntrace itself writes them.

    Nothing is looked for, on disk or on the hub.

    Raises
    ------
    SuiteError
        If it is no such file, or has an entry that stands for many.
    """

    def refuse(place: str | Path, entry: SuiteEntry) -> Found:
        raise SuiteError(
            f"an entry with `steps: {entry.steps}`",
            where=path,
            expected="each checkpoint by itself",
        )

    found = find_in_file(path, refuse)
    return Suite(found.name, found.checkpoints)


def find_in_file(path: Path, expand: Expand) -> Found:
    """Read a suite file.

    Raises
    ------
    SuiteError
        If it is no such file, or its checkpoints form no series.
    """
    path = absolute(path)
    document = read_document(path, SuiteError, what="a suite file")
    content = validate(_SuiteFile, document, SuiteError, _describe)
    name = content.name or name_of_file(
        path.parent.name if path.name == FILE else path.stem, "suite"
    )
    checkpoints: list[Checkpoint] = []
    aside: list[str] = []
    commits: dict[str, str] = {}
    notes: dict[str, None] = {}
    for entry in content.checkpoints:
        if entry.steps is None:
            checkpoints.append(entry.checkpoint(path.parent))
            continue
        found = expand(entry.place(path.parent), entry)
        checkpoints += found.checkpoints
        aside += found.aside
        commits |= found.commits
        notes |= dict.fromkeys(found.notes)
    # Where none has a step the order is that of the file: sorting leaves it as it is.
    return Found(name, tuple(sorted(checkpoints, key=order)), tuple(aside), commits, tuple(notes))


def _describe(path: DataPath) -> tuple[str, str]:
    """Name what lies at `path` in a suite file, and what should."""
    if len(path) < 2:
        part = f"`{path[0]}`" if path else "the suite"
        return part, "a list of checkpoints" if part != "`name`" else "a text"
    one = f"checkpoint {int(path[1]) + 1}"
    if len(path) == 2:
        return one, "label, step, and folder, file or repository"
    expected = "a whole number from 0" if path[2] in ("step", "tokens") else "a text"
    return f"the {path[2]} of {one}", expected
