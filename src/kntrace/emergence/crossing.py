"""Between which checkpoints a curve reaches a level, and where between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["crossing"]


def crossing(
    curves: npt.NDArray[np.float64], before: npt.NDArray[Any], level: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Where the straight line between a checkpoint and the next has a level.

    Parameters
    ----------
    curves
        (…, checkpoint).
    before
        (…,) position of the checkpoint in question; the curve must be at the level or below it
        there, and at it or above at the next.
    level
        (…, 1).

    Returns
    -------
    np.ndarray
        (…,) positions among the checkpoints, with a fraction; meaningless where the curve does
        not rise there.
    """
    at = before[..., None]
    low = np.take_along_axis(curves, at, axis=-1)
    high = np.take_along_axis(curves, np.minimum(at + 1, curves.shape[-1] - 1), axis=-1)
    rise = high - low
    return np.asarray((at + (level - low) / np.where(rise > 0, rise, 1.0))[..., 0])
