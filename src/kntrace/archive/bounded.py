"""Decompression that ends at the size an array's description gives its chunks.

A few hundred bytes of zstd can stand for gigabytes. A chunk is decompressed into room for what
it should hold, and one that holds more is damaged.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec
from zarr.registry import register_codec

from kntrace.errors import RunError

__all__ = ["LARGEST_CHUNK", "decompress", "most_compressed", "opening"]

LARGEST_CHUNK = 2**30
"""Bytes that a chunk may have at most: three prompts of a model of 90 million neurons."""
# Texts do not tell their size beforehand. Room that is not needed is never touched.
_LARGEST_TEXT = 2**26

_OPENING = threading.Lock()


def most_compressed(size: int) -> int:
    """Bytes that `size` bytes may take as a chunk, where compression makes them longer."""
    return size + size // 128 + 1024


def decompress(data: Any, size: int) -> npt.NDArray[np.uint8]:
    """Decompress zstd into `size` bytes; raises `ValueError` or `RuntimeError` if it is more.

    What is shorter is filled up with zeros.
    """
    room = np.zeros(size, dtype=np.uint8)
    if size:
        Zstd().decode(data, out=room)
    return room


class _BoundedZstd(ZstdCodec):
    """The zstd codec of zarr, which makes no more of a chunk than its array's description."""

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        item, count = chunk_spec.dtype.to_native_dtype(), prod(chunk_spec.shape)
        text = item.hasobject or item.kind == "T"
        size = _LARGEST_TEXT if text else count * item.itemsize
        if size > LARGEST_CHUNK:
            raise RunError(f"a chunk is of {size:,} bytes", expected=f"at most {LARGEST_CHUNK:,}")
        try:
            room = decompress(chunk_bytes.as_numpy_array(), size)
        except (ValueError, RuntimeError) as error:
            raise RunError(
                f"a chunk is damaged although its checksum is right: {error}",
                fix="Whoever made this folder made it so. Bring it back from a copy.",
            ) from None
        # Texts begin with how many there are, and whoever decodes them believes it.
        if text and int(room[:4].view("<u4")[0]) != count:
            raise RunError("a chunk has another number of texts than its description says")
        return chunk_spec.prototype.buffer.from_bytes(room)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


register_codec("zstd", _BoundedZstd)


@contextmanager
def opening(**options: Any) -> Iterator[None]:
    """Let arrays that are opened in here decompress within bounds; `options` are zarr's own."""
    name = f"{_BoundedZstd.__module__}.{_BoundedZstd.__qualname__}"
    # zarr has one configuration for all threads.
    with _OPENING, zarr.config.set({"codecs.zstd": name, **options}):
        yield
