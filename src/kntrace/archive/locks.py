"""Who may write into a run folder: one command alone, or several shards side by side.

Locks belong to the operating system and die with their process, so that a killed run never
leaves a folder locked. They hold across machines where the file system passes them on (NFS,
Lustre mounted with `flock`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kntrace.archive import folder
from kntrace.archive.plain import refuse_links
from kntrace.archive.sessions import clear_killed
from kntrace.errors import RunError

try:
    import fcntl
except ImportError:  # pragma: no cover - only where the system is not a POSIX one
    fcntl = None  # type: ignore[assignment]

__all__ = ["changing", "holder", "sharing", "taking_turns", "writing"]

_SHARED = "shared"
"""What the lock says instead of a process while shards hold it together."""

# A shard that comes or goes holds the lock alone for a moment, and says so a moment later; so
# many seconds others wait for the one and for the other.
_PATIENCE, _MOMENT, _LOOK = 30.0, 1.0, 0.05

_Take = Callable[[int, Path], bool]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the run folder `path`, made if need be, as its only writer.

    A folder in which nothing was created is removed again.

    Raises
    ------
    RunError
        If another process holds it, if it cannot be written, or if it is something else.
    """
    made = _entered(path)
    lock = path / folder.LOCK
    held, _ = _open_locked(lock, _alone)
    try:
        _say(held, str(os.getpid()))
        yield
    finally:
        _leave(path, lock, made)
        os.close(held)


@contextmanager
def sharing(path: Path) -> Iterator[bool]:
    """Hold the run folder `path`, made if need be, as one of several shards of a run.

    Gives whether nobody else held it: then what killed writers left may be removed, and is, by
    whoever enters it, before others come in.

    Raises
    ------
    RunError
        If a run that wants the folder for itself holds it, and as `writing`.
    """
    made = _entered(path)
    lock = path / folder.LOCK
    held, alone = _open_locked(lock, _beside_others)
    try:
        if alone:
            _say(held, _SHARED)
            folder.remove_leftovers(path)
            clear_killed(path)
            _wait_beside_others(held, lock)
        yield alone
    finally:
        # Only the last one removes the file: those that stay would no longer be seen.
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _leave(path, lock, made)
        os.close(held)


@contextmanager
def taking_turns(lock: Path) -> Iterator[None]:
    """Hold a file of this machine that only says whose turn it is, waiting for others.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    try:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise folder.write_failure(lock, error) from error
    try:
        if fcntl is not None:
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold what the writers of a run folder have in common, for a moment, waiting for others.

    Not to be entered twice by one process.

    Raises
    ------
    RunError
        If the folder cannot be written, or has no locks.
    """
    lock = path / folder.CHANGING
    held, _ = _open_locked(lock, _in_turn)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(held)


def holder(path: Path) -> str | None:
    """Name who holds the run folder `path`, on whatever machine; None if nobody does.

    Another command's holding it later has another name.
    """
    lock = path / folder.LOCK
    try:
        opened = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return f"{os.fstat(opened).st_ino}:{_owner(opened)}"
    finally:
        os.close(opened)
    return None


def _entered(path: Path) -> bool:
    made = folder.claim_folder(folder.usable(path))
    refuse_links(path, depth=2)
    return made


def _leave(path: Path, lock: Path, made: bool) -> None:
    # Removed while still held: whoever opened it in between sees that its file is gone.
    with suppress(OSError):
        lock.unlink()
    if made and not (path / folder.SCORES).exists():
        with suppress(OSError):
            path.rmdir()


def _open_locked(lock: Path, take: _Take) -> tuple[int, bool]:
    """Open the file `lock`, `take` it, and return its descriptor."""
    if fcntl is None:  # pragma: no cover
        raise RunError(
            "this system has no file locks", where=lock, expected="Linux or macOS", fix="Use WSL."
        )
    while True:
        try:
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise folder.write_failure(lock.parent, error) from error
        try:
            taken = take(held, lock)
        except RunError:
            os.close(held)
            raise
        except OSError as error:
            os.close(held)
            raise RunError(
                f"its file system offers no locks ({error.strerror})",
                where=lock.parent,
                fix="Put the run folder on another disk.",
            ) from error
        if _is_current(held, lock):
            return held, taken
        # The last holder removed the file between our opening and locking it: begin again.
        os.close(held)


def _alone(held: int, lock: Path) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(held, lock) from None
    return True


def _in_turn(held: int, lock: Path) -> bool:
    fcntl.flock(held, fcntl.LOCK_EX)
    return True


def _beside_others(held: int, lock: Path) -> bool:
    """Take the lock alone if nobody has it, else together with those that share it."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _wait_beside_others(held, lock)
        return False
    return True


def _wait_beside_others(held: int, lock: Path) -> None:
    began = time.monotonic()
    while _is_current(held, lock):
        with suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        patience = _PATIENCE if _owner(held) == _SHARED else _MOMENT
        if time.monotonic() - began > patience:
            raise _in_use(held, lock)
        time.sleep(_LOOK)


def _in_use(held: int, lock: Path) -> RunError:
    owner = _owner(held)
    if owner == _SHARED:
        return RunError(
            "shards of this run are being computed",
            where=lock.parent,
            fix="Wait until they have ended (`kntrace status` shows them), or give another --out.",
        )
    return RunError(
        "another kntrace run is writing into it"
        + (f" (process {owner})" if owner.isdecimal() else ""),
        where=lock.parent,
        fix="Wait until it has ended, or give another --out.",
    )


def _owner(held: int) -> str:
    return os.pread(held, 32, 0).decode(errors="replace").strip()


def _say(held: int, owner: str) -> None:
    os.ftruncate(held, 0)
    os.pwrite(held, owner.encode(), 0)


def _is_current(held: int, lock: Path) -> bool:
    """Whether `lock` still names the file that is open as `held`."""
    try:
        return os.path.samestat(os.fstat(held), lock.stat())
    except FileNotFoundError:
        return False
