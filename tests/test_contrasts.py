"""Same group against other groups: written-out definitions, scipy, enumeration, known answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from kntrace.contrasts import Contrast, contrast
from kntrace.distance import pairwise_distances
from kntrace.errors import AnalysisError
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.multiple import benjamini_hochberg, holm
from kntrace.testing import WORDS, synthetic_scores

Floats = npt.NDArray[np.float64]

GROUPS = {"A": ("a1", "a2", "a3"), "B": ("b1", "b2"), "C": ("c1", "c2", "c3", "c4")}


def labelled(values: Floats, groups: Mapping[str, Sequence[str]]) -> xr.DataArray:
    words = [word for members in groups.values() for word in members]
    return xr.DataArray(
        values,
        dims=("word", "other_word"),
        coords={"word": words, "other_word": words},
        attrs={"distance": "test"},
    )


def random_distances(
    groups: Mapping[str, Sequence[str]], seed: int = 0, *, digits: int = 12
) -> xr.DataArray:
    size = sum(map(len, groups.values()))
    drawn = np.random.default_rng(seed).exponential(size=(size, size)).round(digits)
    upper = np.triu(drawn, 1)
    return labelled(upper + upper.T, groups)


def labels_of(groups: Mapping[str, Sequence[str]]) -> list[str]:
    return [label for label, members in groups.items() for _ in members]


def written_out_shares(values: Floats, labels: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Per group: other-group cells above their row's threshold, and other-group cells."""
    counts = dict.fromkeys(labels, (0, 0))
    for i, label in enumerate(labels):
        mates = [values[i, j] for j in range(len(labels)) if labels[j] == label and j != i]
        if not mates:
            continue
        threshold = math.fsum(mates) / len(mates)
        for j, other in enumerate(labels):
            if other != label:
                above, cells = counts[label]
                counts[label] = (above + (values[i, j] > threshold), cells + 1)
    return counts


def written_out_auc(values: Floats, labels: Sequence[str], group: str | None = None) -> float:
    near: list[float] = []
    far: list[float] = []
    for i, j in combinations(range(len(labels)), 2):
        if group is None or group in (labels[i], labels[j]):
            (near if labels[i] == labels[j] else far).append(values[i, j])
    return float(mannwhitneyu(far, near).statistic / (len(near) * len(far)))


def test_denominators_of_the_paper() -> None:
    """The percentages of table 2 fit these only: 233 of 248, 176 of 224, and so on."""
    found = contrast(random_distances(WORDS), WORDS, permutations=1).groups.set_index("group")
    with_self = (found["above"] / found["share_above_with_self"]).round(9)
    assert with_self.to_dict() == {
        "Animals": 248,
        "Colours": 224,
        "Countries": 350,
        "Languages": 270,
    }
    assert found["others"].to_dict() == {
        "Animals": 240,
        "Colours": 217,
        "Countries": 336,
        "Languages": 261,
    }


@pytest.mark.parametrize("digits", [12, 0])  # with 0 there are many ties
@pytest.mark.parametrize("seed", range(4))
def test_shares_against_loops(seed: int, digits: int) -> None:
    distances = random_distances(GROUPS, seed, digits=digits)
    found = contrast(distances, GROUPS, permutations=1)
    counts = written_out_shares(distances.values, labels_of(GROUPS))
    for row in found.groups.to_dict("records"):
        above, cells = counts[row["group"]]
        assert (row["above"], row["others"]) == (above, cells)
        assert row["share_above"] == above / cells
        assert row["share_above_with_self"] == above / (cells + row["words"])
    above, cells = (sum(column) for column in zip(*counts.values(), strict=True))
    assert found.overall["share_above"] == above / cells
    assert found.overall["share_above_with_self"] == above / (cells + 9)


@pytest.mark.parametrize("seed", range(3))
def test_rows_against_loops(seed: int) -> None:
    distances = random_distances(GROUPS, seed, digits=1)
    labels = labels_of(GROUPS)
    for place, row in enumerate(
        contrast(distances, GROUPS, permutations=1).words.to_dict("records")
    ):
        cells = [
            (distances.values[place, j], labels[j] == labels[place]) for j in range(9) if j != place
        ]
        near = [value for value, same in cells if same]
        far = [value for value, same in cells if not same]
        threshold = math.fsum(near) / len(near)
        assert row["threshold"] == pytest.approx(threshold, rel=1e-12)
        assert row["above"] == sum(value > threshold + 1e-12 for value in far)
        assert row["others"] == len(far)
        assert row["share_above_with_self"] == row["above"] / (len(far) + 1)
        expected = mannwhitneyu(far, near).statistic / (len(near) * len(far))
        assert row["auc"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("digits", [12, 0])
@pytest.mark.parametrize("seed", range(4))
def test_auc_against_scipy(seed: int, digits: int) -> None:
    distances = random_distances(GROUPS, seed, digits=digits)
    found = contrast(distances, GROUPS, permutations=1)
    labels = labels_of(GROUPS)
    assert found.overall["auc"] == pytest.approx(written_out_auc(distances.values, labels))
    for row in found.groups.to_dict("records"):
        expected = written_out_auc(distances.values, labels, row["group"])
        assert row["auc"] == pytest.approx(expected)


def test_permutations_against_enumeration() -> None:
    """Chances and p-values approach those over all orders of the labels."""
    groups = {"A": ("a1", "a2", "a3"), "B": ("b1", "b2", "b3")}
    distances = random_distances(groups, seed=5)
    labels = labels_of(groups)
    everything = [list(order) for order in permutations(labels)]
    found = contrast(distances, groups, permutations=20_000)
    for group, row in [(None, found.overall), ("A", found.to_dict()["groups"]["A"])]:
        aucs = np.array([written_out_auc(distances.values, order, group) for order in everything])
        counts = [written_out_shares(distances.values, order) for order in everything]
        shares = np.array(
            [
                sum(above for above, _ in count.values()) / 18
                if group is None
                else count[group][0] / count[group][1]
                for count in counts
            ]
        )
        assert row["p"] == pytest.approx(np.mean(aucs >= row["auc"] - 1e-12), abs=0.012)
        assert row["auc_chance"] == pytest.approx(aucs.mean(), abs=0.012)
        assert row["chance"] == pytest.approx(shares.mean(), abs=0.012)
        assert row["share_p"] == pytest.approx(
            np.mean(shares >= row["share_above"] - 1e-12), abs=0.012
        )


def test_p_value_counts_the_labels_as_they_are() -> None:
    groups = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3", "b4")}
    labels = np.array(labels_of(groups))
    apart = np.where(labels[:, None] == labels, 1.0, 2.0)
    np.fill_diagonal(apart, 0)
    found = contrast(labelled(apart, groups), groups, permutations=99)
    # 2 of the 70 ways to deal the labels out are as extreme: the smallest p has them in it.
    assert found.overall["auc"] == 1
    assert 1 / 100 <= found.overall["p"] < 0.12
    assert found.overall["share_above"] == 1


def test_everything_equally_far_is_nothing() -> None:
    """Rounding of the threshold must not lift equal distances above it."""
    equal = labelled(np.full((9, 9), 0.1), GROUPS)
    found = contrast(equal, GROUPS, permutations=20)
    assert found.overall["share_above"] == 0
    assert found.overall["auc"] == 0.5
    assert found.overall["p"] == 1


def test_fires_on_structure_and_not_without() -> None:
    for structure, low, high in ((0.5, 0.0, 0.01), (0.0, 0.02, 1.0)):
        data = synthetic_scores(structure=structure, seed=4)
        found = contrast(pairwise_distances(data, "identity"), WORDS)
        assert low <= found.overall["p"] <= high
        assert (found.overall["share_above"] > 0.6) == (structure > 0)


@pytest.fixture(scope="module")
def of_nothing() -> list[Contrast]:
    """Contrasts of distances drawn at random: whatever they find is false."""
    return [
        contrast(random_distances(GROUPS, seed), GROUPS, permutations=99) for seed in range(300)
    ]


def assert_uniform(p_values: Sequence[float] | Floats, *, independent: int) -> None:
    """No level is reached more often, or less often, than it says, but for four errors."""
    for level in (0.05, 0.2, 0.5, 0.8):
        slack = 4 * math.sqrt(level * (1 - level) / independent)
        assert abs(np.mean(np.asarray(p_values) <= level) - level) < slack, level


@pytest.mark.slow
def test_p_values_are_uniform_when_labels_mean_nothing(of_nothing: list[Contrast]) -> None:
    for key in ("p", "share_p"):
        assert_uniform([found.overall[key] for found in of_nothing], independent=300)
        assert_uniform([found.macro[key] for found in of_nothing], independent=300)
        for group in range(3):
            values = [found.groups[key].iloc[group] for found in of_nothing]
            # Few values are possible with three words, and a p-value takes ties to heart.
            assert np.mean(np.array(values) <= 0.05) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)
        words = np.array([found.words[key] for found in of_nothing])
        assert np.mean(words <= 0.05) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_holm_bounds_false_alarms_of_a_family(of_nothing: list[Contrast]) -> None:
    slack = 4 * math.sqrt(0.05 * 0.95 / 300)
    for table in ("groups", "words"):
        plain = [(getattr(found, table)["p"] <= 0.05).any() for found in of_nothing]
        holm = [(getattr(found, table)["p_holm"] <= 0.05).any() for found in of_nothing]
        assert np.mean(holm) < 0.05 + slack
        assert np.mean(plain) > np.mean(holm)


def test_the_mean_over_groups_counts_groups_alike() -> None:
    distances = random_distances(GROUPS, seed=4)
    found = contrast(distances, GROUPS, permutations=150, seed=2)
    for key in ("auc", "share_above", "share_above_with_self", "chance", "auc_chance"):
        assert found.macro[key] == pytest.approx(found.groups[key].mean())
    labels, rng = labels_of(GROUPS), np.random.default_rng(2)
    names = sorted(set(labels))
    codes = np.array([names.index(label) for label in labels])
    dealt = rng.permuted(np.tile(codes, (150, 1)), axis=1)
    aucs = np.array(
        [
            [written_out_auc(distances.values, [names[c] for c in row], name) for name in names]
            for row in dealt
        ]
    )
    overall = [written_out_auc(distances.values, [names[c] for c in row]) for row in dealt]
    null = aucs.mean(axis=1)
    assert found.macro["p"] == (1 + (null >= found.macro["auc"] - 1e-12).sum()) / 151
    for row, values in ((found.macro, null), (found.overall, np.array(overall))):
        low, high = np.quantile(values, (0.025, 0.975))
        assert row["auc_chance_low"] == pytest.approx(low)
        assert row["auc_chance_high"] == pytest.approx(high)


def test_jackknife_against_words_taken_out() -> None:
    groups = {"A": GROUPS["A"], "C": GROUPS["C"], "E": ("e1", "e2", "e3", "e4", "e5")}
    distances = random_distances(groups, seed=8, digits=1)
    found = contrast(distances, groups, permutations=1)
    words = [word for members in groups.values() for word in members]
    without = []
    for place, word in enumerate(words):
        kept = [i for i in range(len(words)) if i != place]
        fewer = {name: tuple(w for w in members if w != word) for name, members in groups.items()}
        without.append(contrast(distances.isel(word=kept, other_word=kept), fewer, permutations=1))
    rows = [
        (found.overall, [one.overall for one in without]),
        (found.macro, [one.macro for one in without]),
        (found.to_dict()["groups"]["C"], [one.to_dict()["groups"]["C"] for one in without]),
    ]
    for row, others in rows:
        for key, error in (("auc", "auc_se"), ("share_above", "share_se")):
            values = np.array([other[key] for other in others])
            n = len(words)
            expected = math.sqrt((n - 1) / n * sum((values - values.mean()) ** 2))
            assert row[error] == pytest.approx(expected), key


def test_a_pair_of_words_has_no_jackknife() -> None:
    found = contrast(random_distances(GROUPS), GROUPS, permutations=9)
    assert found.groups.set_index("group")["auc_se"].isna().to_dict() == {
        "A": False,
        "B": True,
        "C": False,
    }
    assert math.isnan(found.macro["auc_se"])
    assert found.overall["auc_se"] > 0


def test_intervals_stay_within_the_bounds_of_an_auc() -> None:
    groups = {"A": ("a", "b", "c"), "B": ("d", "e", "f")}
    for seed in range(20):
        found = contrast(random_distances(groups, seed), groups, permutations=1).overall
        plain = found["auc"] - 1.96 * found["auc_se"], found["auc"] + 1.96 * found["auc_se"]
        assert found["auc_low"] == max(plain[0], 0)
        assert found["auc_high"] == min(plain[1], 1)


@pytest.mark.slow
def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Words drawn from two clouds of points; the truth from a thousand words of each."""
    groups = {name: tuple(f"{name}{i}" for i in range(14)) for name in "AB"}
    rng = np.random.default_rng(0)

    def drawn(count: int) -> Floats:
        points = rng.standard_normal((2, count, 3))
        points[1, :, 0] += 1.2
        flat = points.reshape(-1, 3)
        return np.linalg.norm(flat[:, None] - flat, axis=-1)

    many = drawn(400)
    same = np.equal.outer(np.arange(800) < 400, np.arange(800) < 400)
    upper = np.triu_indices(800, 1)
    near, far = many[upper][same[upper]], many[upper][~same[upper]]
    truth = mannwhitneyu(far, near).statistic / (near.size * far.size)
    held = []
    for _ in range(150):
        found = contrast(labelled(drawn(14), groups), groups, permutations=1).overall
        held.append(found["auc_low"] <= truth <= found["auc_high"])
    assert 0.88 < np.mean(held) <= 1


def test_words_against_scipy_and_enumeration() -> None:
    distances = random_distances(GROUPS, seed=11)
    labels = labels_of(GROUPS)
    found = contrast(distances, GROUPS, permutations=20_000).words.set_index("word")
    for place, word in enumerate(distances["word"].values):
        others = [j for j in range(9) if j != place]
        row = distances.values[place, others]
        same = np.array([labels[j] == labels[place] for j in others])
        exact = mannwhitneyu(row[~same], row[same], alternative="greater", method="exact").pvalue
        assert found.loc[word, "p"] == pytest.approx(exact, abs=0.015)
        shares = []
        for mates in combinations(range(8), int(same.sum())):
            far = np.delete(row, mates)
            shares.append(np.mean(far > row[list(mates)].mean() + 1e-12))
        assert found.loc[word, "chance"] == pytest.approx(np.mean(shares), abs=0.015)
        with_self = np.mean(shares) * (~same).sum() / ((~same).sum() + 1)
        assert found.loc[word, "chance_with_self"] == pytest.approx(with_self, abs=0.015)
        share = np.mean(np.array(shares) >= found.loc[word, "share_above"] - 1e-12)
        assert found.loc[word, "share_p"] == pytest.approx(share, abs=0.015)


@given(st.lists(st.one_of(st.floats(0.001, 1), st.just(math.nan)), max_size=9))
@settings(max_examples=60, deadline=None)
def test_p_values_read_together_against_their_definitions(p_values: list[float]) -> None:
    """The least level at which the step-down, or step-up, procedure rejects."""
    known = sorted(p for p in p_values if not math.isnan(p))
    m = len(known)
    for ours, terms in (
        (holm, [(m - i) * p for i, p in enumerate(known)]),
        (benjamini_hochberg, [m * p / (i + 1) for i, p in enumerate(known)]),
    ):
        for p, adjusted in zip(p_values, ours(p_values), strict=True):
            if math.isnan(p):
                assert math.isnan(adjusted)
                continue
            before = [term for q, term in zip(known, terms, strict=True) if q < p]
            after = [term for q, term in zip(known, terms, strict=True) if q >= p]
            # Of equal p-values the first decides.
            expected = max([*before, after[0]]) if ours is holm else min(after)
            assert adjusted == pytest.approx(min(expected, 1.0))


def test_chance_of_the_paper_s_percentage_is_not_one_half() -> None:
    """Distances are skewed, so that most of them lie below a mean of few."""
    found = contrast(random_distances(WORDS, seed=1), WORDS)
    assert 0.3 < found.overall["chance"] < 0.45
    assert found.overall["auc_chance"] == pytest.approx(0.5, abs=0.01)


def test_seeded() -> None:
    distances = random_distances(GROUPS)
    first = contrast(distances, GROUPS, seed=3).to_dict()
    assert first == contrast(distances, GROUPS, seed=3).to_dict()
    assert first != contrast(distances, GROUPS, seed=4).to_dict()


def test_batches_of_permutations_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    distances = random_distances(GROUPS)
    at_once = contrast(distances, GROUPS).to_dict()
    monkeypatch.setattr("kntrace.contrasts.pairs._AT_ONCE", 1000)
    assert contrast(distances, GROUPS).to_dict() == at_once


@given(st.permutations(range(9)), st.permutations(("A", "B", "C")))
@settings(max_examples=20, deadline=None)
def test_the_order_of_words_and_groups_does_not_matter(order: list[int], names: list[str]) -> None:
    distances = random_distances(GROUPS, seed=2)
    found = contrast(distances, GROUPS, permutations=1)
    shuffled = distances.isel(word=order, other_word=order)
    again = contrast(shuffled, {name: GROUPS[name] for name in names}, permutations=1)
    assert again.overall["auc"] == pytest.approx(found.overall["auc"])
    for name in names:
        for key in ("above", "others", "share_above", "auc"):
            assert again.to_dict()["groups"][name][key] == found.to_dict()["groups"][name][key]


def test_a_group_of_one_word_is_undefined_and_said_so() -> None:
    groups = {**GROUPS, "D": ("d1",)}
    distances = random_distances(groups, seed=1)
    found = contrast(distances, groups, permutations=50)
    alone = found.to_dict()["groups"]["D"]
    assert alone["p_holm"] is alone["auc_se"] is None
    assert alone["share_above"] is alone["auc"] is alone["p"] is alone["chance"] is None
    assert "'D' has one word" in found.notes[0]
    assert found.words.set_index("word")["threshold"].isna().to_dict()["d1"]
    counts = written_out_shares(distances.values, labels_of(groups))
    assert found.overall["others"] == sum(cells for _, cells in counts.values())
    assert found.overall["share_above_with_self"] == found.overall["above"] / (
        found.overall["others"] + 9  # rows that have a threshold
    )
    assert 0 < found.overall["p"] <= 1
    json.dumps(found.to_dict(), allow_nan=False)
    assert "–" in str(found)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({**GROUPS, "D": ("x1", "x2")}, "not measured: x1, x2"),
        ({"A": GROUPS["A"], "B": GROUPS["B"]}, "in no group: c1, c2, c3, c4"),
        ({**GROUPS, "B": ("b1", "b2", "a1")}, "'a1' is named 2 times"),
        ({"all": sum(GROUPS.values(), ())}, "all words in one group"),
        ({word: (word,) for words in GROUPS.values() for word in words}, "no two words"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        contrast(random_distances(GROUPS), groups)


def test_distances_that_are_none_are_refused() -> None:
    broken = random_distances(GROUPS)
    broken.values[1, 4] = broken.values[4, 1] = np.nan
    with pytest.raises(AnalysisError, match="'a2' and 'b2' is not a finite number"):
        contrast(broken, GROUPS)
    skew = random_distances(GROUPS)
    skew.values[1, 4] += 1
    with pytest.raises(AnalysisError, match="not the same in both directions"):
        contrast(skew, GROUPS)
    with pytest.raises(AnalysisError, match="at least one"):
        contrast(random_distances(GROUPS), GROUPS, permutations=0)
    with pytest.raises(AnalysisError, match="same words"):
        contrast(random_distances(GROUPS).isel(word=list(range(8, -1, -1))), GROUPS)


def test_prints_within_80_columns() -> None:
    groups = {"a group with a name that is much too long for a table": ("x", "y"), **GROUPS}
    text = str(contrast(random_distances(groups), groups, permutations=9))
    assert max(map(len, text.splitlines())) <= 80
    assert all(word in text for word in ("all", "with self", "AUC", "chance"))


def test_emd_is_fooled_by_learning_time() -> None:
    """What the verdict exists for: groups that mean nothing, learnt one after the other."""
    data = synthetic_scores(learning_time="by_group", seed=2)
    paths = formation_processes(data, knowledge_neurons(data, 20))
    assert contrast(pairwise_distances(paths, "emd"), WORDS).overall["p"] <= 0.005
