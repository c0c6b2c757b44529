"""What a sweep will have to fetch from the hub, and what stands in its way, before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

from kntrace.errors import HubError, SuiteError
from kntrace.suite import cache, hub
from kntrace.suite.download import refuse_format, refuse_pickles
from kntrace.suite.model import CONFIG, Checkpoint
from kntrace.suite.weights import cached_whole, format_in, parts_of, size_in_words

__all__ = ["Fetch", "Preflight", "preflight"]

Commits = Mapping[str, AbstractSet[str]]
"""Commits by repository."""

_FORMATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Fetch:
    """A checkpoint on the hub that a sweep will load.

    Attributes
    ----------
    checkpoint
        The checkpoint, under its own revision.
    commit
        The commit of which everything is to be loaded.
    cached
        Whether all of it is on this machine.
    lacking
        Sizes in bytes of the contents that are not, by repository and name in the cache; none
        if other commits have them all.
    goes
        Whether it is the run's own, to be deleted after use.
    """

    checkpoint: Checkpoint
    commit: str
    cached: bool
    lacking: Mapping[tuple[str, str], int] = field(default_factory=dict)
    goes: bool = False


@dataclass(frozen=True)
class Preflight:
    """What will be fetched, in order.

    Attributes
    ----------
    items
        The checkpoints that lie on the hub, those in the cache included.
    free
        Free bytes of the disk on which the cache lies.
    cache
        Where that is.
    numbers
        Formats of the numbers in the first weights to be fetched, the commonest first; empty
        where they are not known.
    at_once
        Checkpoints that are there at a time if they go again after use.
    """

    items: tuple[Fetch, ...]
    free: int
    cache: Path
    numbers: tuple[str, ...] = ()
    at_once: int = 2

    @property
    def missing(self) -> tuple[Fetch, ...]:
        """Those that are not whole in the cache."""
        return tuple(item for item in self.items if not item.cached)

    @property
    def bytes(self) -> int:
        """What will come over the network; what two checkpoints share comes once."""
        return _together(self.missing)

    @property
    def room(self) -> int:
        """Bytes that will be needed at once.

        Of those that go again, the ones in use, and the next, fetched meanwhile.
        """
        going = [item for item in self.missing if item.goes]
        staying = _together([item for item in self.missing if not item.goes])
        some = (_together(going[place : place + self.at_once]) for place in range(len(going)))
        return staying + max(some, default=0)

    def check_room(self, *, evict: bool) -> None:
        """Raise `SuiteError` if the disk is too small, saying how many would fit."""
        if self.room <= self.free:
            return
        missing = self.missing
        fit = sum(_together(missing[: place + 1]) <= self.free for place in range(len(missing)))
        many = "two" if self.at_once == 2 else str(self.at_once)
        what = (
            f"{many} checkpoints at a time take {size_in_words(self.room)}"
            if evict
            else f"the {len(missing)} checkpoints to fetch take {size_in_words(self.bytes)}"
        )
        gone = replace(self, items=tuple(replace(item, goes=True) for item in self.items))
        fix = "Make room, set HF_HOME to a larger disk, or choose fewer with --steps."
        if not evict and gone.room <= self.free:
            fix = (
                "With --evict (evict=True) each is deleted after use, which takes "
                f"{size_in_words(gone.room)}; or choose fewer with --steps."
            )
        left = cache.unfinished()
        if left:
            fix += f" Unfinished downloads take {size_in_words(left)}: see `hf cache prune`."
        raise SuiteError(
            f"{what}, and {size_in_words(self.free)} are free: room for {fit} of them",
            where=self.cache,
            fix=fix,
        )

    def __str__(self) -> str:
        missing, here = self.missing, len(self.items) - len(self.missing)
        if not missing:
            return f"All {here} checkpoints are in the cache."
        numbers = f", in {' and '.join(self.numbers)}" if self.numbers else ""
        cached = f"; {here} more in the cache" if here else ""
        going = any(item.goes for item in missing)
        goes = f"; deleted after use, {size_in_words(self.room)} at a time" if going else ""
        many = "checkpoint" if len(missing) == 1 else "checkpoints"
        return (
            f"To fetch: {len(missing)} {many}, {size_in_words(self.bytes)}{numbers}{cached}{goes}. "
            f"{size_in_words(self.free)} free in {self.cache}."
        )


def preflight(
    checkpoints: Sequence[Checkpoint],
    commits: Mapping[str, str],
    *,
    allow_bin: bool = False,
    evict: bool = False,
    mine: Commits | None = None,
    at_once: int = 2,
) -> Preflight:
    """Look at what a sweep will load, before it loads anything.

    One request for each checkpoint that is not whole in the cache, eight at a time, and one
    for the format of numbers; none offline.

    Parameters
    ----------
    checkpoints
        In the order in which they are loaded, of any source.
    commits
        Commit by label, of those on the hub.
    allow_bin
        Whether weights may be pickles.
    evict
        Whether what the run fetches goes again after use.
    mine
        What the run fetched in an earlier session and had not yet deleted.
    at_once
        Checkpoints that are on the disk at a time if they go again: those in use, and the next.

    Raises
    ------
    SuiteError
        If a revision is not to be had, if offline it is not in the cache, if weights are of
        a format that is not read, or if the disk is too small.
    HubError
        If the hub cannot be reached.
    """
    remote = [item for item in checkpoints if item.revision is not None]
    if not remote:
        _refuse_formats(checkpoints, {}, {}, allow_bin=allow_bin)
        return Preflight((), 0, Path())
    if hub.offline():
        _refuse_absent(remote, commits)
        here = {item.label: True for item in remote}
    else:
        here = {
            item.label: cached_whole(item.source, commits[item.label], tokenizer=True)
            for item in remote
        }
    asked = [item for item in remote if not here[item.label]]
    looks = dict(
        zip(
            (item.label for item in asked),
            hub.at_once(lambda item: hub.look_up(item.source, commits[item.label]), asked),
            strict=True,
        )
    )
    _refuse_formats(checkpoints, commits, looks, allow_bin=allow_bin)
    kept = {item.source: cache.blobs(item.source) for item in asked}
    items = [
        Fetch(
            item,
            commits[item.label],
            here[item.label],
            _lacking(item, looks[item.label], kept[item.source]) if item.label in looks else {},
            evict and _own(item, commits[item.label], mine or {}),
        )
        for item in remote
    ]
    first = next((item for item in items if not item.cached), None)
    numbers = _numbers(first, looks) if first is not None else ()
    found = Preflight(tuple(items), cache.free_space(), cache.folder(), numbers, at_once)
    found.check_room(evict=evict)
    return found


def _refuse_absent(remote: Sequence[Checkpoint], commits: Mapping[str, str]) -> None:
    absent = [
        item
        for item in remote
        if item.label not in commits or not cached_whole(item.source, commits[item.label])
    ]
    if absent:
        names = ", ".join(item.label for item in absent[:3])
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise SuiteError(
            f"HF_HUB_OFFLINE is set, and {len(absent)} of {len(remote)} checkpoints are not whole "
            f"in the cache: {names}{more}",
            where=absent[0].source,
            fix="Unset it, or choose those that are there with --steps.",
        )


def _refuse_formats(
    checkpoints: Sequence[Checkpoint],
    commits: Mapping[str, str],
    looks: Mapping[str, hub.Revision],
    *,
    allow_bin: bool,
) -> None:
    """Refuse what could not be loaded when its turn comes, hours from now."""
    pickles = []
    for item in checkpoints:
        if item.gguf:
            continue
        if item.label in looks:
            form = _format_of(item, looks[item.label])
        elif item.revision is not None:
            form = format_in(cache.snapshot(item.source, commits[item.label]))
        else:
            form = format_in(Path(item.source))
        if form == "bin":
            pickles.append(item)
    if not allow_bin:
        refuse_pickles(pickles)


def _format_of(checkpoint: Checkpoint, look: hub.Revision) -> str:
    """Return the format of a checkpoint's weights; raise `SuiteError` if anything lacks."""
    parts = parts_of(look.files)
    if CONFIG not in look.files:
        raise SuiteError(f"there is no {CONFIG}", where=checkpoint.place)
    refuse_format(checkpoint, parts.format, allow_bin=True)
    if not parts.tokenizer:
        raise SuiteError("there is no tokenizer", where=checkpoint.place)
    return parts.format


def _lacking(
    checkpoint: Checkpoint, look: hub.Revision, kept: AbstractSet[str]
) -> dict[tuple[str, str], int]:
    """What of a checkpoint is in the cache under no commit, with sizes."""
    parts = parts_of(look.files)
    files = (look.files[name] for name in (*parts.small, *parts.weights))
    return {(checkpoint.source, file.blob): file.size for file in files if file.blob not in kept}


def _own(checkpoint: Checkpoint, commit: str, mine: Commits) -> bool:
    """Whether nothing of this commit was here before the run."""
    if commit in mine.get(checkpoint.source, ()):
        return True
    return not cache.snapshot(checkpoint.source, commit).exists()


def _numbers(first: Fetch, looks: Mapping[str, hub.Revision]) -> tuple[str, ...]:
    parts = parts_of(looks[first.checkpoint.label].files)
    if parts.format != "safetensors":
        return ()
    try:
        found = hub.number_formats(first.checkpoint.source, first.commit, parts.weights[0])
    except HubError:
        return ()  # a download is tried again and again, this is not
    return tuple(_FORMATS.get(name, name) for name in found)


def _together(items: Sequence[Fetch]) -> int:
    """Bytes of what all of these lack."""
    lacking: dict[tuple[str, str], int] = {}
    for item in items:
        lacking |= item.lacking
    return sum(lacking.values())
