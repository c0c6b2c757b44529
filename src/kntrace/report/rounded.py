"""Numbers as float32 that stand for float64 ones in every way that a page shows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["as_float32"]

_Floats = npt.NDArray[np.float64]

# How the page's script writes numbers (`number` in basics.js): from here on without decimals,
# within these ends with three digits, beyond them with two.
_WHOLE, _LOW, _HIGH = 100.0, 1e-4, 1e6


def as_float32(values: _Floats) -> npt.NDArray[np.float32]:
    """Round numbers to float32 so that their ranks and the digits shown stay those of float64.

    Two numbers are equal afterwards only if they were before, so that "the 1,234th of 124,750"
    is the same; and a number just below a half in its last shown digit does not come to lie
    above it. What has to move does so by a few units in the last place of a float32.

    Parameters
    ----------
    values
        One dimension; NaN is left alone.

    Returns
    -------
    ndarray of float32
    """
    unique, place = np.unique(values, return_inverse=True)
    known = np.isfinite(unique)
    exact = unique[known]
    found = unique.astype(np.float32)
    found[known] = _as_shown(exact, _apart(exact.astype(np.float32)))
    return np.asarray(found[place.ravel()], dtype=np.float32)


def _apart(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Let ascending numbers be strictly so, each moved up as little as can be."""
    steps = np.arange(values.size, dtype=np.int64)
    ordered = np.maximum.accumulate(_ordinal(values) - steps) + steps
    return _from_ordinal(ordered)


def _as_shown(exact: _Floats, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Move those by one place whose shown digits are not the exact number's."""
    wanted = _shown(exact)
    for way in (-np.inf, np.inf):
        off = _shown(values.astype(np.float64)) != wanted
        if not off.any():
            break
        moved = np.nextafter(values, np.float32(way))
        mended = off & (_shown(moved.astype(np.float64)) == wanted)
        values = np.where(mended, moved, values)
    return _apart(values)


def _shown(values: _Floats) -> _Floats:
    """The digits that are shown, as a number."""
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        power = np.floor(np.log10(np.where(size > 0, size, 1.0)))
    digits = np.where((size < _LOW) | (size >= _HIGH), 1 - power, 2 - power)
    digits = np.where((size >= _WHOLE) & (size < _HIGH), 0.0, digits)
    return np.asarray(np.floor(size * 10.0**digits + 0.5) * np.sign(values))


def _ordinal(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Whole numbers in the order of floating-point ones, one for each."""
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def _from_ordinal(ordered: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    bits = np.where(ordered >= 0, ordered, -ordered | 0x80000000).astype(np.uint32)
    return bits.view(np.float32)
