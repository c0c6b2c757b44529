"""Chunks as files: which are there, and which pass their checksum.

Each variable of a run has one chunk per block, in one flat folder, so that one listing per
variable tells which blocks exist. Every chunk ends in the CRC-32C of its (compressed) bytes,
as the `crc32c` codec of zarr 3 defines, so that damage is found without decompressing.
"""

from __future__ import annotations

import re
import stat
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from zarr.storage import LocalStore

from kntrace.archive.bounded import LARGEST_CHUNK, decompress, most_compressed
from kntrace.archive.folder import names
from kntrace.archive.plain import read_plain
from kntrace.archive.variables import BLOCK_VARIABLES, VARIABLES
from kntrace.errors import RunError

__all__ = ["CheckedStore", "chunk_name", "existing", "intact", "read_chunk", "unpack"]

_CHECKSUM_BYTES = 4
_CHUNK = re.compile(r"c((?:\.\d+)+)")
_LARGEST_FILE = most_compressed(LARGEST_CHUNK)
# The same with the array it belongs to, also for arrays whose chunks lie in nested folders.
_KEY = re.compile(r"(.+)/(c(?:[./]\d+)*)")


def chunk_name(variable: str, *index: int) -> str:
    """File name of the chunk of `variable` at `index`: its place along the leading dimensions."""
    rest = len(VARIABLES[variable].dims) - len(index)
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
    One listing, no look at single files: a third of a second for 308,000 chunks.
    """
    found = np.zeros(shape, dtype=np.bool_)
    for name in names(folder):
        match = _CHUNK.fullmatch(name)
        if match is None:
            continue
        index = tuple(int(part) for part in match[1][1:].split(".")[: len(shape)])
        if all(place < size for place, size in zip(index, shape, strict=True)):
            found[index] = True
    return found


def passes(data: bytes) -> bool:
    """Whether the chunk's bytes agree with the checksum at their end."""
    if len(data) <= _CHECKSUM_BYTES:
        return False
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    return int(google_crc32c.value(body)) == int.from_bytes(checksum, "little")


def intact(chunk: Path) -> bool:
    """Whether the file `chunk` can be read and passes its checksum."""
    try:
        return passes(read_plain(chunk, _LARGEST_FILE))
    except OSError:
        return False


def read_chunk(
    scores: Path, variable: str, index: tuple[int, ...], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read the one chunk of `variable` at `index`, as an array of `shape`.

    The same numbers as zarr reads, in an eighth of the time that it takes for chunks of some
    hundred bytes: for looking at small variables of very many blocks.

    Raises
    ------
    RunError
        If the chunk is damaged or not there.
    """
    name = chunk_name(variable, *index)
    numbers = np.dtype(VARIABLES[variable].dtype).newbyteorder("<")
    size = prod(shape) * numbers.itemsize
    try:
        return unpack(scores / variable / name, size).view(numbers).reshape(shape)
    except (OSError, ValueError, RuntimeError):
        raise _damaged(name, variable, scores) from None


def unpack(chunk: Path, size: int) -> npt.NDArray[np.uint8]:
    """Read the file `chunk` of `size` bytes before they were compressed.

    Raises
    ------
    OSError, ValueError, RuntimeError
        If it cannot be read, is damaged, or holds more.
    """
    data = read_plain(chunk, most_compressed(size))
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


def block_chunks(scores: Path, checkpoint: int, word: int) -> list[Path]:
    """Files that hold one block."""
    return [scores / name / chunk_name(name, checkpoint, word) for name in BLOCK_VARIABLES]
