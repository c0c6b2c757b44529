"""Synthetic scores: in the form of a run's, and with the properties they are drawn to have."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from kntrace.archive.variables import BLOCK_VARIABLES, COORDINATES, VARIABLES
from kntrace.testing import WORDS, synthetic_scores
from kntrace.wording import wordings_of


def test_in_the_form_of_a_run() -> None:
    data = synthetic_scores(prompts=2, wordings=("main", "neutral"))
    for name in BLOCK_VARIABLES:
        assert data[name].dims == VARIABLES[name].dims
        assert data[name].dtype == VARIABLES[name].dtype
    for name, described in COORDINATES.items():
        assert data[name].dims == described.dims
        assert data[name].dtype.kind == ("U" if described.dtype == "string" else "i")
    assert data.sizes["prompt"] == 4
    assert wordings_of(data) == ("main", "neutral")
    groups = {name: len(words) for name, words in WORDS.items()}
    assert groups == {"Animals": 8, "Colours": 7, "Countries": 14, "Languages": 9}


def test_every_layer_shares_out_what_it_contributes() -> None:
    data = synthetic_scores(structure=0.4)
    total = data["score"].astype(np.float64).sum("neuron")
    rise = data["probability"].astype(np.float64) - 0.004
    xr.testing.assert_allclose(total, (rise + 0 * total).transpose(*total.dims), atol=1e-6)
    assert float(abs(data["gap"]).max()) < 1e-6
    assert float((data["score"] < 0).mean()) > 0.05


def test_answers_are_learnt() -> None:
    probability = synthetic_scores()["probability"].mean("prompt")
    assert float(probability.isel(checkpoint=0).max()) < 0.2
    assert float(probability.isel(checkpoint=-1).min()) > 0.7
    assert (probability.diff("checkpoint") > -0.02).all()


@pytest.mark.parametrize(
    ("learning_time", "low", "high"), [("random", 0, 0.3), ("by_group", 0.9, 1)]
)
def test_learning_time_follows_groups_only_if_asked(
    learning_time: str, low: float, high: float
) -> None:
    data = synthetic_scores(learning_time=learning_time)  # type: ignore[arg-type]
    time = data["probability"].mean(["checkpoint", "prompt"])
    share = float(time.groupby("group").mean().sel(group=data["group"]).var() / time.var())
    assert low <= share <= high


def test_seeded() -> None:
    first = synthetic_scores(seed=1)
    xr.testing.assert_identical(first, synthetic_scores(seed=1))
    assert not first.equals(synthetic_scores(seed=2))
