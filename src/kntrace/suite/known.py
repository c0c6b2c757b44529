"""The table of public suites, `known.yaml`: what can be said of them without asking the hub."""

from __future__ import annotations

import fnmatch
import itertools
import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt

from kntrace.documents import (
    DataPath,
    Entries,
    Fault,
    clean_text,
    nearest,
    one_name,
    read_document,
    validate,
)
from kntrace.errors import SuiteError
from kntrace.nearest import nearest_name

__all__ = ["KnownSuite", "faults", "known_suites", "nearest_repository", "step_of_main"]

_FILE = Path(__file__).with_name("known.yaml")
_BRACES = re.compile(r"\{([^{}]*)\}")


def _expanded(text: str) -> str:
    if "/" not in text or not all(re.fullmatch(r"[\w.*-]+/[\w.*-]+", one) for one in _expand(text)):
        raise Fault("names no repositories", expected="owner/name, with {a,b} for alternatives")
    return text


_Name = Annotated[str, AfterValidator(one_name)]
_Text = Annotated[str, AfterValidator(clean_text)]
_Repositories = Annotated[str, AfterValidator(one_name), AfterValidator(_expanded)]
_Count = Annotated[StrictInt, Field(ge=0)]


class KnownFault(Entries):
    """Something wrong with some of a suite's repositories."""

    repositories: _Repositories
    what: _Text


class KnownSuite(Entries):
    """A public suite.

    Attributes
    ----------
    name
        What it is called.
    repositories
        Ids, with `{a,b}` for alternatives and, where each checkpoint is a repository, `*`.
    revisions
        How its checkpoints are called, in words of this table: `step{N}`.
    example
        One such name, and what it says: `step`, and `tokens` and `stage` if it says them.
    sizes
        Of the models, in words.
    main
        Step of the branch `main`, where that is no other branch and says no step.
    final
        Repository of the final model, where it is another one.
    licence, source
        As its authors say.
    note
        What a reader should know.
    faults
        What is known to be wrong.
    """

    name: _Name
    repositories: tuple[_Repositories, ...]
    revisions: _Name
    example: _Name
    step: _Count
    tokens: _Count | None = None
    stage: _Name | None = None
    sizes: _Name
    main: _Count | None = None
    final: _Repositories | None = None
    licence: _Name | None = None
    source: _Text
    note: _Text | None = None
    faults: tuple[KnownFault, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Every repository, or pattern of repositories."""
        return [one for text in self.repositories for one in _expand(text)]


class _Table(Entries):
    suites: tuple[KnownSuite, ...]


@cache
def known_suites() -> tuple[KnownSuite, ...]:
    """Read the table of known suites."""
    document = read_document(_FILE, SuiteError, what="the table of known suites")
    return validate(_Table, document, SuiteError, _describe).suites


def _describe(path: DataPath) -> tuple[str, str]:
    return f"`{'.'.join(map(str, path))}`", "what the class KnownSuite describes"


def _expand(text: str) -> list[str]:
    """Write out `{a,b}`: every combination of the alternatives."""
    parts = _BRACES.split(text)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _suite_of(repository: str) -> KnownSuite | None:
    for suite in known_suites():
        if any(fnmatch.fnmatchcase(repository, id_) for id_ in suite.ids):
            return suite
    return None


def step_of_main(repository: str) -> int | None:
    """Return the step of the branch `main` of a known suite that has no other name for it."""
    suite = _suite_of(repository)
    return None if suite is None else suite.main


def faults(repository: str) -> tuple[str, ...]:
    """Return what is known to be wrong with a repository, a sentence each."""
    suite = _suite_of(repository)
    return tuple(
        f"Known of {suite.name if suite else repository}: {fault.what}"
        for fault in (suite.faults if suite else ())
        if any(fnmatch.fnmatchcase(repository, id_) for id_ in _expand(fault.repositories))
    )


def nearest_repository(repository: str) -> str | None:
    """Return "Did you mean …?" with the known repository whose id or name, or suite, is closest."""
    ids = [id_ for suite in known_suites() for id_ in suite.ids]
    if "/" not in repository:
        names = {id_.partition("/")[2]: id_ for id_ in ids}
        close = nearest_name(repository, names, cutoff=0.8)
        if close is not None:
            return f"Did you mean {names[close]!r}?"
        suites = {suite.name: suite.ids[0] for suite in known_suites()}
        close = nearest_name(repository, suites, cutoff=0.75)
        return None if close is None else f"Did you mean one of {close}, such as {suites[close]!r}?"
    return nearest(repository, ids, cutoff=0.8)
