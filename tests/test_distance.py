"""Distances between words: what each claims, and the exact transport against its dual."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import ot
import pytest
import xarray as xr
from scipy.spatial.distance import cdist

from distant import (
    fixture_name,  # noqa: F401
    material,
    scores,
)
from kntrace.distance import (
    DISTANCES,
    EarthMover,
    SlicedWasserstein,
    find_distance,
    pairwise_distances,
)
from kntrace.errors import AnalysisError
from kntrace.formation import formation_processes, knowledge_neurons, prompt_mean

OF_FORMATION = [name for name in DISTANCES if DISTANCES[name].needs == "formation"]


def test_symmetric_with_zero_diagonal_and_labelled(name: str) -> None:
    data = scores()
    found = pairwise_distances(material(name, data), name)
    assert found.dims == ("word", "other_word")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.values, found.values.T)
    np.testing.assert_array_equal(np.diag(found.values), 0)
    assert (found.values[~np.eye(8, dtype=bool)] > 0).all()
    np.testing.assert_array_equal(found["other_group"].values, data["group"].values)
    assert found.attrs["distance"] == name
    assert found.attrs["unit"] == DISTANCES[name].unit
    assert found.attrs["wording"] == "main"


def test_words_in_another_order(name: str) -> None:
    data = scores()
    order = np.random.default_rng(1).permutation(8)
    found = pairwise_distances(material(name, data), name)
    again = pairwise_distances(material(name, data.isel(word=order)), name)
    np.testing.assert_allclose(again.values, found.values[np.ix_(order, order)], rtol=1e-11)


def test_equal_words_are_at_distance_zero(name: str) -> None:
    data = scores()
    twin = data.copy(deep=True)
    for variable in ("score", "probability", "rank"):
        twin[variable].loc[{"word": "red"}] = data[variable].sel(word="ant").values
    found = pairwise_distances(material(name, twin), name).sel(word="red", other_word="ant")
    assert float(found) == pytest.approx(0, abs=1e-15)


def test_the_order_of_neurons_does_not_matter(name: str) -> None:
    data = scores()
    rng = np.random.default_rng(2)
    if DISTANCES[name].needs == "scores":
        found = pairwise_distances(data, name)
        again = pairwise_distances(data.isel(neuron=rng.permutation(12)), name)
        np.testing.assert_allclose(again.values, found.values, rtol=1e-11)
        return
    paths = material(name, data)
    found = pairwise_distances(paths, name)
    # Bit for bit, since sums are taken in an order of their own or correctly rounded.
    again = pairwise_distances(paths.isel(rank=rng.permutation(6)), name)
    np.testing.assert_array_equal(again.values, found.values)


@pytest.mark.parametrize("formed", OF_FORMATION)
def test_the_same_neurons_in_another_order_are_at_exactly_zero(formed: str) -> None:
    paths = material(formed, scores()).copy(deep=True)
    order = np.random.default_rng(3).permutation(6)
    for variable in (paths, paths["layer"], paths["neuron"]):
        variable.loc[{"word": "red"}] = variable.sel(word="ant").values[order]
    paths["probability"].loc[{"word": "red"}] = paths["probability"].sel(word="ant").values
    assert float(pairwise_distances(paths, formed).sel(word="red", other_word="ant")) == 0.0


@pytest.mark.parametrize(
    ("changes", "k"),
    [({"groups": {"A": ("ant",)}}, 6), ({}, 1), ({"checkpoints": 2}, 6), ({"width": 1}, 2)],
    ids=["one word", "k = 1", "two checkpoints", "all neurons chosen"],
)
def test_small_inputs(name: str, changes: dict[str, Any], k: int) -> None:
    data = scores(**changes)
    if DISTANCES[name].needs == "scores":
        found = pairwise_distances(data, name)
    else:
        found = pairwise_distances(formation_processes(data, knowledge_neurons(data, k)), name)
    assert found.shape == (data.sizes["word"],) * 2
    assert np.isfinite(found.values).all()
    np.testing.assert_array_equal(np.diag(found.values), 0)


@pytest.mark.parametrize("formed", OF_FORMATION)
def test_single_precision_is_no_obstacle(formed: str) -> None:
    paths = material(formed, scores())
    found = pairwise_distances(paths.astype(np.float32), formed)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, pairwise_distances(paths, formed), rtol=1e-4)


@pytest.mark.parametrize("metric", [name for name in DISTANCES if DISTANCES[name].metric])
def test_triangle_inequality_where_it_is_claimed(metric: str) -> None:
    for seed in range(5):
        found = pairwise_distances(material(metric, scores(seed=seed)), metric).values
        detour = (found[:, :, None] + found[None, :, :]).min(axis=1)
        assert (found <= detour * (1 + 1e-12)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_by_word_and_checkpoint(
    name: str, value: float
) -> None:
    data = scores()
    if name == "probability_curve":
        data["probability"].loc[{"word": "chad", "checkpoint": "step200", "prompt": 1}] = value
        broken: xr.Dataset | xr.DataArray = data
    elif DISTANCES[name].needs == "scores":
        data["score"].loc[{"word": "chad", "checkpoint": "step200", "layer": 1}] = value
        broken = data
    else:
        broken = material(name, data)
        broken.loc[{"word": "chad", "checkpoint": "step200", "rank": 3}] = value
    with pytest.raises(AnalysisError, match=r"'chad' at checkpoint 'step200'"):
        pairwise_distances(broken, name)


def test_the_wrong_kind_of_data_is_refused(name: str) -> None:
    data = scores()
    wrong = data if DISTANCES[name].needs == "formation" else material("emd", data)
    with pytest.raises(AnalysisError, match=name):
        pairwise_distances(wrong, name)


def test_progress_reaches_the_end(name: str) -> None:
    calls: list[tuple[Any, ...]] = []
    data = material(name, scores())
    pairwise_distances(data, name, progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls if not call[0].endswith(": proof")].count(name) > 0
    for stage in {call[0] for call in calls}:
        assert stage.startswith(name)
        last = [call for call in calls if call[0] == stage][-1]
        assert last[1] == last[2] > 0


def test_a_wording_is_used(name: str) -> None:
    data = scores(wordings=("main", "neutral"))
    if DISTANCES[name].needs == "scores":
        neutral = pairwise_distances(data, name, wording="neutral")
    else:
        chosen = knowledge_neurons(data, 6, wording="neutral")
        neutral = pairwise_distances(formation_processes(data, chosen), name)
        with pytest.raises(AnalysisError, match="main"):
            pairwise_distances(formation_processes(data, chosen), name, wording="main")
    assert neutral.attrs["wording"] == "neutral"
    only = data.isel(prompt=slice(4, 8))
    np.testing.assert_allclose(
        neutral.values, pairwise_distances(material(name, only), name).values, rtol=1e-12
    )


def test_w1_is_another_name() -> None:
    assert find_distance("w1") is DISTANCES["emd_euclidean"]


def test_a_distance_of_ones_own() -> None:
    own = EarthMover("mine", "of my own", "probability", True, ground="euclidean")
    data = material("emd", scores())
    found = pairwise_distances(data, own)
    assert found.attrs["distance"] == "mine"
    np.testing.assert_array_equal(found.values, pairwise_distances(data, "emd_euclidean").values)


@pytest.mark.parametrize(
    ("asked", "near"), [("edm", "'emd'"), ("identiy", "'identity'"), ("?", "emd")]
)
def test_an_unknown_name_suggests_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(AnalysisError, match=near):
        find_distance(asked)


# Sliced -----------------------------------------------------------------------------------


def test_sliced_is_pot_s() -> None:
    paths = material("sliced", scores())
    known = find_distance("sliced")
    assert isinstance(known, SlicedWasserstein)
    directions = ot.sliced.get_random_projections(4, known.projections, seed=known.seed)
    found = pairwise_distances(paths, "sliced")
    for i, j in combinations(range(8), 2):
        expected = ot.sliced_wasserstein_distance(
            paths.values[i], paths.values[j], projections=directions
        )
        assert float(found[i, j]) == pytest.approx(expected, rel=1e-9)


def test_sliced_with_unequally_many_neurons() -> None:
    paths = material("sliced", scores()).copy(deep=True)
    paths["layer"].loc[{"word": "bat", "rank": [4, 5]}] = -1
    found = pairwise_distances(paths, SlicedWasserstein(projections=20))
    directions = ot.sliced.get_random_projections(4, 20, seed=0)
    bat, cat = paths.sel(word="bat").values[:4], paths.sel(word="cat").values
    expected = ot.sliced_wasserstein_distance(bat, cat, projections=directions)
    assert float(found.sel(word="bat", other_word="cat")) == pytest.approx(expected, rel=1e-9)


def test_sliced_is_below_the_exact_distance_and_seeded() -> None:
    paths = material("w2", scores())
    off = ~np.eye(8, dtype=bool)
    exact = pairwise_distances(paths, "w2").values[off]
    found = pairwise_distances(paths, SlicedWasserstein(projections=2000)).values[off]
    assert (found <= 1.05 * exact / np.sqrt(4)).all()
    assert np.corrcoef(found, exact)[0, 1] > 0.95
    few = [pairwise_distances(paths, SlicedWasserstein(projections=5, seed=s)) for s in (1, 1, 2)]
    assert few[0].equals(few[1])
    assert not few[0].equals(few[2])
    with pytest.raises(AnalysisError, match="0 projections"):
        pairwise_distances(paths, SlicedWasserstein(projections=0))


def test_sliced_of_scores_too_small_to_square() -> None:
    paths = material("sliced", scores())
    found = pairwise_distances(paths, "sliced")
    tiny = pairwise_distances(paths * 2.0**-600, "sliced")
    np.testing.assert_array_equal(tiny.values, found.values * 2.0**-600)


# The others -------------------------------------------------------------------------------


def test_identity_is_what_its_definition_says() -> None:
    data = scores()
    mean = prompt_mean(data).stack(place=("layer", "neuron"))
    total = np.zeros((8, 8))
    for checkpoint in range(4):
        rows = mean.isel(checkpoint=checkpoint).values
        shares = np.array([row / np.abs(row).sum() for row in rows])
        centred = shares - shares.mean(axis=0)
        for i, j in np.ndindex(8, 8):
            cosine = (
                centred[i]
                @ centred[j]
                / np.sqrt((centred[i] @ centred[i]) * (centred[j] @ centred[j]))
            )
            total[i, j] += (1 - cosine) / 4
    found = pairwise_distances(data, "identity").values
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(found[off], total[off], rtol=1e-12)


def test_identity_answers_to_shared_neurons_and_not_to_size() -> None:
    data = scores()
    found = pairwise_distances(data, "identity")
    larger = data.copy(deep=True)
    larger["score"].loc[{"word": "iran"}] *= 4
    np.testing.assert_allclose(pairwise_distances(larger, "identity"), found, rtol=1e-6)
    assert not np.allclose(
        pairwise_distances(material("emd", larger), "emd"),
        pairwise_distances(material("emd", data), "emd"),
    )


def test_identity_of_words_without_scores_or_all_alike() -> None:
    silent = scores()
    silent["score"].loc[{"checkpoint": "step0"}] = 0.0
    later = pairwise_distances(silent.isel(checkpoint=slice(1, None)), "identity")
    np.testing.assert_allclose(pairwise_distances(silent, "identity"), later * 3 / 4, rtol=1e-12)
    alike = scores()
    alike["score"] = alike["score"].isel(word=[0] * 8).assign_coords(alike["word"].coords)
    np.testing.assert_array_equal(pairwise_distances(alike, "identity"), 0.0)


def test_cosine_is_what_its_definition_says() -> None:
    data = scores()
    mean = prompt_mean(data).stack(place=("layer", "neuron"))
    expected = np.mean([cdist(rows, rows, "cosine") for rows in mean.values], axis=0)
    found = pairwise_distances(data, "cosine").values
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(found[off], expected[off], rtol=1e-12)
    # What all words have in common makes them alike until it is taken away.
    assert found[off].mean() < pairwise_distances(data, "identity").values[off].mean()


def test_jaccard_is_what_its_definition_says() -> None:
    paths = material("jaccard", scores())
    found = pairwise_distances(paths, "jaccard")
    member = np.zeros((8, 24), dtype=bool)
    for word in range(8):
        member[word, paths["layer"].values[word] * 12 + paths["neuron"].values[word]] = True
    np.testing.assert_allclose(found, cdist(member, member, "jaccard"), rtol=1e-15)
    with pytest.raises(AnalysisError, match="layer"):
        pairwise_distances(paths.drop_vars("layer"), "jaccard")


def test_probability_curve_is_what_its_definition_says() -> None:
    data = scores()
    curves = data["probability"].values.astype(np.float64).mean(axis=2)
    expected = cdist(curves.T, curves.T, "sqeuclidean")
    np.testing.assert_allclose(
        pairwise_distances(data, "probability_curve"), expected, rtol=1e-12, atol=1e-18
    )
