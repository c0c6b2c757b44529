"""Numbers stored with fewer bits than they are computed with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import BitRound

__all__ = ["ROUNDED", "with_bits"]

ROUNDED = ("score", "activation", "mean_score", "mean_activation")
"""The variables that take nearly all the room of a run."""


def with_bits(values: npt.NDArray[Any], keepbits: int) -> npt.NDArray[np.float32]:
    """Round float32 numbers, of any shape, to `keepbits` bits of mantissa, ties to even.

    What is not a number, or would no longer be one, stays what it is. Each number moves by at
    most 2^-(keepbits + 1) of itself.
    """
    plain = np.ascontiguousarray(values, dtype=np.float32)
    kept = np.asarray(BitRound(keepbits).encode(plain)).view(np.float32).reshape(plain.shape)
    return np.where(np.isfinite(kept), kept, plain)
