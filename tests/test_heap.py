"""The heap of kntrace's own processes gives back what is freed; a user's process is left alone."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

KEPT = """
import ctypes, sys
from kntrace.heap import return_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def occupied():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def block(size):
    at = libc.malloc(size)
    ctypes.memset(at, 1, size)
    return at

if sys.argv[1] == "returned":
    assert return_large_blocks()
before = occupied()
libc.free(block(24 << 20))  # from here on glibc would keep blocks up to this size
first, pin = block(16 << 20), block(4096)
libc.free(first)
print(occupied() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of glibc")
@pytest.mark.parametrize(("how", "kept"), [("returned", False), ("as it is", True)])
def test_freed_blocks_go_back_to_the_system(how, kept):
    done = subprocess.run(
        [sys.executable, "-c", KEPT, how], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 8 << 20) == kept


@pytest.mark.slow
def test_the_package_alone_leaves_the_heap_as_it_is():
    code = "import sys, kntrace.attribution; assert 'kntrace.heap' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
