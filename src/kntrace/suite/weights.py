"""What it takes to load a checkpoint: size and format of its weights, and whether they are here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kntrace.documents import parse_json, read_text
from kntrace.errors import SuiteError
from kntrace.suite import hub
from kntrace.suite.model import CONFIG, Checkpoint

__all__ = ["Weights", "cached_whole", "find_weights", "read_weights"]

# In the order in which transformers prefers them. Optimizers and arguments are saved as .bin too.
_FORMATS = {
    "safetensors": re.compile(r"model[^/]*\.safetensors"),
    "bin": re.compile(r"pytorch_model[^/]*\.bin"),
    "gguf": re.compile(r"[^/]+\.gguf"),
}
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Weights:
    """The weights of one checkpoint.

    Attributes
    ----------
    format
        `safetensors`, `bin` (to be converted), `gguf` (not to be loaded), `none` if there is
        nothing of the kind; None if not known.
    bytes
        Size of the files of that format; None if not known.
    cached
        Whether config and weights are on this machine, all of them.
    """

    format: str | None
    bytes: int | None
    cached: bool


def read_weights(sizes: Mapping[str, int]) -> tuple[str, int]:
    """Return format and size in bytes of the weights among files, given with their sizes."""
    for name, pattern in _FORMATS.items():
        found = [size for path, size in sizes.items() if pattern.fullmatch(path)]
        if found:
            return name, sum(found)
    return "none", 0


def find_weights(
    checkpoints: Sequence[Checkpoint], commits: Mapping[str, str], *, ask: bool
) -> dict[str, Weights]:
    """Look at each checkpoint's files, on this machine first.

    Parameters
    ----------
    checkpoints
        Of any source.
    commits
        Commit by label, where it is known; the cache is asked for others.
    ask
        Whether to ask the hub for what is not here: one request a checkpoint, eight at a time,
        and none offline.

    Returns
    -------
    dict
        By label.

    Raises
    ------
    SuiteError, HubError
        If a repository or revision is not to be had, or the hub cannot be reached.
    """
    sources = {item.source for item in checkpoints if item.revision and item.label not in commits}
    refs = {source: hub.cached_branches_and_tags(source) for source in sources}
    found = {item.label: _here(item, commits.get(item.label), refs) for item in checkpoints}
    unknown = [item for item in checkpoints if found[item.label].format is None] if ask else []
    if unknown and not hub.offline():
        trees = hub.at_once(lambda item: hub.tree(item.source, _revision(item, commits)), unknown)
        for item, sizes in zip(unknown, trees, strict=True):
            found[item.label] = Weights(*read_weights(sizes), cached=False)
    return found


def _revision(checkpoint: Checkpoint, commits: Mapping[str, str]) -> str:
    return commits.get(checkpoint.label) or checkpoint.revision or "main"


def _here(
    checkpoint: Checkpoint, commit: str | None, refs: Mapping[str, Mapping[str, str]]
) -> Weights:
    """What of a checkpoint is on this machine."""
    if checkpoint.revision is None:
        sizes = _sizes(Path(checkpoint.source))
        return Weights(*read_weights(sizes), cached=_whole(Path(checkpoint.source), sizes))
    if commit is None:
        commit = refs[checkpoint.source].get(checkpoint.revision, checkpoint.revision)
    folder = hub.snapshot(checkpoint.source, commit)
    sizes = _sizes(folder)
    if _whole(folder, sizes):
        return Weights(*read_weights(sizes), cached=True)
    return Weights(None, None, cached=False)


def cached_whole(repository: str, commit: str) -> bool:
    """Whether the cache has config and weights of a commit, all of them."""
    folder = hub.snapshot(repository, commit)
    return _whole(folder, _sizes(folder))


def _sizes(folder: Path) -> dict[str, int]:
    """Sizes of the files in a folder, links followed; none if it is not there."""
    try:
        return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    except OSError:
        return {}


def _whole(folder: Path, names: Iterable[str]) -> bool:
    names = set(names)
    if CONFIG not in names:
        return False
    for index in _INDEXES:
        if index in names:
            try:
                text = read_text(folder / index, SuiteError, what="an index of weights")
                content = parse_json(text, index, SuiteError)
                return set(content["weight_map"].values()) <= names
            except (SuiteError, KeyError, TypeError, AttributeError):
                return False
    return any(pattern.fullmatch(name) for pattern in _FORMATS.values() for name in names)
