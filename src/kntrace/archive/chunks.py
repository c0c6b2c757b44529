"""Chunks as files: which are there, and which pass their checksum.

Each variable of a run has one chunk per block, in one flat folder, so that one listing per
variable tells which blocks exist. Every chunk ends in the CRC-32C of its (compressed) bytes,
as the `crc32c` codec of zarr 3 defines, so that damage is found without decompressing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from zarr.storage import LocalStore

from kntrace.archive.bounded import LARGEST_CHUNK, decompress, most_compressed
from kntrace.archive.folder import batches_of_names
from kntrace.archive.plain import read_plain
from kntrace.archive.variables import BLOCK_VARIABLES, EVERY_VARIABLE
from kntrace.errors import RunError

__all__ = [
    "CheckedStore",
    "block_chunks",
    "chunk_name",
    "existing",
    "intact",
    "intact_blocks",
    "passes",
    "read_chunks",
    "torn_words",
    "unpack",
]

_CHECKSUM_BYTES = 4
# What one system call reads of a file; the small variables' chunks have some hundred bytes.
_AT_ONCE = 1 << 16
_LARGEST_FILE = most_compressed(LARGEST_CHUNK)
# The same with the array it belongs to, also for arrays whose chunks lie in nested folders.
_KEY = re.compile(r"(.+)/(c(?:[./]\d+)*)")


def chunk_name(variable: str, *index: int) -> str:
    """File name of the chunk of `variable` at `index`: its place along the leading dimensions."""
    rest = len(EVERY_VARIABLE[variable].dims) - len(index)
    return ".".join(("c", *(str(place) for place in index), *("0" * rest)))


def existing(folder: Path, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """List which chunks of one variable exist, as a truth value for each leading index.

    Parameters
    ----------
    folder
        Folder of the variable.
    shape
        How many chunks there are along the leading dimensions.

    Notes
    -----
    One listing, no look at single files, and no loop over names: a quarter of a second for
    308,000 chunks.
    """
    found = np.zeros(shape, dtype=np.bool_)
    # Nine digits are more than any number of words has, and fit into an integer.
    # A part of the names at a time, so that memory does not grow with their number.
    wanted = r"^c\.(" + r"\.".join([r"\d{1,9}"] * len(shape)) + r")(?:\.0)*$"
    for some in batches_of_names(folder):
        places = re.findall(wanted, "\n".join(some), re.MULTILINE)
        if places:
            numbers = np.fromstring(" ".join(places).replace(".", " "), dtype=np.int64, sep=" ")
            index = numbers.reshape(len(places), len(shape))
            inside = (index < np.array(shape)).all(axis=1)
            found[tuple(index[inside].T)] = True
    return found


def passes(data: bytes) -> bool:
    """Whether the chunk's bytes agree with the checksum at their end."""
    if len(data) <= _CHECKSUM_BYTES:
        return False
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    return int(google_crc32c.value(body)) == int.from_bytes(checksum, "little")


def intact(chunk: str | Path) -> bool:
    """Whether the file `chunk` can be read and passes its checksum."""
    return passes(_bytes_of(chunk))


def intact_blocks(
    scores: Path, pairs: Iterable[tuple[int, int]], variables: Iterable[str] = BLOCK_VARIABLES
) -> Iterator[bool]:
    """For each of the blocks, whether its chunks of all `variables` pass their checksum.

    Costs three system calls a chunk and little beside them.
    """
    # Of millions of files even putting together the paths would take a while.
    ends = [
        (f"{scores / name / 'c'}.", chunk_name(name, 0, 0).removeprefix("c.0.0"))
        for name in variables
    ]
    for checkpoint, word in pairs:
        place = f"{checkpoint}.{word}"
        yield all(passes(_bytes_of(before + place + after)) for before, after in ends)


def torn_words(scores: Path, words: int, variables: Iterable[str]) -> set[int]:
    """Words of which a chunk that holds for all checkpoints is not there, or damaged."""
    return {
        word
        for name in variables
        for word in range(words)
        if not intact(scores / name / chunk_name(name, word))
    }


def _bytes_of(file: str | Path) -> bytes:
    """Everything in `file`; nothing where it cannot be read, which passes for no chunk."""
    try:
        # A link leads out of the run, and to open a pipe would wait for who writes into it.
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = os.read(handle, _AT_ONCE)
        if len(data) < _AT_ONCE:
            return data
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_FILE:
            return b""
        with open(handle, "rb", buffering=0, closefd=False) as rest:
            return data + rest.readall()
    except OSError:
        return b""
    finally:
        os.close(handle)


def read_chunks(
    scores: Path, variable: str, checkpoint: int, words: Iterable[int], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read the chunks of `variable` of some blocks of a checkpoint, as (word, *shape).

    The same numbers as zarr reads, in a small part of the time that it takes for chunks of some
    hundred bytes: for looking at small variables of very many blocks.

    Raises
    ------
    RunError
        If a chunk is damaged or not there.
    """
    numbers = np.dtype(EVERY_VARIABLE[variable].dtype).newbyteorder("<")
    size = numbers.itemsize * int(np.prod(shape))
    folder = f"{scores / variable}{os.sep}"
    parts: list[bytes] = []
    before = b""
    for word in words:
        name = chunk_name(variable, checkpoint, word)
        data = _bytes_of(folder + name)
        # Neighbours are often alike to the last bit, and decoding is what takes longest.
        if not parts or data != before:
            try:
                part = _decoded(data, size).tobytes()
            except (ValueError, RuntimeError):
                raise _damaged(name, variable, scores) from None
        parts.append(part)
        before = data
    return np.frombuffer(b"".join(parts), dtype=numbers).reshape(len(parts), *shape)


def unpack(chunk: Path, size: int) -> npt.NDArray[np.uint8]:
    """Read the file `chunk` of `size` bytes before they were compressed.

    Raises
    ------
    OSError, ValueError, RuntimeError
        If it cannot be read, is damaged, or holds more.
    """
    return _decoded(read_plain(chunk, most_compressed(size)), size)


def _decoded(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    if not passes(data):
        raise ValueError("the checksum differs")
    return decompress(data[:-_CHECKSUM_BYTES], size)


def _damaged(chunk: str, variable: str, where: Path) -> RunError:
    return RunError(
        f"chunk {chunk} of {variable!r} is damaged",
        where=where,
        fix="See `kntrace status`; `kntrace run` with the same study and suite computes damaged "
        "blocks again.",
    )


class CheckedStore(LocalStore):
    """A zarr store on a folder that says which of its chunks is damaged.

    All of its arrays have to use the `crc32c` codec last. zarr itself would say only that a
    checksum differs, not where.
    """

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Read one object; raises `RunError` if it is a chunk that fails its checksum."""
        self._refuse_unplain(key)
        data = await super().get(key, prototype, byte_range)
        match = _KEY.fullmatch(key)
        if data is None or byte_range is not None or match is None:
            return data
        if not passes(data.to_bytes()):
            raise _damaged(match[2], match[1], self.root)
        return data

    def _refuse_unplain(self, key: str) -> None:
        """Refuse what no writer of kntrace leaves: links, pipes, files without end."""
        try:
            found = (self.root / key).lstat()
        except OSError:
            return
        if stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_FILE:
            return
        raise RunError("is not an ordinary file of a size that it may have", where=self.root / key)


def block_chunks(
    scores: Path, checkpoint: int, word: int, variables: Iterable[str] = BLOCK_VARIABLES
) -> list[Path]:
    """Files that hold one block."""
    return [scores / name / chunk_name(name, checkpoint, word) for name in variables]
