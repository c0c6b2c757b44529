"""What the report carries is what was found: to the digit shown, and in the same order."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kntrace.analysis import Analysis, analyse_scores
from kntrace.archive import Run
from kntrace.report.explore import explorer
from kntrace.report.packed import Pack, unpack
from kntrace.report.pictures import shrunk
from kntrace.report.rounded import as_float32
from kntrace.testing import synthetic_scores

GROUPS = {"A": ("a1", "a2", "a3"), "B": ("b1", "b2", "b3", "b4"), "C": ("c1", "c2")}


def shown(value: float) -> str:
    """As `number` of the page's script writes it, but for the signs of powers."""
    if 100 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.2e}" if 1e-4 <= abs(value) < 1e6 else f"{value:.1e}"


@pytest.mark.parametrize("kind", ["<f4", "<i4", "<i2", "<u2"])
def test_arrays_come_out_as_they_went_in(kind: str) -> None:
    rng = np.random.default_rng(0)
    pack, put = Pack(), []
    for shape in ((3, 4), (0,), (1,), (5, 2, 3)):
        values = (rng.normal(size=shape) * 100).astype(kind.replace("u", "i")).astype(kind)
        put.append((pack.add(values, kind), values))
    text = pack.text()
    for where, values in put:
        np.testing.assert_array_equal(unpack(text, where), values.ravel())
        assert where["count"] == values.size


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e7, 1e7, width=64)))
def test_ranks_and_signs_stay(values: np.ndarray) -> None:
    # A thousandth of the finest that a page shows: nothing is that small and matters.
    values = np.where(np.abs(values) < 1e-30, 0.0, values)
    found = as_float32(values)
    assert found.dtype == np.float32
    less = np.sign(values[:, None] - values[None])
    np.testing.assert_array_equal(np.sign(found[:, None].astype(float) - found[None]), less)
    np.testing.assert_allclose(found, values, rtol=1e-5)


def test_digits_shown_stay_where_rounding_would_change_them() -> None:
    # Just below and just above a half in the third digit, nearer to it than a float32 can be.
    rng = np.random.default_rng(1)
    halves = (rng.integers(100, 999, 3000) + 0.5) * 10.0 ** rng.integers(-6, 1, 3000)
    values = np.concatenate([halves * (1 - 1e-10), halves * (1 + 1e-10), rng.uniform(0, 1, 3000)])
    plain = values.astype(np.float32)
    wrong = sum(shown(one) != shown(float(other)) for one, other in zip(values, plain, strict=True))
    assert wrong > 500
    found = as_float32(values)
    assert all(shown(a) == shown(float(b)) for a, b in zip(values, found, strict=True))
    np.testing.assert_allclose(found, values, rtol=3e-7)


def test_what_is_no_number_stays_so() -> None:
    found = as_float32(np.array([np.nan, 1.0, 0.0, -1.0]))
    np.testing.assert_array_equal(found, [np.nan, 1.0, 0.0, -1.0])


def test_the_page_carries_every_map_corrected_ones_too() -> None:
    scores = synthetic_scores(groups=GROUPS, width=32, checkpoints=4)
    analysis = analyse_scores(scores, permutations=9)
    run = SimpleNamespace(scores=scores, layers=3)
    found: dict[str, Any] = explorer(cast("Run", run), cast("Analysis", analysis))
    json.dumps(found, allow_nan=False)
    every = analysis.distances | analysis.corrected
    maps = {one["name"]: one for one in found["maps"]}
    assert set(maps) == set(every)
    assert list(maps)[:3] == ["identity", "identity | probability_curve", "emd"]
    upper = np.triu_indices(9, 1)
    for name, matrix in every.items():
        carried = unpack(found["arrays"], maps[name]["values"])
        exact = matrix.values[upper]
        assert [shown(float(value)) for value in carried] == [shown(value) for value in exact]
        np.testing.assert_array_equal(np.argsort(carried), np.argsort(exact))
        # Differences have no ratio to a mean.
        assert (maps[name]["threshold"] is None) == bool((exact < 0).any())
        assert maps[name]["what"]


def test_drawings_lose_nothing_that_is_seen() -> None:
    svg = (
        b'<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "x">\n<svg width="10pt">\n'
        b" <metadata><x>y</x></metadata>\n <!-- a word -->\n"
        b'  <path d="M 1.23456 2 \nL -3.987654 44.5" '
        b'transform="scale(0.015625 -0.015625)"/>\n</svg>'
    )
    assert shrunk(svg) == (
        b'<?xml version="1.0"?><svg width="10pt">'
        b'<path d="M 1.23 2 L -3.99 44.5" transform="scale(0.015625 -0.015625)"/></svg>'
    )
