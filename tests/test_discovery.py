"""Suites in the wild: every family's names, on a hub of this machine and in users' own folders."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, snapshot_download

from hub_server import HubServer
from kntrace.errors import HubError, KntraceError, SuiteError
from kntrace.suite import (
    PAPER_STEPS,
    Checkpoint,
    check_revisions,
    find_suite,
    find_weights,
    known_suites,
    load_suite,
)
from kntrace.suite.known import nearest_repository
from kntrace.suite.names import read_name
from kntrace.suite.schedules import read_steps, select
from kntrace.suite.weights import read_weights

PYTHIA = [0, *(2**power for power in range(10)), *range(1000, 143_001, 1000)]


def model(folder: Path, said: Any = "", *, weights: str = "model.safetensors") -> Path:
    """Make what has the files of a checkpoint, and weights that nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"said": said}))
    (folder / weights).write_bytes(f"weights {said}".encode())
    return folder


def serve(hub: HubServer, home: Path, repository: str, *names: str, tags: bool = False) -> None:
    folders = {name: model(home / repository / str(i), name) for i, name in enumerate(names)}
    main = {"main": folders.pop("main", None) or model(home / repository / "main", "main")}
    if tags:
        hub.add(repository, main, tags=folders)
    else:
        hub.add(repository, main | folders)


def refusal(source: str | Path, kind: type[KntraceError] = SuiteError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_suite(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# Every family

FAMILIES = {
    "EleutherAI/pythia-14m": (
        ["step1000", "step0", "step512"],
        [(None, 0, None), (None, 512, None), (None, 1000, None), (None, 143000, None)],
    ),
    "EleutherAI/pythia-160m-data-seed1": (
        ["step1", "step143000"],
        [(None, 1, None), (None, 143000, None)],
    ),
    "allenai/OLMo-2-1124-7B": (
        [
            "stage2-ingredient2-step1000-tokens5B",
            "stage2-ingredient1-step1000-tokens5B",
            "stage2-ingredient1-step500-tokens3B",
            "step3000-tokens13B",
            "stage1-step150-tokens1B",
            "stage1-step928646-tokens3896B",
        ],
        [
            ("stage1", 150, 10**9),
            ("stage1", 3000, 13 * 10**9),
            ("stage1", 928646, 3896 * 10**9),
            ("stage2-ingredient1", 500, 3 * 10**9),
            ("stage2-ingredient1", 1000, 5 * 10**9),
            ("stage2-ingredient2", 1000, 5 * 10**9),
        ],
    ),
    "allenai/OLMo-1B-hf": (
        ["step738020-tokens3095B", "step20000-tokens84B"],
        [(None, 20000, 84 * 10**9), (None, 738020, 3095 * 10**9)],
    ),
    "LLM360/Amber": (
        ["ckpt_358", "ckpt_000"],
        [(None, 0, None), (None, 358, None), (None, 359, None)],
    ),
    "LLM360/Crystal": (
        ["CrystalCoder_phase2_checkpoint_000500", "CrystalCoder_phase1_checkpoint_055500"],
        [("phase1", 55500, None), ("phase2", 500, None)],
    ),
    "stanford-crfm/alias-gpt2-small-x21": (
        ["checkpoint-400000", "checkpoint-0", "checkpoint-50"],
        [(None, 0, None), (None, 50, None), (None, 400000, None)],
    ),
    "HuggingFaceTB/SmolLM2-135M-intermediate-checkpoints": (
        ["step-240000", "step-80000"],
        [(None, 80000, None), (None, 240000, None)],
    ),
    "HuggingFaceTB/SmolLM3-3B-checkpoints": (
        ["stage2-step-40000", "stage1-step-80000", "lc-4k-to-32k-step-20000"],
        [("stage1", 80000, None), ("stage2", 40000, None)],
    ),
    "swiss-ai/Apertus-8B-2509": (
        ["step2627139-tokens15T", "step50000-tokens210B"],
        [(None, 50000, 210 * 10**9), (None, 2627139, 15 * 10**12)],
    ),
    "OpenLLM-France/Lucie-7B": (
        ["step0005000", "step0753851"],
        [(None, 5000, None), (None, 753851, None)],
    ),
}


@pytest.mark.parametrize("repository", FAMILIES)
@pytest.mark.parametrize("tags", [False, True])
def test_a_family_is_listed_in_order(
    hub: HubServer, tmp_path: Path, repository: str, tags: bool
) -> None:
    names, expected = FAMILIES[repository]
    serve(hub, tmp_path, repository, *names, tags=tags)
    suite = load_suite(repository)
    assert [(item.stage, item.step, item.tokens) for item in suite] == expected
    assert suite.name == repository.partition("/")[2]
    assert {item.label for item in suite} <= {*names, "main"}
    for item in suite:
        assert (item.source, item.revision) == (repository, item.label)
    # However many checkpoints there are.
    assert hub.count("/api/models") == 2


def test_bloom_has_tags_and_one_branch(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path, "bigscience/bloom-560m-intermediate", "global_step1000", tags=True)
    found = find_suite("bigscience/bloom-560m-intermediate")
    assert [(item.step, item.revision) for item in found.checkpoints] == [(1000, "global_step1000")]
    assert found.aside == ("main",)


def test_the_known_entries_are_read_as_they_say() -> None:
    for suite in known_suites():
        found = read_name(suite.example, alone=True)
        said = (suite.step, suite.tokens, suite.stage)
        assert (found.step, found.tokens, found.stage) == said, suite.name


def test_a_series_of_repositories(hub: HubServer, tmp_path: Path) -> None:
    for seed in (0, 1):
        for step in (0, 20, 200, 1000):
            folder = model(tmp_path / f"{seed}-{step}", step)
            hub.add(f"google/multiberts-seed_{seed}-step_{step}k", {"main": folder})
    hub.add("google/multiberts-seed_0", {"main": folder})
    hub.page = 3
    suite = load_suite("google/multiberts-seed_0-step_*")
    assert suite.name == "multiberts-seed_0"
    assert [item.step for item in suite] == [0, 20_000, 200_000, 1_000_000]
    assert {(item.source, item.revision) for item in suite} == {
        (f"google/multiberts-seed_0-step_{step}k", "main") for step in (0, 20, 200, 1000)
    }
    assert "multiberts-seed_7-step" in refusal("google/multiberts-seed_7-step_*")
    assert "no repository of that name is on the hub" in refusal("google/absent*")


# What else a repository may hold


def test_main_is_no_checkpoint_of_its_own(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path, "a/b", "step5", "step7", "backup", "v2")
    found = find_suite("a/b")
    assert [item.label for item in found.checkpoints] == ["step5", "step7"]
    assert found.aside == ("backup", "main", "v2")
    # The same commit again says nothing new.
    hub.repositories["a/b"].branches["main"] = hub.repositories["a/b"].branches["step7"]
    assert find_suite("a/b").aside == ("backup", "v2")


def test_two_steps_of_one_commit_are_both_there(hub: HubServer, tmp_path: Path) -> None:
    folder = model(tmp_path / "x")
    hub.add("a/b", {"step0": folder, "step1": folder, "main": folder})
    assert [item.step for item in load_suite("a/b")] == [0, 1]


def test_a_repository_whose_names_say_nothing(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path, "a/b", "early", "late")
    suite = load_suite("a/b")
    assert [(item.label, item.step) for item in suite] == [
        ("early", None), ("late", None), ("main", None),
    ]  # fmt: skip
    hub.add("a/one", {"main": tmp_path / "a/b/0"})
    assert [item.label for item in load_suite("a/one")] == ["main"]


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


def test_154_checkpoints_take_no_time(pythia: str, hub: HubServer) -> None:
    load_suite(pythia)
    start = time.perf_counter()
    found = find_suite(pythia, steps="log:40")
    find_weights(found.checkpoints, found.commits, ask=False)
    assert time.perf_counter() - start < 0.5
    assert hub.count("/api/models") == 4
    hub.requests.clear()
    hub.delay = 0.05
    start = time.perf_counter()
    found = find_suite(pythia)
    weights = find_weights(found.checkpoints, found.commits, ask=True)
    # One after the other they would take 7.8 seconds.
    assert time.perf_counter() - start < 4
    assert hub.count("/api/models") == 156
    assert {(w.format, w.cached) for w in weights.values()} == {("safetensors", False)}


# Who refuses what


def test_repositories_that_are_not_to_be_had(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub, tmp_path, "a/b", "step5")
    hub.add("a/gated", {"main": tmp_path / "a/b/0"}, gated=True, readers=frozenset({"hf_good"}))
    hub.add("a/private", {"main": tmp_path / "a/b/0"}, private=True)
    hub.add("a/disabled", {"main": tmp_path / "a/b/0"}, disabled=True)
    assert "a/gated: the repository is gated" in refusal("a/gated")
    assert "hf auth login" in refusal("a/gated")
    assert "there is no such repository on the hub, or it is private" in refusal("a/private")
    assert "was disabled" in refusal("a/disabled")
    assert "Did you mean 'EleutherAI/pythia-410m'?" in refusal("EleutherAI/pythai-410m")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert len(load_suite("a/gated")) == 1
    hub.fail("/refs", 503)
    assert "the hub answered 503 (made to fail)" in refusal("a/b", HubError)
    hub.fail("/api/models/a/b", 403)
    assert "the hub refuses access (made to fail)" in refusal("a/b")
    assert "no repository can be called so" in refusal("a/b.git")


def test_a_name_without_its_owner() -> None:
    assert "Did you mean 'EleutherAI/pythia-410m-deduped'?" in refusal("pythia-410m-deduped")
    assert nearest_repository("nothing/of-the-kind") is None


def test_a_hub_that_is_not_there(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    for source in ("a/b", "a/b*"):
        message = refusal(source, HubError)
        assert "http://127.0.0.1:9 cannot be reached" in message
        assert "HF_HUB_OFFLINE=1" in message
    assert time.perf_counter() - start < 2


def test_something_that_is_no_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub, tmp_path, "a/b", "step5")
    monkeypatch.setattr("hub_server._described", lambda *_, **__: ["a log-in page"])
    assert "does not answer as the hub does" in refusal("a/b", HubError)


# Offline


def test_offline_what_is_in_the_cache_is_all_there_is(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub, tmp_path, "a/b", "step0", "step1", "part/step2", "step3")
    for name in ("step1", "part/step2", "main"):
        snapshot_download("a/b", revision=name)
    snapshot_download("a/b", revision="step3", allow_patterns="config.json")
    online = find_suite("a/b")
    weights = find_weights(online.checkpoints, online.commits, ask=False)
    assert {label for label, found in weights.items() if found.cached} == {"step1", "part/step2"}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    found = find_suite("a/b")
    assert [item.label for item in found.checkpoints] == ["step1", "part/step2"]
    assert found.commits == {name: online.commits[name] for name in ("step1", "part/step2")}
    assert found.notes == ("Offline: only what is in the cache.",)
    message = refusal("a/b", steps="0,1")
    assert "no checkpoint at step 0 (the first is step1)" in message
    assert "Offline, there are only the 3 of them in the cache." in message
    assert "HF_HUB_OFFLINE is set, and no checkpoint of this repository is in" in refusal("a/c")
    assert "no repository of that name is in the cache" in refusal("a/c*")
    # One that moved while there was a network is not the one in the cache.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert len(hub.requests) == asked
    hub.add("a/b", {"step1": model(tmp_path / "moved", "other")})
    moved = find_suite("a/b")
    weights = find_weights(moved.checkpoints, moved.commits, ask=False)
    assert not weights["step1"].cached


def test_offline_series(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (0, 20):
        hub.add(f"g/bert-step_{step}k", {"main": model(tmp_path / str(step), step)})
    snapshot_download("g/bert-step_20k")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [item.step for item in load_suite("g/bert-step_*")] == [20_000]


# Formats and sizes


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"model.safetensors": 5, "pytorch_model.bin": 7, "config.json": 1}, ("safetensors", 5)),
        ({"model-1-of-2.safetensors": 5, "model-2-of-2.safetensors": 4}, ("safetensors", 9)),
        ({"pytorch_model-1-of-1.bin": 7, "optimizer.bin": 9, "training_args.bin": 1}, ("bin", 7)),
        ({"q4.gguf": 3, "README.md": 2}, ("gguf", 3)),
        ({"config.json": 1, "optimizer.bin": 4}, ("none", 0)),
    ],
)
def test_formats(sizes: dict[str, int], expected: tuple[str, int]) -> None:
    assert read_weights(sizes) == expected


def test_sizes_and_formats_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    folders = {
        "step0": model(tmp_path / "0", weights="pytorch_model.bin"),
        "step1": model(tmp_path / "1", weights="q4.gguf"),
        "step2": model(tmp_path / "2", "longer"),
        "step3": model(tmp_path / "3", weights="README.md"),
    }
    hub.add("a/b", folders)
    hub.add("a/b", {"main": folders["step2"]})
    snapshot_download("a/b", revision="step0")
    hub.requests.clear()
    found = find_suite("a/b")
    weights = find_weights(found.checkpoints, found.commits, ask=True)
    assert [(w.format, w.bytes, w.cached) for w in weights.values()] == [
        ("bin", 8, True), ("gguf", 8, False), ("safetensors", 14, False), ("none", 0, False),
    ]  # fmt: skip
    assert hub.count("/revision/") == 3  # what is in the cache is not asked for


def test_a_snapshot_with_a_missing_shard_is_not_whole(hub: HubServer, tmp_path: Path) -> None:
    folder = model(tmp_path / "0", weights="model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / shards["b"]).write_bytes(b"more")
    hub.add("a/b", {"main": folder, "step0": folder})
    for names, whole in (([f"*{shards['a'][-30:]}", "*.json"], False), (["*"], True)):
        snapshot_download("a/b", revision="step0", allow_patterns=names)
        found = find_suite("a/b")
        assert find_weights(found.checkpoints, found.commits, ask=False)["step0"].cached is whole


# Suite files of any mixture


def test_a_suite_file_with_whole_places(hub: HubServer, tmp_path: Path) -> None:
    """SmolLM2: intermediate checkpoints in one repository, the final model in another."""
    serve(hub, tmp_path, "a/many", "step-10", "step-20", "step-30")
    hub.add("a/final", {"main": model(tmp_path / "final")})
    for step in (0, 2):
        hub.add(f"a/early-step_{step}", {"main": model(tmp_path / f"early{step}")})
    model(tmp_path / "own" / "step_40")
    model(tmp_path / "own" / "other_50")
    text = r"""
name: mixed
checkpoints:
- {repository: a/early-step_*, steps: all}
- {repository: a/many, steps: every:20}
- {folder: own, steps: all, pattern: 'step_(?P<step>\d+)'}
- {folder: own/other_50, step: 50}
- {label: final, step: 60, repository: a/final}
- {stage: stage2, folder: later, steps: '5'}
"""
    model(tmp_path / "later" / "checkpoint-5")
    model(tmp_path / "later" / "checkpoint-6")
    (tmp_path / "suite.yaml").write_text(text)
    suite = load_suite(tmp_path)
    assert [(item.label, item.stage, item.step) for item in suite] == [
        ("early-step_0", None, 0),
        ("early-step_2", None, 2),
        ("step-20", None, 20),
        ("step_40", None, 40),
        ("other_50", None, 50),
        ("final", None, 60),
        ("checkpoint-5", "stage2", 5),
    ]
    # What a run keeps of it needs no hub, and stays the same when more is published.
    hub.requests.clear()
    (tmp_path / "frozen.yaml").write_text(suite.to_yaml())
    assert load_suite(tmp_path / "frozen.yaml") == suite
    assert hub.requests == []
    assert [item.step for item in load_suite(tmp_path, steps="20,50")] == [20, 50]


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("repository: a/b, steps: papre", "'papre' is not a step"),
        ("repository: a/b, steps: all, step: 3", "has both steps and a step"),
        ("repository: a/b, steps: all, revision: x", "has both steps and a revision"),
        ("repository: a/b, pattern: 'x(?P<step>1)'", "has a pattern, but no steps"),
        ("repository: 'a/b*'", "has the repository 'a/b*'"),
        ("folder: x, stage: s", "x has the stage s, but no step"),
    ],
)
def test_entries_that_cannot_be(tmp_path: Path, entry: str, part: str) -> None:
    (tmp_path / "suite.yaml").write_text(f"checkpoints:\n- {{{entry}}}\n")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/suite.yaml:2: ")
    assert part in message


def test_revisions_of_a_suite_file_are_looked_up(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path, "a/b", "step5", "step7")
    commit = hub.repositories["a/b"].branches["step7"]

    def checked(*revisions: str) -> dict[str, str]:
        return check_revisions(
            tuple(Checkpoint(name, None, None, "a/b", name) for name in revisions)
        )

    assert checked("step5", commit)[commit] == commit
    assert hub.count("/api/models") == 2
    with pytest.raises(SuiteError, match=r"no revision 'stpe5'.*Did you mean 'step5'\?"):
        checked("step7", "stpe5")


# A user's own folders


def test_what_the_trainer_of_transformers_leaves(tmp_path: Path) -> None:
    run = tmp_path / "out"
    for step in (1000, 500):
        model(run / f"checkpoint-{step}")
    (run / "runs").mkdir()
    suite = load_suite(run)
    assert suite.name == "out"
    assert [item.label for item in suite] == ["checkpoint-500", "checkpoint-1000"]
    model(run, "the final model")
    assert find_suite(run).aside == ("out",)
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 1234}))
    assert [(item.label, item.step) for item in load_suite(run)][-1] == ("out", 1234)
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 1000}))
    found = find_suite(run)
    assert [item.step for item in found.checkpoints] == [500, 1000]
    model(run / "final")
    (run / "final" / "trainer_state.json").write_text("[")
    assert len(load_suite(run)) == 2
    (run / "trainer_state.json").unlink()
    (run / "config.json").unlink()
    assert "the step of final is unknown" in refusal(run)
    (run / "final" / "trainer_state.json").write_text(json.dumps({"global_step": 1500}))
    assert [(item.label, item.step) for item in load_suite(run)][-1] == ("final", 1500)


def test_checkpoints_a_folder_further_down(tmp_path: Path) -> None:
    for step in (10, 0):
        model(tmp_path / "x" / "checkpoints" / f"step_{step}")
    (tmp_path / "x" / "logs").mkdir()
    suite = load_suite(tmp_path / "x")
    assert (suite.name, [item.step for item in suite]) == ("x", [0, 10])
    assert suite.checkpoints[0].source == str(tmp_path / "x" / "checkpoints" / "step_0")
    model(tmp_path / "x" / "ema" / "step_5")
    message = refusal(tmp_path / "x")
    assert "several folders hold checkpoints: checkpoints, ema" in message
    assert str(tmp_path / "x" / "checkpoints") in message


def test_folders_by_a_pattern(tmp_path: Path) -> None:
    for name in ("a-7x", "a-12x", "b-1"):
        model(tmp_path / name)
    found = find_suite(tmp_path, pattern=r"a-(?P<step>\d+)x")
    assert [item.step for item in found.checkpoints] == [7, 12]
    assert found.aside == ("b-1",)
    assert "the pattern finds nothing in a-12x" in refusal(tmp_path, pattern=r"z(?P<step>\d)")


def test_stages_in_folders(tmp_path: Path) -> None:
    for name in ("stage2-step5", "stage1-step5", "stage1-step9"):
        model(tmp_path / name)
    assert [item.label for item in load_suite(tmp_path)] == [
        "stage1-step5", "stage1-step9", "stage2-step5",
    ]  # fmt: skip


def test_a_run_over_two_stages(tiny_suite: Any, tmp_path: Path) -> None:
    """Equal steps in two stages: archived side by side, and no axis of the figures."""
    import kntrace
    from kntrace.analysis import analyse
    from kntrace.figures.steps import StepAxis
    from kntrace.report.cautions import cautions

    places = [("stage2", "step0"), ("stage1", "step0"), ("stage1", "step100")]
    entries = "".join(
        f"- {{label: {stage}-{name}, stage: {stage}, step: {name[4:]}, "
        f"folder: {json.dumps(str(tiny_suite.folder / name))}}}\n"
        for stage, name in places
    )
    (tmp_path / "suite.yaml").write_text(f"checkpoints:\n{entries}")
    suite = load_suite(tmp_path)
    kntrace.run(tiny_suite.study, suite, tmp_path / "run", threads=1)
    run = kntrace.open_run(tmp_path / "run")
    assert run.suite == suite
    assert run.scores["step"].values.tolist() == [0, 100, 0]
    assert run.scores["checkpoint"].values.tolist() == [
        "stage1-step0", "stage1-step100", "stage2-step0",
    ]  # fmt: skip
    axis = StepAxis.of(run.scores)
    assert (axis.known, axis.places.tolist()) == (False, [0, 1, 2])
    assert (axis.edges[1:] > axis.edges[:-1]).all()
    analysis = analyse(run, permutations=9)
    said = " ".join(f"{caution.title} {caution.text}" for caution in cautions(run, analysis))
    assert "several stages of training" in said
    assert "stage1, stage2" in said


# The table of known suites


def test_the_table_names_suites_and_faults() -> None:
    names = [suite.name for suite in known_suites()]
    assert len(names) == len(set(names)) >= 14
    ids = [id_ for suite in known_suites() for id_ in suite.ids]
    assert len(ids) == len(set(ids))
    assert {"EleutherAI/pythia-410m-deduped", "LLM360/Amber"} <= {*ids}
    assert not any(character in id_ for id_ in ids for character in "{}[],")
    for suite in known_suites():
        for fault in suite.faults:
            assert fault.what.endswith(".")
        assert suite.note is None or suite.note.endswith(".")


def test_what_is_known_to_be_wrong_is_said(hub: HubServer, tmp_path: Path) -> None:
    for name in ("2.8b", "2.8b-deduped"):
        serve(hub, tmp_path, f"EleutherAI/pythia-{name}", "step5")
    said = " ".join(find_suite("EleutherAI/pythia-2.8b").notes)
    assert "86 of the 154 names" in said
    assert "86 of the 154" not in " ".join(find_suite("EleutherAI/pythia-2.8b-deduped").notes)


# The command line, in a process of its own


def kntrace(hub: HubServer, home: Path, *arguments: str, **more: str) -> tuple[int, str, str]:
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "kntrace", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | hub.environment(home) | {"COLUMNS": "120"} | more,
        cwd=home,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_lists_a_repository(hub: HubServer, tmp_path: Path) -> None:
    names = ["stage1-step10-tokens1B", "stage2-step4-tokens2B", "backup"]
    serve(hub, tmp_path, "a/b", *names)
    home = tmp_path / "home"
    code, printed, said = kntrace(hub, home, "suite", "a/b")
    assert (code, said) == (0, "")
    assert "1,000,000,000" in printed
    assert "Not of the series: backup, main." in printed
    code, printed, _ = kntrace(hub, home, "suite", "a/b", "--json", "--sizes", "--out", "my.yaml")
    assert code == 0
    found = json.loads(printed)
    assert found["checkpoints"][1] == {
        "label": names[1],
        "stage": "stage2",
        "step": 4,
        "tokens": 2 * 10**9,
        "source": "a/b",
        "revision": names[1],
        "commit": hub.repositories["a/b"].branches[names[1]],
        "bytes": 29,
        "format": "safetensors",
        "cached": False,
    }
    written = load_suite(home / "my.yaml")
    assert [item.stage for item in written] == ["stage1", "stage2"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["a/absent"], ["a/absent: there is no such repository on the hub, or it is private"]),
        (["a/gated"], ["a/gated: the repository is gated"]),
        (
            ["a/b", "--steps", "0,6"],
            ["no checkpoint at step 0 (the first", "6 (its neighbours are"],
        ),
        (["../wrong.yaml"], ["a/b: there is no revision 'stpe5'", "Did you mean 'step5'?"]),
        (["../clash"], ["step5 and step_5 are both at step 5"]),
    ],
)
def test_the_command_refuses_in_one_line(
    hub: HubServer, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    serve(hub, tmp_path, "a/b", "step5", "step7")
    hub.add("a/gated", {"main": tmp_path / "a/b/0"}, gated=True)
    for name in ("step5", "step_5"):
        model(tmp_path / "clash" / name)
    (tmp_path / "wrong.yaml").write_text("checkpoints:\n- {repository: a/b, revision: stpe5}\n")
    code, printed, said = kntrace(hub, tmp_path / "home", "suite", *arguments)
    assert code == 2
    assert said.count("\n") == 1
    for part in parts:
        assert part in said
    assert ("step_5" in printed) == (arguments == ["../clash"])  # listed, and then refused


def test_the_command_offline_is_done_at_once(hub: HubServer, tmp_path: Path) -> None:
    start = time.perf_counter()
    code, _, said = kntrace(hub, tmp_path / "home", "suite", "a/b", HF_HUB_OFFLINE="1")
    assert time.perf_counter() - start < 10  # a process with its imports; no waiting
    assert code == 2
    assert "HF_HUB_OFFLINE is set" in said
    assert hub.requests == []


def test_the_command_alone_shows_the_table(hub: HubServer, tmp_path: Path) -> None:
    code, printed, _ = kntrace(hub, tmp_path / "home", "suite")
    assert code == 0
    assert "Pythia (14M to 12B; Apache-2.0)" in printed
    assert "86 of the 154 names" in printed
    code, printed, _ = kntrace(hub, tmp_path / "home", "suite", "--json")
    assert {suite["name"] for suite in json.loads(printed)} == {s.name for s in known_suites()}
    assert hub.requests == []


@pytest.mark.slow
def test_a_grown_suite_runs_from_the_hub(hub: HubServer, tiny_suite: Any, tmp_path: Path) -> None:
    """The whole way: listed, chosen, downloaded, one download cut off."""
    hub.add_suite("owner/tiny", tiny_suite.folder)
    hub.cut("model.safetensors", after=1000)
    run = str(tmp_path / "run")
    arguments = ["run", str(tiny_suite.study_file), "owner/tiny", "--out", run, "--steps", "log:2"]
    code, _, said = kntrace(hub, tmp_path / "home", *arguments, "--json")
    assert code == 0, said
    commits = hub.repositories["owner/tiny"].branches
    fetched = {name for name, commit in commits.items() if hub.count(f"/{commit}/", "GET")}
    assert fetched == {"step0", "step100", "main"}  # main is step 100 once more
    kept = json.loads((tmp_path / "run" / "provenance.json").read_text())["checkpoints"]
    assert {one["commit"] for one in kept.values()} == {commits["step0"], commits["step100"]}
    # Again, offline: nothing to do, and nothing asked.
    hub.requests.clear()
    code, _, said = kntrace(hub, tmp_path / "home", *arguments, "--json", HF_HUB_OFFLINE="1")
    assert (code, hub.requests) == (0, []), said
