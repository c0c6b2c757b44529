"""The run folder as a folder: its names, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from kntrace.errors import RunError

__all__ = [
    "ANALYSIS",
    "AUDIT",
    "BEGUN",
    "CAUSAL",
    "CHANGING",
    "FIGURES",
    "LOCK",
    "PROVENANCE",
    "SCORES",
    "SESSIONS",
    "SETTINGS",
    "STUDY",
    "SUITE",
    "batches_of_names",
    "claim_folder",
    "force",
    "names",
    "refuse_foreign",
    "remove_leftovers",
    "usable",
    "write_failure",
    "write_text",
]

STUDY, SUITE, SETTINGS = "study.yaml", "suite.yaml", "settings.yaml"
SCORES, PROVENANCE = "scores.zarr", "provenance.json"
ANALYSIS, FIGURES = "analysis", "figures"
AUDIT, CAUSAL = "audit", "causal"
# Who is computing, one file a process: see `sessions`.
SESSIONS = "sessions"
# Held by whoever writes into the folder, and by whoever changes what its writers share.
LOCK, CHANGING = ".lock", ".changing"

# Writers give a file its name only once it is whole; until then the name ends in this.
_PARTIAL = ".partial"
# The archive is built under this name and renamed as the last act of creation: a folder that
# still has it was left by a run that was killed while it was being made.
BEGUN = SCORES + _PARTIAL
# What may lie in a folder that is no run yet.
_BEFORE = (LOCK, CHANGING)
_AT_ONCE = 1 << 14


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never a part.

    Raises
    ------
    RunError
        If the folder cannot be written or the disk is full.
    """
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise write_failure(path, error) from error


def force(file: Path) -> None:
    """Wait until the file, and its name in its folder, are on the disk.

    Raises
    ------
    RunError
        If the disk fails.
    """
    try:
        for place in (file, file.parent):
            opened = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
    except OSError as error:
        raise write_failure(file, error) from error


def write_failure(path: Path, error: OSError) -> RunError:
    """Say why `path` could not be written, in words, and that nothing finished was lost."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            "the disk is full",
            where=path,
            fix="Make room and run the same command again: every finished block is kept.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(
            "no permission to write there",
            where=path,
            fix="Make the folder writable, or give another --out.",
        )
    return RunError(
        f"could not be written: {error.strerror or error}",
        where=path,
        fix="Run the same command again: every finished block is kept.",
    )


def usable(path: str | Path) -> Path:
    """Turn `path` into a Path; raises `RunError` if no file can have such a name."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        shown = repr(str(path)[:60])
        raise RunError(f"{shown} cannot be looked up: {reason}", expected="a folder") from error
    return Path(path)


def refuse_foreign(path: Path) -> None:
    """Raise `RunError` if `path` can neither be a run folder nor become one."""
    if path.exists() and not path.is_dir():
        raise RunError("a file, not a folder", where=path, expected="a run folder or a new name")
    if not path.exists() or (path / SCORES).is_dir() or (path / BEGUN).is_dir():
        return
    try:
        foreign = sorted(item.name for item in path.iterdir() if item.name not in _BEFORE)
    except OSError as error:
        raise RunError(f"cannot be listed: {error.strerror}", where=path) from error
    if foreign:
        raise RunError(
            f"a folder that is no run and holds {foreign[0]!r}"
            + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""),
            where=path,
            expected="a run folder, an empty folder or a new name",
            fix="Give another --out.",
        )


def claim_folder(path: Path) -> bool:
    """Make the folder `path` if it is not there; True if it was made."""
    refuse_foreign(path)
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    return made


def remove_leftovers(path: Path) -> None:
    """Remove what writers that were killed left behind in the run folder `path`.

    To be called by the folder's only writer, see `locks`: then every half-written file is
    a leftover.
    """
    try:
        inside = (path / name for name in (ANALYSIS, AUDIT, CAUSAL, FIGURES, SCORES))
        places = (path, *inside, *_folders(path / ANALYSIS), *_folders(path / SCORES))
        for folder in places:
            halves = [
                name
                for some in batches_of_names(folder)
                for name in some
                if name.endswith(_PARTIAL)
            ]
            for name in halves:
                if (folder / name).is_dir() and not (folder / name).is_symlink():
                    shutil.rmtree(folder / name)
                else:
                    (folder / name).unlink()
    except OSError as error:
        raise write_failure(path, error) from error


def _folders(path: Path) -> list[Path]:
    return [path / name for name in names(path) if (path / name).is_dir()]


def names(folder: Path) -> list[str]:
    """Names in `folder`, none if it is not there; one system call for some hundred of them."""
    return [name for some in batches_of_names(folder) for name in some]


def batches_of_names(folder: Path) -> Iterator[list[str]]:
    """The same, some at a time: a folder of blocks may hold hundreds of thousands."""
    try:
        with os.scandir(folder) as items:
            while some := [item.name for item in islice(items, _AT_ONCE)]:
                yield some
    except FileNotFoundError:
        return
