"""Statistics of many labellings at once, against their definitions one at a time."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from scipy.stats import mannwhitneyu

from kntrace.contrasts.pairs import ABSENT, Pairs, dealt_out, one_left_out, statistics
from kntrace.labels import members_of
from kntrace.overlap import overlap_by_layer

Codes = npt.NDArray[np.intp]
SIZES = [(3, 2, 4), (1, 5, 2), (6, 3)]


def matrix(words: int, digits: int, seed: int) -> npt.NDArray[np.float64]:
    upper = np.triu(np.random.default_rng(seed).normal(size=(words, words)).round(digits), 1)
    return upper + upper.T


def written_out(
    values: npt.NDArray[np.float64], codes: Codes, group: int | None
) -> tuple[int, int, float]:
    """Cells above their row's threshold, cells, and AUC; of all groups where none is given."""
    above = cells = 0
    near: list[float] = []
    far: list[float] = []
    there = [word for word, code in enumerate(codes) if code != ABSENT]
    for i in there:
        mates = [values[i, j] for j in there if codes[j] == codes[i] and j != i]
        if mates and group in (None, codes[i]):
            others = [values[i, j] for j in there if codes[j] != codes[i]]
            threshold = math.fsum(mates) / len(mates)
            above += sum(value > threshold + 1e-11 for value in others)
            cells += len(others)
    for i, j in combinations(there, 2):
        if group in (None, codes[i], codes[j]):
            (near if codes[i] == codes[j] else far).append(values[i, j])
    if not near or not far:
        return above, cells, math.nan
    return above, cells, float(mannwhitneyu(far, near).statistic / (len(near) * len(far)))


@pytest.mark.parametrize("passes", [0, 6])  # pair by pair, and by trios
@pytest.mark.parametrize("digits", [9, 0])  # with 0 there are many ties
@pytest.mark.parametrize("sizes", SIZES)
def test_against_loops(
    sizes: tuple[int, ...], digits: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kntrace.contrasts.pairs._PASSES", passes)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    values = matrix(len(codes), digits, seed=len(codes))
    labellings = [*dealt_out(codes, 3, np.random.default_rng(0)), *one_left_out(codes)]
    for batch in labellings:
        found = statistics(Pairs.of(values), batch, len(sizes))
        for row, labelling in enumerate(batch):
            for group in (*range(len(sizes)), None):
                above, cells, auc = written_out(values, labelling, group)
                column = -1 if group is None else group
                assert (found.above[row, column], found.others[row, column]) == (above, cells)
                np.testing.assert_allclose(found.auc[row, column], auc, rtol=1e-12)


def test_members_are_those_of_each_labelling() -> None:
    codes = np.array([[0, 1, ABSENT, 1, 0], [1, 1, ABSENT, 0, 1], [0, 0, ABSENT, 0, 0]])
    seen = set()
    for group, rows, words in members_of(codes, 2):
        for row, members in zip(rows, words, strict=True):
            assert np.flatnonzero(codes[row] == group).tolist() == members.tolist()
            seen.add((group, int(row)))
    assert seen == {(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)}  # in the last, group 1 has no word


def test_overlap_by_layer_against_sets() -> None:
    """Means within and between, and their chance, from sets of neurons and one loop a labelling."""
    rng = np.random.default_rng(2)
    layer = rng.integers(0, 2, size=(7, 6))
    neuron = np.argsort(rng.random((7, 12)), axis=1)[:, :6]
    layer[5, 4:] = -1
    names = [f"w{place}" for place in range(7)]
    chosen = xr.Dataset(
        {"layer": (("word", "rank"), layer), "neuron": (("word", "rank"), neuron)},
        coords={"word": names, "group": ("word", names)},
        attrs={"layers": 2, "width": 12},
    )
    groups = {"A": names[:3], "B": names[3:6], "C": names[6:]}
    codes = np.array([0, 0, 0, 1, 1, 1, 2])
    found = overlap_by_layer(chosen, groups, permutations=50, seed=9)
    dealt = np.random.default_rng(9).permuted(np.tile(codes, (50, 1)), axis=1)
    for place in range(2):
        sets = [set(neuron[word][layer[word] == place].tolist()) for word in range(7)]

        def excess(labels: Any, sets: list[set[int]] = sets) -> tuple[float, float]:
            pairs = list(combinations(range(7), 2))
            shared = [len(sets[i] & sets[j]) for i, j in pairs]
            same = np.array([labels[i] == labels[j] for i, j in pairs])
            return np.mean(np.array(shared)[same]), np.mean(np.array(shared)[~same])

        row = found.iloc[place]
        assert (row["within"], row["between"]) == pytest.approx(excess(codes))
        null = [within - between for within, between in map(excess, dealt)]
        assert row["chance"] == pytest.approx(np.mean(null))
        beyond = sum(value >= row["within"] - row["between"] - 1e-9 for value in null)
        assert row["p"] == pytest.approx((1 + beyond) / 51)
