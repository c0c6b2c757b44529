"""The exact transport against its dual, POT and every matching."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import numpy as np
import numpy.typing as npt
import ot
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from distant import (
    fixture_name,  # noqa: F401
    material,
    scores,
)
from kntrace.distance import (
    DISTANCES,
    EarthMover,
    assignment,
    earth_movers_distance,
    find_distance,
    pairwise_distances,
    transport,
)
from kntrace.distance.transport import GroundCost
from kntrace.errors import AnalysisError, KntraceError

Floats = npt.NDArray[np.float64]
GROUNDS: tuple[GroundCost, ...] = ("sqeuclidean", "euclidean")


def heavy_tailed(rng: np.random.Generator, size: int, components: int = 8) -> Floats:
    sizes = np.exp(2 * rng.standard_normal((size, 1)))
    heavy: Floats = 1e-4 * sizes * np.exp(0.5 * rng.standard_normal((size, components)))
    return heavy


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
        assignment.lap, "lapjvr", lambda cost, **_: (np.arange(len(cost)), np.arange(len(cost)))
    )
    monkeypatch.setattr(assignment, "_CONTENDED", 2.0)
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
        monkeypatch.setattr(assignment, "_CONTENDED", contended)
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
    earth_movers_distance(near, far)  # the mean may be taken away from squared costs
    assert asked == []
    earth_movers_distance(near, far, "euclidean")
    assert asked == [(50, 50)]


def test_stretching_both_sets_keeps_their_best_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    first = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5))
    second = rng.standard_normal((60, 5)) * [1, 2, 3, 0.1, 0] + 10  # the last is a constant
    alike = assignment._spread_alike(first, second)
    spreads = [vectors.T @ vectors for vectors in alike]
    np.testing.assert_allclose(*spreads, atol=1e-3 * spreads[0].max())
    cost = cdist(first, second, "sqeuclidean")
    of_alike = linear_sum_assignment(cdist(*alike, "sqeuclidean"))
    assert cost[of_alike].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-12)
    # Far apart as they are, all compete for the same few; stretched and moved they do not.
    assert assignment._contention(cost) > 0.8 > 0.6 > assignment._contention(cdist(*alike))
    given: list[Floats] = []
    solve = assignment.lap.lapjvr

    def seen(matrix: Floats, **options: bool) -> tuple[Floats, Floats]:
        given.append(matrix)
        found: tuple[Floats, Floats] = solve(matrix, **options)
        return found

    monkeypatch.setattr(assignment.lap, "lapjvr", seen)
    places = assignment.best_matching(first, second, "sqeuclidean")
    assert places is not None
    assert cost[places].sum() == pytest.approx(cost[of_alike].sum(), rel=1e-12)
    assert assignment._contention(given[0]) < 0.6


def test_costs_far_from_zero_are_known_as_well() -> None:
    rng = np.random.default_rng(8)
    first, second = 1e6 + rng.standard_normal((2, 60, 5))
    found = earth_movers_distance(first, second)
    cost = cdist(first, second, "sqeuclidean")
    assert found == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=1e-12)
    np.testing.assert_allclose(assignment._costs(first, second, "sqeuclidean"), cost, rtol=1e-12)


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
