"""Number formats: what sums are kept in, what products may be rounded to, what half costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["exact_dtype", "products_in"]


def exact_dtype(device: torch.device) -> torch.dtype:
    """The widest format of a device, in which scores and gaps are summed."""
    # Apple's GPUs have no double precision.
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """Let float32 products be rounded to TF32 only where `dtype` is `tf32`.

    A program may have allowed it for its own ends; its choice is back in force afterwards.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
