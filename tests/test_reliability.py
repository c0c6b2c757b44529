"""Halves of prompts: what repeats, what does not, and how much of the noise is the prompts'."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from kntrace.analysis.prompt_noise import PromptNoise, prompt_noise
from kntrace.analysis.reliability import evenly_drawn, split_half
from kntrace.distance import HubCorrection, correct, pairwise_distances, regress_out
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.testing import synthetic_scores

GROUPS = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3"), "C": ("c1", "c2", "c3")}
NAMES = ("emd", "identity", "probability_curve")


def scores(**changes: Any) -> xr.Dataset:
    shape: dict[str, Any] = {"groups": GROUPS, "checkpoints": 3, "layers": 2, "width": 24}
    return synthetic_scores(**(shape | changes)).load()


def test_halves_against_halves_made_by_hand() -> None:
    data = scores(structure=0.3)
    found, notes = split_half(data, NAMES, 5)
    assert notes == ()
    halves = [data.isel(prompt=[0, 2]), data.isel(prompt=[1, 3])]
    upper = np.triu_indices(10, 1)
    for row in found.to_dict("records"):
        values = []
        for half in halves:
            paths = formation_processes(half, knowledge_neurons(half, 5))
            matrices = {
                name: pairwise_distances(paths if name == "emd" else half, name) for name in NAMES
            }
            base = matrices["probability_curve"]
            name, _, given = row["distance"].partition(" | ")
            without = {
                "": matrices[name],
                "probability_curve": regress_out(matrices[name], base),
                "hub": correct(matrices[name], HubCorrection()),
            }
            matrix = without[given]
            values.append(matrix.values[upper])
        r = spearmanr(*values).statistic
        assert row["halves"] == pytest.approx(r)
        assert row["reliability"] == pytest.approx(2 * r / (1 + r) if r > 0 else 0)
        assert row["ceiling"] == pytest.approx(math.sqrt(row["reliability"]))
        assert (row["words"], row["pairs"]) == (10, 45)
    assert list(found["distance"]) == [
        *NAMES,
        "emd | probability_curve",
        "identity | probability_curve",
        "emd | hub",
        "identity | hub",
    ]


def test_equal_prompts_repeat_and_noise_does_not() -> None:
    data = scores()
    for name in ("score", "probability"):
        data[name].values[:] = data[name].values[:, :, :1]
    same = split_half(data, NAMES, 5)[0].set_index("distance")["reliability"]
    assert same["identity"] == same["emd"] == pytest.approx(1)
    rng = np.random.default_rng(1)
    noise = []
    for _ in range(12):
        data["score"].values[:] = rng.standard_normal(data["score"].shape)
        noise.append(split_half(data, NAMES, 5)[0].set_index("distance")["halves"])
    assert abs(np.mean([one["identity"] for one in noise])) < 0.15
    assert abs(np.mean([one["emd"] for one in noise])) < 0.15


def test_words_without_halves_are_left_out_and_named() -> None:
    data = scores()
    data["rank"].values[:, 2, 1:] = -1
    data["rank"].values[:, 5, 2:] = -1
    found, notes = split_half(data, NAMES, 5)
    assert set(found["words"]) == {9}
    assert "a3" in notes[0]
    one, notes = split_half(data.isel(prompt=[0]), NAMES, 5)
    assert one.empty
    assert "one prompt" in notes[0]


def test_many_words_are_drawn_evenly() -> None:
    labels = np.repeat(["x", "y", "z"], [50, 6, 20])
    kept = labels[evenly_drawn(labels, 40)]
    assert [int((kept == label).sum()) for label in "xyz"] == [17, 6, 17]
    assert evenly_drawn(labels, 100).tolist() == list(range(76))
    groups = {name: tuple(f"{name}{i}" for i in range(15)) for name in "ABC"}
    found, notes = split_half(scores(groups=groups, checkpoints=2), NAMES, 3)
    assert set(found["words"]) == {40}
    assert "40 words" in notes[0]


def test_no_noise_where_prompts_are_equal_and_more_where_they_are_not() -> None:
    data = scores(structure=0.3)
    spread = prompt_noise(data, GROUPS, draws=30)
    assert spread.prompt_sd > 0
    assert spread.share == pytest.approx(spread.prompt_sd**2 / spread.word_se**2)
    equal = data.copy(deep=True)
    equal["score"].values[:] = equal["score"].values[:, :, :1]
    assert prompt_noise(equal, GROUPS).prompt_sd == pytest.approx(0, abs=1e-12)
    noisy = data.copy(deep=True)
    noisy["score"].values[:] += np.random.default_rng(0).normal(0, 0.1, data["score"].shape)
    assert prompt_noise(noisy, GROUPS, draws=30).prompt_sd > 1.5 * spread.prompt_sd


def test_the_prompts_as_they_are_give_the_distance_as_it_is() -> None:
    from kntrace.contrasts import contrast

    data = scores(structure=0.3)
    data["rank"].values[:, 2, 1:] = -1
    alone = contrast(pairwise_distances(data, "identity"), GROUPS, permutations=1)
    found = prompt_noise(data, GROUPS)
    assert found.word_se == pytest.approx(alone.overall["auc_se"])
    # Two prompts, drawn anew: one of them twice, or both; written out for one word.
    two = data.isel(prompt=[0, 1])
    many = prompt_noise(two, GROUPS, draws=120)
    rng = np.random.default_rng(5)
    aucs = []
    for _ in range(120):
        drawn = two.copy(deep=True)
        for word in range(10):
            picks = [0] * 2 if word == 2 else rng.integers(0, 2, 2)
            drawn["score"].values[:, word] = two["score"].values[:, word, picks]
        drawn["rank"].values[:] = np.where(two["rank"].values < 0, -1, drawn["rank"].values)
        matrix = pairwise_distances(drawn, "identity")
        aucs.append(contrast(matrix, GROUPS, permutations=1).overall["auc"])
    assert many.prompt_sd == pytest.approx(np.std(aucs), rel=0.4)


def test_one_prompt_says_nothing_of_prompts() -> None:
    found = prompt_noise(scores(prompts=1), GROUPS)
    assert math.isnan(found.share)
    assert "not known" in str(found)
    again = PromptNoise.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert math.isnan(again.prompt_sd)
