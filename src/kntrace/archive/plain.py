"""Files of a folder that may come from a stranger: no links, no pipes, nothing without end.

A run folder is handed on. What lies in it is read only where it is an ordinary file of a size
that it may have, and nothing in it may stand for a place outside of it, so that neither reading
nor writing leaves the folder. The folder itself may well be reached through a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kntrace.errors import RunError

__all__ = ["read_plain", "refuse_links"]


def read_plain(path: Path, most: int) -> bytes:
    """Read an ordinary file of no more than `most` bytes.

    Raises
    ------
    OSError
        If it is anything else, a link included, or cannot be read.
    """
    # Without O_NONBLOCK, to open a pipe would wait for somebody who writes into it.
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(opened, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is no ordinary file")
        if found.st_size > most:
            raise OSError(f"{path} has {found.st_size:,} bytes, where {most:,} are the most")
        return file.read(found.st_size)


def refuse_links(folder: Path, depth: int) -> None:
    """Raise `RunError` if anything in `folder` is a link, or neither a file nor a folder.

    `depth` 1 looks at what lies in the folder, 2 also into its subfolders, and so on.
    """
    for item in _items(folder, depth):
        if item.is_symlink():
            raise RunError(
                "a link",
                where=item.path,
                expected="files and folders alone, so that nothing outside of a run is touched",
                fix="Put in its place what it leads to. The run folder itself may be a link.",
            )
        if item.is_file(follow_symlinks=False) or item.is_dir(follow_symlinks=False):
            continue
        # Some file systems say what an item is only when asked, and by then it may be gone.
        if os.path.lexists(item.path):
            raise RunError(
                "neither a file nor a folder",
                where=item.path,
                expected="files and folders alone",
                fix="Remove it.",
            )


def _items(folder: Path | str, depth: int) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            items = sorted(found, key=lambda item: item.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RunError(f"cannot be listed: {error.strerror}", where=folder) from error
    for item in items:
        yield item
        if depth > 1 and item.is_dir(follow_symlinks=False):
            yield from _items(item.path, depth - 1)
