"""Where the paths of a run start, when it is not at nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import ArrayLike, NDArray

from kntrace.errors import SettingsError
from kntrace.settings import Settings

__all__ = ["given_baseline"]

_MOST_NEURONS = 2**28


def given_baseline(
    settings: Settings, baseline: ArrayLike | str | Path | None
) -> tuple[Settings, NDArray[np.float32] | None]:
    """Read a baseline that came with a run, and name it in the run's settings by its content.

    Parameters
    ----------
    baseline
        (layer, neuron) numbers, or the path of an `.npy` file that holds them; None where the
        settings say all (`zero`, `mean`).

    Raises
    ------
    SettingsError
        If the file cannot be read, holds no such array, or if the settings name another one.
    """
    if baseline is None:
        if settings.baseline not in ("zero", "mean"):
            raise SettingsError(
                f"baseline {settings.baseline[:17]}…, but no such vector was given",
                expected="the vector with which the run began",
                fix="Give it again (baseline=, on the command line --baseline FILE.npy).",
            )
        return settings, None
    values = _read(baseline)
    numbers = values.dtype.kind in "fiu" and values.ndim == 2 and values.size > 0
    if not numbers or not np.isfinite(values).all():
        raise SettingsError(
            f"a baseline of shape {values.shape} and type {values.dtype}",
            expected="finite numbers, (layer, neuron)",
        )
    vector = np.ascontiguousarray(values, dtype=np.float32)
    name = f"sha256:{hashlib.sha256(str(vector.shape).encode() + vector.tobytes()).hexdigest()}"
    if settings.baseline not in ("zero", name):
        raise SettingsError(
            f"baseline {settings.baseline[:17]} in the settings, and another vector beside them",
            expected="one of the two",
        )
    return settings.model_copy(update={"baseline": name}), vector


def _read(baseline: ArrayLike | str | Path) -> NDArray[np.generic]:
    if not isinstance(baseline, str | Path):
        return np.asarray(baseline)
    try:
        # Mapped, an array is no larger than its file, whatever the file says of it.
        found = open_memmap(baseline, mode="r")
    except Exception as error:
        # What numpy makes of a damaged header can be any error.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingsError(
            f"the baseline {str(baseline)!r} cannot be read: {reason}",
            expected="zero, mean, or an .npy file with one array (layer, neuron)",
        ) from None
    if found.size > _MOST_NEURONS:
        raise SettingsError(
            f"the baseline {str(baseline)!r} has {found.size:,} numbers",
            expected="one for each neuron of a model",
        )
    return np.array(found)
