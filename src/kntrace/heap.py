"""How the C library's heap is kept, in processes that are kntrace's own."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["return_large_blocks"]

_M_MMAP_THRESHOLD = -3
"""The number of the option in malloc.h of glibc."""
_LARGE = 2**20


def return_large_blocks() -> bool:
    """Have freed blocks of a mebibyte and more go back to the system at once; whether that works.

    Glibc raises the size above which it does so with every larger block that is freed, up to
    32 MiB, and what it keeps in between breaks into pieces that the next pass's tensors do not
    fit into: a pass that holds 21 MB at a time was seen to occupy from 46 to 85 MB, another
    number each time. Only processes of the command line are changed; a library has no business
    with the heap of its user's process, where `MALLOC_MMAP_THRESHOLD_=1048576` does the same.

    Other C libraries (macOS, Windows, musl) are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE))
