"""The tests of scikit-bio: against their definitions, where they fire, and where they must not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import f_oneway, rankdata, spearmanr

from kntrace.contrasts import MATRIX_TESTS, matrix_tests
from kntrace.distance import pairwise_distances, regress_out
from kntrace.errors import AnalysisError
from kntrace.testing import WORDS, synthetic_scores

Floats = npt.NDArray[np.float64]
GROUPS = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3"), "C": ("c1", "c2", "c3", "c4")}
LABELS = [label for label, members in GROUPS.items() for _ in members]


def labelled(values: Floats, name: str = "test") -> xr.DataArray:
    words = [word for members in GROUPS.values() for word in members]
    return xr.DataArray(
        values,
        dims=("word", "other_word"),
        coords={"word": words, "other_word": words},
        attrs={"distance": name},
    )


def points(seed: int, *, apart: float = 0.0, spread: float = 1.0) -> Floats:
    """Three clouds in three dimensions, the second moved and the third stretched."""
    drawn = np.random.default_rng(seed).standard_normal((11, 3))
    drawn[4:7, 0] += apart
    drawn[7:] *= spread
    return drawn


def distances(cloud: Floats) -> xr.DataArray:
    values = np.linalg.norm(cloud[:, None] - cloud, axis=-1)
    return labelled((values + values.T) / 2)


def statistic(found: pd.DataFrame, test: str) -> float:
    return float(found.set_index("test").loc[test, "statistic"])


def p_of(found: pd.DataFrame, test: str) -> float:
    return float(found.set_index("test").loc[test, "p"])


def pseudo_f(values: Floats, labels: Sequence[str]) -> float:
    """Anderson 2001, by loops over pairs."""
    total, within = 0.0, 0.0
    for i, j in combinations(range(len(labels)), 2):
        total += values[i, j] ** 2 / len(labels)
        if labels[i] == labels[j]:
            within += values[i, j] ** 2 / labels.count(labels[i])
    groups = len(set(labels))
    return ((total - within) / (groups - 1)) / (within / (len(labels) - groups))


def clarke_r(values: Floats, labels: Sequence[str]) -> float:
    """Clarke 1993."""
    pairs = list(combinations(range(len(labels)), 2))
    ranks = rankdata([values[i, j] for i, j in pairs])
    same = np.array([labels[i] == labels[j] for i, j in pairs])
    return float((ranks[~same].mean() - ranks[same].mean()) / (len(pairs) / 2))


def spread_f(cloud: Floats, labels: Sequence[str]) -> float:
    """Anderson 2006 for points whose space is known: distances to the groups' centroids."""
    rows = []
    for label in sorted(set(labels)):
        mine = cloud[[one == label for one in labels]]
        rows.append(np.linalg.norm(mine - mine.mean(axis=0), axis=1))
    return float(f_oneway(*rows).statistic)


@pytest.mark.parametrize("seed", range(3))
def test_statistics_against_their_definitions(seed: int) -> None:
    cloud = points(seed, apart=1.0, spread=2.0)
    matrix, other = distances(cloud), distances(points(seed + 50)).assign_attrs(distance="other")
    found = matrix_tests(matrix, GROUPS, other, permutations=9)
    assert list(found["test"]) == list(MATRIX_TESTS)
    assert statistic(found, "permanova") == pytest.approx(pseudo_f(matrix.values, LABELS))
    assert statistic(found, "anosim") == pytest.approx(clarke_r(matrix.values, LABELS))
    assert statistic(found, "permdisp") == pytest.approx(spread_f(cloud, LABELS), rel=1e-6)
    upper = np.triu_indices(11, 1)
    rho = spearmanr(matrix.values[upper], other.values[upper]).statistic
    assert statistic(found, "mantel") == pytest.approx(rho)


def test_fire_where_they_must() -> None:
    apart = matrix_tests(distances(points(1, apart=6.0)), GROUPS, permutations=199)
    assert max(p_of(apart, "permanova"), p_of(apart, "anosim")) <= 0.05
    cloud = np.random.default_rng(2).standard_normal((38, 3))
    cloud[15:29] *= 4
    values, words = np.linalg.norm(cloud[:, None] - cloud, axis=-1), sum(WORDS.values(), ())
    wide = xr.DataArray(
        (values + values.T) / 2,
        {"word": list(words), "other_word": list(words)},
        ("word", "other_word"),
    )
    assert p_of(matrix_tests(wide, WORDS, permutations=199), "permdisp") <= 0.01
    matrix = distances(points(3))
    near = labelled(matrix.values * 1.5, "like it")
    assert p_of(matrix_tests(matrix, GROUPS, near, permutations=199), "mantel") == 1 / 200


@pytest.mark.slow
def test_p_values_are_uniform_under_nothing() -> None:
    rows = []
    for seed in range(200):
        other = distances(points(seed + 1000)).assign_attrs(distance="other")
        found = matrix_tests(distances(points(seed)), GROUPS, other, permutations=19, seed=seed)
        rows.append(found.set_index("test")["p"])
    table = pd.DataFrame(rows)
    for name in MATRIX_TESTS:
        for level in (0.05, 0.25, 0.5):
            slack = 4 * math.sqrt(level * (1 - level) / 200)
            assert abs((table[name] <= level).mean() - level) < slack, (name, level)


def test_groups_and_learning_time_in_synthetic_runs() -> None:
    structured = synthetic_scores(structure=0.4, seed=1)
    flat = synthetic_scores(structure=0.0, seed=1)
    late = synthetic_scores(structure=0.0, learning_time="by_group", seed=1)

    def of(data: xr.Dataset, name: str) -> pd.DataFrame:
        baseline = pairwise_distances(data, "probability_curve")
        return matrix_tests(pairwise_distances(data, name), WORDS, baseline, permutations=199)

    for test in ("permanova", "anosim"):
        assert p_of(of(structured, "identity"), test) <= 0.01
        assert p_of(of(flat, "identity"), test) > 0.02
        # Neither knows of learning time: that is what the verdict is for.
        assert p_of(of(late, "probability_curve"), test) <= 0.01
    assert math.isnan(p_of(of(late, "probability_curve"), "mantel"))


def test_where_a_test_does_not_apply() -> None:
    data = synthetic_scores(checkpoints=3)
    baseline = pairwise_distances(data, "probability_curve")
    ranks = regress_out(pairwise_distances(data, "identity"), baseline)
    found = matrix_tests(ranks, WORDS, baseline, permutations=9).set_index("test")
    assert found["p"].isna().to_dict() == {
        "permanova": True,
        "anosim": False,
        "permdisp": True,
        "mantel": False,
    }
    assert found["permutations"].to_dict() == {
        "permanova": 0,
        "anosim": 9,
        "permdisp": 0,
        "mantel": 9,
    }
    equal = labelled(np.ones((11, 11)) - np.eye(11))
    assert matrix_tests(equal, GROUPS, permutations=9)["p"].isna().all()


@pytest.mark.parametrize(
    "groups", [{"A": ("a", "b"), "B": ("c",)}, {"A": ("a", "b"), "B": ("c", "d"), "C": ("e",)}]
)
def test_hardly_any_words(groups: Mapping[str, Sequence[str]]) -> None:
    words = [word for members in groups.values() for word in members]
    cloud = np.random.default_rng(0).random((len(words), 2))
    values = np.linalg.norm(cloud[:, None] - cloud, axis=-1)
    matrix = xr.DataArray(values, {"word": words, "other_word": words}, ("word", "other_word"))
    found = matrix_tests((matrix + matrix.T.values) / 2, groups, permutations=9)
    assert p_of(found, "anosim") > 0


def test_what_does_not_fit_is_refused() -> None:
    matrix = distances(points(0))
    with pytest.raises(AnalysisError, match="at least one"):
        matrix_tests(matrix, GROUPS, permutations=0)
    with pytest.raises(AnalysisError, match="in no group"):
        matrix_tests(matrix, {"A": GROUPS["A"], "B": GROUPS["B"]})
    order = list(range(10, -1, -1))
    turned = matrix.isel(word=order, other_word=order).assign_attrs(distance="other")
    with pytest.raises(AnalysisError, match="other words"):
        matrix_tests(matrix, GROUPS, turned)
