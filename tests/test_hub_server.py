"""The hub on this machine, as the real huggingface_hub client sees it."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hub_server import HubServer

WEIGHTS = random.Random(0).randbytes(300_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "original" / "deep").mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "gpt_neox"}')
    (made / "model.safetensors").write_bytes(WEIGHTS)
    (made / "original" / "deep" / "params.json").write_text("{}")
    (made / "original" / "note.txt").write_text("x")
    return made


@pytest.fixture
def filled(hub: HubServer, folder: Path) -> HubServer:
    hub.add("owner/model", {"main": folder})
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    hub.add("owner/model", {"stage1-step1/of 2": folder}, tags={"v1": folder})
    return hub


def test_branches_tags_and_information(filled: HubServer) -> None:
    refs = HfApi().list_repo_refs("owner/model")
    assert [branch.name for branch in refs.branches] == ["main", "stage1-step1/of 2"]
    assert [tag.ref for tag in refs.tags] == ["refs/tags/v1"]
    commits = {ref.name: ref.target_commit for ref in refs.branches + refs.tags}
    assert commits["v1"] == commits["stage1-step1/of 2"] != commits["main"]
    info = HfApi().model_info("owner/model", files_metadata=True)
    assert info.sha == commits["main"]
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
    assert sizes["model.safetensors"] == len(WEIGHTS)
    for name, commit in commits.items():
        assert HfApi().model_info("owner/model", revision=name).sha == commit
        assert HfApi().model_info("owner/model", revision=commit).sha == commit


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_a_tree_in_pages(filled: HubServer, page: int) -> None:
    filled.page = page
    top = {entry.path: entry for entry in HfApi().list_repo_tree("owner/model", revision="v1")}
    assert set(top) == {"config.json", "model.safetensors", "original"}
    assert top["model.safetensors"].lfs.size == len(WEIGHTS)  # type: ignore[union-attr]
    assert top["config.json"].lfs is None  # type: ignore[union-attr]
    every = {entry.path for entry in HfApi().list_repo_tree("owner/model", recursive=True)}
    inside = {entry.path for entry in HfApi().list_repo_tree("owner/model", "original")}
    assert every == {*top, "original/note.txt", "original/deep", "original/deep/params.json"}
    assert inside == {"original/note.txt", "original/deep"}


@pytest.mark.parametrize("page", [2, 1000])
def test_repositories_of_an_owner(hub: HubServer, folder: Path, page: int) -> None:
    hub.page = page
    for number in range(5):
        hub.add(f"owner/bert-step_{number}k", {"main": folder})
    hub.add("owner/other", {"main": folder})
    hub.add("another/bert-step_9k", {"main": folder})
    found = [info.id for info in HfApi().list_models(author="owner", search="BERT-step")]
    assert found == [f"owner/bert-step_{number}k" for number in range(5)]


def test_a_download_goes_by_the_cdn_into_the_cache(
    filled: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    got = Path(hf_hub_download("owner/model", "model.safetensors", revision="v1"))
    assert got.read_bytes() == WEIGHTS
    assert filled.count("/cdn/", "GET") == 1
    assert filled.secrets_to_cdn == []
    small = Path(hf_hub_download("owner/model", "config.json", revision="stage1-step1/of 2"))
    assert json.loads(small.read_bytes()) == {"model_type": "gpt2"}
    # Again: one short question, nothing fetched.
    before = filled.count(method="GET")
    hf_hub_download("owner/model", "model.safetensors", revision="v1")
    assert filled.count(method="GET") == before
    commit = filled.repositories["owner/model"].tags["v1"]
    assert got.parent.name == commit
    assert (Path(constants.HF_HUB_CACHE) / "models--owner--model/refs/v1").read_text() == commit
    # The weights of main are the same file: they are not fetched twice.
    hf_hub_download("owner/model", "model.safetensors")
    assert filled.count("/cdn/", "GET") == 1


def test_a_whole_snapshot(filled: HubServer, folder: Path) -> None:
    got = Path(snapshot_download("owner/model", revision="v1"))
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(got) for path in got.rglob("*") if path.is_file()} == names


def test_a_connection_that_is_cut_is_taken_up_again(
    filled: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client keeps what has come in pieces of this size; by default that is 10 MB.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    filled.cut("model.safetensors", after=100_000)
    got = hf_hub_download("owner/model", "model.safetensors")
    assert Path(got).read_bytes() == WEIGHTS
    # What had come was kept, and the rest was asked for.
    (asked,) = filled.ranges
    first = int(asked.removeprefix("bytes=").removesuffix("-"))
    assert 0 < first <= 100_000


def test_a_repository_that_moves(filled: HubServer, folder: Path) -> None:
    one = hf_hub_download("owner/model", "config.json")
    (folder / "config.json").write_text("{}")
    filled.add("owner/model", {"main": folder})
    other = hf_hub_download("owner/model", "config.json")
    assert Path(one).parent != Path(other).parent
    assert Path(one).read_text() != Path(other).read_text()


def test_what_is_not_there(filled: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    api = HfApi()
    with pytest.raises(RepositoryNotFoundError, match="401"):
        api.model_info("owner/absent")
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    with pytest.raises(RepositoryNotFoundError, match="404"):
        api.list_repo_refs("owner/absent")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("owner/absent", "config.json")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("owner/model", revision="step3")
    with pytest.raises(RevisionNotFoundError):
        [*api.list_repo_tree("owner/model", revision="step3")]
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("owner/model", "config.json", revision="step3")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("owner/model", "tokenizer.json")
    with pytest.raises(EntryNotFoundError):
        [*api.list_repo_tree("owner/model", "nowhere")]


def test_who_may_read(filled: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.add("owner/gated", {"main": folder}, gated=True, readers=frozenset({"hf_good"}))
    filled.add("owner/private", {"main": folder}, private=True, readers=frozenset({"hf_good"}))
    api = HfApi()
    for token, status in ((None, "401"), ("hf_bad", "403")):
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        # Anybody may see that a gated repository exists, and what is in it.
        assert api.model_info("owner/gated").gated == "auto"
        with pytest.raises(GatedRepoError, match=status):
            api.auth_check("owner/gated")
        with pytest.raises(GatedRepoError):
            hf_hub_download("owner/gated", "config.json")
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("owner/private")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    api.auth_check("owner/gated")
    assert Path(hf_hub_download("owner/gated", "model.safetensors")).read_bytes() == WEIGHTS
    assert api.model_info("owner/private").private is True
    assert filled.secrets_to_cdn == []


def test_what_was_made_to_fail(filled: HubServer) -> None:
    filled.fail("/refs", 503)
    with pytest.raises(HfHubHTTPError, match="503"):
        HfApi().list_repo_refs("owner/model")
    assert HfApi().list_repo_refs("owner/model").branches
    assert "HF_TOKEN" not in os.environ
