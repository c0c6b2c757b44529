"""Patterns, stages and schedules: which checkpoints of a repository are taken."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest

from hub_server import HubServer
from hub_suites import FAMILIES, refusal, serve
from kntrace.suite import (
    PAPER_STEPS,
    Checkpoint,
    find_suite,
    find_weights,
    load_suite,
)
from kntrace.suite.schedules import read_steps, select

PYTHIA = [0, *(2**power for power in range(10)), *range(1000, 143_001, 1000)]


PATTERN = r"^(?P<stage>warm|long)?_?b(?P<step>\d+k?)(_(?P<tokens>[\d.]+[BT]))?$"


def test_other_names_by_a_pattern(hub: HubServer, tmp_path: Path) -> None:
    names = ["b10_1.5B", "b2k_0.1T", "long_b7", "warm_b3", "step5"]
    serve(hub, tmp_path, "a/b", *names)
    found = find_suite("a/b", pattern=PATTERN)
    assert [(item.label, item.stage, item.step, item.tokens) for item in found.checkpoints] == [
        ("long_b7", "long", 7, None),
        ("b10_1.5B", "long", 10, 1_500_000_000),
        ("b2k_0.1T", "long", 2000, 10**11),
        ("warm_b3", "warm", 3, None),
    ]
    assert found.aside == ("main", "step5")
    only = load_suite("a/b", pattern=r"_(?P<tokens>[\d.]+[BT])$")
    assert [(item.step, item.tokens) for item in only] == [
        (1_500_000_000, 1_500_000_000), (10**11, 10**11),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        ("(", ["pattern '('", "expected a regular expression"]),
        ("step", ["no group is called step or tokens"]),
        (r"(?P<stpe>\d+)", ["a group is called 'stpe'", "Did you mean 'step'?"]),
        (r"(?P<step>[a-z]+)", ["its group 'step' finds 'main' in 'main'"]),
        (r"zzz(?P<step>\d+)", ["the pattern finds nothing in main, step5"]),
    ],
)
def test_patterns_that_are_none(
    hub: HubServer, tmp_path: Path, pattern: str, parts: list[str]
) -> None:
    serve(hub, tmp_path, "a/b", "step5")
    message = refusal("a/b", pattern=pattern)
    for part in parts:
        assert part in message


def test_stages_are_chosen_by_name(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path, "a/b", *FAMILIES["allenai/OLMo-2-1124-7B"][0])
    assert [item.step for item in load_suite("a/b", stage="stage2-ingredient1")] == [500, 1000]
    assert [i.step for i in load_suite("a/b", stage="stage1", steps="log:2")] == [150, 928646]
    assert load_suite("a/b", steps="500").checkpoints[0].stage == "stage2-ingredient1"
    message = refusal("a/b", steps="1000")
    assert "several checkpoints are at step 1000: stage2-ingredient1-step1000-tokens5B" in message
    assert "--stage" in message
    assert "--stage" in refusal("a/b", steps="log:3")
    message = refusal("a/b", stage="stage3")
    assert "no stage 'stage3'" in message
    assert "expected stage1, stage2-ingredient1, stage2-ingredient2" in message
    assert "Did you mean 'stage1'?" in refusal("a/b", stage="stgae1")
    serve(hub, tmp_path, "a/plain", "step1")
    assert "no checkpoint's name says a stage" in refusal("a/plain", stage="stage1")


# Schedules


@pytest.fixture
def pythia(hub: HubServer, tmp_path: Path) -> str:
    serve(hub, tmp_path, "EleutherAI/pythia-70m", *(f"step{step}" for step in PYTHIA))
    return "EleutherAI/pythia-70m"


def test_schedules(pythia: str) -> None:
    def steps(schedule: Any) -> list[int | None]:
        return [item.step for item in load_suite(pythia, steps=schedule)]

    assert steps(None) == steps("all") == steps("log:154") == steps("linear:154") == PYTHIA
    assert tuple(steps("paper")) == PAPER_STEPS
    assert steps("every:50000") == [0, 50_000, 100_000]
    assert steps("linear:3") in ([0, 71_000, 143_000], [0, 72_000, 143_000])
    assert steps("log:1") == [143_000]
    assert steps(" log : 2 ") == [0, 143_000]
    assert steps("16,0,2") == [0, 2, 16]
    twelve = steps("log:12")
    assert (len(twelve), twelve[0], twelve[-1]) == (12, 0, 143_000)
    ratios = [(b + 1) / (a + 1) for a, b in itertools.pairwise(filter(None, [*twelve]))]
    assert max(ratios) / min(ratios) < 3


def test_an_even_choice_is_the_best_there_is() -> None:
    """Against every choice of that many, tried one after the other."""
    rng = random.Random(3)
    for _ in range(60):
        steps = sorted(rng.sample(range(200), rng.randint(2, 9)))
        count = rng.randint(2, len(steps))
        kind = rng.choice(["log", "linear"])
        place = math.log1p if kind == "log" else float
        low, high = place(steps[0]), place(steps[-1])
        targets = [low + (high - low) * i / (count - 1) for i in range(count)]

        def off(chosen: Any, place: Any = place, targets: Any = targets) -> float:
            pairs = zip(chosen, targets, strict=True)
            return sum(abs(place(step) - target) for step, target in pairs)

        series = [Checkpoint(str(step), step, None, "/x", None) for step in steps]
        found = [item.step for item in select("x", series, read_steps(f"{kind}:{count}"))]
        best = min(off(chosen) for chosen in itertools.combinations(steps, count))
        assert len(found) == count
        assert off(found) == pytest.approx(best)


def test_steps_that_are_not_there(pythia: str) -> None:
    message = refusal(pythia, steps="0,1500,700,150000")
    assert "no checkpoint at step 700 (its neighbours are step512 and step1000)" in message
    assert "1500 (its neighbours are step1000 and step2000)" in message
    assert "150000 (the last is step143000)" in message
    assert "log:155 asks for more than the 154 checkpoints there are" in refusal(
        pythia, steps="log:155"
    )
    assert "no step is a multiple of 7" not in refusal(pythia, steps="3")
    assert "every:0" in refusal(pythia, steps="every:0")


def test_no_step_of_that_kind(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path, "a/b", "step5", "step7")
    assert "no step is a multiple of 4; expected steps among those there are, 5 to 7" in refusal(
        "a/b", steps="every:4"
    )
    serve(hub, tmp_path, "a/named", "early")
    assert "no checkpoint's step is known, which log:2 needs" in refusal("a/named", steps="log:2")


def test_154_checkpoints_are_asked_for_together(pythia: str, hub: HubServer) -> None:
    load_suite(pythia)
    found = find_suite(pythia, steps="log:40")
    find_weights(found.checkpoints, found.commits, ask=False)
    assert hub.count("/api/models") == 4
    hub.requests.clear()
    found = find_suite(pythia)
    # One after the other they would never be answered.
    hub.gather("/api/models", 8)
    weights = find_weights(found.checkpoints, found.commits, ask=True)
    assert hub.count("/api/models") == 156
    assert {(w.format, w.cached) for w in weights.values()} == {("safetensors", False)}
