"""What is refused before anything is fetched, and pickles."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from conftest import TinySuite
from fetched_suites import (  # noqa: F401
    NAME,
    commits,
    fixture_expected,
    fixture_tiny,
    in_cache,
    refusal,
    same_scores,
    sweep,
)
from hub_server import HubServer
from kntrace.archive import Run
from kntrace.errors import HubError, SuiteError
from kntrace.suite import Checkpoint, Suite, load_suite, preflight

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
