"""Who is computing blocks of a run at this moment: one small file a process, locked while it lives.

Whoever computes keeps the file's lock, which dies with the process; a file without a lock was
left by one that was killed. No clock is asked. Nothing hangs on these files but what `status`
tells, so that what is odd in one is passed over.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kntrace.archive import folder
from kntrace.archive.plain import read_plain

try:
    import fcntl
except ImportError:  # pragma: no cover - only where the system is not a POSIX one
    fcntl = None  # type: ignore[assignment]

__all__ = ["Computing", "Seen", "clear_killed", "read_computing"]

# A file is written again in one piece of this size, so that nobody reads the half of it.
_BYTES = 1024
_MOST_FILES = 10_000


class _State(BaseModel):
    model_config = ConfigDict(strict=True)

    who: str = Field(max_length=200)
    host: str = Field(max_length=200)
    process: int
    blocks: int
    at: str = Field(max_length=400)


@dataclass(frozen=True)
class Seen:
    """A process that computes blocks of a run, or was killed while it did.

    Attributes
    ----------
    who
        What it is: `run`, `worker 2 of 4`, `shard 3 of 8`.
    host, process
        Where it runs.
    blocks
        Blocks of the checkpoint in hand that it has committed.
    at
        What it has in hand: a checkpoint, or a block.
    alive
        Whether it still runs.
    """

    who: str
    host: str
    process: int
    blocks: int
    at: str
    alive: bool

    def __str__(self) -> str:
        place = f"{self.who} (process {self.process} on {self.host})"
        return f"{place} at {self.at}" if self.alive else f"{place} was killed at {self.at}"


class Computing:
    """Says in a run folder that this process computes; a context manager.

    Where the folder lets no file be made or locked, nothing is said.
    """

    def __init__(self, run: Path, who: str) -> None:
        self._who = who[:200]
        self._host = socket.gethostname()[:200]
        self._name = f"{_plain(self._host)}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._home = run / folder.SESSIONS
        self._held: int | None = None

    def __enter__(self) -> Self:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(OSError):
            self._home.mkdir(exist_ok=True)
            self._held = os.open(self._home / self._name, flags, 0o666)
            fcntl.flock(self._held, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._held is None:
            return
        with suppress(OSError):
            (self._home / self._name).unlink()
        os.close(self._held)
        with suppress(OSError):  # others are still there
            self._home.rmdir()

    def tell(self, at: str, blocks: int) -> None:
        """Say what is in hand, and how many blocks are done."""
        if self._held is None:
            return
        state = _State(
            who=self._who,
            host=self._host,
            process=os.getpid(),
            blocks=blocks,
            at=_plain_length(at),
        )
        with suppress(OSError):
            os.pwrite(self._held, state.model_dump_json().encode()[:_BYTES].ljust(_BYTES), 0)


def read_computing(run: Path) -> tuple[Seen, ...]:
    """Read who computes blocks of the run in `run`, and who was killed while it did."""
    found = []
    for file in _files(run):
        try:
            text = read_plain(file, _BYTES)
            state = _State.model_validate_json(text)
        except (OSError, ValidationError):
            continue
        if not f"{state.who}{state.host}{state.at}".isprintable():
            continue
        found.append(Seen(**state.model_dump(), alive=_held(file)))
    return tuple(sorted(found, key=lambda one: (one.who, one.host, one.process)))


def clear_killed(run: Path) -> None:
    """Remove the files of processes that are no more; for whoever writes into the folder."""
    for file in _files(run):
        if not _held(file):
            with suppress(OSError):
                file.unlink()
    with suppress(OSError):
        (run / folder.SESSIONS).rmdir()


def _files(run: Path) -> list[Path]:
    home = run / folder.SESSIONS
    some: list[str] = []
    with suppress(OSError):
        some = sorted(islice(folder.names(home), _MOST_FILES))
    return [home / name for name in some if name.endswith(".json")]


def _held(file: Path) -> bool:
    """Whether a process holds the lock of a session's file."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(opened)
    return False


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in text)


def _plain_length(text: str) -> str:
    """Text of a label and a word, at a length of which 1024 bytes hold any letters."""
    return text if len(text.encode()) <= 300 else f"{text[:70]}…"
