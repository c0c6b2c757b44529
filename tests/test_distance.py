"""Distances between words: what each claims, and the exact transport against its dual."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import ot
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from kntrace.distance import (
    DISTANCES,
    EarthMover,
    SlicedWasserstein,
    earth_movers_distance,
    find_distance,
    pairwise_distances,
    transport,
)
from kntrace.distance.transport import GroundCost
from kntrace.errors import AnalysisError, KntraceError
from kntrace.formation import formation_processes, knowledge_neurons, prompt_mean
from kntrace.testing import synthetic_scores

Floats = npt.NDArray[np.float64]

GROUPS = {"A": ("ant", "bat", "cat"), "B": ("blue", "red"), "C": ("chad", "fiji", "iran")}
OF_FORMATION = [name for name in DISTANCES if DISTANCES[name].needs == "formation"]
GROUNDS: tuple[GroundCost, ...] = ("sqeuclidean", "euclidean")


def scores(**changes: Any) -> xr.Dataset:
    sizes: dict[str, Any] = {"groups": GROUPS, "checkpoints": 4, "layers": 2, "width": 12}
    return synthetic_scores(**(sizes | changes))


def material(name: str, data: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """What the distance of this name needs."""
    if DISTANCES[name].needs == "scores":
        return data
    return formation_processes(data, knowledge_neurons(data, 6))


def heavy_tailed(rng: np.random.Generator, size: int, components: int = 8) -> Floats:
    sizes = np.exp(2 * rng.standard_normal((size, 1)))
    heavy: Floats = 1e-4 * sizes * np.exp(0.5 * rng.standard_normal((size, components)))
    return heavy


# What every distance claims ---------------------------------------------------------------


@pytest.fixture(params=sorted(DISTANCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


# Exact transport --------------------------------------------------------------------------


@pytest.mark.parametrize("ground", GROUNDS)
def test_transport_against_every_matching(ground: GroundCost) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = heavy_tailed(rng, 5, 3), heavy_tailed(rng, 5, 3)
        cost = cdist(first, second, ground)
        best = min(cost[np.arange(5), list(columns)].mean() for columns in permutations(range(5)))
        assert earth_movers_distance(first, second, ground) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("size", [1, 2, 51, 200])
def test_transport_equals_pot_on_heavy_tails(ground: GroundCost, size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(5):
        first, second = heavy_tailed(rng, size), 3 * heavy_tailed(rng, size)
        cost = cdist(first, second, ground)
        scale = cost.max()
        expected = ot.emd2([], [], cost / scale, numItermax=10**7) * scale
        assert earth_movers_distance(first, second, ground) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("sizes", [(60, 60), (60, 37), (3, 50)])
def test_transport_is_optimal_by_duality(ground: GroundCost, sizes: tuple[int, int]) -> None:
    """A feasible dual solution of the same value proves that no plan costs less."""
    rng = np.random.default_rng(7)
    first, second = heavy_tailed(rng, sizes[0]), heavy_tailed(rng, sizes[1])
    cost = cdist(first, second, ground)
    scale = cost.max()
    weights = [np.full(size, 1 / size) for size in sizes]
    _, log = ot.emd(*weights, cost / scale, numItermax=10**7, log=True)
    left, right = np.asarray(log["u"]), np.asarray(log["v"])
    assert (left[:, None] + right[None, :] - cost / scale).max() < 1e-12
    bound = (left.mean() + right.mean()) * scale
    assert earth_movers_distance(first, second, ground) == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize("name", [n for n in DISTANCES if isinstance(DISTANCES[n], EarthMover)])
def test_every_optimum_is_proved(name: str) -> None:
    """In tests all pairs, in production a sample; how many is written down."""
    paths = material(name, scores(structure=0.5, learning_time="by_group"))
    known = find_distance(name)
    assert isinstance(known, EarthMover)
    # Before it is rounded to single precision, where it is.
    exact = pairwise_distances(paths, replace(known, proved=1.0, single=False))
    assert (exact.attrs["pairs"], exact.attrs["proved"]) == (28, 28)
    assert 0 <= exact.attrs["largest_gap"] < 1e-9
    found = pairwise_distances(paths, name)
    assert (found.attrs["pairs"], found.attrs["proved"]) == (28, 1)
    rounded = exact.values.astype(np.float32) if known.single else exact.values
    np.testing.assert_array_equal(found.values, rounded)


def test_a_distance_that_is_not_the_least_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof shares nothing with the solver but the costs."""
    monkeypatch.setattr(
        transport.lap, "lapjvr", lambda cost, **_: (np.arange(len(cost)), np.arange(len(cost)))
    )
    monkeypatch.setattr(transport, "_CONTENDED", 2.0)
    with pytest.raises(KntraceError, match=r"'ant' and 'bat': the distance 'emd' is not the least"):
        pairwise_distances(material("emd", scores()), "emd")


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("sizes", [(60, 60), (60, 37), (1, 5)])
def test_the_bound_is_one(ground: GroundCost, sizes: tuple[int, int]) -> None:
    """Below the optimum always, and at it within rounding."""
    rng = np.random.default_rng(8)
    for _ in range(5):
        first, second = heavy_tailed(rng, sizes[0]), heavy_tailed(rng, sizes[1])
        bound = transport.lower_bound(first, second, ground)
        least = earth_movers_distance(first, second, ground)
        assert bound <= least * (1 + 1e-12)
        assert bound == pytest.approx(least, rel=1e-9)


def test_numbers_too_large_to_compare_are_refused() -> None:
    with pytest.raises(AnalysisError, match="too large"):
        earth_movers_distance(np.full((2, 2), 1e200), np.full((2, 2), -1e200))


def test_w2_is_the_root_of_the_paper_s_distance() -> None:
    paths = material("emd", scores())
    np.testing.assert_allclose(
        pairwise_distances(paths, "w2") ** 2, pairwise_distances(paths, "emd"), rtol=1e-14
    )


def test_scores_over_probability() -> None:
    """What a word's probability does to its scores drops out."""
    data = scores()
    paths = material("emd", data)
    assert isinstance(paths, xr.DataArray)
    curve = data["probability"].astype(np.float64).mean("prompt").transpose("word", "checkpoint")
    np.testing.assert_allclose(paths["probability"], curve, rtol=1e-12)
    by_hand = pairwise_distances(paths / curve.values[:, None, :], "emd")
    found = pairwise_distances(paths, "emd_over_probability")
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)
    half = paths.copy(deep=True)
    half.loc[{"word": "iran"}] /= 2
    half["probability"].loc[{"word": "iran"}] /= 2
    np.testing.assert_allclose(pairwise_distances(half, "emd_over_probability"), found, rtol=1e-12)
    with pytest.raises(AnalysisError, match="coordinate `probability`"):
        pairwise_distances(paths.drop_vars("probability"), "emd_over_probability")


def test_a_probability_of_zero() -> None:
    paths = material("emd", scores())
    assert isinstance(paths, xr.DataArray)
    nothing = paths.copy(deep=True)
    cell = {"word": "iran", "checkpoint": "step0"}
    nothing["probability"].loc[cell] = 0.0
    with pytest.raises(AnalysisError, match="'iran' at checkpoint 'step0'"):
        pairwise_distances(nothing, "emd_over_probability")
    nothing.loc[cell] = 0.0
    assert np.isfinite(pairwise_distances(nothing, "emd_over_probability").values).all()
    for value in (np.nan, -0.1):
        nothing["probability"].loc[cell] = value
        with pytest.raises(AnalysisError, match="'iran' at checkpoint 'step0': a probability"):
            pairwise_distances(nothing, "emd_over_probability")


@pytest.mark.parametrize("ground", GROUNDS)
def test_both_solvers_give_the_same_number(
    ground: GroundCost, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    cases = [
        (heavy_tailed(rng, 80), heavy_tailed(rng, 80)),
        (heavy_tailed(rng, 80), heavy_tailed(rng, 80) + 1),  # far apart: neurons compete
        (np.repeat(heavy_tailed(rng, 8), 10, axis=0), heavy_tailed(rng, 80)),
        (np.zeros((80, 8)), heavy_tailed(rng, 80)),
        (np.linspace(0, 1, 80)[:, None], -np.linspace(0, 1, 80)[:, None]),
    ]
    found: dict[float, list[float]] = {}
    for contended in (-1.0, 2.0):
        monkeypatch.setattr(transport, "_CONTENDED", contended)
        found[contended] = [earth_movers_distance(*case, ground) for case in cases]
    np.testing.assert_allclose(found[-1.0], found[2.0], rtol=1e-12)


def test_contended_sets_go_to_the_network_simplex(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget: where Jonker-Volgenant would search long, it is not asked."""
    rng = np.random.default_rng(3)
    near, far = heavy_tailed(rng, 50), heavy_tailed(rng, 50) + 1
    asked: list[tuple[int, ...]] = []
    solve: Callable[[Floats], Floats] = transport._network_simplex

    def counted(cost: Floats) -> Floats:
        asked.append(cost.shape)
        return solve(cost)

    monkeypatch.setattr(transport, "_network_simplex", counted)
    earth_movers_distance(near, heavy_tailed(rng, 50))
    assert asked == []
    earth_movers_distance(near, far)
    assert asked == [(50, 50)]


def test_a_solver_that_gives_up_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_PIVOTS", 1)
    rng = np.random.default_rng(0)
    with pytest.raises(AnalysisError, match="20 and 30 neurons"):
        earth_movers_distance(heavy_tailed(rng, 20), heavy_tailed(rng, 30))


@given(
    arrays(np.float64, (6, 3), elements=st.sampled_from([0.0, 1e-9, -2e-5, 1.0])),
    st.permutations(range(6)),
)
@settings(max_examples=50, deadline=None)
def test_equal_sets_in_another_order_are_at_exactly_zero(values: Floats, order: list[int]) -> None:
    for ground in GROUNDS:
        assert earth_movers_distance(values, values[order], ground) == 0.0


@pytest.mark.parametrize("ground", GROUNDS)
def test_transport_does_not_depend_on_order_direction_or_scale(ground: GroundCost) -> None:
    rng = np.random.default_rng(5)
    first, second = heavy_tailed(rng, 40), heavy_tailed(rng, 40)
    found = earth_movers_distance(first, second, ground)
    assert earth_movers_distance(second, first, ground) == found
    assert earth_movers_distance(rng.permutation(first), rng.permutation(second), ground) == found
    power = 2 if ground == "sqeuclidean" else 1
    tiny = earth_movers_distance(first * 2.0**-40, second * 2.0**-40, ground)
    assert tiny == found * 2.0 ** (-40 * power)


@pytest.mark.parametrize("ground", GROUNDS)
def test_duplicates_and_nothing_but_zeros(ground: GroundCost) -> None:
    rng = np.random.default_rng(6)
    points = heavy_tailed(rng, 5)
    doubled = np.repeat(points, 4, axis=0)
    other = heavy_tailed(rng, 5)
    assert earth_movers_distance(doubled, np.repeat(other, 4, axis=0), ground) == pytest.approx(
        earth_movers_distance(points, other, ground), rel=1e-12
    )
    zeros = np.zeros((20, 8))
    expected = cdist(zeros[:1], doubled, ground).mean()
    assert earth_movers_distance(zeros, doubled, ground) == pytest.approx(expected, rel=1e-12)
    assert earth_movers_distance(zeros, zeros.copy(), ground) == 0.0


def test_words_with_unequally_many_neurons() -> None:
    paths = material("emd", scores())
    assert isinstance(paths, xr.DataArray)
    fewer = paths.copy(deep=True)
    fewer["layer"].loc[{"word": "bat", "rank": [4, 5]}] = -1
    fewer.loc[{"word": "bat", "rank": [4, 5]}] = np.nan
    found = pairwise_distances(fewer, "emd")
    full = pairwise_distances(paths, "emd")
    same = [word for word in paths["word"].values if word != "bat"]
    assert found.sel(word=same, other_word=same).equals(full.sel(word=same, other_word=same))
    cost = cdist(paths.sel(word="bat").values[:4], paths.sel(word="cat").values, "sqeuclidean")
    expected = ot.emd2(np.full(4, 1 / 4), np.full(6, 1 / 6), cost / cost.max()) * cost.max()
    assert float(found.sel(word="bat", other_word="cat")) == pytest.approx(expected, rel=1e-9)
    fewer["layer"].loc[{"word": "bat"}] = -1
    with pytest.raises(AnalysisError, match="bat"):
        pairwise_distances(fewer, "emd")


@pytest.mark.parametrize("sizes", [(49, 7), (3, 1000), (21, 13)])
def test_masses_that_do_not_add_up_to_one(sizes: tuple[int, int]) -> None:
    """1/49 forty-nine times is not 1 in floating point."""
    rng = np.random.default_rng(9)
    first = heavy_tailed(rng, sizes[0]).astype(np.float32)
    second = heavy_tailed(rng, sizes[1]).astype(np.float32)
    cost = cdist(first, second, "sqeuclidean")
    found = earth_movers_distance(first, second)
    masses = [np.full(size, 1 / size) for size in sizes]
    expected = ot.emd2(*masses, cost / cost.max()) * cost.max()
    assert found == pytest.approx(expected, rel=1e-9)
    assert found == earth_movers_distance(first.astype(np.float64), second)


def test_transport_needs_no_torch() -> None:
    program = (
        "import sys, numpy as np; from kntrace.distance import earth_movers_distance as d;"
        "d(np.zeros((2, 2)), np.ones((3, 2)));"
        "assert 'ot' in sys.modules; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


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
