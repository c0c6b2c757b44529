"""Fetch the next checkpoint from the hub while one is computed, and delete what was used."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kntrace.archive import Run, shortlist
from kntrace.errors import RunError
from kntrace.suite import (
    Checkpoint,
    Fetch,
    Preflight,
    cache,
    cached_commits,
    check_revisions,
    fetch,
    hub,
    preflight,
)
from kntrace.suite.weights import size_in_words

__all__ = ["Access", "Fetching", "agreed_commits", "fetching"]

_LOOK = 0.2
"""Seconds between two looks at a download that is waited for."""

_GRACE = 2.0
"""Seconds that a download has to end when nobody wants it any longer."""


@dataclass(frozen=True)
class Access:
    """How what lies on the hub is come by. No number hangs on it.

    Attributes
    ----------
    evict
        Delete each checkpoint after use, if it was this run that fetched it.
    allow_bin
        Read weights that are there only as pickles.
    pin
        Where a branch has moved since the run began, go on with the commit that it meant.
    tell
        Told in one sentence what will be fetched.
    """

    evict: bool = False
    allow_bin: bool = False
    pin: bool = False
    tell: Callable[[str], None] = lambda _: None


def agreed_commits(
    path: Path, checkpoints: Sequence[Checkpoint], record: Mapping[str, Any], *, pin: bool
) -> dict[str, str]:
    """Return the commit of each checkpoint on the hub, by label, the same in every session.

    Parameters
    ----------
    record
        The run's provenance; empty if it has none yet.

    Raises
    ------
    RunError
        If a branch or tag has come to mean another commit since the run began.
    SuiteError, HubError
        As `check_revisions`.
    """
    seen = record.get("checkpoints", {})
    began = {label: one["commit"] for label, one in seen.items() if one.get("commit")}
    began |= record.get("commits", {})
    began = {item.label: began[item.label] for item in checkpoints if item.label in began}
    if hub.offline():
        return cached_commits(checkpoints) | began
    if pin:
        checkpoints = [replace(one, revision=began.get(one.label, one.revision))
                       for one in checkpoints]  # fmt: skip
    now = check_revisions(tuple(checkpoints))
    moved = [
        f"{label} was {began[label][:12]}, is now {commit[:12]}"
        for label, commit in now.items()
        if began.get(label, commit) != commit
    ]
    if moved:
        raise RunError(
            f"{len(moved)} of {len(now)} checkpoints on the hub have changed since the run began: "
            f"{shortlist(moved)}",
            where=path,
            fix="Give --pin (pin=True) to go on with the commits it began with, or another --out "
            "for a new run of what is there now.",
        )
    return now | began


@contextmanager
def fetching(
    path: Path,
    checkpoints: Sequence[Checkpoint],
    plan: Sequence[int],
    opened: Run | None,
    access: Access,
    *,
    workers: int = 1,
) -> Iterator[Fetching]:
    """Look at what has to be fetched, say so, and fetch it in the background.

    Parameters
    ----------
    path
        The run folder, under whose name the cache knows what the run fetched.
    checkpoints
        All of the run, whose commits are agreed on from the start.
    plan
        Which of them will be asked for, in that order.
    opened
        The run, if it was made already.
    workers
        How many checkpoints are used at a time.

    Raises
    ------
    RunError, SuiteError, HubError
        As `agreed_commits` and `preflight`, before anything is fetched.
    """
    record = {} if opened is None else opened.provenance
    commits = agreed_commits(path, checkpoints, record, pin=access.pin) if plan else {}
    if opened is not None and commits not in ({}, record.get("commits")):
        opened.update_provenance({"commits": commits})
    mine = cache.claimed(path)
    ahead = preflight(
        [checkpoints[place] for place in plan],
        commits,
        allow_bin=access.allow_bin,
        evict=access.evict,
        mine=mine,
        at_once=workers + 1,
    )
    if ahead.items:
        access.tell(str(ahead))
    with Fetching(path, ahead, commits, mine, access) as work:
        yield work


class Fetching:
    """One thread that fetches and deletes, one thing at a time and one checkpoint ahead.

    Deleting and fetching never go on together, since a file that both a checkpoint used and
    the next one have would be lost. Of what goes again, those in use are there and one more.

    Attributes
    ----------
    commits
        Of all checkpoints of the run that lie on the hub, by label.
    """

    def __init__(
        self,
        path: Path,
        ahead: Preflight,
        commits: dict[str, str],
        mine: dict[str, set[str]],
        access: Access,
    ) -> None:
        self.commits = commits
        self._path = path
        self._access = access
        self._items = {item.checkpoint.label: item for item in ahead.items}
        self._todo = ahead.missing
        self._arrived: dict[str, Future[Path]] = {
            item.checkpoint.label: Future() for item in self._todo
        }
        self._uses = Counter((item.checkpoint.source, item.commit) for item in ahead.items)
        self._changed = threading.Condition()
        self._begun = self._taken = 0
        self._got = 0
        self._ended, self._unwanted = False, False
        # What was used up in a session that was killed.
        self._used = [
            (source, commit)
            for source, commits in (mine if access.evict else {}).items()
            for commit in commits
            if not self._uses[source, commit]
        ]
        # Not one of a pool, which Python would wait for when it exits.
        self._thread = threading.Thread(target=self._work, daemon=True, name="kntrace-fetches")

    def __enter__(self) -> Self:
        if self._todo or self._access.evict:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended, self._unwanted = True, kind is not None
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(None if kind is None else _GRACE)

    def is_here(self, checkpoint: Checkpoint) -> bool:
        """Whether `turn` would return, or fail, at once."""
        arrived = self._arrived.get(checkpoint.label)
        return arrived is None or arrived.done()

    def waited_for(self, checkpoint: Checkpoint) -> str:
        """Say what is waited for, and how much of it has come."""
        return self._waited_for(self._items[checkpoint.label])

    def turn(self, checkpoint: Checkpoint, waiting: Callable[[str], None]) -> Checkpoint:
        """Wait until a checkpoint is on this machine, and return it at its commit.

        Raises
        ------
        SuiteError, HubError
            Why it could not be fetched.
        """
        item = self._items.get(checkpoint.label)
        if item is None:
            return checkpoint
        arrived = self._arrived.get(checkpoint.label)
        if arrived is not None:
            while not wait([arrived], _LOOK).done:
                waiting(self._waited_for(item))
            arrived.result()
            with self._changed:
                self._taken += 1
                self._changed.notify()
        return replace(checkpoint, revision=item.commit)

    def done(self, checkpoint: Checkpoint) -> None:
        """Let go of a checkpoint that was used; it is deleted if the run has to."""
        item = self._items.get(checkpoint.label)
        if item is None:
            return
        place = (item.checkpoint.source, item.commit)
        self._uses[place] -= 1
        if item.goes and not self._uses[place]:
            with self._changed:
                self._used.append(place)
                self._changed.notify()

    def _waited_for(self, item: Fetch) -> str:
        size = sum(item.lacking.values())
        got = min(self._got, size)
        label = item.checkpoint.label
        return f"waiting for {label}: {size_in_words(got)} of {size_in_words(size)}"

    def _work(self) -> None:
        try:
            self._fetch_and_delete()
        except BaseException as error:
            # Whoever waits for what will never come has to hear of it.
            for arrived in self._arrived.values():
                if not arrived.done():
                    arrived.set_exception(error)

    def _fetch_and_delete(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._used or self._may_fetch())
                used, self._used = self._used, []
                if self._unwanted or (self._ended and not used):
                    return
            for source, commit in used:
                self._delete(source, commit)
            if self._may_fetch():
                self._begun += 1
                self._fetch(self._todo[self._begun - 1])

    def _may_fetch(self) -> bool:
        """Whether another may be fetched: only one is to wait for its turn."""
        return not self._ended and self._begun <= self._taken and self._begun < len(self._todo)

    def _fetch(self, item: Fetch) -> None:
        arrived = self._arrived[item.checkpoint.label]
        self._got = 0
        try:
            if item.goes:
                cache.claim(item.checkpoint.source, item.commit, self._path)
            folder = fetch(
                item.checkpoint,
                commit=item.commit,
                allow_bin=self._access.allow_bin,
                told=self._came,
            )
        except BaseException as error:
            arrived.set_exception(error)
        else:
            arrived.set_result(folder)

    def _came(self, count: int) -> None:
        if self._unwanted:
            raise hub.StoppedDownload
        self._got += count

    def _delete(self, source: str, commit: str) -> None:
        with suppress(OSError):  # then it stays claimed
            cache.delete({source: {commit}})
        if not cache.snapshot(source, commit).exists():
            cache.release(source, commit, self._path)
