"""The validation: fresh seeds, exact intervals, and docs and package that say what was recorded."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from kntrace.distance import pairwise_distances
from kntrace.grow import WORLDS, grow
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.study import load_study
from kntrace.sweep import run
from kntrace.testing import WORDS, synthetic_scores
from kntrace.verdict import LIMITS, VALIDATED, VALIDATED_ON, VerdictRule
from kntrace.wording import read_wording

ROOT = Path(__file__).parents[1]
HOME = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def rates():
    """The script, as if it was run where it lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOME))
        yield importlib.import_module("error_rates")


@pytest.fixture(scope="module")
def cases(rates):
    return sys.modules["cases"]


def line(cases: Any, name: str, seed: int, p: float = 0.5, answer: str = "no") -> dict[str, Any]:
    """A record of a suite in which every test gave `p`."""
    case = cases.CASES[name]
    distances = ("emd", "emd_euclidean", "identity")
    full = [*distances, *(f"{one} | probability_curve" for one in distances), "probability_curve"]
    wordings = ("grouped", "neutral")
    numbers = {"auc": 0.5, "p": p, "share_above": 0.4, "chance": 0.4, "share_p": p}
    return {
        "case": name,
        "seed": seed,
        "verdict": answer,
        "verdicts": {wording: {"answer": answer, "p": p} for wording in wordings},
        "overall": {wording: dict.fromkeys(full, numbers) for wording in wordings},
        "learnt": dict.fromkeys(wordings, 0.9),
        "recipe": {"world": case.world, **cases.RECIPE, **case.recipe},
        "settings": {**cases.SETTINGS, **case.settings},
        "seconds": 1.0,
        "rule": {"commit": cases.FROZEN},
    }


def test_further_distances_are_counted_where_they_were_recorded(rates, cases):
    old = [line(cases, "flat", 100 + number) for number in range(3)]
    assert "None of these 3 suites" in rates.further(old)
    new = [line(cases, "structured", 100 + number, p=0.01) for number in range(2)]
    for one in new:
        numbers = one["overall"]["grouped"]["emd"]
        one["overall"]["grouped"] |= {"jaccard": numbers, "w2 | hub": numbers}
    text = rates.further([*old, *new])
    assert "2 of the 5 suites" in text
    assert "In no suite of: flat." in text
    table = dict(row.strip("| ").split(" | ") for row in text.splitlines() if row[:1] == "|")
    assert table["Jaccard"] == table["W2, word effects out"] == "2/2 [16, 100]"
    assert table["Jaccard, curves regressed out"] == "–"


@pytest.mark.parametrize(("hits", "of"), [(0, 72), (0, 71), (1, 18), (7, 7), (13, 40), (1, 1)])
def test_intervals_are_exact(rates, hits, of):
    low, high = rates.Rate(hits, of).interval
    assert low == pytest.approx(beta.ppf(0.025, hits, of - hits + 1) if hits else 0)
    assert high == pytest.approx(beta.ppf(0.975, hits + 1, of - hits) if hits < of else 1)


def test_72_suites_without_a_false_yes_are_what_it_takes(rates, cases):
    enough = [line(cases, "flat", 100 + number) for number in range(72)]
    assert "shown to be at most 5 %" in rates.state(enough)
    assert "not shown to be 5 % or less" in rates.state(enough[:71])
    enough[3] = line(cases, "flat", 103, answer="yes")
    assert "not shown to be 5 % or less" in rates.state(enough)


def test_cases_are_of_worlds_that_there_are_and_grow_evenly(cases):
    assert {case.world for case in cases.CASES.values()} <= set(WORLDS)
    assert all(name == case.name for name, case in cases.CASES.items())
    seeds = range(100, 112)
    keys = list(cases.order(list(cases.CASES), seeds))
    assert len(set(keys)) == len(keys) == 12 * len(cases.CASES)
    assert min(seed for _, seed in keys) >= cases.FIRST_SEED
    done = Counter()
    for name, seed in keys:
        assert seed == 100 + done[name], "a case's seeds come in order"
        done[name] += 1
        # Until the most frequent ones are through.
        if max(done.values()) < 12:
            rounds = [done[one] / case.often for one, case in cases.CASES.items()]
            assert max(rounds) - min(rounds) <= max(1 / case.often for case in cases.CASES.values())


def written(tmp_path: Path, lines: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (tmp_path / "suites.jsonl").write_text(text)
    return tmp_path


def test_records_of_anything_else_are_refused(rates, cases, tmp_path):
    good = line(cases, "flat", 100)
    assert rates.read(written(tmp_path, [good])) == [good]
    for change, message in (
        ({"seed": 99}, "used before"),
        ({"rule": {"commit": "abc"}}, "another rule"),
        ({"recipe": {**good["recipe"], "steps": 6}}, "grown otherwise"),
        ({"settings": {"rule": "midpoint", "nodes": 8}}, "scored otherwise"),
        ({"seed": 100}, "twice"),
    ):
        with pytest.raises(SystemExit, match=message):
            rates.read(written(tmp_path, [good, {**good, "seed": 101, **change}]))


def test_the_tables_count(rates, cases):
    lines = [line(cases, "flat", 100 + n, p=(n + 0.5) / 40) for n in range(40)]
    lines += [line(cases, "confounded", 100 + n, p=0.001, answer="yes") for n in range(8)]
    lines += [line(cases, "structured", 100, p=0.001, answer="cannot tell")]
    text = rates.verdicts(lines)
    assert "| flat | nothing | 0 | 40 | 0 | 0/40 [0, 9] |" in text
    assert (
        "| flat, frequency mildly along the groups | nothing | 8 | 0 | 0 | 8/8 [63, 100] |" in text
    )
    assert "| structured | meaning | 0 | 0 | 1 | 0/1 [0, 98] |" in text
    row = next(one for one in rates.rejections(lines, "neutral").splitlines() if "| flat |" in one)
    assert row == "| flat |" + " 2/40 [1, 17] |" * len(rates.TESTS)
    fit = rates.uniformity(lines).splitlines()
    assert fit[2].startswith("| flat | 40 | 1.000 |")
    assert fit[3].startswith("| flat, frequency mildly along the groups | 8 | < .001 |")
    assert len(fit) == 4, "only where groups mean nothing"
    assert rates.figure(lines).axes


def test_intervals_of_label_sets_come_from_suites(rates):
    assert rates.clustered([0.0] * 10) == "0.0 [0.0, 30.8]"
    assert rates.clustered([0.0, 0.1]) == "5.0"
    spread = [0.0] * 15 + [0.2] * 5
    low, high = map(float, rates.clustered(spread).split("[")[1].rstrip("]").split(", "))
    # The bootstrap of a mean of 20 suites: about two standard errors to either side of 5 %.
    error = 100 * np.std(spread) / np.sqrt(20)
    assert low == pytest.approx(5 - 1.96 * error, abs=1.2)
    assert high == pytest.approx(5 + 1.96 * error, abs=1.2)


def test_labels_without_meaning(rates):
    pseudo_labels = importlib.import_module("pseudo_labels")
    groups = {"a": ["u", "v", "w"], "b": ["x", "y"]}
    time = np.array([0.5, 0.4, 0.3, 0.2, 0.1]) * 1e6
    rng = np.random.default_rng(0)
    dealt = [pseudo_labels.labels("random", groups, time, rng) for _ in range(200)]
    assert all([len(one["a"]), len(one["b"])] == [3, 2] for one in dealt)
    assert all(sorted(one["a"] + one["b"]) == ["u", "v", "w", "x", "y"] for one in dealt)
    assert sum("u" in one["a"] for one in dealt) == pytest.approx(120, abs=30)
    dealt = [pseudo_labels.labels("time", groups, time, rng) for _ in range(200)]
    assert sum("u" in one["a"] for one in dealt) > 160
    assert sum("y" in one["a"] for one in dealt) < 60


def test_labels_are_judged_on_what_was_kept(rates, tmp_path):
    """Labels that mean nothing are not found where groups mean much."""
    pseudo_labels = importlib.import_module("pseudo_labels")
    keep_means = importlib.import_module("grown").keep_means
    scores = synthetic_scores(structure=0.5, wordings=("grouped", "neutral"), seed=1)
    keep_means(scores, tmp_path / "means" / "flat-100.npz")
    again = pseudo_labels.kept(tmp_path / "means" / "flat-100.npz")
    for wording in ("grouped", "neutral"):
        one, other = (
            pairwise_distances(data, "identity", wording=wording) for data in (scores, again)
        )
        np.testing.assert_allclose(one, other, atol=2e-3)
    found = pseudo_labels.judged(again, 100, sets=4)
    for kind in ("random", "time"):
        assert found[kind]["yes"] + found[kind]["no"] + found[kind]["cannot tell"] == 4
        assert found[kind]["yes"] <= 1
    (tmp_path / "labels.jsonl").write_text(
        json.dumps({"case": "flat", "seed": 100, **found}) + "\n"
    )
    assert list(pseudo_labels.todo(tmp_path, tmp_path / "labels.jsonl")) == []
    assert "| random | all in which groups mean nothing | 1 | 4 |" in rates.pseudo(
        rates.read_labels(tmp_path)
    )


# At the commit at which the rule was frozen: answer, p, AUC, adjusted AUC, leverage.
GOLDEN = {
    (0.3, "random", 0): ("yes", 0.001, 0.6857750, 0.6820273, 0.8771259),
    (0.0, "random", 1): ("no", 0.583, 0.4947494, 0.4928966, 0.9449228),
    (0.0, "by_group", 2): ("cannot tell", 1.000, 0.4735639, 0.4233306, 0.0818934),
    (0.1, "random", 3): ("yes", 0.008, 0.5705430, 0.5740041, 0.9338838),
}


@pytest.mark.parametrize("key", GOLDEN, ids=str)
def test_the_rule_is_still_the_one_that_was_validated(key):
    structure, learning_time, seed = key
    data = synthetic_scores(structure=structure, learning_time=learning_time, seed=seed)
    distance = pairwise_distances(data, "identity")
    found = VerdictRule().judge(distance, read_wording(data).probability(), WORDS)
    answer, *numbers = GOLDEN[key]
    assert found.answer == answer
    got = found.p, found.auc, found.adjusted_auc, found.leverage
    assert got == pytest.approx(tuple(numbers), abs=1e-6)


@pytest.fixture(scope="module")
def recorded(rates):
    return rates.read(rates.RECORDS)


def test_docs_say_what_was_recorded(rates, recorded):
    page = rates.page(recorded, rates.read_labels(rates.RECORDS))
    assert page in (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert rates.PICTURE.exists()


def test_the_package_says_what_was_recorded(rates, recorded):
    assert json.loads(rates.NUMBERS.read_text()) == rates.numbers(recorded)
    assert str(len(recorded)) in VALIDATED_ON
    assert sum(row.suites for row in VALIDATED) == len(recorded)
    for (case, mine), row in zip(rates.by_case(recorded), VALIDATED, strict=True):
        yes = sum(one["verdict"] == "yes" for one in mine)
        assert (row.world, row.suites, row.yes) == (case.title, len(mine), yes)
        assert row.meant == (case.truth != "nothing")
        assert row.yes_interval == pytest.approx(rates.Rate(yes, len(mine)).interval)
        if case.name in rates.NULLS:
            assert f"{row.world}: {row}" in LIMITS[0]
        elif not row.meant and row.yes:
            assert f"{row.world}: {row}" in LIMITS[1]


QUICK = {"layers": 2, "hidden": 32, "heads": 2, "steps": 120, "checkpoints": 4}


@pytest.mark.parametrize("name", ["flat_12", "names_mean", "names_first"])
def test_scoring_while_growing_is_growing_and_then_running(rates, cases, name, tmp_path):
    grown = importlib.import_module("grown").grown
    # Names of several tokens in the small world too.
    plan = replace(WORLDS["flat_12"], names=name != "flat_12")
    case = replace(cases.CASES[name], world="flat_12")
    quick = {"layers": 2, "hidden": 16, "heads": 2, "steps": 6, "batch": 8, "checkpoints": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WORLDS, "flat_12", plan)
        found = grown(case, 3, quick)
        recipe = {**cases.RECIPE, **quick}
        suite = grow(tmp_path / "suite", world="flat_12", seed=3, **recipe)
    study = load_study(tmp_path / "suite" / "study.yaml")
    settings = Settings(**{**cases.SETTINGS, **case.settings})
    expected = run(study, suite, tmp_path / "run", settings=settings, progress=silent).scores
    for variable in ("score", "probability", "rank"):
        one, other = found[variable], expected[variable].load()
        assert one.dims == other.dims
        scale = float(np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * scale)
    for name in ("word", "group", "wording", "step", "checkpoint"):
        assert list(found[name].values) == list(expected[name].values)


class AtOnce(Executor):
    """Does in this process, and at once, what it is given."""

    def submit(self, work, /, *args):
        future = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return future


QUICK = {"layers": 2, "hidden": 32, "heads": 2, "steps": 60, "checkpoints": 3}


@pytest.mark.slow
def test_three_seeds_in_small(rates, tmp_path, monkeypatch, capsys):
    """The whole way of `make validate-worlds`, stopped and gone on with."""
    validate = importlib.import_module("validate")

    def go_on(seeds: str, broken: int | None = None) -> str:
        command = ["--out", str(tmp_path), "--keep", "--quick", json.dumps(QUICK), "--seeds", seeds]
        given = validate.arguments([*command, "--cases", "structured_12", "flat_12"])
        with monkeypatch.context() as patch:
            if broken is not None:
                one = validate.one
                patch.setattr(
                    validate,
                    "one",
                    lambda name, seed, *rest: one(name, seed // (seed != broken), *rest),
                )
            validate.work(given, AtOnce())
        return capsys.readouterr().out

    go_on("100")
    record = tmp_path / "suites.jsonl"
    before = record.read_text()
    assert len(before.splitlines()) == 2
    # As a kill in the midst of writing leaves it; and one suite goes wrong.
    record.write_text(before + '{"case": "fl')
    told = go_on("100:103", broken=102)
    assert told.startswith("2 suites are there, 4 to grow")
    assert told.count("FAILED") == 2
    assert go_on("100:103").startswith("4 suites are there, 2 to grow")
    assert record.read_text().startswith(before)
    lines = [json.loads(one) for one in record.read_text().splitlines()]
    assert {(one["case"], one["seed"]) for one in lines} == {
        (name, seed) for name in ("structured_12", "flat_12") for seed in (100, 101, 102)
    }
    for one in lines:
        assert set(one["overall"]) == set(one["verdicts"]) == {"grouped", "neutral"}
        for test in (*rates.TESTS, *rates.FURTHER):
            assert test.recorded(one)
        assert one["recipe"]["steps"] == 60
        means = np.load(tmp_path / "means" / f"{one['case']}-{one['seed']}.npz")
        assert means["grouped_scores"].shape == (3, 12, 2, 128)
        assert np.isfinite(means["neutral_scores"]).all()
    with pytest.raises(SystemExit, match="grown otherwise"):
        rates.read(tmp_path)
