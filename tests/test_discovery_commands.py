"""The table of known suites, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub_server import HubServer
from hub_suites import kntrace, model, serve
from kntrace.suite import (
    find_suite,
    known_suites,
    load_suite,
)


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


def test_the_command_offline_asks_nothing(hub: HubServer, tmp_path: Path) -> None:
    code, _, said = kntrace(hub, tmp_path / "home", "suite", "a/b", HF_HUB_OFFLINE="1")
    assert code == 2
    assert "HF_HUB_OFFLINE is set" in said
    assert hub.requests == []


def test_the_command_alone_shows_the_table(hub: HubServer, tmp_path: Path) -> None:
    code, printed, _ = kntrace(hub, tmp_path / "home", "suite")
    assert code == 0
    assert "Pythia (14M to 12B; Apache-2.0)" in printed
    assert "86 of the 154 names" in printed
    code, printed, _ = kntrace(hub, tmp_path / "home", "suite", "--json")
    listed = json.loads(printed)["suites"]
    assert {suite["name"] for suite in listed} == {suite.name for suite in known_suites()}
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
