"""Suites on the hub: revisions of one repository, or one repository for each checkpoint."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kntrace.documents import nearest
from kntrace.errors import SuiteError
from kntrace.suite import cache, hub, known
from kntrace.suite.download import is_commit
from kntrace.suite.found import Found
from kntrace.suite.model import Checkpoint
from kntrace.suite.names import Named, Reader, give_stages
from kntrace.suite.weights import cached_whole

__all__ = [
    "cached_commits",
    "check_revisions",
    "find_repositories",
    "find_revisions",
    "may_be_repository",
    "may_be_series",
]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SERIES = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.*?-]*", re.ASCII)
_MAIN = "main"
_SHOWN = 4
_LONGEST = 200


def may_be_repository(source: str) -> bool:
    """Whether this could be the id of a repository on the hub."""
    return _REPOSITORY.fullmatch(source) is not None and _plausible(source)


def may_be_series(source: str) -> bool:
    """Whether this could be a pattern of such ids, `owner/name_*`."""
    return (
        _SERIES.fullmatch(source) is not None
        and ("*" in source or "?" in source)
        and _plausible(source)
    )


def _plausible(source: str) -> bool:
    return not re.search(r"\.(ya?ml|json|gguf)$|\.\.|--", source) and len(source) <= _LONGEST


def find_revisions(repository: str, read: Reader) -> Found:
    """Find the checkpoints among the branches and tags of a repository.

    Raises
    ------
    SuiteError
        If the repository is not to be had, or, offline, if nothing of it is in the cache.
    HubError
        If the hub cannot be reached.
    """
    notes: tuple[str, ...] = ()
    fix = None
    if hub.offline():
        refs = _cached(repository)
        fix = f"Offline, there are only the {len(refs)} of them in the cache."
        notes = ("Offline: only what is in the cache.",)
    else:
        refs = hub.branches_and_tags(repository)
    found = [(Checkpoint(name, None, None, repository, name), read(name)) for name in refs]
    checkpoints, aside = _arrange(found, refs, known.step_of_main(repository))
    if not checkpoints:
        raise _nothing_matches(repository, aside)
    return Found(
        repository.partition("/")[2],
        tuple(checkpoints),
        tuple(aside),
        {item.label: refs[item.label] for item in checkpoints},
        (*notes, *known.faults(repository)),
        fix,
    )


def _cached(repository: str) -> dict[str, str]:
    refs = cache.branches_and_tags(repository)
    whole = {name: commit for name, commit in refs.items() if cached_whole(repository, commit)}
    if not whole:
        raise SuiteError(
            "HF_HUB_OFFLINE is set, and no checkpoint of this repository is in the cache",
            where=repository,
            fix="Unset it, or fetch the checkpoints where there is a network.",
        )
    return whole


def _arrange(
    found: list[tuple[Checkpoint, Named | None]], refs: Mapping[str, str], main: int | None
) -> tuple[list[Checkpoint], list[str]]:
    """Return the checkpoints of the series, and the names that are none of it.

    A name without a step is no checkpoint where others have one: `main` as a rule is the last
    of them again. Where none has, all are, in the order of their names.
    """
    named = [
        (replace(item, step=name.step, tokens=name.tokens, stage=name.stage), name)
        for item, name in found
        if name is not None and name.step is not None
    ]
    aside = [item for item, name in found if name is None]
    nameless = [item for item, name in found if name is not None and name.step is None]
    if not named:
        return sorted(nameless, key=lambda item: item.label), [item.label for item in aside]
    checkpoints, unsettled = give_stages(named)
    taken, commits = {item.step for item in checkpoints}, {refs[i.label] for i in checkpoints}
    for item in nameless:
        if item.label == _MAIN and main is not None and main not in taken:
            checkpoints.append(replace(item, step=main))
        elif item.label != _MAIN or refs[_MAIN] not in commits:
            aside.append(item)
    return checkpoints, sorted(item.label for item in [*aside, *unsettled])


def _nothing_matches(repository: str, names: list[str]) -> SuiteError:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return SuiteError(
        f"the pattern finds nothing in {shown}{more}",
        where=repository,
        expected="a pattern that finds the step in the names of revisions",
    )


def find_repositories(pattern: str, read: Reader) -> Found:
    """Find a series of which each checkpoint is a repository: `google/multiberts-seed_0-step_*`.

    Raises
    ------
    SuiteError
        If no repository's name fits.
    HubError
        If the hub cannot be reached.
    """
    owner, _, name = pattern.partition("/")
    if hub.offline():
        ids = cache.repositories(owner)
        notes: tuple[str, ...] = ("Offline: only what is in the cache.",)
    else:
        ids = hub.repositories(owner, max(re.split(r"[*?]+", name), key=len))
        notes = ()
    ids = [id_ for id_ in ids if fnmatch.fnmatchcase(id_, pattern)]
    if not ids:
        raise SuiteError(
            "no repository of that name" + (" is in the cache" if notes else " is on the hub"),
            where=pattern,
            expected="owner/name with * for what differs",
            fix=known.nearest_repository(pattern),
        )
    found = []
    for id_ in ids:
        label = id_.partition("/")[2]
        found.append((Checkpoint(label, None, None, id_, _MAIN), read(label)))
    checkpoints, aside = _arrange(found, {item.label: item.source for item, _ in found}, None)
    if not checkpoints:
        raise _nothing_matches(pattern, aside)
    return Found(
        _common_name(name), tuple(checkpoints), tuple(aside), notes=notes + known.faults(pattern)
    )


def _common_name(name: str) -> str:
    """Name a series by what comes before the part that differs."""
    return re.sub(r"[-_.]*(?:step|checkpoint|ckpt)?[-_.]*$", "", re.split(r"[*?]", name)[0]) or name


def cached_commits(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """Return the commits of revisions, by label, as the cache knows them; others are left out."""
    remote = [item for item in checkpoints if item.revision is not None]
    refs = {source: cache.branches_and_tags(source) for source in {one.source for one in remote}}
    found = {}
    for item in remote:
        revision = item.revision or _MAIN
        commit = refs[item.source].get(revision, revision if is_commit(revision) else None)
        if commit is not None:
            found[item.label] = commit
    return found


def check_revisions(checkpoints: tuple[Checkpoint, ...]) -> dict[str, str]:
    """Ask the hub whether it has these revisions, and return their commits by label.

    Three short requests for each repository, however many its revisions; none offline.

    Raises
    ------
    SuiteError
        If a repository or revision is not to be had; the nearest one is named.
    """
    if all(item.revision is None for item in checkpoints) or hub.offline():
        return {}
    sources = list(dict.fromkeys(item.source for item in checkpoints if item.revision))
    refs = dict(zip(sources, hub.at_once(hub.branches_and_tags, sources), strict=True))
    commits = {}
    for item in checkpoints:
        if item.revision is None:
            continue
        there = refs[item.source]
        if item.revision not in there and not is_commit(item.revision):
            raise SuiteError(
                f"there is no revision {item.revision!r}",
                where=item.source,
                expected=f"one of its {len(there)} branches and tags",
                fix=nearest(item.revision, there),
            )
        commits[item.label] = there.get(item.revision, item.revision)
    return commits
