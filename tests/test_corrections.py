"""Corrections of distances: against their definition, where they must act, where they must not."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from kntrace.contrasts import contrast
from kntrace.distance import (
    Correction,
    HubCorrection,
    PairCovariate,
    WordCovariate,
    correct,
    pairwise_distances,
    read_covariate,
    regress_out,
)
from kntrace.errors import AnalysisError
from kntrace.testing import synthetic_scores

Floats = npt.NDArray[np.float64]

GROUPS = {name: tuple(f"{name.lower()}{i}" for i in range(7)) for name in ("A", "B", "C", "D")}
WORDS = tuple(word for words in GROUPS.values() for word in words)
CODES = np.repeat(np.arange(4), 7)


def labelled(values: Floats, words: tuple[str, ...] = WORDS, name: str = "made") -> xr.DataArray:
    upper = np.triu(values, 1)
    labels = [word[0].upper() for word in words]
    return xr.DataArray(
        upper + upper.T,
        dims=("word", "other_word"),
        coords={
            "word": list(words), "group": ("word", labels),
            "other_word": list(words), "other_group": ("other_word", labels),
        },
        attrs={"distance": name, "description": "made up", "unit": "", "metric": False},
    )  # fmt: skip


def noise(seed: int) -> Floats:
    return np.exp(0.3 * np.random.default_rng(seed).standard_normal((28, 28)))


def real(values: Floats) -> Floats:
    """Words of one group are half as far apart."""
    return np.where(CODES[:, None] == CODES, values / 2, values)


def judged(distances: xr.DataArray, group: str | None = None) -> tuple[float, float]:
    """AUC and its p-value, of one group or overall."""
    found = contrast(distances, GROUPS, permutations=99)
    row = found.overall if group is None else found.groups.set_index("group").loc[group]
    return float(row["auc"]), float(row["p"])


# The definition, written out --------------------------------------------------------------


def ranks_written_out(values: list[float]) -> list[float]:
    """Number of smaller values, and half of the equal ones and one more."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def residuals_written_out(values: list[float], columns: list[list[float]]) -> list[float]:
    """Take each column out of the values, the columns being made orthogonal one by one."""
    basis: list[list[float]] = []
    for column in [[1.0] * len(values), *columns]:
        left = list(column)
        for _ in range(2):  # twice is enough
            for unit in basis:
                inner = sum(a * b for a, b in zip(left, unit, strict=True))
                left = [a - inner * b for a, b in zip(left, unit, strict=True)]
        size = sum(a * a for a in left) ** 0.5
        if size > 1e-8 * sum(a * a for a in column) ** 0.5:
            basis.append([a / size for a in left])
    for unit in basis:
        inner = sum(a * b for a, b in zip(values, unit, strict=True))
        values = [a - inner * b for a, b in zip(values, unit, strict=True)]
    return values


def pairs_of(matrix: xr.DataArray) -> list[float]:
    return [float(matrix.values[i, j]) for i, j in combinations(range(len(matrix)), 2)]


def length_of(words: tuple[str, ...] = WORDS, seed: int = 0) -> dict[str, float]:
    drawn = np.random.default_rng(seed).integers(2, 9, len(words))
    return {word: float(value) for word, value in zip(words, drawn, strict=True)}


@pytest.mark.parametrize("digits", [12, 0])  # with 0 there are many ties
@pytest.mark.parametrize("asked", [("hub",), ("curve",), ("length",), ("length", "hub", "curve")])
def test_against_the_definition(asked: tuple[str, ...], digits: int) -> None:
    words = WORDS[:9]
    rng = np.random.default_rng(5)
    distances = labelled(np.round(rng.exponential(3, (9, 9)), digits), words)
    curve = labelled(np.round(rng.exponential(3, (9, 9)), digits), words)
    values = length_of(words)
    known: dict[str, Correction] = {
        "hub": HubCorrection(),
        "curve": PairCovariate("curve", curve),
        "length": WordCovariate("length", values),
    }
    pairs = list(combinations(words, 2))
    columns = {
        "hub": [[float(word in pair) for pair in pairs] for word in words],
        "curve": [ranks_written_out(pairs_of(curve))],
        "length": [ranks_written_out([abs(values[a] - values[b]) for a, b in pairs])],
    }
    expected = pairs_of(distances)
    if "hub" in asked:
        least = min(value for value in expected if value > 0)
        logarithms = [math.log(value or least / 2) for value in expected]
        expected = residuals_written_out(logarithms, columns["hub"])
    others = [name for name in asked if name != "hub"]
    if others:
        ranks = ranks_written_out([round(value, 9) for value in expected])
        expected = residuals_written_out(ranks, [columns[name][0] for name in others])
    found = correct(distances, *(known[name] for name in asked))
    np.testing.assert_allclose(pairs_of(found), expected, atol=1e-8)
    np.testing.assert_array_equal(found.values, found.values.T)
    np.testing.assert_array_equal(np.diag(found), 0)
    assert found.attrs["distance"] == f"made | {', '.join(asked)}"
    assert found.attrs["unit"] == ("ranks" if others else "log ratio")
    assert not found.attrs["metric"]
    again = correct(distances, *(known[name] for name in reversed(asked)))
    np.testing.assert_allclose(again.values, found.values, atol=1e-8)


def test_hub_effects_in_closed_form() -> None:
    """For all pairs of W words: effect = (W - 1) / (W - 2) (the word's mean - the mean of all)."""
    full = np.log(labelled(noise(1)).values + np.eye(28))
    mean = full.sum() / (28 * 27)
    effect = 27 / 26 * (full.sum(axis=1) / 27 - mean)
    expected = full - mean - effect[:, None] - effect
    found = correct(labelled(noise(1)), HubCorrection()).values
    off = ~np.eye(28, dtype=bool)
    np.testing.assert_allclose(found[off], expected[off], atol=1e-8)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-7)


def test_what_is_corrected_already_is_taken_as_it_is() -> None:
    once = correct(labelled(noise(1)), PairCovariate("curve", labelled(noise(2))))
    twice = correct(once, HubCorrection())
    np.testing.assert_allclose(twice.values.sum(axis=1), 0, atol=1e-6)
    assert twice.attrs["distance"] == "made | curve | hub"
    again = correct(twice, HubCorrection())
    np.testing.assert_allclose(again.values, twice.values, atol=1e-8)


def test_distances_of_zero_have_word_effects_too() -> None:
    zero = labelled(noise(1))
    zero.values[0, 1] = zero.values[1, 0] = 0.0
    found = correct(zero, HubCorrection()).values
    assert np.isfinite(found).all()
    assert found[0, 1] == found[:2].min()
    np.testing.assert_array_equal(correct(labelled(np.zeros((28, 28))), HubCorrection()), 0.0)
    with pytest.raises(AnalysisError, match="a negative distance"):
        correct(labelled(noise(1) - 2), HubCorrection())


def test_regressing_out_is_correcting_by_a_pair_covariate() -> None:
    distance, baseline = labelled(noise(1), name="emd"), labelled(noise(2), name="curve")
    by_hand = correct(distance, PairCovariate("curve", baseline))
    xr.testing.assert_identical(regress_out(distance, baseline), by_hand)
    assert by_hand.attrs["distance"] == "emd | curve"


def test_a_distance_given_itself_is_nothing() -> None:
    distance = pairwise_distances(synthetic_scores(checkpoints=3), "probability_curve")
    np.testing.assert_array_equal(regress_out(distance, distance), 0.0)


# Where they must act, and where they must not ---------------------------------------------


def hubs(values: Floats) -> Floats:
    """The words of the first group are near to everything, and so to one another."""
    effect = np.where(CODES == 0, 0.4, 1.0) * np.exp(0.1 * np.arange(28) % 0.3)
    return values * effect[:, None] * effect


def by_curve(values: Floats) -> tuple[Floats, xr.DataArray]:
    """Groups are learnt one after the other, and distances answer to that alone."""
    time = CODES + 0.8 * np.random.default_rng(3).standard_normal(28)
    apart = (time[:, None] - time) ** 2
    return values * (0.05 + apart), labelled(apart, name="probability_curve")


def by_length(values: Floats) -> tuple[Floats, dict[str, float]]:
    """Long words are found in the later groups, and distances answer to length alone."""
    length = np.round(3 + 2 * CODES + 1.5 * np.random.default_rng(4).standard_normal(28))
    spread = values * (0.5 + np.abs(length[:, None] - length))
    return spread, dict(zip(WORDS, length.tolist(), strict=True))


def planted(kind: str, values: Floats) -> tuple[xr.DataArray, Correction]:
    if kind == "hub":
        return labelled(hubs(values)), HubCorrection()
    if kind == "curve":
        confounded, curve = by_curve(values)
        return labelled(confounded), PairCovariate("probability_curve", curve)
    confounded, length = by_length(values)
    return labelled(confounded), WordCovariate("length", length)


@pytest.mark.parametrize("kind", ["hub", "curve", "length"])
@pytest.mark.parametrize("seed", [11, 12])
def test_a_planted_effect_is_removed(kind: str, seed: int) -> None:
    distances, correction = planted(kind, noise(seed))
    group = "A" if kind == "hub" else None
    before, p_before = judged(distances, group)
    after, p_after = judged(correct(distances, correction), group)
    assert before > 0.57
    assert p_before <= 0.02
    without, _ = judged(labelled(noise(seed)), group)
    assert abs(after - without) < 0.07
    assert p_after > 0.02


@pytest.mark.parametrize("kind", ["hub", "curve", "length"])
@pytest.mark.parametrize("seed", [11, 12])
def test_a_real_effect_is_left(kind: str, seed: int) -> None:
    """With the same confounder beside it, and with one that has nothing to do with groups."""
    distances, correction = planted(kind, real(noise(seed)))
    after, p_after = judged(correct(distances, correction))
    assert after > 0.75
    assert p_after == 0.01
    unrelated: Correction = {
        "hub": HubCorrection(),
        "curve": PairCovariate("curve", labelled(noise(99))),
        "length": WordCovariate("length", length_of(seed=98)),
    }[kind]
    before, _ = judged(labelled(real(noise(seed))))
    after, p_after = judged(correct(labelled(real(noise(seed))), unrelated))
    assert abs(after - before) < 0.02
    assert p_after == 0.01


def test_hubs_that_hide_groups_are_taken_away() -> None:
    size = np.exp(np.random.default_rng(6).standard_normal(28))
    hidden = labelled(real(noise(6)) * size[:, None] * size)
    before, _ = judged(hidden)
    after, _ = judged(correct(hidden, HubCorrection()))
    open_to_see, _ = judged(labelled(real(noise(6))))
    assert before < 0.7 < 0.8 < after
    assert after > open_to_see - 0.1


# What is refused --------------------------------------------------------------------------


def test_other_words_are_refused() -> None:
    distance = labelled(noise(1))
    order = np.random.default_rng(0).permutation(28)
    with pytest.raises(AnalysisError, match="other words"):
        regress_out(distance, distance[order, order])
    with pytest.raises(AnalysisError, match="no baseline"):
        regress_out(distance)
    with pytest.raises(AnalysisError, match="no correction"):
        correct(distance)
    with pytest.raises(AnalysisError, match="'size': no value for 27 of 28 words: a1, a2, a3"):
        correct(distance, WordCovariate("size", {"a0": 1.0}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"b2": float("nan")}, "nan for the word 'b2'"),
        ({"b2": float("inf")}, "inf for the word 'b2'"),
        (dict.fromkeys(WORDS, 1.0), "1 for every word"),
    ],
)
def test_values_that_say_nothing_are_refused(changed: dict[str, float], said: str) -> None:
    with pytest.raises(AnalysisError, match=said):
        correct(labelled(noise(1)), WordCovariate("size", length_of() | changed))


def test_distances_that_are_none_are_refused() -> None:
    broken = labelled(noise(1))
    broken.values[1, 4] = broken.values[4, 1] = np.nan
    for arguments in ((broken, labelled(noise(2))), (labelled(noise(2)), broken)):
        with pytest.raises(AnalysisError, match="'a1' and 'a4' is not a finite number"):
            regress_out(*arguments)
    skew = labelled(noise(1))
    skew.values[1, 4] += 1
    with pytest.raises(AnalysisError, match="not the same in both directions"):
        correct(skew, HubCorrection())


def test_too_few_words() -> None:
    three = labelled(noise(1)[:3, :3], WORDS[:3])
    with pytest.raises(AnalysisError, match="3 words are too few to take hub out"):
        correct(three, HubCorrection())
    four = correct(labelled(noise(1)[:4, :4], WORDS[:4]), HubCorrection())
    assert four.values.any()


# Covariates from files --------------------------------------------------------------------

ODD = ("NA", "1984", 'say "so", twice', "naïve 色")


def write(folder: Path, text: str, name: str = "given.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_one_row_a_word(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeffword,log frequency,length\nnaïve 色,1.5,7\nNA,-2,2\n\n1984,3e1,4\n"
        '"say ""so"", twice",0,15\nanother,none,none\n',
    )
    found = read_covariate(path, ODD, "log frequency")
    assert found == WordCovariate(
        "log frequency",
        {"naïve 色": 1.5, "NA": -2.0, "1984": 30.0, 'say "so", twice': 0.0},
        "difference in log frequency of given.csv",
    )
    only = write(tmp_path, "word,size\na,1\nb,2\n")
    assert read_covariate(only, ["a", "b"]).name == "size"


def test_one_row_a_pair_and_a_square(tmp_path: Path) -> None:
    words = ("a", "b", "c")
    values = np.array([[0, 1, 2], [1, 0, 3.5], [2, 3.5, 0]])
    long = write(tmp_path, "word,other_word,apart\na,b,1\nc,a,2\nb,c,3.5\na,a,9\nb,a,1\nz,a,8\n")
    square = write(tmp_path, "word,c,b,z,a\nb,3.5,0,,1\na,2,1,,\nz,,,,\nc,,3.5,,2\n", "far.csv")
    for path, name in ((long, "apart"), (square, "far")):
        found = read_covariate(path, words)
        assert isinstance(found, PairCovariate)
        assert found.name == name
        np.testing.assert_array_equal(found.matrix.values, values)
        np.testing.assert_array_equal(found.columns(words), [[1], [2], [3]])


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("", None, "no column `word`"),
        ("name,size\na,1\n", None, "no column `word`"),
        ("word\na\nb\n", None, "no column of numbers"),
        ("word,x,y\na,1,2\nb,3,4\n", None, "2 columns of numbers; expected .* one of x, y"),
        ("word,x,y\na,1,2\nb,3,4\n", "z", "no column 'z'; expected one of x, y"),
        ("word,x\na,1\nb,many\n", None, "row 3: 'many' in the column 'x'"),
        ("word,x\na,1\nb,nan\n", None, "row 3: 'nan'"),
        ("word,x\na,1\nb,\n", None, "row 3: ''"),
        ("word,x\na,1\nb,2,3\n", None, "row 3 has 3 cells; expected 2"),
        ("word,x\na,1\nb,2\na,3\n", None, "row 4: 3 for 'a', which has 1 further up"),
        ("word,x,x\na,1,1\n", "x", "two columns 'x'"),
        ("word,other_word,x\nb,b,1\n", None, "no value for the words 'a' and 'b'"),
        ("word,other_word,x\na,b,1\nb,a,2\n", None, "2 for .* which has 1 further up"),
        ("word,a,b\na,0,1\nb,2,0\n", None, "2 for .* which has 1 further up"),
        ('word,x\n"a,1\n', None, "cannot be read"),
    ],
)
def test_files_that_are_wrong(text: str, column: str | None, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(AnalysisError, match=said) as refusal:
        read_covariate(path, ("a", "b"), column)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("kind", ["absent", "folder", "bytes"])
def test_what_is_no_text_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    if kind == "folder":
        path.mkdir()
    if kind == "bytes":
        path.write_bytes(b"word,x\n\xff\xfe\x00,1\n")
    with pytest.raises(AnalysisError, match="cannot be read"):
        read_covariate(path, ("a", "b"))


def test_a_word_that_the_file_has_not(tmp_path: Path) -> None:
    found = read_covariate(write(tmp_path, "word,x\na,1\n"), ("a", "b"))
    words: tuple[Any, ...] = ("a", "b")
    with pytest.raises(AnalysisError, match="'x': no value for 1 of 2 words: b"):
        found.columns(words)
