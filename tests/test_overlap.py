"""Knowledge neurons in common: counted with sets, expected by scipy, tested by enumeration."""

from __future__ import annotations

import json
from itertools import combinations, permutations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import hypergeom

from kntrace.errors import AnalysisError
from kntrace.formation import knowledge_neurons
from kntrace.overlap import LAYER_COLUMNS, Overlap, neuron_overlap, overlap_by_layer
from kntrace.testing import WORDS, synthetic_scores

GROUPS = {"A": ("ant", "bat", "cat"), "B": ("blue", "red", "pink")}
NEURONS = 40


def chosen(k: int = 10, structure: float = 0.0, seed: int = 0) -> xr.Dataset:
    data = synthetic_scores(
        groups=GROUPS, checkpoints=2, layers=2, width=20, structure=structure, seed=seed
    )
    return knowledge_neurons(data, k)


def sets(neurons: xr.Dataset) -> dict[str, set[tuple[int, int]]]:
    return {
        str(word): {
            (int(layer), int(neuron))
            for layer, neuron in zip(
                neurons["layer"].sel(word=word).values,
                neurons["neuron"].sel(word=word).values,
                strict=True,
            )
            if layer >= 0
        }
        for word in neurons["word"].values
    }


def overlap(neurons: xr.Dataset, permutations: int = 199) -> Overlap:
    return neuron_overlap(neurons, GROUPS, total_neurons=NEURONS, permutations=permutations, seed=1)


def test_intersections_against_sets() -> None:
    neurons = chosen()
    found, members = overlap(neurons), sets(neurons)
    for word, other in np.ndindex(6, 6):
        first, second = (str(neurons["word"].values[place]) for place in (word, other))
        assert found.matrix.values[word, other] == len(members[first] & members[second])
    assert found.matrix.dtype == np.int64
    np.testing.assert_array_equal(np.diag(found.matrix), 10)


def test_means_within_and_between() -> None:
    neurons = chosen(structure=0.5)
    found, members = overlap(neurons), sets(neurons)
    group_of = {word: label for label, words in GROUPS.items() for word in words}
    within: list[int] = []
    between: list[int] = []
    for first, second in combinations(members, 2):
        common = len(members[first] & members[second])
        (within if group_of[first] == group_of[second] else between).append(common)
    assert found.within == pytest.approx(np.mean(within))
    assert found.between == pytest.approx(np.mean(between))
    assert found.groups["A"]["within"] == pytest.approx(np.mean(within[:3]))
    assert found.groups["A"]["between"] == found.groups["B"]["between"] == found.between


def test_expectation_against_scipy() -> None:
    found = overlap(chosen(k=12))
    law = hypergeom(NEURONS, 12, 12)
    assert found.expected == pytest.approx(law.mean())
    assert found.expected_sd == pytest.approx(law.std())


def test_p_value_against_enumeration() -> None:
    neurons = chosen(structure=0.2, seed=3)
    found = overlap(neurons, permutations=20_000)
    matrix = found.matrix.values
    labels = [label for label, words in GROUPS.items() for _ in words]

    def excess(order: tuple[str, ...]) -> float:
        same = np.array([[one == two for two in order] for one in order])
        upper = np.triu(np.ones((6, 6), dtype=bool), 1)
        return float(matrix[same & upper].mean() - matrix[~same & upper].mean())

    null = np.array([excess(order) for order in permutations(labels)])
    expected = np.mean(null >= excess(tuple(labels)) - 1e-12)
    assert found.p == pytest.approx(expected, abs=0.012)
    assert found.chance == pytest.approx(null.mean(), abs=0.02)


def test_fires_on_structure_and_not_without() -> None:
    found = {
        structure: [
            neuron_overlap(
                knowledge_neurons(synthetic_scores(structure=structure, seed=seed), 12),
                WORDS,
                total_neurons=96,
            )
            for seed in range(6)
        ]
        for structure in (0.5, 0.0)
    }
    assert all(one.p <= 0.005 and one.within > one.between + 0.5 for one in found[0.5])
    # Of six p-values without structure, two or more fall below .05 once in thirty times.
    assert sum(one.p <= 0.05 for one in found[0.0]) < 2
    assert all(abs(one.within - one.between) < 0.5 for one in found[0.0])


def test_groups_against_enumeration() -> None:
    groups = {"A": ("ant", "bat"), "B": ("cat", "blue", "red", "pink")}
    neurons = chosen(structure=0.2, seed=4)
    found = neuron_overlap(neurons, groups, total_neurons=NEURONS, permutations=20_000)
    matrix, upper = found.matrix.values, np.triu(np.ones((6, 6), dtype=bool), 1)

    def excess(order: tuple[str, ...], group: str) -> float:
        mine = np.array([label == group for label in order])
        inside = np.outer(mine, mine) & upper
        across = (mine[:, None] ^ mine) & upper
        return float(matrix[inside].mean() - matrix[across].mean())

    labels = tuple(label for label, words in groups.items() for _ in words)
    adjusted = []
    for group, row in found.groups.items():
        null = np.array([excess(order, group) for order in permutations(labels)])
        assert row["within"] - row["between"] == pytest.approx(excess(labels, group))
        assert row["chance"] == pytest.approx(null.mean(), abs=0.02)
        expected = np.mean(null >= excess(labels, group) - 1e-9)
        assert row["p"] == pytest.approx(expected, abs=0.012)
        adjusted.append((row["p"], row["p_holm"]))
    low, high = sorted(adjusted)
    assert low[1] == min(2 * low[0], 1)
    assert high[1] == max(high[0], low[1])


def test_layers_against_sets() -> None:
    neurons = chosen(structure=0.4)
    found = overlap_by_layer(neurons, GROUPS, permutations=99)
    assert tuple(found) == LAYER_COLUMNS
    group_of = {word: label for label, words in GROUPS.items() for word in words}
    for row in found.to_dict("records"):
        members = {
            word: {one for one in held if one[0] == row["layer"]}
            for word, held in sets(neurons).items()
        }
        within, between, expected = [], [], []
        for first, second in combinations(members, 2):
            common = len(members[first] & members[second])
            (within if group_of[first] == group_of[second] else between).append(common)
            expected.append(hypergeom(20, len(members[first]), len(members[second])).mean())
        assert row["neurons"] == pytest.approx(np.mean([len(one) for one in members.values()]))
        assert row["within"] == pytest.approx(np.mean(within))
        assert row["between"] == pytest.approx(np.mean(between))
        assert row["expected"] == pytest.approx(np.mean(expected))
    assert found["neurons"].sum() == pytest.approx(10)


def test_layers_fire_where_structure_is_and_not_elsewhere() -> None:
    data = synthetic_scores(structure=0.6, checkpoints=2, layers=2, seed=1).load()
    flat = synthetic_scores(structure=0.0, checkpoints=2, layers=2, seed=2)
    data["score"].values[..., 1, :] = flat["score"].values[..., 1, :]
    found = overlap_by_layer(knowledge_neurons(data, 16), WORDS, permutations=199)
    assert found["p_holm"].tolist()[0] <= 0.01
    assert found["p_holm"].tolist()[1] > 0.05


def test_p_values_are_uniform_when_groups_mean_nothing() -> None:
    rng, rows = np.random.default_rng(0), []
    neurons = chosen()
    for seed in range(200):
        drawn = np.stack([rng.permutation(NEURONS)[:10] for _ in range(6)])
        data = neurons.assign(
            layer=(("word", "rank"), drawn // 20), neuron=(("word", "rank"), drawn % 20)
        )
        given = {"permutations": 59, "seed": seed}
        found = neuron_overlap(data, GROUPS, total_neurons=NEURONS, **given)
        layers = overlap_by_layer(data, GROUPS, **given)["p"].tolist()
        rows.append([found.p, *[one["p"] for one in found.groups.values()], *layers])
    for level in (0.05, 0.2):
        # Few labellings of six words are different, and ties make p-values larger.
        slack = 4 * np.sqrt(level * (1 - level) / 200)
        assert (np.mean(np.array(rows, dtype=float) <= level, axis=0) < level + slack).all()
    assert (np.median(np.array(rows, dtype=float), axis=0) < 0.8).all()


def test_all_neurons_in_common() -> None:
    found = overlap(chosen(k=NEURONS))
    assert found.within == found.between == found.expected == NEURONS
    assert found.expected_sd == 0
    assert found.p == 1


def test_words_with_unequally_many_neurons() -> None:
    neurons = chosen()
    for name in ("layer", "neuron"):
        neurons[name].loc[{"word": "cat", "rank": [7, 8, 9]}] = -1
    found, members = overlap(neurons), sets(neurons)
    assert found.matrix.sel(word="cat", other_word="cat") == 7
    assert found.matrix.sel(word="cat", other_word="red") == len(members["cat"] & members["red"])
    assert found.expected == pytest.approx((10 * 100 + 5 * 70) / 15 / NEURONS)


def test_a_group_of_one_word() -> None:
    groups = {"A": ("ant", "bat", "cat"), "B": ("blue", "red"), "C": ("pink",)}
    found = neuron_overlap(chosen(), groups, total_neurons=NEURONS, permutations=9)
    assert found.groups["C"]["within"] is found.groups["C"]["p"] is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(AnalysisError, match="10 knowledge neurons of one word out of 9"):
        neuron_overlap(chosen(), GROUPS, total_neurons=9)
    with pytest.raises(AnalysisError, match="in no group: blue"):
        neuron_overlap(chosen(), {"A": GROUPS["A"], "B": ("red", "pink")}, total_neurons=40)
    with pytest.raises(AnalysisError, match="at least one"):
        overlap(chosen(), permutations=0)
    with pytest.raises(AnalysisError, match="at least one"):
        overlap_by_layer(chosen(), GROUPS, permutations=0)


def test_prints_what_was_found() -> None:
    text = str(overlap(chosen()))
    assert "by chance 2.5 ± 1.2" in text
    assert max(map(len, text.splitlines())) <= 80
