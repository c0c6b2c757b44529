"""`kntrace check` on the command line."""

from __future__ import annotations

import json

import pytest

import test_cli
from conftest import save_checkpoint
from linted import (
    FILE_OF_TWO,
    GOOD,
    STUDIES,
    fixture_causal,  # noqa: F401
    study,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("files")
    for name, groups in (("good", GOOD), ("warned", STUDIES["K111"][0])):
        (home / f"{name}.yaml").write_text(study(groups).to_yaml())
    (home / "wrong.yaml").write_text(FILE_OF_TWO)
    return home


@pytest.mark.parametrize(
    ("name", "options", "expect"),
    [("good", [], 0), ("warned", [], 0), ("warned", ["--strict"], 2), ("wrong", [], 2)],
)
def test_exit_codes(name, options, expect, files):
    done = test_cli.kn("check", files / f"{name}.yaml", *options, expect=expect)
    errors, warnings = int(name == "wrong"), int(name == "warned")
    said = done.stderr.strip().split(": ")[-1]
    assert said == f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    lines = done.stdout.splitlines()
    assert all(line.startswith("K1") for line in lines)
    assert bool(lines) is (name != "good")


def test_check_as_json(files, causal):
    done = test_cli.kn("check", files / "wrong.yaml", "--json", expect=2)
    found = json.loads(done.stdout)
    assert (found["errors"], found["findings"][0]["code"]) == (1, "K102")
    folder = causal.checkpoints[0].source
    done = test_cli.kn(
        "check", files / "good.yaml", "--suite", folder, "--json", "--answer-tokens", "joint"
    )
    assert json.loads(done.stdout)["checkpoint"] == "step7"
    shown = test_cli.kn("check", files / "good.yaml", "--suite", folder, "--answer-tokens", "joint")
    quiet = test_cli.kn(
        "check", files / "good.yaml", "--suite", folder, "--no-notes", "--answer-tokens", "joint"
    )
    assert "K210 note" in shown.stdout
    assert "K210" not in quiet.stdout


def test_answers_on_the_command_line(tiny_suite, tmp_path):
    save_checkpoint(tmp_path / "step3", seed=1)
    done = test_cli.kn(
        "check", tiny_suite.study_file, "--suite", tmp_path, "--answers", "--top", "1"
    )
    assert "K301 warning" in done.stdout
