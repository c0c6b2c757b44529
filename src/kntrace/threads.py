"""How many processor threads torch computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kntrace.errors import SettingsError

__all__ = ["torch_threads"]


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch compute with so many threads, and with as many as before afterwards."""
    if threads is None:
        yield
        return
    if threads < 1:
        raise SettingsError(f"threads = {threads}", expected="at least 1")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
