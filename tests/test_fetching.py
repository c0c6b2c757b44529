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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from safetensors.torch import load_file

import kntrace
from conftest import TinySuite, save_checkpoint
from hub_server import HubServer
from kntrace.archive import Run, open_run
from kntrace.errors import HubError, KntraceError, RunError, SuiteError
from kntrace.models import load_checkpoint
from kntrace.models.load import load_tokenizer
from kntrace.progress import silent
from kntrace.suite import Checkpoint, Suite, cache, load_suite, preflight
from kntrace.suite.weights import Parts, parts_of

NAME = "owner/tiny"
WORDS = 4


@pytest.fixture
def tiny(hub: HubServer, tiny_suite: TinySuite, tmp_path: Path) -> TinySuite:
    """The tiny suite, served as a repository; a copy that the test may do anything to."""
    folder = tmp_path / "mine" / "suite"
    shutil.copytree(tiny_suite.folder, folder)
    hub.add_suite(NAME, folder)
    return TinySuite(folder, tiny_suite.study_file)


@pytest.fixture(scope="module")
def expected(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run over the same checkpoints in folders."""
    return sweep(tiny_suite, tmp_path_factory.mktemp("expected") / "run", tiny_suite.suite)


def sweep(tiny: TinySuite, out: Path, suite: Suite | None = None, **options: Any) -> Run:
    chosen = load_suite(NAME) if suite is None else suite
    return kntrace.run(tiny.study, chosen, out, **({"progress": silent, "threads": 1} | options))


def refusal(kind: type[KntraceError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        sweep(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stop_after(blocks: int) -> Callable[..., None]:
    """A `Progress` that makes an end, as if something had failed, after so many blocks."""

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        if stage == "sweep" and done == blocks:
            raise ZeroDivisionError

    return progress


def in_cache() -> set[str]:
    """Commits of which the cache has anything."""
    found = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    return {path.name for path in found}


def commits(hub: HubServer, name: str = NAME) -> dict[str, str]:
    return hub.repositories[name].branches


def downloads(hub: HubServer) -> int:
    return hub.count("/resolve/") + hub.count("/cdn/") + hub.count("/resolve-cache/")


def same_scores(run: Run, other: Run) -> bool:
    return bool(run.scores["score"].equals(other.scores["score"]))


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


# Refused before anything is fetched


def test_what_is_not_to_be_had_is_said_first(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    item = Checkpoint("end", 1000, None, "owner/end", "main")
    suite = Suite("both", (*load_suite(NAME), item))
    out = tmp_path / "run"
    assert "owner/end: there is no such repository" in refusal(SuiteError, tiny, out, suite)
    hub.add("owner/end", {"main": tiny.folder / "step0"}, gated=True)
    assert "owner/end: the repository is gated" in refusal(SuiteError, tiny, out, suite)
    hub.add("owner/end", gated=False)
    misspelt = Suite("both", (*load_suite(NAME), replace(item, revision="mian")))
    message = refusal(SuiteError, tiny, out, misspelt)
    assert "owner/end: there is no revision 'mian'" in message
    assert "main" in message
    for lacking, part in (
        ("config.json", "there is no config.json"),
        ("tokenizer*", "there is no tokenizer"),
        ("model.safetensors", "there are no weights"),
    ):
        folder = tmp_path / lacking.strip("*")
        shutil.copytree(tiny.folder / "step0", folder)
        for file in folder.glob(lacking):
            file.unlink()
        hub.add("owner/end", {"main": folder})
        assert part in refusal(SuiteError, tiny, out, suite)
    (folder / "q4.gguf").write_text("x")
    hub.add("owner/end", {"main": folder})
    assert "there are only GGUF files" in refusal(SuiteError, tiny, out, suite)
    shutil.copytree(tiny.folder / "step0", tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_text("torn")
    hub.add("owner/end", {"main": tmp_path / "torn"})
    alone = Suite("alone", (item,))
    assert "is not of the format safetensors" in refusal(SuiteError, tiny, out, alone)
    hub.fail("/revision/", 503)
    assert "the hub answered 503" in refusal(HubError, tiny, out, suite)
    assert in_cache() == set()
    assert not out.exists()


def test_a_disk_that_is_too_small(
    hub: HubServer, tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (tiny.folder / "step0" / "model.safetensors").stat().st_size
    small = sum(path.stat().st_size for path in (tiny.folder / "step0").glob("*.json"))
    out = tmp_path / "run"

    def free(space: int) -> None:
        monkeypatch.setattr("kntrace.suite.cache.free_space", lambda: space)

    free(2 * size + small)
    message = refusal(SuiteError, tiny, out)
    assert f"the 3 checkpoints to fetch take {(3 * size + small) / 1000:.1f} kB" in message
    assert "room for 2 of them" in message
    assert "With --evict (evict=True) each is deleted after use, which takes" in message
    free(2 * size + small - 1)
    message = refusal(SuiteError, tiny, out)
    assert "room for 1 of them" in message
    assert "--evict" not in message
    assert "two checkpoints at a time take" in refusal(SuiteError, tiny, out, evict=True)
    killed = Path(constants.HF_HUB_CACHE) / "models--a--b" / "blobs" / "0.1.incomplete"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"x" * 1200)
    assert "Unfinished downloads take 1.2 kB: see `hf cache prune`." in refusal(
        SuiteError, tiny, out
    )
    assert in_cache() == set()
    assert not out.exists()
    free(2 * size + small)
    sweep(tiny, out, evict=True)
    free(3 * size + small)
    sweep(tiny, tmp_path / "other")


def test_equal_weights_are_counted_once(hub: HubServer, tiny: TinySuite, tmp_path: Path) -> None:
    """Pythia's first checkpoints share their weights, and the cache keeps them once."""
    same = {f"step{step}": tiny.folder / "step0" for step in range(3)}
    (tiny.folder / "step0" / "note.txt").write_text("of other commits")
    hub.add("owner/same", same)
    hub.add("owner/same", {"main": tiny.folder / "step100", "step100": tiny.folder / "step100"})
    found = load_suite("owner/same").checkpoints
    ahead = preflight(found, commits(hub, "owner/same"))
    first = tiny.folder / "step0"
    files = [path for path in first.iterdir() if path.suffix in (".json", ".txt")]
    files += [first / "model.safetensors", tiny.folder / "step100" / "model.safetensors"]
    assert len(ahead.missing) == 4
    assert ahead.bytes == sum(path.stat().st_size for path in files)


def test_a_hub_that_goes_silent(
    hub: HubServer, tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kntrace.suite.hub._PATIENCE", 0.2)
    hub.hold("/refs")
    with pytest.raises(HubError, match=r"cannot be reached: no answer in 0 s"):
        load_suite(NAME)


# Pickles


def pickled(tiny: TinySuite, step: str, extra: Any = None) -> None:
    folder = tiny.folder / step
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights | ({} if extra is None else {"extra": extra}), folder / "pytorch_model.bin")


def test_pickles_are_read_only_if_the_user_says_so(
    hub: HubServer, tiny: TinySuite, expected: Run, tmp_path: Path
) -> None:
    for step in ("step10", "step100"):
        pickled(tiny, step)
    hub.add_suite(NAME, tiny.folder)
    out = tmp_path / "run"
    for suite in (load_suite(NAME), tiny.suite):
        message = refusal(SuiteError, tiny, out, suite)
        assert message.startswith("checkpoint step10: ")
        assert "(and those of 1 more)" in message
        assert "only as .bin files, which are pickles" in message
        assert "--allow-bin (allow_bin=True)" in message
    assert in_cache() == set()
    assert not out.exists()
    assert same_scores(sweep(tiny, tmp_path / "local", tiny.suite, allow_bin=True), expected)
    hub.requests.clear()
    said: list[str] = []
    assert same_scores(sweep(tiny, out, allow_bin=True, tell=said.append), expected)
    assert "in float32" in said[0]
    # transformers would ask for a conversion: its questions go to other places.
    asked = {path.split("?")[0] for _, path in hub.requests}
    assert not [path for path in asked if "discussions" in path or "commits" in path]
    # Once in the cache they are no less pickles.
    assert "which are pickles" in refusal(SuiteError, tiny, tmp_path / "again")


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_programs_in_pickles_are_never_run(hub: HubServer, tiny: TinySuite, tmp_path: Path) -> None:
    pickled(tiny, "step0", Trap(tmp_path / "sprung"))
    hub.add_suite(NAME, tiny.folder)
    for suite in (tiny.suite, load_suite(NAME)):
        message = refusal(SuiteError, tiny, tmp_path / "run", suite, allow_bin=True)
        assert "hold more than tensors" in message
    assert not (tmp_path / "sprung").exists()


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


# Deleted after use


def most_at_once(most: list[int]) -> Callable[..., None]:
    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        there = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/*.safetensors")
        most.append(len(list(there)))

    return progress


def test_what_the_run_fetched_is_deleted_and_nothing_else(
    hub: HubServer, tiny: TinySuite, expected: Run, tmp_path: Path
) -> None:
    kept = Path(snapshot_download(NAME, revision="step10"))
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    most: list[int] = []
    run = sweep(tiny, tmp_path / "run", evict=True, progress=most_at_once(most))
    assert same_scores(run, expected)
    assert in_cache() == {commits(hub)["step10"]}
    # Its tokenizer is that of the others too.
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert max(most) <= 3
    assert cache.claimed(tmp_path / "run") == {}
    # Without the option all of it stays.
    sweep(tiny, tmp_path / "other")
    assert len(in_cache()) == 3


def test_never_more_than_two_at_once(hub: HubServer, tiny: TinySuite, tmp_path: Path) -> None:
    for number, step in enumerate((200, 300, 400), start=3):
        save_checkpoint(tiny.folder / f"step{step}", seed=number)
    hub.add_suite(NAME, tiny.folder)
    most: list[int] = []
    sweep(tiny, tmp_path / "run", evict=True, progress=most_at_once(most))
    assert max(most) <= 2
    assert in_cache() == set()


def test_a_part_that_was_there_before_stays(
    hub: HubServer, tiny: TinySuite, tmp_path: Path
) -> None:
    """As after `kntrace check`, which fetches a tokenizer."""
    load_tokenizer(load_suite(NAME).checkpoints[-1])
    assert in_cache() == {commits(hub)["step100"]}
    sweep(tiny, tmp_path / "run", evict=True)
    assert in_cache() == {commits(hub)["step100"]}


def test_one_commit_under_two_names(hub: HubServer, tiny: TinySuite, tmp_path: Path) -> None:
    first = tiny.folder / "step0"
    hub.add("owner/same", {"step0": first, "step1": first, "main": tiny.folder / "step10"})
    suite = load_suite("owner/same", steps="0,1")
    said: list[str] = []
    assert not sweep(tiny, tmp_path / "run", suite, evict=True, tell=said.append).missing()
    assert "deleted after use" in said[0]
    assert in_cache() == set()


def test_what_goes_wrong_in_deleting_is_raised(
    hub: HubServer, tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a thread that is no more."""
    monkeypatch.setattr("kntrace.suite.cache.delete", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep(tiny, tmp_path / "run", evict=True)
    assert len(open_run(tmp_path / "run").missing()) in (WORDS, 2 * WORDS)


def test_a_copy_of_the_repository_stays(hub: HubServer, tiny: TinySuite, tmp_path: Path) -> None:
    """A copy has the same commits."""
    hub.repositories["owner/copy"] = hub.repositories[NAME]
    snapshot_download("owner/copy", revision="step0")
    sweep(tiny, tmp_path / "run", evict=True)
    copied = Path(constants.HF_HUB_CACHE) / "models--owner--copy"
    assert (copied / "snapshots" / commits(hub)["step0"] / "model.safetensors").exists()
    assert not (Path(constants.HF_HUB_CACHE) / "models--owner--tiny").exists()


@pytest.mark.parametrize("blocks", [0, 1, WORDS + 1])
def test_a_later_session_knows_what_an_earlier_one_fetched(
    hub: HubServer, tiny: TinySuite, tmp_path: Path, blocks: int
) -> None:
    out = tmp_path / "run"
    snapshot_download(NAME, revision="step100")
    if blocks == 0:  # before there is a run
        hub.fail(f"/resolve/{commits(hub)['step0']}/tokenizer.json", 403, times=9)
        refusal(SuiteError, tiny, out, evict=True)
        hub._failures.clear()
    else:
        with pytest.raises(ZeroDivisionError):
            sweep(tiny, out, evict=True, progress=stop_after(blocks))
    listed = cache.claimed(out)[NAME]
    assert commits(hub)["step0" if blocks <= WORDS else "step10"] in listed
    assert listed <= {commits(hub)["step0"], commits(hub)["step10"]}
    # A session that is not told to delete leaves it all, and the list too.
    if blocks == 1:
        sweep(tiny, out, verify=False)
        assert cache.claimed(out)[NAME] == listed
        assert len(in_cache()) == 3
    assert not sweep(tiny, out, evict=True).missing()
    assert in_cache() == {commits(hub)["step100"]}
    assert cache.claimed(out) == {}


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_a_run_folder_from_elsewhere_deletes_nothing(
    hub: HubServer, tiny: TinySuite, tmp_path: Path, how: str
) -> None:
    """Whatever it says of itself: what is there was not fetched for the place it is in now."""
    out, elsewhere = tmp_path / "run", tmp_path / "another"
    with pytest.raises(ZeroDivisionError):
        sweep(tiny, out, evict=True, progress=stop_after(1))
    there = in_cache()
    assert commits(hub)["step0"] in there
    (shutil.copytree if how == "copied" else shutil.move)(out, elsewhere)
    lie = {NAME: sorted(commits(hub).values())}
    (elsewhere / "fetched.json").write_text(json.dumps(lie))
    assert not sweep(tiny, elsewhere, evict=True).missing()
    assert in_cache() == there


def test_marks_alone_are_no_repository(hub: HubServer, tmp_path: Path) -> None:
    cache.claim("owner/tiny", "a" * 40, tmp_path)
    cache.claim("owner/tiny", "b" * 40, tmp_path / "other")
    assert cache.repositories("owner") == []
    assert cache.claimed(tmp_path) == {"owner/tiny": {"a" * 40}}
    cache.release("owner/tiny", "a" * 40, tmp_path)
    assert cache.claimed(tmp_path) == {}
    cache.release("owner/tiny", "b" * 40, tmp_path / "other")
    assert not (Path(constants.HF_HUB_CACHE) / "models--owner--tiny").exists()


def test_a_cache_that_cannot_be_written_is_said(hub: HubServer, tmp_path: Path) -> None:
    Path(constants.HF_HUB_CACHE).mkdir(parents=True)
    (Path(constants.HF_HUB_CACHE) / "models--owner--tiny").write_text("")
    with pytest.raises(HubError, match="the cache of the hub cannot be written"):
        cache.claim("owner/tiny", "a" * 40, tmp_path)


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
