"""The verdict: fires where groups mean something, is not fooled by learning time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import xarray as xr
from scipy.stats import beta, mannwhitneyu, rankdata

from kntrace.contrasts import contrast
from kntrace.distance import pairwise_distances
from kntrace.errors import AnalysisError
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.testing import WORDS, synthetic_scores
from kntrace.verdict import (
    LIMITS,
    MEASURED,
    VALIDATED,
    Answer,
    Verdict,
    VerdictRule,
    account,
    combine,
)
from kntrace.wording import read_wording

LearningTime = Literal["random", "by_group"]


def judge(data: xr.Dataset, rule: VerdictRule | None = None) -> Verdict:
    distance = pairwise_distances(data, "identity")
    return (rule or VerdictRule()).judge(distance, read_wording(data).probability(), WORDS)


@pytest.mark.parametrize("seed", range(4))
def test_yes_where_groups_share_neurons(seed: int) -> None:
    found = judge(synthetic_scores(structure=0.3, seed=seed))
    assert found.answer == "yes"
    assert found.p <= 0.025
    assert found.low > 0.5
    assert found.leverage > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_no_where_groups_mean_nothing(seed: int) -> None:
    found = judge(synthetic_scores(structure=0.0, seed=seed))
    assert found.answer == "no"
    assert found.p > 0.025
    assert found.low < 0.5
    assert found.high < 0.6


@pytest.mark.parametrize("seed", range(6))
def test_learning_time_does_not_make_a_yes(seed: int) -> None:
    """Groups learnt one after the other convince the paper's measure, and not the verdict."""
    data = synthetic_scores(learning_time="by_group", seed=seed)
    found = judge(data)
    assert found.answer != "yes"
    assert found.time_share > 0.9
    paths = formation_processes(data, knowledge_neurons(data, 20))
    assert contrast(pairwise_distances(paths, "emd"), WORDS).overall["p"] <= 0.005


def written_out(data: xr.Dataset, seed: int, permutations: int) -> dict[str, float]:
    """The rule again, with loops over pairs, scipy's U and polynomial regression by hand."""
    distance = pairwise_distances(data, "identity").values
    curves = data["probability"].values.astype(np.float64).mean(axis=2)
    labels = list(data["group"].values)
    size = len(labels)
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    time = curves.mean(axis=0)
    total = np.array([time[i] + time[j] for i, j in pairs])
    total = (total - total.mean()) / total.std()
    columns = [
        np.ones(len(pairs)),
        rankdata([np.sum((curves[:, i] - curves[:, j]) ** 2) for i, j in pairs]),
        rankdata([abs(time[i] - time[j]) for i, j in pairs]),
        rankdata([abs(curves[-1, i] - curves[-1, j]) for i, j in pairs]),
        total,
        total**2,
    ]
    design, _ = np.linalg.qr(np.stack(columns, axis=1))
    ranks = rankdata([distance[i, j] for i, j in pairs])
    residual = np.round(ranks - design @ (design.T @ ranks), 9)

    def auc(of: Sequence[str]) -> float:
        near = [value for value, (i, j) in zip(residual, pairs, strict=True) if of[i] == of[j]]
        far = [value for value, (i, j) in zip(residual, pairs, strict=True) if of[i] != of[j]]
        return float(mannwhitneyu(far, near).statistic / (len(near) * len(far)))

    rng = np.random.default_rng(seed)
    by_time = sorted(range(size), key=lambda word: time[word])
    blocks = [list(block) for block in np.array_split(by_time, round(size / 4))]
    null, kept = [], []
    for _ in range(permutations):
        dealt = list(labels)
        for block in blocks:
            for place, source in zip(block, rng.permutation(block), strict=True):
                dealt[place] = labels[source]
        null.append(auc(dealt))
        stayed = [dealt[i] == dealt[j] for i, j in pairs if labels[i] == labels[j]]
        kept.append(np.mean(stayed))
    chance = np.mean([labels[i] == labels[j] for i, j in pairs])
    leverage = 1 - (np.mean(kept) - chance) / (1 - chance)
    found = auc(labels)
    groups = sorted(set(labels))
    means = {group: time[[label == group for label in labels]].mean() for group in groups}
    return {
        "auc": found,
        "null_mean": float(np.mean(null)),
        "p": (1 + sum(value >= found - 1e-12 for value in null)) / (1 + permutations),
        "leverage": float(leverage),
        "adjusted_auc": float(0.5 + (found - np.mean(null)) / leverage),
        "standard_error": float(np.std(null) / leverage),
        "time_share": float(
            np.sum([(means[label] - time.mean()) ** 2 for label in labels])
            / np.sum((time - time.mean()) ** 2)
        ),
    }


@pytest.mark.parametrize(
    ("structure", "learning_time"), list(product((0.0, 0.3), ("random", "by_group")))
)
def test_numbers_against_the_rule_written_out(
    structure: float, learning_time: LearningTime
) -> None:
    data = synthetic_scores(structure=structure, learning_time=learning_time, seed=3)
    found = judge(data, VerdictRule(permutations=60, seed=5))
    for name, value in written_out(data, 5, 60).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name


def numbers(answer: Answer = "yes", **changes: Any) -> Verdict:
    found = judge(synthetic_scores(groups=WORDS), VerdictRule(permutations=5))
    return replace(found, answer=answer, **changes)


def test_thresholds_decide() -> None:
    data = synthetic_scores(structure=0.3)
    assert judge(data).answer == "yes"
    assert judge(data, VerdictRule(min_leverage=1.0)).answer == "cannot tell"
    assert judge(data, VerdictRule(alpha=1e-4)).answer == "cannot tell"
    flat = synthetic_scores()
    assert judge(flat).answer == "no"
    assert judge(flat, VerdictRule(delta=0.01)).answer == "cannot tell"


def test_no_leverage_no_answer() -> None:
    """Groups learnt wholly one after the other cannot be told from learning time."""
    groups = {name: tuple(f"{name}{i}" for i in range(8)) for name in "ABCD"}
    data = synthetic_scores(groups=groups, structure=0.8, learning_time="by_group")
    found = VerdictRule().judge(
        pairwise_distances(data, "identity"), read_wording(data).probability(), groups
    )
    assert found.leverage < 0.25
    assert found.answer == "cannot tell"
    assert "learning time" in found.reason


def test_a_few_words_cannot_tell() -> None:
    groups = {"A": ("ant", "bat"), "B": ("red", "blue")}
    data = synthetic_scores(groups=groups, structure=0.9)
    found = VerdictRule().judge(
        pairwise_distances(data, "identity"), read_wording(data).probability(), groups
    )
    assert found.answer == "cannot tell"
    assert "4 words are too few" in found.reason


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("yes", "yes"), "yes"),
        (("no", "no"), "no"),
        (("yes", "no"), "cannot tell"),
        (("yes", "cannot tell"), "cannot tell"),
        (("cannot tell", "no"), "cannot tell"),
        (("cannot tell", "cannot tell"), "cannot tell"),
        (("yes", "yes", "no"), "cannot tell"),
    ],
)
def test_wordings_must_agree(answers: tuple[Answer, ...], expected: Answer) -> None:
    verdicts = {f"w{i}": numbers(answer, wording=f"w{i}") for i, answer in enumerate(answers)}
    found = combine(verdicts)
    assert found.answer == expected
    if len(set(answers)) > 1:
        assert all(f"w{i}: {answer}" in found.reason for i, answer in enumerate(answers))


def test_the_weakest_evidence_is_shown() -> None:
    yes = {"a": numbers(p=0.001, wording="a"), "b": numbers(p=0.02, wording="b")}
    assert combine(yes).wording == "b"
    no = {
        "a": numbers("no", high=0.59, wording="a"),
        "b": numbers("no", high=0.52, wording="b"),
    }
    assert combine(no).wording == "a"
    mixed = {"a": numbers("yes", wording="a"), "b": numbers("no", wording="b")}
    assert combine(mixed).wording == "b"
    assert combine({"a": yes["a"]}) == yes["a"]
    with pytest.raises(AnalysisError, match="no verdicts"):
        combine({})


def test_survives_json() -> None:
    found = judge(synthetic_scores())
    assert Verdict.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


def test_states_what_was_measured_and_its_limits() -> None:
    null = [row for row in MEASURED if not row.meant]
    assert sum(row.suites for row in MEASURED) == 102
    assert all(row.yes + row.no + row.cannot_tell == row.suites for row in MEASURED)
    assert (sum(row.yes for row in null), sum(row.suites for row in null)) == (1, 46)
    assert VALIDATED
    assert all(row.yes + row.no + row.cannot_tell == row.suites > 0 for row in VALIDATED)
    assert str(replace(null[0], yes=1, suites=18)) == "1 of 18 (0-27 %)"
    rule = VerdictRule()
    assert rule.measured == MEASURED
    assert rule.limits == LIMITS
    assert replace(rule, permutations=9999, seed=4).measured == MEASURED
    for changes in ({"alpha": 0.05}, {"block": 5}, {"permutations": 99}):
        other = replace(rule, **changes)
        assert other.measured == ()
        assert "No error rate" in other.limits[0]


def test_a_verdict_is_never_told_without_what_belongs_to_it() -> None:
    verdicts = {"grouped": numbers("yes", wording="grouped"), "neutral": numbers("no")}
    text = account(combine(verdicts), verdicts)
    assert max(map(len, text.splitlines())) <= 80
    flowing = " ".join(text.split())
    assert "cannot tell: the wordings of the questions do not agree" in flowing
    for limit in LIMITS:
        assert " ".join(limit.split()) in flowing
    for row in MEASURED:
        assert row.world in flowing
    for name, found in verdicts.items():
        line = next(line for line in text.splitlines() if line.startswith(name))
        for number in (found.adjusted_auc, found.low, found.high, found.p):
            assert f"{number:.3f}" in line
        assert f"{found.leverage:.2f}" in line
        assert f"{found.time_share:.0%}" in line
    for threshold in ("leverage under 0.25", "p <= 0.025", "ends below 0.6"):
        assert threshold in flowing
    other = account(verdicts["neutral"], verdicts, VerdictRule(alpha=0.05))
    assert "No error rate was measured" in other
    assert MEASURED[0].world not in other


def test_rates_have_exact_intervals() -> None:
    for row in MEASURED:
        low = beta.ppf(0.025, row.yes, row.suites - row.yes + 1) if row.yes else 0.0
        high = beta.ppf(0.975, row.yes + 1, row.suites - row.yes) if row.yes < row.suites else 1.0
        assert row.yes_interval == pytest.approx((low, high))


@pytest.mark.parametrize(
    "changes",
    [
        {"block": 1},
        {"alpha": 0},
        {"alpha": 1.5},
        {"delta": 0.6},
        {"min_leverage": 0},
        {"permutations": 0},
    ],
)
def test_impossible_thresholds_are_refused(changes: Mapping[str, Any]) -> None:
    with pytest.raises(AnalysisError, match=next(iter(changes))):
        VerdictRule(**changes)


def test_other_data_are_refused() -> None:
    data = synthetic_scores()
    distance = pairwise_distances(data, "identity")
    probability = read_wording(data).probability()
    rule = VerdictRule(permutations=5)
    with pytest.raises(AnalysisError, match="'probability_curve'"):
        rule.judge(pairwise_distances(data, "probability_curve"), probability, WORDS)
    with pytest.raises(AnalysisError, match="words"):
        rule.judge(distance, probability.isel(word=slice(None, None, -1)), WORDS)
    with pytest.raises(AnalysisError, match="in no group"):
        rule.judge(distance, probability, {"Animals": WORDS["Animals"]})
    with pytest.raises(AnalysisError, match="finite"):
        rule.judge(distance * np.nan, probability, WORDS)
