"""A number for every word and neuron, a few neurons at a time: in memory, or on the disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from kntrace.distance.base import Matrix
from kntrace.errors import AnalysisError

__all__ = ["Rows"]

# What may be held at a time: all rows, or as many of their columns.
_MOST = 128 * 2**20
_FLOAT = 8


class Rows:
    """Rows that are written one after the other and read back as slabs of columns.

    Beyond 128 MB they are in a temporary file, in the folder that `TMPDIR` names, so that
    memory does not grow with their number. How wide a slab is, and so how what is computed of
    it is rounded, depends on the number of rows alone, not on where they are.

    Parameters
    ----------
    rows, columns
        How many.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._shape = rows, columns
        self._file = None
        self._held = np.empty((0, 0))
        if rows * columns * _FLOAT <= _MOST:
            self._held = np.empty((rows, columns))
        else:
            self._file = tempfile.TemporaryFile(prefix="kntrace-")  # noqa: SIM115

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, row: int, values: Matrix) -> None:
        """Replace a row.

        Raises
        ------
        AnalysisError
            If the disk is full.
        """
        if self._file is None:
            self._held[row] = values
            return
        columns = self._shape[1]
        data = np.ascontiguousarray(values, dtype=np.float64)
        try:
            written = os.pwrite(self._file.fileno(), data.data, row * columns * _FLOAT)
        except OSError as error:
            raise self._no_room(error.strerror or str(error)) from None
        if written != data.nbytes:
            raise self._no_room("no space left")

    def slabs(self) -> Iterator[Matrix]:
        """Yield all rows of some columns after the other, each time in the same memory."""
        rows, columns = self._shape
        width = max(1, _MOST // (2 * _FLOAT * rows))
        memory = np.empty((rows, min(width, columns)))
        for start in range(0, columns, width):
            wide = min(width, columns - start)
            slab = memory[:, :wide]
            if self._file is None:
                slab[:] = self._held[:, start : start + wide]
            else:
                for row in range(rows):
                    os.preadv(
                        self._file.fileno(), [slab[row].data], (row * columns + start) * _FLOAT
                    )
            yield slab

    def _no_room(self, why: str) -> AnalysisError:
        rows, columns = self._shape
        return AnalysisError(
            f"one checkpoint of all words cannot be written ({why})",
            where=tempfile.gettempdir(),
            expected=f"room for {rows * columns * _FLOAT / 1e9:.1f} GB",
            fix="Name a folder with more room in the environment variable TMPDIR.",
        )
