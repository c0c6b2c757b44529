"""Suite files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kntrace.suite import Checkpoint, load_suite
from suite_folders import grow, labels, refusal, write

FILE = """\
name: tiny
checkpoints:
  - {label: last, step: 600, folder: last}
  - label: begin
    step: 0
    tokens: 0
    folder: ./begin/
  - {step: 64, tokens: 128000, repository: owner/model, revision: step64}
"""


@pytest.mark.parametrize("by", ["folder", "file", "other name"])
def test_a_suite_file(tmp_path: Path, by: str) -> None:
    file = write(tmp_path / "x", FILE, "mine.yml" if by == "other name" else "suite.yaml")
    suite = load_suite(file.parent if by == "folder" else file)
    assert suite.name == "tiny"
    assert list(suite) == [
        Checkpoint("begin", 0, 0, str(tmp_path / "x" / "begin"), None),
        Checkpoint("step64", 64, 128_000, "owner/model", "step64"),
        Checkpoint("last", 600, None, str(tmp_path / "x" / "last"), None),
    ]


def test_a_suite_file_comes_before_what_lies_beside_it(tmp_path: Path) -> None:
    grow(tmp_path, ["step0", "step1", "step2"])
    write(tmp_path, "checkpoints:\n- {step: 1, folder: step1}\n")
    assert labels(load_suite(tmp_path)) == ["step1"]
    assert load_suite(tmp_path).name == tmp_path.name


def test_a_suite_file_in_json(tmp_path: Path) -> None:
    content = {"checkpoints": [{"step": 5, "repository": "a/b", "revision": "r5"}]}
    suite = load_suite(write(tmp_path, json.dumps(content), "mine.json"))
    assert suite.name == "mine"
    assert list(suite) == [Checkpoint("r5", 5, None, "a/b", "r5")]


def test_steps_choose_from_a_suite_file(tmp_path: Path) -> None:
    assert labels(load_suite(write(tmp_path, FILE), steps="0,64")) == ["begin", "step64"]
    assert "neighbours are begin and step64" in refusal(tmp_path, steps=[7])


def test_one_repository_for_each_checkpoint(tmp_path: Path) -> None:
    text = "checkpoints:\n" + "".join(
        f"- {{step: {step}, repository: google/multiberts-seed_0-step_{step // 1000}k}}\n"
        for step in (20_000, 0)
    )
    suite = load_suite(write(tmp_path, text))
    assert labels(suite) == ["multiberts-seed_0-step_0k", "multiberts-seed_0-step_20k"]
    assert {checkpoint.revision for checkpoint in suite} == {"main"}


def test_checkpoints_without_steps_keep_their_order(tmp_path: Path) -> None:
    text = "checkpoints:\n- {folder: z}\n- {folder: a}\n- {folder: m}\n"
    assert labels(load_suite(write(tmp_path, text))) == ["z", "a", "m"]


def entries(*lines: str) -> str:
    return "checkpoints:\n" + "".join(f"- {{{line}}}\n" for line in lines)


OK = "label: x, step: 3, folder: a"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (entries(OK, "label: y, stpe: 4, folder: b"), [":3: unknown key 'stpe'", "'step'"]),
        ("checkpionts: []\n", [":1: unknown key 'checkpionts'", "'checkpoints'"]),
        (entries(OK, "label: y, step: 3, folder: b"), [":3: x and y are both at step 3"]),
        (entries(OK, "label: x, step: 4, folder: b"), [":3: two checkpoints are called x"]),
        (entries(OK, "label: y, folder: b"), [":3: the step of y is unknown"]),
        (entries(OK, "step: '4', folder: b"), [":3: the step of checkpoint 2 is the text '4'"]),
        (entries(OK, "step: '4', folder: b"), ["a whole number", "Remove the quotes"]),
        (entries("step: -4, folder: b"), [":2: the step of checkpoint 1 is the number -4"]),
        (entries("step: 1.5, folder: b"), [":2: the step of checkpoint 1 is the number 1.5"]),
        (entries("step: true, folder: b"), [":2", "is the truth value true"]),
        (entries("step: yes, folder: b"), [":2", "is the text 'yes'"]),
        (entries(f"step: {2**63}, folder: b"), [":2: the step of checkpoint 1"]),
        (entries("tokens: 3B, folder: b"), [":2: the tokens of checkpoint 1 is the text '3B'"]),
        (entries("label: 12, folder: b"), [":2: the label of checkpoint 1", '"12"']),
        (entries("label: ' a', folder: b"), [":2: the label of checkpoint 1 has blanks"]),
        (entries("label: a, step: 1"), [":2: checkpoint 1 has none of the three"]),
        (entries("folder: a, repository: b/c"), [":2: checkpoint 1 has both"]),
        (entries("folder: a, revision: b"), [":2: checkpoint 1 has a revision, but no repo"]),
        (entries("repository: pythia"), [":2: checkpoint 1 has the repository 'pythia'"]),
        (entries("folder: ''"), [":2: the folder of checkpoint 1 is empty"]),
        ("name: x\n", [":1: `checkpoints` is missing"]),
        ("name: x\ncheckpoints:\n", [":2: `checkpoints` is empty"]),
        ("name: x\ncheckpoints: []\n", [":2: `checkpoints` is empty"]),
        ("checkpoints: {a: b}\n", [":1: `checkpoints` is a set of entries"]),
        ("checkpoints:\n- a\n", [":2: checkpoint 1 is the text 'a'"]),
        ("name: 3\ncheckpoints:\n- {folder: a}\n", [":1: `name` is the number 3"]),
        ("name: x\n\tcheckpoints: []\n", [":2: the line is indented with a tab"]),
        ("", [":1: the file is empty"]),
        ("[1, 2", [":1"]),
    ],
)
def test_wrong_suite_files(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = write(tmp_path, text)
    for source in (path, tmp_path):
        message = refusal(source)
        assert message.startswith(str(path))
        for part in parts:
            assert part in message


def test_something_that_is_no_suite_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x08\xff\x00\x00")
    assert "is not UTF-8" in refusal(path)
