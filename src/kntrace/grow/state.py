"""What an unfinished growth needs to go on: kept in one folder, used by one process at a time."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kntrace.errors import SuiteError
from kntrace.grow.folder import partial_of

try:
    import fcntl
except ImportError:  # pragma: no cover - only where the system is not a POSIX one
    fcntl = None  # type: ignore[assignment]

__all__ = ["WORK", "Workplace"]

WORK = ".growing"


class Workplace:
    """The folder `.growing` in an unfinished suite.

    Attributes
    ----------
    tokenizer, tokens
        Where the tokenizer (a folder) and the text's token ids lie, once they are whole.
    """

    def __init__(self, suite: Path) -> None:
        self._folder = suite / WORK
        self._state = self._folder / "state.pt"
        self.tokenizer = self._folder / "tokenizer"
        self.tokens = self._folder / "tokens.bin"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work in it as the only process; the lock ends with the process, however that ends.

        Raises
        ------
        SuiteError
            If another process is at work in it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise SuiteError(
                        "another process is growing this suite",
                        where=self._folder.parent,
                        fix="Wait until it has ended, or give another folder.",
                    ) from None
            yield
        finally:
            os.close(lock)

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state of training; a kill leaves this one or the one before it."""
        partial = partial_of(self._state)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._state)

    def load(self) -> dict[str, Any] | None:
        """The state that was kept last, None if there is none.

        Raises
        ------
        SuiteError
            If it cannot be read.
        """
        if not self._state.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._state, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as failure:
            first = next(iter(str(failure).splitlines()), type(failure).__name__)
            raise SuiteError(
                f"the state of training cannot be read ({first})",
                where=self._state,
                fix="Remove it, and training begins anew.",
            ) from failure
        return state

    def remove(self) -> None:
        """Take it away: the suite is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)
