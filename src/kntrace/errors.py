"""The errors kntrace raises on purpose.

Every message is one line that says what was found and where, what was expected, and what to
do next. The command line prints it and exits with the error's `exit_code`; a traceback is
reserved for faults of kntrace itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from kntrace.nearest import nearest

__all__ = [
    "AnalysisError",
    "HubError",
    "InputError",
    "KntraceError",
    "ModelError",
    "RunError",
    "SettingsError",
    "StoppedError",
    "StudyError",
    "SuiteError",
]


_LONGEST_MESSAGE = 4000
_MOST_LISTED = 20


class KntraceError(Exception):
    """Something stopped the work; `exit_code` is what the command line returns for it.

    Parameters
    ----------
    found
        What was found, as a sentence without its full stop.
    where
        The file, word, checkpoint or setting in which it was found.
    expected
        What would have been right.
    fix
        What the reader should do next, as a sentence.
    """

    exit_code = 1

    def __init__(
        self,
        found: str,
        *,
        where: object | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.found = found
        self.where = None if where is None else str(where)
        self.expected = expected
        self.fix = fix
        super().__init__(self._message())

    @classmethod
    def unknown(
        cls, kind: str, name: object, known: Iterable[str], *, where: object | None = None
    ) -> Self:
        """For a name that is none of the `known` ones: they are listed, the nearest suggested."""
        names = list(known)
        few = len(names) <= _MOST_LISTED
        listed = ", ".join(names if few else [*names[:_MOST_LISTED], "…"])
        return cls(
            f"no {kind} {name!r}",
            where=where,
            expected=f"one of {listed}" if names else None,
            fix=nearest(str(name), names),
        )

    def _message(self) -> str:
        message = self.found if self.where is None else f"{self.where}: {self.found}"
        if self.expected is not None:
            message += f"; expected {self.expected}"
        if self.fix is not None:
            message += f". {self.fix}"
        # Names and texts from a user's file may hold line breaks; a message stays one line. They
        # may be of any length and hold halves of characters, which no terminal can show.
        line = " ".join(message.split()).encode(errors="backslashreplace").decode()
        half = _LONGEST_MESSAGE // 2
        return line if len(line) <= 2 * half else f"{line[:half]} … {line[-half:]}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between worker processes, so they must survive pickling with their parts.
        return (_rebuild, (type(self), self.found, self.where, self.expected, self.fix))


def _rebuild(
    kind: type[KntraceError],
    found: str,
    where: str | None,
    expected: str | None,
    fix: str | None,
) -> KntraceError:
    return kind(found, where=where, expected=expected, fix=fix)


class StoppedError(KntraceError):
    """The user stopped the work; what was finished is kept."""


class HubError(KntraceError):
    """The hub cannot be reached, or does not do what it should."""


class InputError(KntraceError):
    """What the user gave is wrong: a file, a name, a number, a combination."""

    exit_code = 2


class StudyError(InputError):
    """A study cannot be read, or says something that cannot be meant."""


class SuiteError(InputError):
    """A suite or one of its checkpoints is absent, misnamed or inconsistent."""


class SettingsError(InputError):
    """A setting is unknown, out of range, or at odds with another one."""


class ModelError(InputError):
    """A model or tokenizer cannot be used for what was asked."""


class RunError(InputError):
    """A run folder is absent, damaged, or was made from something else."""


class AnalysisError(InputError):
    """An analysis was asked for that these data cannot give."""
