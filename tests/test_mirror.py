"""Runs at a URL: worked on in a mirror, sent block by block, fetched again anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner

import kntrace
from conftest import TinySuite
from kntrace.archive.mirror import Mirror, is_url
from kntrace.cli import app
from kntrace.errors import RunError, SettingsError

URL = "memory://bucket/some/run"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store in memory, and a cache of mirrors that stands for one machine."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    on_machine(monkeypatch, tmp_path / "here")
    yield files
    files.store.clear()


def on_machine(monkeypatch, home: Path) -> None:
    monkeypatch.setenv("KNTRACE_CACHE", str(home))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "provenance.json"
    }


def in_store(store) -> dict[str, bytes]:
    names = store.find("/bucket/some/run")
    return {name.removeprefix("/bucket/some/run/"): store.cat_file(name) for name in names}


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/run", True),
        ("memory://a", True),
        ("runs/one", False),
        ("C:\\runs", False),
        ("c://runs", False),
        (Path("s3://bucket/run"), False),
    ],
)
def test_what_is_a_url(place, url):
    assert is_url(place) is url


def test_a_folder_is_given_back_as_it_is(tmp_path):
    with kntrace.mirrored(tmp_path) as place:
        assert place == tmp_path


def test_a_run_at_a_url_is_the_run_in_a_folder(tiny_suite: TinySuite, store, tmp_path):
    told: list[str] = []
    plain = kntrace.run(tiny_suite.study, tiny_suite.suite, tmp_path / "plain")
    run = kntrace.run(tiny_suite.study, tiny_suite.suite, URL, tell=told.append)
    assert f"{URL} is worked on in {run.path}" in told
    kept = in_store(store)
    assert {n: data for n, data in kept.items() if n != "provenance.json"} == files_of(plain.path)
    assert json.loads(kept["provenance.json"])["checkpoints"]
    assert not [name for name in kept if name.endswith((".lock", ".partial"))]


def test_another_machine_reads_it_and_goes_on(tiny_suite, store, tmp_path, monkeypatch):
    whole = kntrace.run(tiny_suite.study, tiny_suite.suite, URL)
    for chunk in store.find("/bucket/some/run/scores.zarr/score/"):
        if "/c.2." in chunk:  # as if the machine had been lost at the third checkpoint
            store.rm_file(chunk)
    on_machine(monkeypatch, tmp_path / "there")
    opened = kntrace.open_run(URL)
    assert opened.path.is_relative_to(tmp_path / "there")
    assert {place for place, _ in opened.missing()} == {2}
    again = kntrace.run(tiny_suite.study, tiny_suite.suite, URL)
    np.testing.assert_array_equal(again.scores["score"], whole.scores["score"])
    on_machine(monkeypatch, tmp_path / "third")
    assert not kntrace.open_run(URL).missing()


def test_scores_are_sent_after_all_else_of_their_blocks(tiny_suite, store, monkeypatch):
    sent: list[str] = []
    put = type(store).put_file
    monkeypatch.setattr(
        type(store), "put_file",
        lambda self, local, remote, **more: sent.append(remote) or put(self, local, remote, **more),
    )  # fmt: skip
    kntrace.run(tiny_suite.study, tiny_suite.suite, URL)
    chunks = [name for name in sent if "/c." in name]
    scores = [place for place, name in enumerate(chunks) if "/score/" in name]
    assert len(scores) == 12
    assert min(scores) == len(chunks) - 12
    # Sent once, and not again where nothing changed.
    sent.clear()
    assert Mirror(URL).push() == 0
    kntrace.open_run(URL)
    assert sent == []


def test_what_a_killed_session_left_is_sent_by_the_next(tiny_suite, store, tmp_path, monkeypatch):
    def stopped(stage, done, total, detail=""):
        if stage == "sweep" and done == 5:
            raise ZeroDivisionError

    monkeypatch.setattr(Mirror, "push", lambda self: 0)
    with pytest.raises(ZeroDivisionError):
        kntrace.run(tiny_suite.study, tiny_suite.suite, URL, progress=stopped)
    monkeypatch.undo()
    on_machine(monkeypatch, tmp_path / "here")
    assert in_store(store) == {}
    begun: list[int] = []
    run = kntrace.run(
        tiny_suite.study, tiny_suite.suite, URL,
        progress=lambda stage, done, total, detail="": stage == "sweep" and begun.append(done),
    )  # fmt: skip
    assert min(begun) == 5
    assert len([name for name in in_store(store) if "/score/c." in name]) == 12
    assert not run.missing()


def test_a_store_that_cannot_be_written_loses_nothing(tiny_suite, store, tmp_path, monkeypatch):
    on_machine(monkeypatch, tmp_path / "here")

    def refuse(*given, **more):
        raise PermissionError("no right to write")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put_file", refuse)
        with pytest.raises(RunError, match=r"memory://bucket.*cannot be written.*kept on this"):
            kntrace.run(tiny_suite.study, tiny_suite.suite, URL)
    assert in_store(store) == {}
    seen: list[int] = []
    kntrace.run(
        tiny_suite.study, tiny_suite.suite, URL,
        progress=lambda stage, done, total, detail="": stage == "sweep" and seen.append(done),
    )  # fmt: skip
    assert min(seen) == 12  # nothing was computed again
    assert "scores.zarr/zarr.json" in in_store(store)


def test_what_went_wrong_first_is_heard(store, monkeypatch):
    def refuse(self):
        raise RunError("cannot be written", where=self.url)

    monkeypatch.setattr(Mirror, "push", refuse)
    with pytest.raises(ZeroDivisionError), kntrace.mirrored(URL):
        raise ZeroDivisionError
    with pytest.raises(RunError, match="cannot be written"), kntrace.mirrored(URL):
        pass


@pytest.mark.slow
def test_runs_at_urls_are_compared(tiny_suite, store):
    places = [f"memory://bucket/runs/{name}" for name in ("one", "two")]
    for seed, place in enumerate(places):
        kntrace.run(tiny_suite.study, tiny_suite.suite, place)
        given = ["analyse", place, "--permutations", "9", "--seed", str(seed), "--quiet"]
        assert CliRunner().invoke(app, given).exit_code == 0
    ended = CliRunner().invoke(app, ["compare", *places, "--permutations", "9"])
    assert ended.exit_code == 0, ended.output
    assert "one" in ended.output
    assert "two" in ended.output
    asked = ["plan", str(tiny_suite.study_file), str(tiny_suite.folder), "--out", places[0]]
    assert CliRunner().invoke(app, asked).exit_code == 0


def test_changed_on_both_sides_is_refused(tiny_suite, store):
    kntrace.run(tiny_suite.study, tiny_suite.suite, URL)
    mirror = Mirror(URL)
    store.pipe_file("/bucket/some/run/provenance.json", b"{}")
    (mirror.path / "provenance.json").write_text('{"checkpoints": {}}')
    with pytest.raises(RunError, match=r"provenance.json was changed both there and here.*Delete"):
        mirror.pull()


def test_what_is_deleted_on_one_side_goes_on_the_other(tiny_suite, store):
    kntrace.run(tiny_suite.study, tiny_suite.suite, URL)
    mirror = Mirror(URL)
    (mirror.path / "note.txt").write_text("mine")
    mirror.push()
    assert in_store(store)["note.txt"] == b"mine"
    (mirror.path / "note.txt").unlink()
    mirror.push()
    assert "note.txt" not in in_store(store)
    (mirror.path / "other.txt").write_text("mine")
    mirror.push()
    store.rm_file("/bucket/some/run/other.txt")
    mirror.pull()
    assert not (mirror.path / "other.txt").exists()


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/x", "a\\b", "a\nb"])
def test_names_that_lead_out_of_the_run_are_refused(store, monkeypatch, tmp_path, name):
    listing = {f"/bucket/some/run/{name}": {"size": 1, "created": "now"}}
    monkeypatch.setattr(type(store), "find", lambda self, path, detail=False: listing)
    with pytest.raises(RunError, match="a file named"):
        Mirror(URL).pull()
    assert not (tmp_path / "outside").exists()


def test_a_url_of_nothing_known_is_refused(store):
    with pytest.raises(RunError, match="nothing://x: cannot be opened"):
        kntrace.open_run("nothing://x")
    with pytest.raises(RunError, match="memory://bucket/empty: there is no run"):
        kntrace.open_run("memory://bucket/empty")


def test_no_bucket_is_made(tiny_suite, store, monkeypatch):
    """As an object store has it, whose names begin with a bucket's."""
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (store, "misspelt/run"))
    with pytest.raises(RunError, match=r"there is no 'misspelt'.*Make it first"):
        kntrace.run(tiny_suite.study, tiny_suite.suite, "s3://misspelt/run")


@pytest.mark.slow
def test_commands_take_urls(tiny_suite, store):
    given = ["run", str(tiny_suite.study_file), str(tiny_suite.folder), "--out", URL, "--quiet"]
    assert CliRunner().invoke(app, given).exit_code == 0
    ended = CliRunner().invoke(app, ["status", URL])
    assert ended.exit_code == 0
    assert "12 of 12" in ended.output
    assert CliRunner().invoke(app, ["analyse", URL, "--permutations", "9"]).exit_code == 0
    assert "analysis/analysis.json" in in_store(store)


def test_shards_of_a_run_at_a_url_are_refused(tiny_suite, store):
    with pytest.raises(SettingsError, match="a folder that all of them see"):
        kntrace.run(tiny_suite.study, tiny_suite.suite, URL, shard="1/2")
    given = ["run", str(tiny_suite.study_file), str(tiny_suite.folder), "--out", URL]
    ended = CliRunner().invoke(app, [*given, "--shard", "1/2"])
    assert isinstance(ended.exception, SettingsError)
