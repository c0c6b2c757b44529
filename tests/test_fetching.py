"""A sweep over a suite on the hub: looked at first, fetched one ahead, deleted after use."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from conftest import TinySuite, save_checkpoint
from fetched_suites import (  # noqa: F401
    NAME,
    WORDS,
    commits,
    fixture_expected,
    fixture_tiny,
    in_cache,
    refusal,
    same_scores,
    stop_after,
    sweep,
)
from hub_server import HubServer
from kntrace.archive import Run, open_run
from kntrace.errors import RunError, SuiteError
from kntrace.models import load_checkpoint
from kntrace.suite import cache, load_suite
from kntrace.suite.weights import Parts, parts_of


def downloads(hub: HubServer) -> int:
    return hub.count("/resolve/") + hub.count("/cdn/") + hub.count("/resolve-cache/")


# What will be fetched


def test_what_will_be_fetched_is_said_first(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    said: list[str] = []
    snapshot_download(NAME, revision="step10")

    def tell(text: str) -> None:
        said.append(text)
        assert downloads(hub) == before, "said before anything is fetched, but for one header"

    before = downloads(hub) + 2  # a redirect and what it leads to
    sweep(tiny, tmp_path / "run", tell=tell)
    (text,) = said
    # Tokenizer and configuration are those of the checkpoint in the cache.
    size = (tiny.folder / "step0" / "model.safetensors").stat().st_size
    assert text.startswith(f"To fetch: 2 checkpoints, {2 * size / 1000:.1f} kB, in float32; ")
    assert "; 1 more in the cache. " in text
    assert text.endswith(f" free in {constants.HF_HUB_CACHE}.")
    said.clear()
    before = downloads(hub)
    shutil.rmtree(tmp_path / "run")
    sweep(tiny, tmp_path / "run", tell=tell)
    assert said == ["All 3 checkpoints are in the cache."]
    # With nothing to do nothing is asked or said.
    said.clear()
    suite = load_suite(NAME)
    hub.requests.clear()
    sweep(tiny, tmp_path / "run", suite, tell=tell)
    assert (said, hub.requests) == ([], [])
    sweep(tiny, tmp_path / "local", tiny.suite, tell=tell)
    assert (said, hub.requests) == ([], [])


def test_only_what_it_takes_is_fetched_and_of_one_commit(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    for folder in tiny.folder.iterdir():
        for name in ("optimizer.bin", "pytorch_model.bin", "trainer_state.json", "README.md"):
            (folder / name).write_text("never read")
        (folder / "model.fp16.safetensors").write_text("never read")
        (folder / "original").mkdir()
        (folder / "original" / "params.json").write_text("{}")
    hub.add_suite(NAME, tiny.folder)
    run = sweep(tiny, tmp_path / "run", load_suite(NAME, steps="0,10"))
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
             "tokenizer_config.json"}  # fmt: skip
    for step in ("step0", "step10"):
        folder = cache.snapshot(NAME, commits(hub)[step])
        assert {path.name for path in folder.iterdir()} == names
        assert run.provenance["checkpoints"][step]["commit"] == folder.name
    assert in_cache() == {commits(hub)[step] for step in ("step0", "step10")}
    # Offline, the names are known too.
    assert cache.branches_and_tags(NAME).keys() == {"step0", "step10"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["config.json", "model.safetensors", "model-00001-of-00002.safetensors",
             "model.safetensors.index.json", "pytorch_model.bin"],
            Parts("safetensors", ("config.json",), ("model.safetensors",)),
        ),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "model.fp16.safetensors", "model.safetensors.index.json",
             "pytorch_model.bin.index.json", "vocab.txt"],
            Parts(
                "safetensors",
                ("model.safetensors.index.json", "vocab.txt"),
                ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
            ),
        ),
        (
            ["merges.txt", "optimizer.bin", "pytorch_model.bin", "training_args.bin"],
            Parts("bin", ("merges.txt",), ("pytorch_model.bin",)),
        ),
        (["model.safetensors.index.json", "spiece.model"], Parts("none", ("spiece.model",), ())),
    ],
)  # fmt: skip
def test_parts(names: list[str], expected: Parts) -> None:
    assert parts_of(reversed(names)) == expected


def test_weights_in_several_files(hub: HubServer, tiny: TinySuite, tmp_path: Path) -> None:
    """The index says which files there are, and offline whether they are all here."""
    from transformers import AutoModelForCausalLM

    folder = tiny.folder / "step10"
    whole = load_checkpoint(tiny.suite.checkpoints[1]).fingerprint
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="4KB")
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    hub.add_suite(NAME, tiny.folder)
    (item,) = load_suite(NAME, steps="10")
    loaded = load_checkpoint(item)
    assert (loaded.fingerprint, loaded.commit) == (whole, commits(hub)["step10"])
    asked = len(hub.requests)
    cache.snapshot(NAME, loaded.commit).joinpath(shards[-1]).unlink()
    load_checkpoint(item)
    assert asked < len(hub.requests)
    assert hub.count(shards[-1], "GET") == 1, "its content was still there"


# Ahead of the computation


def test_the_next_checkpoint_is_fetched_meanwhile(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    held = hub.hold(f"{commits(hub)['step10']}/model.safetensors")
    waits: list[tuple[int, str]] = []

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        if detail.startswith("waiting for step10"):
            # All of the first is done, and of those after the next nothing was fetched.
            waits.append((done, detail))
            assert commits(hub)["step100"] not in in_cache()
            # Were it killed now, the next session would know what is its own.
            assert commits(hub)["step10"] in cache.claimed(tmp_path / "run")[NAME]
            held.set()

    run = sweep(tiny, tmp_path / "run", progress=progress, evict=True)
    assert not run.missing()
    assert {done for done, _ in waits} == {WORDS}
    # Configuration and tokenizer came with the first one, unless they are still on their way.
    assert re.fullmatch(r"waiting for step10: \d.* of 2\d\.\d kB", waits[0][1])


def test_a_failure_is_raised_when_its_turn_comes(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    suite = load_suite(NAME)
    hub.fail(f"/resolve/{commits(hub)['step10']}/model.safetensors", 403, times=9)
    message = refusal(SuiteError, tiny, tmp_path / "run", suite)
    assert "the hub refuses access (made to fail)" in message
    run = open_run(tmp_path / "run")
    assert len(run.missing()) == 2 * WORDS
    hub._failures.clear()
    assert not sweep(tiny, tmp_path / "run", suite).missing()


def test_a_download_cut_off_is_taken_up_again(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    hub.cut("model.safetensors", after=2000)
    assert not sweep(tiny, tmp_path / "run", load_suite(NAME, steps="0,10")).missing()


# A repository that moves


def test_a_repository_that_moved_is_refused(
    hub: HubServer, tiny: TinySuite, expected: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    began = dict(commits(hub))
    with pytest.raises(ZeroDivisionError):
        sweep(tiny, out, progress=stop_after(1))
    names = ("step0", "step10", "step100")
    assert open_run(out).provenance["commits"] == {name: began[name] for name in names}
    # One that was not yet looked at when the run was stopped.
    save_checkpoint(tmp_path / "moved", seed=9)
    hub.add(NAME, {"step100": tmp_path / "moved"})
    message = refusal(RunError, tiny, out)
    assert f"step100 was {began['step100'][:12]}, is now {commits(hub)['step100'][:12]}" in message
    assert "1 of 3 checkpoints on the hub have changed since the run began" in message
    assert "--pin (pin=True)" in message
    assert "another --out" in message
    run = sweep(tiny, out, pin=True)
    assert same_scores(run, expected)
    assert run.provenance["commits"] == {name: began[name] for name in names}
    assert run.provenance["checkpoints"]["step100"]["commit"] == began["step100"]
    new = sweep(tiny, tmp_path / "new")
    assert not same_scores(new, expected)
    assert new.provenance["commits"]["step100"] == commits(hub)["step100"]


def test_a_repository_that_moves_meanwhile_is_read_as_it_was(
    hub: HubServer, tiny: TinySuite, expected: Run, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "moved", seed=9)
    began = commits(hub)["step100"]

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        if done == 1 and commits(hub)["step100"] == began:
            hub.add(NAME, {"step100": tmp_path / "moved"})

    run = sweep(tiny, tmp_path / "run", progress=progress)
    assert commits(hub)["step100"] != began
    assert same_scores(run, expected)
    assert run.provenance["checkpoints"]["step100"]["commit"] == began
    assert "step100" not in cache.branches_and_tags(NAME), "the name means another one now"


# Offline


def test_offline_is_said_at_once(
    hub: HubServer, tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(NAME)
    for step in ("step0", "step10"):
        snapshot_download(NAME, revision=step)
    snapshot_download(NAME, revision="step100", allow_patterns="*.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    message = refusal(SuiteError, tiny, tmp_path / "run", suite)
    assert "HF_HUB_OFFLINE is set, and 1 of 3 checkpoints are not whole in the" in message
    assert "cache: step100" in message
    with pytest.raises(SuiteError, match="HF_HUB_OFFLINE is set, and it is not in the cache"):
        load_checkpoint(suite.checkpoints[-1])
    assert not sweep(tiny, tmp_path / "run", load_suite(NAME)).missing()
    assert hub.requests == []
    assert len(in_cache()) == 3


def test_offline_a_run_goes_on_with_its_commits(
    hub: HubServer,
    tiny: TinySuite,
    expected: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the cache has a newer one by now."""
    suite = load_suite(NAME)
    for step in ("step0", "step10", "step100"):
        snapshot_download(NAME, revision=step)
    with pytest.raises(ZeroDivisionError):
        sweep(tiny, tmp_path / "run", suite, progress=stop_after(1))
    save_checkpoint(tmp_path / "moved", seed=9)
    hub.add(NAME, {"step100": tmp_path / "moved"})
    snapshot_download(NAME, revision="step100")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same_scores(sweep(tiny, tmp_path / "run", suite), expected)


# The command


def start(hub: HubServer, home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kntrace", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | hub.environment(home),
    )


def sessions(record: Path) -> list[int]:
    return [one["blocks"] for one in json.loads(record.read_text()).get("sessions", [])]


@pytest.mark.slow
def test_a_command_that_is_stopped_while_it_waits(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    """The download never ends; the next session deletes what this one fetched."""
    hub.add("owner/named", {f"run-{step}": tiny.folder / f"step{step}" for step in (0, 10, 100)})
    hub.add("owner/named", {"main": tiny.folder / "step100"})
    held = hub.hold(f"{commits(hub, 'owner/named')['run-10']}/model.safetensors")
    home, out = Path(constants.HF_HUB_CACHE).parent, tmp_path / "run"
    pattern = r"run-(?P<step>\d+)"
    arguments = ["run", str(tiny.study_file), "owner/named", "--pattern", pattern]
    child = start(hub, home, *arguments, "--out", str(out), "--evict", "--steps", "every:10")
    record = out / "provenance.json"
    # Until the first checkpoint is done and the second waited for.
    while not record.exists() or sessions(record) != [WORDS]:
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert "To fetch: 3 checkpoints" in said
    assert child.returncode == 1
    assert f"Stopped with {WORDS} of {3 * WORDS} blocks done" in said
    assert "Traceback" not in said
    assert commits(hub, "owner/named")["run-10"] in cache.claimed(out)["owner/named"]
    held.set()
    suite = load_suite("owner/named", pattern=pattern)
    assert not sweep(tiny, out, suite, evict=True).missing()
    assert in_cache() == set()
