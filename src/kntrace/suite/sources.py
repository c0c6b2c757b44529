"""Where suites are found: folders, suite files, repositories on the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from kntrace.documents import (
    DataPath,
    Entries,
    Fault,
    clean_text,
    name_of_file,
    nearest_path,
    one_name,
    read_document,
    validate,
)
from kntrace.errors import SuiteError
from kntrace.suite.model import CONFIG, GGUF, LARGEST, Checkpoint, Suite, check_series
from kntrace.suite.names import STEP_FORMS, Steps, read_name, read_steps, select

__all__ = ["load_suite"]

_FILE = "suite.yaml"
_WHAT = "a folder of checkpoints, a suite.yaml, a GGUF file or the id of a hub repository"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")


def load_suite(source: str | Path, *, steps: Steps = None) -> Suite:
    """Find the checkpoints of one training run.

    Nothing is downloaded and no weights are read.

    Parameters
    ----------
    source
        A folder whose subfolders are checkpoints (each with a `config.json`; their names say
        the step), or that is one checkpoint itself, or that holds a `suite.yaml`; such a file;
        a GGUF file, which is one checkpoint; or the id of a hub repository with a revision
        `step{N}` for each step (`EleutherAI/pythia-410m-deduped`). A folder or file of that
        name comes first.
        A suite file has `name` and `checkpoints`: a list of `label`, `step`, `tokens`, and one
        of `folder`, `file` (of GGUF; both relative to the suite file), or `repository` and
        `revision`.
    steps
        Which checkpoints: `paper` (the 20 steps of the paper), `all`, or whole numbers, as a
        list or as "0,512,1000". All there are unless given; a repository must be told.

    Raises
    ------
    SuiteError
        If there is nothing of the kind, if a step is missing, or if two checkpoints have the
        same one.
    """
    wanted = read_steps(steps)
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - which fails where there is no home
    if not str(source):
        raise SuiteError("the suite's name is empty", expected=_WHAT)
    if _is(path, "is_dir"):
        file = path / _FILE
        return select(_from_file(file), wanted) if file.is_file() else _from_folder(path, wanted)
    if _is(path, "exists"):
        one = path.suffix.lower() == GGUF
        return select(_from_gguf(path) if one else _from_file(path), wanted)
    if _may_be_repository(str(source)):
        if wanted is None:
            raise SuiteError(
                f"there is no folder or file {str(source)!r}, and for a hub repository of that "
                "name no steps were given",
                expected=_WHAT,
                fix=nearest_path(path) or f"For a repository, give steps: {STEP_FORMS}.",
            )
        return _from_hub(str(source), wanted)
    raise SuiteError(
        f"there is no folder or file {str(source)!r}", expected=_WHAT, fix=nearest_path(path)
    )


def _is(path: Path, question: str) -> bool:
    try:
        return bool(getattr(path, question)())
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False


# Folders


def _from_folder(path: Path, wanted: tuple[int, ...] | None) -> Suite:
    path = _absolute(path)
    children = _children(path)
    folders = [child for child in children if child.is_dir() and not child.name.startswith(".")]
    complete = [folder for folder in folders if (folder / CONFIG).is_file()]
    if (path / CONFIG).is_file():
        if complete:
            raise SuiteError(
                f"the folder is a checkpoint itself and holds others, such as {complete[0].name}",
                where=path,
                expected="one or the other",
                fix=f"Move the checkpoints to a folder of their own, or list them in a {_FILE}.",
            )
        step, tokens = read_name(path.name, alone=True)
        found = [Checkpoint(path.name or "checkpoint", step, tokens, str(path), None)]
    else:
        found = [_named(folder) for folder in complete]
        _refuse_incomplete(folders, wanted)
    if not found:
        raise SuiteError(
            f"no checkpoints: the folder {_contents(children, folders)}",
            where=path,
            expected=f"subfolders with a {CONFIG}, as transformers saves them, or a {_FILE}",
        )
    if wanted is not None:
        # A folder such as `final` in whose name there is no step was not asked for.
        found = [item for item in found if item.step is not None] or found
    return select(Suite(name_of_file(path.name, "suite"), tuple(found)), wanted)


def _absolute(path: Path) -> Path:
    """Make a path absolute and tidy without following links, whose names say the step."""
    return Path(os.path.normpath(path.absolute()))


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise SuiteError(f"the folder cannot be read: {reason}", where=folder) from None


def _named(folder: Path) -> Checkpoint:
    step, tokens = read_name(folder.name)
    return Checkpoint(folder.name, step, tokens, str(folder), None)


def _refuse_incomplete(folders: list[Path], wanted: tuple[int, ...] | None) -> None:
    """Refuse folders that are meant as checkpoints and are none: no gap goes unnoticed."""
    for folder in folders:
        step = read_name(folder.name)[0]
        if (folder / CONFIG).is_file() or (wanted is not None and step not in wanted):
            continue
        weights = any(True for pattern in _WEIGHTS for _ in folder.glob(pattern))
        if weights or read_name(folder.name, alone=True)[0] is not None:
            raise SuiteError(
                f"no {CONFIG} in the folder",
                where=folder,
                expected="a whole checkpoint, as transformers saves it",
                fix="Complete it, move it away, or choose other checkpoints with steps= (--steps).",
            )


def _contents(children: list[Path], folders: list[Path]) -> str:
    """Say what is in a folder that should hold checkpoints."""
    if not children:
        return "is empty"
    names = [f"{child.name}/" if child in folders else child.name for child in children]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"holds {', '.join(names[:4])}{more}"


# Files


def _from_gguf(path: Path) -> Suite:
    path = _absolute(path)
    step, tokens = read_name(path.stem, alone=True)
    only = Checkpoint(path.stem, step, tokens, str(path), None)
    return Suite(name_of_file(path.stem, "suite"), (only,))


def _not_empty(entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if not entries:
        raise Fault("is empty", expected="at least one checkpoint")
    return entries


_Count = Annotated[StrictInt, Field(ge=0, le=LARGEST)]
_Name = Annotated[str, AfterValidator(one_name)]
_Text = Annotated[str, AfterValidator(clean_text)]


_PLACES = ("folder", "file", "repository")


class _Entry(Entries):
    """What a suite file says of one checkpoint."""

    label: _Name | None = None
    step: _Count | None = None
    tokens: _Count | None = None
    folder: _Text | None = None
    file: _Text | None = None
    repository: _Text | None = None
    revision: _Name | None = None

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> Self:
        named = [name for name in _PLACES if getattr(self, name) is not None]
        if len(named) != 1:
            several = f"both a {' and a '.join(named)}" if named else "none of the three"
            raise Fault(f"has {several}", expected="a folder, a file or a repository")
        if self.repository is None and self.revision is not None:
            raise Fault("has a revision, but no repository", expected="a repository with it")
        for name, path in (("folder", self.folder), ("file", self.file)):
            if path is not None and path.lower().endswith(GGUF) != (name == "file"):
                raise Fault(
                    f"has the {name} {path!r}", expected=f"a file whose name ends in {GGUF}, or "
                    "a folder whose name does not",
                )  # fmt: skip
        if self.repository is not None and not _may_be_repository(self.repository):
            raise Fault(
                f"has the repository {self.repository!r}", expected="owner/name, as on the hub"
            )
        return self

    def checkpoint(self, base: Path) -> Checkpoint:
        local = self.folder or self.file
        if local is not None:
            path = _absolute(base / os.path.expanduser(local))  # noqa: PTH111
            name = path.name if self.folder else path.stem
            return Checkpoint(self.label or name, self.step, self.tokens, str(path), None)
        repository, revision = self.repository or "", self.revision or "main"
        # Where each checkpoint is a repository of its own, all revisions are called main.
        label = self.label or self.revision or repository.partition("/")[2]
        return Checkpoint(label, self.step, self.tokens, repository, revision)


class _SuiteFile(Entries):
    """The content of a suite file."""

    name: _Name | None = None
    checkpoints: Annotated[tuple[_Entry, ...], AfterValidator(_not_empty)]

    @model_validator(mode="after")
    def _form_a_series(self) -> Self:
        check_series(self.at(Path("/")))
        return self

    def at(self, base: Path) -> tuple[Checkpoint, ...]:
        return tuple(entry.checkpoint(base) for entry in self.checkpoints)


def _from_file(path: Path) -> Suite:
    path = _absolute(path)
    document = read_document(path, SuiteError, what=_WHAT)
    content = validate(_SuiteFile, document, SuiteError, _describe)
    default = path.parent.name if path.name == _FILE else path.stem
    return Suite(content.name or name_of_file(default, "suite"), content.at(path.parent))


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


# The hub


def _may_be_repository(source: str) -> bool:
    return (
        _REPOSITORY.fullmatch(source) is not None
        and not re.search(r"\.(ya?ml|json|gguf)$|\.\.|--", source)
        and len(source) <= 200
    )


def _from_hub(repository: str, steps: tuple[int, ...]) -> Suite:
    checkpoints = tuple(
        Checkpoint(f"step{step}", step, None, repository, f"step{step}") for step in steps
    )
    return Suite(repository.partition("/")[2], checkpoints)
