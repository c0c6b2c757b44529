"""The lower bound of the earth mover's distance, what it says of its error, and time foretold."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu, spearmanr

from kntrace.analysis import ahead, analyse_scores
from kntrace.analysis.matrices import bound_errors
from kntrace.distance import EarthMover, EarthMoverBound, find_distance, pairwise_distances
from kntrace.errors import AnalysisError, KntraceError
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.testing import synthetic_scores


def processes(values: Any, groups: list[str] | None = None) -> xr.DataArray:
    words = [f"word {place}" for place in range(len(values))]
    return xr.DataArray(
        np.asarray(values, dtype=np.float64),
        dims=("word", "rank", "checkpoint"),
        coords={"word": words, "group": ("word", groups or words)},
    )


@given(
    arrays(
        np.float64,
        st.tuples(st.just(3), st.integers(1, 6), st.integers(1, 5)),
        elements=st.floats(-1, 1, allow_subnormal=False, width=32),
    )
)
@settings(max_examples=15, deadline=None)
def test_it_never_lies_above(values: np.ndarray) -> None:
    paths = processes(values)
    exact, bound = (pairwise_distances(paths, name).values for name in ("emd", "emd_bound"))
    assert (bound <= exact * (1 + 1e-9) + 1e-15).all()


def test_of_one_neuron_or_one_checkpoint_it_is_exact() -> None:
    rng = np.random.default_rng(0)
    for shape in ((4, 1, 6), (4, 7, 1)):
        paths = processes(rng.standard_normal(shape))
        exact, bound = (pairwise_distances(paths, name) for name in ("emd", "emd_bound"))
        np.testing.assert_allclose(bound, exact, rtol=1e-12)
        assert bound.attrs["share"] == pytest.approx(1)


def test_it_is_near_and_scales_with_the_square() -> None:
    data = synthetic_scores(checkpoints=8)
    paths = formation_processes(data, knowledge_neurons(data, 12))
    exact, bound = (
        pairwise_distances(paths, name).values[np.triu_indices(38, 1)]
        for name in ("emd", "emd_bound")
    )
    assert np.median(bound / exact) > 0.5
    assert spearmanr(bound, exact).statistic > 0.95
    larger = pairwise_distances(paths * 1e-150, "emd_bound").values[np.triu_indices(38, 1)]
    np.testing.assert_allclose(larger, bound * 1e-300, rtol=1e-9)


def test_its_error_is_that_of_all_pairs_where_all_are_checked() -> None:
    data = synthetic_scores(checkpoints=6, structure=0.4)
    paths = formation_processes(data, knowledge_neurons(data, 12))
    exact = pairwise_distances(paths, "emd").values
    bound = pairwise_distances(paths, EarthMoverBound(checked=703))
    upper = np.triu_indices(38, 1)
    groups = paths["group"].values
    same = (groups[:, None] == groups)[upper]

    def auc(values: np.ndarray) -> float:
        near, far = values[upper][same], values[upper][~same]
        return float(mannwhitneyu(far, near).statistic) / (len(near) * len(far))

    said = bound.attrs
    assert (said["pairs"], said["checked"]) == (703, 703)
    assert said["auc_error"] == pytest.approx(auc(bound.values) - auc(exact), abs=1e-12)
    assert said["rank_correlation"] == pytest.approx(
        spearmanr(bound.values[upper], exact[upper]).statistic
    )
    some = pairwise_distances(paths, "emd_bound").attrs
    assert some["checked"] == 200
    assert abs(some["auc_error"] - said["auc_error"]) < 4 * some["auc_error_se"] + 1e-9
    np.testing.assert_array_equal(pairwise_distances(paths, "emd_bound"), bound)


def test_pairs_of_both_kinds_are_checked_and_each_once() -> None:
    rng = np.random.default_rng(1)
    paths = processes(rng.standard_normal((9, 3, 4)), ["a"] * 3 + ["b"] * 6)
    said = pairwise_distances(paths, EarthMoverBound(checked=10)).attrs
    assert said["checked"] == 10
    assert "auc_error" in said
    everything = pairwise_distances(paths, EarthMoverBound(checked=1000)).attrs
    assert everything["checked"] == 36
    alone = pairwise_distances(processes(rng.standard_normal((4, 3, 4))), "emd_bound").attrs
    assert (alone["checked"], "auc_error" in alone) == (6, False)
    with pytest.raises(AnalysisError, match="0 pairs to check"):
        pairwise_distances(paths, EarthMoverBound(checked=0))


def test_words_with_unequally_many_neurons() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((3, 5, 4))
    paths = processes(values).assign_coords(
        layer=(("word", "rank"), [[0] * 5, [0, 0, 0, -1, -1], [0, 0, 0, 0, -1]])
    )
    exact, bound = (pairwise_distances(paths, name).values for name in ("emd", "emd_bound"))
    assert (bound <= exact * (1 + 1e-9)).all()
    assert (bound[np.triu_indices(3, 1)] > 0).all()


def test_a_bound_that_lies_above_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = processes(np.random.default_rng(3).standard_normal((3, 4, 5)))
    too_large = pairwise_distances(paths, "emd").values * 1.01
    monkeypatch.setattr(EarthMoverBound, "pairwise", lambda *_: too_large)
    with pytest.raises(KntraceError, match="lies above the distance"):
        pairwise_distances(paths, "emd_bound")


def test_an_analysis_says_how_far_its_ranks_go() -> None:
    groups = {"a": tuple("bcdef"), "g": tuple("hijkl")}
    data = synthetic_scores(groups=groups, checkpoints=3, prompts=1, structure=0.3)
    found = analyse_scores(data, k=4, distances=["emd_bound"], permutations=9)
    (note,) = [note for note in found.notes if note.startswith("emd_bound")]
    assert "45 of 45 pairs were computed exactly" in note
    assert "ranks correlate" in note
    assert "AUC" in note
    assert list(bound_errors({"emd": found.distances["probability_curve"]})) == []


def test_long_distances_are_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = processes(np.random.default_rng(4).standard_normal((12, 6, 5)))
    assert list(ahead.long_distances(paths, ["emd"])) == []
    monkeypatch.setattr(ahead, "_WORTHWHILE", 1)
    monkeypatch.setattr(EarthMover, "seconds_a_pair", lambda self, formation: 60.0)
    one, two = (list(ahead.long_distances(paths, ["emd", "sliced"], count)) for count in (1, 2))
    assert len(one) == 1
    # 66 pairs of a minute, and the proof of one in a hundred.
    assert "66 pairs of 6 neurons x 5 checkpoints, 0.0167 a second: about 67 min" in one[0]
    assert "33 min in 2 processes" in two[0]
    monkeypatch.undo()
    monkeypatch.setattr(ahead, "_WORTHWHILE", 1)
    assert list(ahead.long_distances(paths, ["emd"])) == []
    distance = find_distance("emd")
    assert isinstance(distance, EarthMover)
    assert 0 < distance.seconds_a_pair(paths) < 1


def test_every_pair_of_groups_is_sampled_evenly() -> None:
    from kntrace.distance.bound import _sample

    groups = np.array(["a"] * 10 + ["b"] * 10)
    pairs, same = _sample(groups, 40)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 40
    assert same.sum() == 20
    assert all(i < j for i, j in pairs)
    firsts = {i for i, _ in itertools.compress(pairs, ~same)}
    assert len(firsts) == 10
