"""What it takes to load a checkpoint: size and format of its weights, and whether they are here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kntrace.documents import parse_json, read_text
from kntrace.errors import SuiteError
from kntrace.suite import cache, hub
from kntrace.suite.model import CONFIG, Checkpoint

__all__ = [
    "Parts",
    "Weights",
    "cached_whole",
    "find_weights",
    "format_in",
    "parts_of",
    "read_weights",
    "shards",
    "size_in_words",
    "weight_files",
]

# In the order in which transformers prefers them. Optimizers and arguments are saved as .bin too.
_FORMATS = {
    "safetensors": re.compile(r"model[^/]*\.safetensors"),
    "bin": re.compile(r"pytorch_model[^/]*\.bin"),
    "gguf": re.compile(r"[^/]+\.gguf"),
}
# The weights in one file, and the file that says which ones they are spread over.
_WHOLE = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
_INDEX = {name: f"{whole}.index.json" for name, whole in _WHOLE.items()}
_SHARD = re.compile(r"-[0-9]+-of-[0-9]+\.")
# Whatever a tokenizer may be made of, and what lies about that nobody reads to load a model.
_SMALL = re.compile(r"[^/]+\.(json|txt|model|jinja|tiktoken|spm|codes|vocab|tokenizer)")
_UNREAD = re.compile(r"trainer_state\.json|.*_results\.json|.*\.index\.json|.*-log\.txt")
_CONFIGS = {CONFIG, "generation_config.json"}
_TOKENIZER = {
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
}


@dataclass(frozen=True)
class Weights:
    """The weights of one checkpoint.

    Attributes
    ----------
    format
        `safetensors`, `bin` (pickles, read only if the user says so), `gguf` (not to be
        loaded), `none` if there is nothing of the kind; None if not known.
    bytes
        Size of the files of that format; None if not known.
    cached
        Whether config and weights are on this machine, all of them.
    """

    format: str | None
    bytes: int | None
    cached: bool


@dataclass(frozen=True)
class Parts:
    """The files among those of a checkpoint that it takes to load it.

    Attributes
    ----------
    format
        As of `Weights`.
    small
        Config, whatever the tokenizer may be made of, and the index of the weights.
    weights
        Files of the weights.
    """

    format: str
    small: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def tokenizer(self) -> bool:
        """Whether any of the files may be of a tokenizer."""
        return any(name not in _CONFIGS and not _UNREAD.fullmatch(name) for name in self.small)


def parts_of(names: Iterable[str]) -> Parts:
    """Choose among files, given by name, those that transformers reads."""
    names = sorted(names)
    form, weights, index = "none", [], ""
    for form, pattern in _FORMATS.items():
        weights = [name for name in names if pattern.fullmatch(name)]
        if not weights:
            continue
        # Beside the weights there may be others, of another precision.
        if _WHOLE.get(form) in weights:
            weights = [_WHOLE[form]]
        elif form != "gguf":
            weights = [name for name in weights if _SHARD.search(name)] or weights
            index = _INDEX[form]
        break
    else:
        form = "none"
    small = [
        name
        for name in names
        if name == index or (_SMALL.fullmatch(name) and not _UNREAD.fullmatch(name))
    ]
    return Parts(form, tuple(small), tuple(weights))


def read_weights(sizes: Mapping[str, int]) -> tuple[str, int]:
    """Return format and size in bytes of the weights among files, given with their sizes."""
    parts = parts_of(sizes)
    return parts.format, sum(sizes[name] for name in parts.weights)


def shards(folder: Path, parts: Parts) -> tuple[str, ...]:
    """Return the files over which the weights are spread, by the index in the folder.

    Without an index those that look like it.
    """
    index = folder / _INDEX.get(parts.format, "")
    if index.name not in parts.small:
        return parts.weights
    named = _named_in(index)
    return parts.weights if named is None else tuple(sorted(named))


def size_in_words(count: int) -> str:
    """Write a size in bytes shortly: 12 B, 3.4 MB, 12.1 GB."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


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
    refs = {source: cache.branches_and_tags(source) for source in sources}
    found = {item.label: _here(item, commits.get(item.label), refs) for item in checkpoints}
    unknown = [item for item in checkpoints if found[item.label].format is None] if ask else []
    if unknown and not hub.offline():
        looks = hub.at_once(
            lambda item: hub.look_up(item.source, _revision(item, commits)), unknown
        )
        for item, look in zip(unknown, looks, strict=True):
            found[item.label] = Weights(*read_weights(look.sizes), cached=False)
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
    folder = cache.snapshot(checkpoint.source, commit)
    sizes = _sizes(folder)
    if _whole(folder, sizes):
        return Weights(*read_weights(sizes), cached=True)
    return Weights(None, None, cached=False)


def cached_whole(repository: str, commit: str, *, tokenizer: bool = False) -> bool:
    """Whether the cache has config and weights of a commit, all of them.

    `tokenizer`: whether it has a tokenizer as well.
    """
    folder = cache.snapshot(repository, commit)
    names = set(_sizes(folder))
    return _whole(folder, names) and (not tokenizer or bool(names & _TOKENIZER))


def format_in(folder: Path) -> str:
    """Return the format of the weights in a folder, as of `Weights`."""
    return parts_of(_sizes(folder)).format


def weight_files(folder: Path) -> tuple[str, list[Path], tuple[str, ...]]:
    """Return format and files of the weights in a folder, and the tensors that an index names.

    A file that the index names is returned whether or not it is there.
    """
    parts = parts_of(_sizes(folder))
    index = folder / _INDEX.get(parts.format, "")
    found = [folder / Path(name).name for name in shards(folder, parts)]
    named = _weight_map(index) if index.name in parts.small else None
    return parts.format, found, () if named is None else tuple(sorted(named))


def _sizes(folder: Path) -> dict[str, int]:
    """Sizes of the files in a folder, links followed; none if it is not there."""
    try:
        return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    except OSError:
        return {}


def _whole(folder: Path, names: Collection[str]) -> bool:
    parts = parts_of(names)
    if CONFIG not in parts.small or not parts.weights:
        return False
    index = _INDEX.get(parts.format)
    if index is None or index not in parts.small:
        return parts.weights[0] in _WHOLE.values() or not _SHARD.search(parts.weights[0])
    named = _named_in(folder / index)
    return named is not None and named <= {*names}


def _named_in(index: Path) -> set[str] | None:
    """Names of the files that an index names; None if it is no index."""
    named = _weight_map(index)
    return None if named is None else set(named.values())


def _weight_map(index: Path) -> dict[str, str] | None:
    """Read in which file each tensor is; None if it is no index."""
    try:
        text = read_text(index, SuiteError, what="an index of weights")
        named = parse_json(text, str(index), SuiteError)["weight_map"]
        return {str(name): str(file) for name, file in named.items()}
    except (SuiteError, KeyError, TypeError, AttributeError):
        return None
