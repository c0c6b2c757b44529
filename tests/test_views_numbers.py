"""Sets by threshold, agreement and predictivity: what was planted is found, noise is not."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
import xarray as xr

from kntrace.archive import Run
from kntrace.cli import main
from kntrace.errors import AnalysisError, SettingsError
from kntrace.report.views import sections
from kntrace.testing import synthetic_run, synthetic_scores
from kntrace.views import VIEWS, Asked, compute_views, find_views
from kntrace.views.agreement import agreement, gram
from kntrace.views.lines import value_at
from kntrace.views.predictivity import balanced_accuracy, separation
from kntrace.views.thresholds import inverse_frequency, weighted_jaccard

GROUPS = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3", "b4"), "C": ("c1", "c2", "c3")}
CODES = np.array([0] * 4 + [1] * 4 + [2] * 3)
LAYERS, WIDTH = 2, 40


def drawn(checkpoints: int = 2, seed: int = 0, **other: Any) -> xr.Dataset:
    given = {"groups": GROUPS, "layers": LAYERS, "width": WIDTH, **other}
    return synthetic_scores(checkpoints=checkpoints, seed=seed, **given).load()


def with_values(name: str, value: np.ndarray, **other: Any) -> xr.Dataset:
    """A run whose score or activation is `value`, (checkpoint, word, prompt, layer * width)."""
    data = drawn(checkpoints=value.shape[0], prompts=value.shape[2], **other)
    data[name].values[:] = value.reshape(*value.shape[:3], LAYERS, -1)
    return data


def of_sets(sets: list[set[int]], prompts: int = 4) -> xr.Dataset:
    """Scores of 1 for each word's set at both checkpoints, and next to nothing elsewhere."""
    rng = np.random.default_rng(7)
    value = 0.01 * rng.random((2, len(sets), prompts, LAYERS * WIDTH)).astype(np.float32)
    for word, members in enumerate(sets):
        value[:, word, :, sorted(members)] = 1
    return with_values("score", value)


@pytest.mark.parametrize("name", ["threshold_sets", "turnover", "agreement"])
def test_intervals_of_shares_stay_within_their_bounds(name: str) -> None:
    """One word of a few is unlike all others, so that an interval would pass 0 or 1."""
    sets = [{*range(8)}] * 10 + [{*range(60, 68)}]
    lines = VIEWS[name].compute(Asked(of_sets(sets), floor=0.0)).tables["lines"]
    shares = lines[~lines["panel"].isin(["log_odds", "size"])]
    least = np.where(shares["line"].str.endswith("_minus_other"), -1.0, 0.0)
    held = shares["low"].notna()
    assert (shares["low"] >= least)[held].all()
    assert (shares["high"] <= 1)[held].all()
    assert ((shares["low"] <= shares["value"]) & (shares["value"] <= shares["high"]))[held].all()
    # Some would: else the test says nothing.
    assert (shares["low"] == 0).any() or (shares["high"] == 1).any()


# Sets by threshold


def test_threshold_sets_are_those_that_were_planted() -> None:
    """All words share 3 neurons, each group 5, every word has 4 of its own; by python's sets."""
    sets = [
        {0, 1, 75, *range(4 + 5 * group, 9 + 5 * group), *range(30 + 4 * word, 34 + 4 * word)}
        for word, group in enumerate(CODES)
    ]
    found = VIEWS["threshold_sets"].compute(Asked(of_sets(sets), floor=0.0))
    neurons, common = found.tables["neurons"], found.tables["common"]
    words = [word for members in GROUPS.values() for word in members]
    for word, members in zip(words, sets, strict=True):
        rows = neurons[neurons["word"] == word]
        assert set(rows["layer"] * WIDTH + rows["neuron"]) == members
        assert rows["weighted_score"].is_monotonic_decreasing
        for row in rows.to_dict("records"):
            having = sum(row["layer"] * WIDTH + row["neuron"] in other for other in sets)
            assert row["words"] == having
            assert row["weight"] == pytest.approx(max(np.log(11 / (1 + having)), 0))
    # More than 30 % of 11 words are 4 or more: what all share, and what groups of four share.
    limit = {n for n in range(80) if sum(n in one for one in sets) > 0.3 * 11}
    last = common[common["checkpoint"] == "step100"]
    assert set(last["layer"] * WIDTH + last["neuron"]) == limit
    assert {0, 1, 75} < limit

    def mean(less: set[int], same: bool) -> float:
        by_word = []
        for i, mine in enumerate(sets):
            others = [j for j in range(11) if j != i and (CODES[i] == CODES[j]) == same]
            shares = [len((mine & sets[j]) - less) / len((mine | sets[j]) - less) for j in others]
            by_word.append(np.mean(shares))
        return float(np.mean(by_word))

    for panel, less in (("shared", set()), ("shared_without_common", limit)):
        for role, same in (("same_group", True), ("other_group", False)):
            value = value_at(found.main, panel, role, "step100")["value"]
            assert value == pytest.approx(mean(less, same)), (panel, role)
    assert found.facts["shared_same_minus_other"]["low"] > 0.2
    assert found.facts["size"]["value"] == 12


def test_threshold_sets_of_noise_share_what_chance_gives() -> None:
    rng = np.random.default_rng(3)
    differences, off = [], []
    for _ in range(8):
        sets = [set(rng.permutation(80)[:10].tolist()) for _ in CODES]
        facts = VIEWS["threshold_sets"].compute(Asked(of_sets(sets, prompts=3), floor=0.0)).facts
        differences.append(facts["shared_same_minus_other"])
        off.append(facts["shared_other_group"]["value"] - facts["shared_matched"]["value"])
    outside = sum(not one["low"] < 0 < one["high"] for one in differences)
    assert outside <= 2
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(8)


def test_a_neuron_needs_whole_prompts_and_exactly_the_threshold_will_do() -> None:
    sets = [{0} for _ in CODES]
    data = of_sets(sets)
    score = data["score"].values
    score[..., 0, 1:] = 0.0
    score[:, :, :, 0, 5] = 0.25  # exactly a quarter of the largest
    score[:, :, :2, 0, 6] = 0.9  # in two of four prompts
    score[:, :, :3, 0, 7] = 0.9  # in three
    view = find_views(["threshold_sets"], {"threshold": "0.25"})[0]
    table = view.compute(Asked(data, floor=0.0)).tables["neurons"]
    assert set(table[table["word"] == "a1"]["neuron"]) == {0, 5, 7}
    view = find_views(["threshold_sets"], {"threshold": "0.25", "min_prompts": "2"})[0]
    table = view.compute(Asked(data, floor=0.0)).tables["neurons"]
    assert set(table[table["word"] == "a1"]["neuron"]) == {0, 5, 6, 7}
    with pytest.raises(SettingsError, match=r"min_prompts = '2\.8'; expected a whole number"):
        find_views(["threshold_sets"], {"min_prompts": "2.8"})
    with pytest.raises(AnalysisError, match="at least min_prompts = 5"):
        find_views(["threshold_sets"], {"min_prompts": "5"})[0].compute(Asked(data))


def test_prompts_under_the_floor_give_no_sets() -> None:
    data = of_sets([{1, 2} for _ in CODES])
    data["probability"].values[0] = 0.01
    data["probability"].values[1] = 0.5
    found = VIEWS["threshold_sets"].compute(Asked(data, floor=0.05))
    assert value_at(found.main, "size", "own", "step0")["value"] == 0
    assert value_at(found.main, "size", "no_floor", "step0")["value"] == 2
    assert value_at(found.main, "size", "own", "step100")["value"] == 2
    assert set(found.tables["common"]["checkpoint"]) == {"step100"}


def test_a_neuron_in_every_set_weighs_nothing() -> None:
    from scipy.sparse import csr_array

    sets = csr_array(np.array([[1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 1, 1]]))
    weight = inverse_frequency(sets)
    np.testing.assert_allclose(weight, [0, 0, 0, 0])  # log(3 / 3) for those in two of three
    own = csr_array(np.eye(4, dtype=np.int64))
    np.testing.assert_allclose(inverse_frequency(own), np.log(2))
    found = weighted_jaccard(own, inverse_frequency(own))
    np.testing.assert_allclose(found, np.eye(4), atol=1e-12)
    assert np.isnan(weighted_jaccard(sets, weight)).all()


# Agreement of prompts


def test_agreement_is_what_singular_values_say() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4, 30))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    largest = np.linalg.svd(unit)[1][0]
    assert agreement(gram(vectors)) == pytest.approx((largest**2 - 1) / 3)
    assert agreement(gram(np.tile(vectors[:1], (5, 1)))) == pytest.approx(1)
    assert agreement(gram(np.eye(6)[:4])) == pytest.approx(0)
    assert agreement(gram(vectors[:2])) == pytest.approx(abs(unit[0] @ unit[1]))
    assert np.isnan(agreement(gram(vectors[:1])))


def of_parts(common: float, of_word: float, noise: float = 1.0) -> xr.Dataset:
    """Scores made of what all share, what a word's prompts share, and noise; both checkpoints."""
    rng = np.random.default_rng(11)
    shape = (1, len(CODES), 4, LAYERS * WIDTH)
    value = common * rng.standard_normal(shape[-1]) + noise * rng.standard_normal(shape)
    value = value + of_word * rng.standard_normal((1, len(CODES), 1, shape[-1]))
    return with_values("score", np.concatenate([value, value]))


@pytest.mark.parametrize(
    ("parts", "own_differs", "raw", "centred"),
    [
        ((0.0, 3.0), True, (0.9, 0.1), (0.9, 0.1)),
        ((0.0, 0.0), False, (0.1, 0.1), (0.1, 0.1)),
        ((5.0, 0.0), False, (0.95, 0.95), (0.1, 0.1)),  # all prompts find the same neurons
    ],
    ids=["own", "noise", "common"],
)
def test_agreement_tells_own_prompts_from_others(
    parts: tuple[float, float],
    own_differs: bool,
    raw: tuple[float, ...],
    centred: tuple[float, ...],
) -> None:
    facts = VIEWS["agreement"].compute(Asked(of_parts(*parts))).facts
    for panel, (own, other) in (("agreement", raw), ("agreement_centred", centred)):
        assert facts[f"{panel}_own_last"]["value"] == pytest.approx(own, abs=0.05)
        assert facts[f"{panel}_other_group_last"]["value"] == pytest.approx(other, abs=0.05)
        difference = facts[f"{panel}_own_minus_other_last"]
        assert (difference["low"] > 0.2) == own_differs
        if not own_differs:
            assert abs(difference["value"]) < 0.03
        # Shuffled neurons agree on nothing, whatever was planted.
        assert facts[f"{panel}_matched_last"]["value"] < 0.2


# Predictivity


def activations(label: tuple[float, float], seed: int = 0) -> xr.Dataset:
    """Noise of words and prompts; neuron 3 also holds group A, as strongly as `label` says."""
    rng = np.random.default_rng(seed)
    shape = (2, len(CODES), 4, LAYERS * WIDTH)
    value = 0.3 * rng.standard_normal(shape)
    value += rng.standard_normal((2, len(CODES), 1, shape[-1]))
    for checkpoint, strength in enumerate(label):
        value[checkpoint, CODES == 0, :, 3] += strength
    return with_values("activation", value.astype(np.float32))


def test_predictivity_finds_a_neuron_that_knows_a_group() -> None:
    view = find_views(["predictivity"], {"top": "1", "null": "30"})[0]
    found = view.compute(Asked(activations((0.0, 9.0))))
    groups = found.tables["groups"].set_index(["checkpoint", "split", "group"])["own"]
    assert groups["step100", "by_words", "A"] == 1
    assert groups["step0", "by_words", "A"] < 0.95
    assert groups["step100", "by_words", "B"] < 0.95


def test_predictivity_of_a_network_that_always_knew_is_not_learnt() -> None:
    """What the step-0 network reaches too is of the prompts' wording."""
    view = find_views(["predictivity"], {"top": "1", "null": "30"})[0]
    data = activations((9.0, 9.0))
    for checkpoint in (0, 1):
        for code, neuron in ((1, 4), (2, 5)):
            data["activation"].values[checkpoint, code == CODES, :, 0, neuron] += 9
    facts = view.compute(Asked(data)).facts
    for split in ("by_prompts", "by_words"):
        assert facts[split]["first"] == facts[split]["last"] == 1
        assert not facts[split]["learnt_at_last"]


def test_predictivity_of_noise_stays_in_its_band() -> None:
    view = find_views(["predictivity"], {"top": "5", "null": "9"})[0]
    facts = [view.compute(Asked(activations((0.0, 0.0), seed))).facts for seed in range(5)]
    for split in ("by_prompts", "by_words"):
        assert sum(one[split]["learnt_at_last"] for one in facts) <= 2
    # A neuron that knows words one by one tells groups dealt at random apart too.
    assert np.mean([one["by_prompts"]["chance_last"] for one in facts]) > 0.7
    assert np.mean([one["by_words"]["last"] for one in facts]) == pytest.approx(0.5, abs=0.06)


def test_separation_is_what_each_neuron_gives_alone() -> None:
    rng = np.random.default_rng(2)
    train = (2 + rng.standard_normal((30, 6))).astype(np.float32)
    kinds = rng.random((2, 30)) < 0.4
    distance, threshold, above = separation(train, kinds)
    for label, neuron in np.ndindex(2, 6):
        one, rest = train[kinds[label], neuron], train[~kinds[label], neuron]
        root = np.sqrt(one.var() + rest.var())
        assert distance[label, neuron] == pytest.approx(
            abs(one.mean() - rest.mean()) / root, rel=1e-3
        )
        assert threshold[label, neuron] == pytest.approx((one.mean() + rest.mean()) / 2, rel=1e-5)
        assert above[label, neuron] == (one.mean() >= rest.mean())
    constant, _, _ = separation(np.full((30, 2), 0.1, dtype=np.float32), kinds)
    assert (constant < 0.1).all()


def test_always_saying_no_is_guessing() -> None:
    kind = np.arange(38) < 8
    test = np.zeros((38, 1), dtype=np.float32)
    found = balanced_accuracy(test, kind, np.ones(1, np.float32), np.ones(1, np.bool_))
    assert found == 0.5
    assert (test[:, 0] > 1)[~kind].mean() + (~kind).mean() == pytest.approx(30 / 38)


# What is not a number


def strict(text: str) -> Any:
    def refuse(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One group, one prompt a word, one checkpoint: hardly any control can be computed."""
    data = drawn(checkpoints=1, prompts=1, groups={"A": ("a1", "a2", "a3")})
    return synthetic_run(tmp_path_factory.mktemp("lonely") / "run", data)


def test_numbers_that_are_none_are_shown_as_none(
    lonely: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compute_views(lonely, formats=())
    assert any("NaN" in json.dumps(one.facts) for one in found.values())
    for path in (lonely.path / "analysis" / "views").glob("*.json"):
        strict(path.read_text(encoding="utf-8"))
    shown = sections(lonely, lambda view, kept: view.describe(kept))
    assert [one.name for one in shown] == list(VIEWS)
    text = " ".join(" ".join((*one.text, *one.pictures)) for one in shown)
    assert "nan" not in text.replace("NaN", "nan").lower().split()
    assert "nan%" not in text
    assert "None" not in text
    monkeypatch.setattr(
        sys, "argv", ["kntrace", "view", str(lonely.path), "all", "--json", "--no-figures"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert set(strict(capsys.readouterr().out)) == set(VIEWS)
