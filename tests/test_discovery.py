"""Suites in the wild: every family's names, on a hub of this machine and in users' own folders."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from hub_server import HubServer
from hub_suites import FAMILIES, model, refusal, serve
from kntrace.errors import HubError
from kntrace.suite import (
    find_suite,
    find_weights,
    known_suites,
    load_suite,
)
from kntrace.suite.known import nearest_repository
from kntrace.suite.names import read_name
from kntrace.suite.weights import read_weights


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


def test_the_name_of_a_suite_alone_misspelt() -> None:
    assert "Did you mean one of Pythia, such as 'EleutherAI/pythia-14m'?" in refusal("pythya")
    assert nearest_repository("something") is None


def test_a_hub_that_is_not_there(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    for source in ("a/b", "a/b*"):
        message = refusal(source, HubError)
        assert "http://127.0.0.1:9 cannot be reached" in message
        assert "HF_HUB_OFFLINE=1" in message


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
