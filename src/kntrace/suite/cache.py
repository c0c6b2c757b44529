"""The cache of what came from the hub: what is in it, and what of it may go again.

What a run fetched and has to delete again is marked here, beside the files themselves. In its
folder it would be a stranger's word on what to delete: run folders are passed on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from kntrace.errors import HubError

__all__ = [
    "blobs",
    "branches_and_tags",
    "claim",
    "claimed",
    "delete",
    "folder",
    "free_space",
    "release",
    "repositories",
    "snapshot",
    "unfinished",
]

# In a repository's folder, where huggingface_hub looks only for what it knows.
_CLAIMS = "kntrace"


def folder() -> Path:
    """Return the folder in which huggingface_hub keeps what it fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_space() -> int:
    """Return the free bytes of the disk on which the cache lies, or will lie."""
    place = folder().expanduser().absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def unfinished() -> int:
    """Return the bytes of downloads that were killed, or that are going on."""
    return sum(path.stat().st_size for path in folder().glob("*/blobs/*.incomplete"))


def _folder_of(repository: str) -> Path:
    return folder() / f"models--{repository.replace('/', '--')}"


def snapshot(repository: str, commit: str) -> Path:
    """Return the folder in which the cache keeps the files of a commit, if it has any."""
    return _folder_of(repository) / "snapshots" / commit


def blobs(repository: str) -> set[str]:
    """Return what the cache calls the contents it has, of whatever commit."""
    try:
        return {path.name for path in (_folder_of(repository) / "blobs").iterdir()}
    except OSError:
        return set()


def branches_and_tags(repository: str) -> dict[str, str]:
    """Return the commit of every branch and tag of which something was ever fetched."""
    refs = _folder_of(repository) / "refs"
    found: dict[str, Any] = {}
    for path in sorted(refs.rglob("*")) if refs.is_dir() else []:
        if path.is_file() and not path.is_relative_to(refs / "refs"):  # pull requests
            found[path.relative_to(refs).as_posix()] = path.read_text(encoding="ascii").strip()
    return found


def repositories(owner: str) -> list[str]:
    """Return the ids of an owner's repositories of which something is in the cache."""
    prefix = f"models--{owner}--"
    return sorted(
        f"{owner}/{path.name.removeprefix(prefix)}"
        for path in folder().glob(f"{prefix}*")
        if any(child.name != _CLAIMS for child in path.iterdir())
    )


def delete(commits: Mapping[str, Set[str]]) -> None:
    """Delete commits, given by repository, from the cache, so far as they are there.

    What other commits have too is kept. Nothing may be on its way into these repositories
    meanwhile: a file that both have would be deleted before it is linked to.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(folder())
    except CacheNotFound:
        return
    for repository in found.repos:
        wanted = commits.get(repository.repo_id, ()) if repository.repo_type == "model" else ()
        there = {item.commit_hash for item in repository.revisions} & set(wanted)
        if there:
            # Of this repository alone: a copy of it on the hub has the same commits.
            alone = replace(found, repos=frozenset({repository}))
            alone.delete_revisions(*there).execute()


def claim(repository: str, commit: str, run: Path) -> None:
    """Mark that the run in `run` is about to fetch a commit, and has to delete it after use.

    Raises
    ------
    HubError
        If the cache cannot be written.
    """
    mark = _mark(repository, commit, run)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise HubError(
            f"the cache of the hub cannot be written: {error.strerror}",
            where=mark.parent,
            fix="Make room, or set HF_HOME to a folder that can be written.",
        ) from error


def release(repository: str, commit: str, run: Path) -> None:
    """Take the mark of `claim` away again, and the folders that it was alone in."""
    mark = _mark(repository, commit, run)
    with suppress(OSError):
        mark.unlink(missing_ok=True)
        mark.parent.rmdir()
        mark.parent.parent.rmdir()


def claimed(run: Path) -> dict[str, set[str]]:
    """Return the commits, by repository, that the run in `run` fetched and has to delete."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for mark in folder().glob(f"models--*/{_CLAIMS}/*.{_signature(run)}"):
        name = mark.parent.parent.name.removeprefix("models--").replace("--", "/")
        found[name].add(mark.stem)
    return dict(found)


def _mark(repository: str, commit: str, run: Path) -> Path:
    return _folder_of(repository) / _CLAIMS / f"{commit}.{_signature(run)}"


def _signature(run: Path) -> str:
    """What stands for a run here: where it lies, for a moved or copied one fetched nothing."""
    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
