"""Where suites are found: folders, suite files, repositories on the hub."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kntrace.documents import nearest_path
from kntrace.errors import HubError, SuiteError
from kntrace.suite import known
from kntrace.suite.files import SuiteEntry, find_gguf, find_in_file
from kntrace.suite.folders import FILE, find_folders
from kntrace.suite.found import Found
from kntrace.suite.model import GGUF, Suite
from kntrace.suite.names import reader
from kntrace.suite.revisions import (
    find_repositories,
    find_revisions,
    may_be_repository,
    may_be_series,
)
from kntrace.suite.schedules import Steps, read_steps

__all__ = ["find_suite", "load_suite"]

_WHAT = "a folder of checkpoints, a suite.yaml, a GGUF file or the id of a hub repository"


def load_suite(
    source: str | Path,
    *,
    steps: Steps = None,
    stage: str | None = None,
    pattern: str | None = None,
) -> Suite:
    r"""Find the checkpoints of one training run.

    No weights are downloaded or read. A repository is asked for its branches and tags, in two
    requests; with HF_HUB_OFFLINE=1 what is in the cache is all there is.

    Parameters
    ----------
    source
        A folder whose subfolders are checkpoints (each with a `config.json`; their names say
        the step), or that is one checkpoint itself, or that holds a `suite.yaml`; such a file;
        a GGUF file, which is one checkpoint;
        the id of a hub repository (`EleutherAI/pythia-410m-deduped`) whose branches or tags
        are checkpoints; or, where each checkpoint is a repository, a pattern of ids
        (`google/multiberts-seed_0-step_*`). A folder or file of that name comes first.
        The file has `name` and `checkpoints`: a list of `label`, `stage`, `step`, `tokens`,
        and one of `folder`, `file` (of GGUF; both relative to the suite file), or `repository`
        and `revision`; an entry
        with `steps`, and `pattern` if need be, stands for all those of its place.
    steps
        Which checkpoints: `all` (the default), `paper` (the 20 steps of the paper), `log:N` or
        `linear:N` (N of them, evenly spaced by the logarithm of step + 1 or by step, with the
        first and the last), `every:K` (at the multiples of K), or whole numbers, as a list or
        as "0,512,1000".
    stage
        Only those of this stage (`stage1`), where steps begin anew in each.
    pattern
        How to read names that kntrace does not: a regular expression with groups named `step`,
        `tokens` and `stage` (`run-(?P<step>\d+)`). Names in which it finds nothing are left out.

    Raises
    ------
    SuiteError
        If there is nothing of the kind, if a step is missing, or if two checkpoints have the
        same one.
    HubError
        If the hub cannot be reached.
    """
    return find_suite(source, steps=steps, stage=stage, pattern=pattern).suite


def find_suite(
    source: str | Path,
    *,
    steps: Steps = None,
    stage: str | None = None,
    pattern: str | None = None,
) -> Found:
    """Find checkpoints as `load_suite` does, whether or not they form a suite.

    Returns
    -------
    Found
        Checkpoints in order, what else is there, commits, and what is known to be wrong.
    """
    wanted = read_steps(steps)
    if not str(source):
        raise SuiteError("the suite's name is empty", expected=_WHAT)
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - which fails where there is no home
    if _is(path, "is_dir"):
        file = path / FILE
        if not file.is_file():
            return find_folders(path, reader(pattern), wanted).chosen(wanted, stage)
        path = file
    if _is(path, "exists"):
        if pattern is not None:
            raise SuiteError(
                "a suite file says the steps itself, without a pattern",
                where=path,
                fix="Leave the pattern out, or write it in the file.",
            )
        one = path.suffix.lower() == GGUF
        found = find_gguf(path) if one else find_in_file(path, _expand)
        return found.chosen(wanted, stage)
    text = str(source)
    if may_be_repository(text):
        with _or_a_path(path):
            found = find_revisions(text, reader(pattern, alone=True))
        return found.chosen(wanted, stage)
    if may_be_series(text):
        return find_repositories(text, reader(pattern, alone=True)).chosen(wanted, stage)
    raise SuiteError(
        f"there is no folder or file {text!r}",
        expected=_WHAT,
        fix=nearest_path(path) or known.nearest_repository(text),
    )


@contextlib.contextmanager
def _or_a_path(path: Path) -> Iterator[None]:
    """Where a repository is not to be had, say which folder or file may have been meant."""
    try:
        yield
    except (SuiteError, HubError) as error:
        meant = nearest_path(path)
        if meant is None:
            raise
        raise type(error)(
            f"{error.found}, and there is no folder or file of that name",
            where=error.where,
            expected=error.expected,
            fix=meant,
        ) from None


def _is(path: Path, question: str) -> bool:
    try:
        return bool(getattr(path, question)())
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False


def _expand(place: str | Path, entry: SuiteEntry) -> Found:
    """Find what an entry of a suite file stands for; `stage` there names the stage of them all."""
    wanted = read_steps(entry.steps)
    if isinstance(place, Path):
        found = find_folders(place, reader(entry.pattern), wanted)
    else:
        find = find_revisions if may_be_repository(place) else find_repositories
        found = find(place, reader(entry.pattern, alone=True))
    found = found.chosen(wanted, None)
    if entry.stage is None:
        return found
    staged = tuple(replace(item, stage=entry.stage) for item in found.checkpoints)
    return replace(found, checkpoints=staged)
