"""Bring one checkpoint from the hub to this machine: the files that it takes, of one commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from kntrace.errors import HubError, SuiteError
from kntrace.suite import cache, hub
from kntrace.suite.model import CONFIG, Checkpoint
from kntrace.suite.weights import cached_whole, parts_of, shards

__all__ = ["fetch", "is_commit", "refuse_format", "refuse_pickles"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which cannot come to mean another one."""
    return _COMMIT.fullmatch(revision) is not None


def fetch(
    checkpoint: Checkpoint,
    *,
    commit: str | None = None,
    weights: bool = True,
    allow_bin: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> Path:
    """Return the folder with a checkpoint's files, all of one commit; fetch what is not there.

    Nothing is asked where all is in the cache and the commit is known, and nothing ever
    offline. The weights come last, so that where they are whole the rest is.

    Parameters
    ----------
    commit
        What the revision is to mean; by default what it means now.
    weights
        Whether they are wanted, or configuration and tokenizer only.
    allow_bin
        Whether weights may be pickles.
    told
        As of `hub.download`.

    Raises
    ------
    SuiteError
        If the repository or revision is not to be had, if offline it is not in the cache, or
        if its weights are of a format that is not read.
    HubError
        If the hub cannot be reached, or if the revision means another commit by now.
    """
    repository, revision = checkpoint.source, checkpoint.revision or "main"
    if commit is None and is_commit(revision):
        commit = revision
    if hub.offline():
        return _from_cache(checkpoint, commit, weights=weights)
    if commit is not None and cached_whole(repository, commit, tokenizer=True):
        return cache.snapshot(repository, commit)
    look = hub.look_up(repository, revision)
    named = commit in (None, look.commit)
    if commit is not None and not named:
        look = hub.look_up(repository, commit)
    parts = parts_of(look.files)
    if CONFIG not in parts.small:
        raise SuiteError(f"there is no {CONFIG}", where=f"{repository} at {revision}")
    if weights:
        refuse_format(checkpoint, parts.format, allow_bin=allow_bin)
    folder = _first(checkpoint, look.commit, named=named, told=told)
    for name in parts.small:
        hub.download(repository, look.commit, name, told)
    for name in shards(folder, parts) if weights else ():
        hub.download(repository, look.commit, name, told)
    return folder


def _first(
    checkpoint: Checkpoint, commit: str, *, named: bool, told: Callable[[int], None]
) -> Path:
    """Fetch the configuration by the revision's name, so that the cache knows the name too."""
    repository, revision = checkpoint.source, checkpoint.revision or "main"
    folder = hub.download(repository, revision if named else commit, CONFIG, told).parent
    if folder.name != commit:
        raise HubError(
            f"it moved from {commit[:12]} to {folder.name[:12]} while it was being fetched",
            where=f"{repository} at {revision}",
            fix="Try again.",
        )
    return folder


def _from_cache(checkpoint: Checkpoint, commit: str | None, *, weights: bool) -> Path:
    repository, revision = checkpoint.source, checkpoint.revision or "main"
    commit = commit or cache.branches_and_tags(repository).get(revision)
    folder = None if commit is None else cache.snapshot(repository, commit)
    if (
        folder is None
        or not (folder / CONFIG).is_file()
        or (weights and not cached_whole(repository, folder.name))
    ):
        raise SuiteError(
            "HF_HUB_OFFLINE is set, and it is not in the cache, or not whole",
            where=f"checkpoint {checkpoint.label}: {checkpoint.place}",
            fix="Unset it, or fetch the checkpoint where there is a network.",
        )
    return folder


def refuse_format(checkpoint: Checkpoint, form: str, *, allow_bin: bool) -> None:
    """Raise `SuiteError` unless weights of this format are read from a folder or repository."""
    where = f"checkpoint {checkpoint.label}: {checkpoint.place}"
    if form == "bin" and not allow_bin:
        refuse_pickles([checkpoint])
    if form == "gguf":
        raise SuiteError(
            "there are only GGUF files",
            where=where,
            expected="safetensors",
            fix="Download the file and name it in a suite.yaml, as `file`.",
        )
    if form == "none":
        raise SuiteError("there are no weights", where=where, expected="safetensors")


def refuse_pickles(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise `SuiteError`, saying how they are read all the same, if there are any."""
    if not checkpoints:
        return
    first = checkpoints[0]
    many = f" (and those of {len(checkpoints) - 1} more)" if len(checkpoints) > 1 else ""
    raise SuiteError(
        f"the weights{many} are there only as .bin files, which are pickles: such a file can hold "
        "programs",
        where=f"checkpoint {first.label}: {first.place}",
        expected="safetensors",
        fix="If you trust its author, say --allow-bin (allow_bin=True): nothing but tensors "
        "is then taken from it.",
    )
