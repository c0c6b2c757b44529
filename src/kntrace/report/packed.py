"""Arrays as a page can carry them: all of them in one text, compressed.

The bytes of numbers lie apart by their place in the number: signs and exponents of neighbours
are alike, and compress where they lie together. Nothing is rounded here.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pack", "unpack"]

_LEVEL = 9
# Raw deflate, as browsers call `deflate-raw`: no header, no checksum.
_RAW = -15


class Pack:
    """Takes arrays one after the other, and gives them all as one text."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, values: npt.ArrayLike, kind: str) -> dict[str, Any]:
        """Add an array as numbers of a little-endian kind: `<f4`, `<i4`, `<i2` or `<u2`.

        Returns
        -------
        dict
            Where the page's script finds it: `at`, the position of its first byte, `count`, how
            many numbers, and `kind`.
        """
        numbers = np.ascontiguousarray(values, dtype=kind).ravel()
        apart = numbers.view(np.uint8).reshape(numbers.size, numbers.itemsize).T.tobytes()
        found = {"at": self._length, "count": numbers.size, "kind": kind[1:]}
        self._parts.append(apart)
        self._length += len(apart)
        return found

    def add_text(self, text: str) -> dict[str, Any]:
        """Add a text, found in the same way with the kind `text`; `count` is its bytes."""
        data = text.encode("utf-8", errors="replace")
        found = {"at": self._length, "count": len(data), "kind": "text"}
        self._parts.append(data)
        self._length += len(data)
        return found

    def text(self) -> str:
        """Compress them all, in base64."""
        squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
        data = b"".join([squeeze.compress(b"".join(self._parts)), squeeze.flush()])
        return base64.b64encode(data).decode("ascii")


def unpack(text: str, where: dict[str, Any]) -> npt.NDArray[Any]:
    """Take an array out again, as the page's script does."""
    data = zlib.decompress(base64.b64decode(text), _RAW)
    kind = np.dtype(f"<{where['kind']}")
    size = where["count"] * kind.itemsize
    part = np.frombuffer(data[where["at"] : where["at"] + size], dtype=np.uint8)
    apart = part.reshape(kind.itemsize, where["count"])
    return np.ascontiguousarray(apart.T).view(kind).ravel()
