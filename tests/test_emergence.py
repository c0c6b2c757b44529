"""How early neurons can be told and when they form: loops, scipy, and what must not be found."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom, spearmanr, wilcoxon

from kntrace.emergence import early_neurons, formation_times, half_rise
from kntrace.errors import AnalysisError
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.testing import synthetic_scores
from kntrace.wording import read_wording

GROUPS = {"A": ("ant", "bat", "cat", "dog"), "B": ("blue", "red", "pink", "gold")}


def scores(**changes: object) -> xr.Dataset:
    shape = {"groups": GROUPS, "checkpoints": 6, "layers": 2, "width": 30}
    return synthetic_scores(**(shape | changes))  # type: ignore[arg-type]


def walked(curve: list[float]) -> float:
    """The half-rise, found by walking back from the end."""
    last = len(curve) - 1
    if curve[-1] <= 0:
        return math.nan
    half = curve[-1] / 2
    place = last
    while place >= 0 and curve[place] >= half:
        place -= 1
    if place < 0:
        return 0.0
    return place + (half - curve[place]) / (curve[place + 1] - curve[place])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=7))
@settings(max_examples=200, deadline=None)
def test_half_rise_against_walking(curve: list[float]) -> None:
    assert float(half_rise(np.array(curve))) == pytest.approx(walked(curve), nan_ok=True)


def test_half_rise_of_curves_one_knows() -> None:
    curves = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, -1]])
    assert half_rise(curves).tolist() == pytest.approx(
        [1.5, 2.5, 0.0, math.nan, math.nan], nan_ok=True
    )


def test_early_neurons_against_sets() -> None:
    data, k = scores(structure=0.3), 9
    chosen = knowledge_neurons(data, k)
    found = early_neurons(data, chosen, permutations=49)
    view = read_wording(data)

    def largest(checkpoint: int, word: int) -> set[int]:
        flat = view.mean(checkpoint, word).ravel()
        return set(sorted(range(len(flat)), key=lambda place: (-flat[place], place))[:k])

    final = [largest(5, word) for word in range(8)]
    for place, label in enumerate(view.checkpoints):
        rows = found.table[found.table["checkpoint"] == label].reset_index(drop=True)
        for word in range(8):
            common = [len(largest(place, word) & final[other]) for other in range(8)]
            mates = [other for other in range(8) if other // 4 == word // 4 and other != word]
            others = [other for other in range(8) if other // 4 != word // 4]
            assert rows["own"][word] == common[word]
            assert rows["same_group"][word] == pytest.approx(np.mean([common[o] for o in mates]))
            assert rows["other_groups"][word] == pytest.approx(np.mean([common[o] for o in others]))
        assert found.checkpoints["own"][place] == pytest.approx(rows["own"].mean())
    assert (found.table[found.table["checkpoint"] == view.checkpoints[-1]]["own"] == k).all()
    law = hypergeom(60, k, k)
    assert found.expected == pytest.approx(law.mean())
    assert law.sf(found.high) <= 0.025 < law.sf(found.high - 1)
    json.dumps(found.to_dict(), allow_nan=False)


def test_early_neurons_fire_late_and_not_at_the_start() -> None:
    """In synthetic runs the neurons of an untrained network have nothing to do with the last."""
    first, last = [], []
    for seed in range(8):
        data = scores(seed=seed, checkpoints=4)
        found = early_neurons(data, knowledge_neurons(data, 6), permutations=199)
        first.append(found.checkpoints["p"].iloc[0])
        last.append(found.checkpoints["p"].iloc[2])
        assert found.told_from is not None
    assert sum(p <= 0.05 for p in first) <= 2
    assert max(last) <= 0.05


def test_early_p_values_are_uniform_under_nothing() -> None:
    """Final sets dealt out to words of which none has more to do with one than another."""
    rng = np.random.default_rng(0)
    data = scores(checkpoints=2, prompts=1).load()
    p_values = []
    for seed in range(120):
        data["score"].values[:] = rng.random(data["score"].shape)
        found = early_neurons(data, knowledge_neurons(data, 12), permutations=99, seed=seed)
        p_values.append(found.checkpoints["p"].iloc[0])
    for level in (0.05, 0.2, 0.5):
        # Means of small counts tie often, which makes p-values larger, never smaller.
        slack = 4 * math.sqrt(level * (1 - level) / 120)
        assert np.mean(np.array(p_values) <= level) < level + slack
    assert np.mean(np.array(p_values) <= 0.5) > 0.25


def test_ties_fall_as_when_neurons_are_chosen() -> None:
    data = scores(checkpoints=2).load()
    data["score"].values[..., 3:] = 0.0
    found = early_neurons(data, knowledge_neurons(data, 12), permutations=9)
    assert (found.checkpoints["own"].iloc[-1]) == 12


def times_of(data: xr.Dataset, k: int = 8) -> tuple[xr.DataArray, xr.DataArray]:
    paths = formation_processes(data, knowledge_neurons(data, k))
    return paths, read_wording(data).probability()


def test_times_against_loops_and_scipy() -> None:
    paths, probability = times_of(scores(seed=3))
    found = formation_times(paths, probability, permutations=5000)
    middle, answers = [], []
    for word in range(8):
        mine = [walked(list(paths.values[word, rank])) for rank in range(8)]
        answer = walked(list(probability.values[:, word]))
        np.testing.assert_allclose(found.neurons.values[word], mine)
        row = found.words.iloc[word]
        assert row["neurons"] == pytest.approx(np.median(mine))
        assert row["together"] == pytest.approx(walked(list(paths.values[word].sum(axis=0))))
        assert row["before"] == np.mean([one < answer for one in mine])
        assert row["neurons_step"] == pytest.approx(100 * np.median(mine))
        middle.append(np.median(mine))
        answers.append(answer)
    expected = spearmanr(middle, answers)
    assert found.order == pytest.approx(expected.statistic)
    lead = wilcoxon(np.array(answers) - np.array(middle))
    assert found.lead_p == pytest.approx(lead.pvalue)
    assert found.lead == pytest.approx(np.median(np.array(answers) - np.array(middle)))
    json.dumps(found.to_dict(), allow_nan=False)


def test_order_fires_on_learning_time_and_not_on_shuffled_answers() -> None:
    paths, probability = times_of(scores(checkpoints=12, seed=1))
    assert formation_times(paths, probability).order_p <= 0.05
    rng, p_values = np.random.default_rng(0), []
    for seed in range(200):
        shuffled = probability.copy(data=probability.values[:, rng.permutation(8)])
        p_values.append(formation_times(paths, shuffled, permutations=199, seed=seed).order_p)
    for level in (0.05, 0.2, 0.5):
        slack = 4 * math.sqrt(level * (1 - level) / 200)
        assert abs(np.mean(np.array(p_values) <= level) - level) < slack


def test_a_lead_is_seen_and_equal_curves_have_none() -> None:
    paths, probability = times_of(scores(checkpoints=10))
    same = paths.copy(data=np.repeat(probability.values.T[:, None], 8, axis=1))
    none = formation_times(same, probability)
    assert (none.lead, none.lead_p, none.order) == (0.0, 1.0, pytest.approx(1.0))
    earlier = same.roll(checkpoint=-2)
    earlier.values[..., -2:] = same.values[..., -1:]
    found = formation_times(earlier.assign_coords(checkpoint=paths["checkpoint"]), probability)
    assert found.lead > 1
    assert found.lead_p <= 0.05
    assert "before P(answer)" in str(found)


def test_nothing_rises() -> None:
    paths, probability = times_of(scores(checkpoints=1))
    found = formation_times(paths * -1, probability * 0)
    assert math.isnan(found.lead)
    assert "no word rises" in str(found)
    assert found.to_dict()["order"] is None


def test_what_does_not_fit_is_refused() -> None:
    data = scores()
    paths, probability = times_of(data)
    with pytest.raises(AnalysisError, match="other checkpoints"):
        formation_times(paths, probability.isel(checkpoint=slice(1, None)))
    chosen = knowledge_neurons(data, 4)
    with pytest.raises(AnalysisError, match="other words"):
        early_neurons(data, chosen.isel(word=slice(1, None)))
    with pytest.raises(AnalysisError, match="at least one"):
        early_neurons(data, chosen, permutations=0)


def test_print_within_80_columns() -> None:
    data = scores()
    chosen = knowledge_neurons(data, 4)
    for found in (early_neurons(data, chosen), formation_times(*times_of(data))):
        assert max(map(len, str(found).splitlines())) <= 80
