"""Checkpoints deleted after use, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
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
from kntrace.errors import HubError, SuiteError
from kntrace.models.load import load_tokenizer
from kntrace.suite import cache, load_suite


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
