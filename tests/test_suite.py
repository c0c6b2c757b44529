"""Suites: which checkpoints are found, in which order, and what is said of those that are wrong."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kntrace.errors import HubError, SuiteError
from kntrace.suite import PAPER_STEPS, Checkpoint, Suite, find_suite, load_suite
from kntrace.suite.names import read_name
from kntrace.suite.schedules import read_steps

PYTHIA = "EleutherAI/pythia-410m-deduped"


def grow(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    return folder


def labels(suite: Suite) -> list[str]:
    return [checkpoint.label for checkpoint in suite]


def refusal(source: str | Path, **options: Any) -> str:
    with pytest.raises(SuiteError) as caught:
        load_suite(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


# Names


@pytest.mark.parametrize(
    ("name", "step", "tokens"),
    [
        ("step512", 512, None),
        ("step_10", 10, None),
        ("step-1000", 1000, None),
        ("global_step1000", 1000, None),
        ("checkpoint-500", 500, None),
        ("ckpt_000", 0, None),
        ("ckpt_358", 358, None),
        ("iter_0000100", 100, None),
        ("step0005000", 5000, None),
        ("step1000-tokens3B", 1000, 3 * 10**9),
        ("stage1-step1000-tokens3B", 1000, 3 * 10**9),
        ("stage2-ingredient3-step11000-tokens47B", 11000, 47 * 10**9),
        ("step2000-tokens1.1T", 2000, 1_100_000_000_000),
        ("step0-tokens0B", 0, 0),
        ("stage2-step-400", 400, None),
        ("CrystalCoder_phase1_checkpoint_000500", 500, None),
        ("multiberts-seed_0-step_20k", 20_000, None),
        ("pythia-410m-step64", 64, None),
        ("model7", 7, None),
        ("run2-epoch3", 3, None),
        ("100", 100, None),
        ("final", None, None),
    ],
)
def test_names_of_checkpoints(name: str, step: int | None, tokens: int | None) -> None:
    found = read_name(name)
    assert (found.step, found.tokens) == (step, tokens)


@pytest.mark.parametrize(
    ("name", "step"),
    [("pythia-410m", None), ("gpt2", None), ("step7", 7), ("checkpoint-5", 5), ("100", 100)],
)
def test_names_of_checkpoints_that_stand_alone(name: str, step: int | None) -> None:
    found = read_name(name, alone=True)
    assert (found.step, found.tokens) == (step, None)


# Folders


def test_a_folder_of_checkpoints_is_sorted_by_number(tmp_path: Path) -> None:
    grow(tmp_path / "tiny", ["step1000", "step64", "step512", "step0", "step8"])
    suite = load_suite(tmp_path / "tiny")
    assert suite.name == "tiny"
    assert labels(suite) == ["step0", "step8", "step64", "step512", "step1000"]
    assert [checkpoint.step for checkpoint in suite] == [0, 8, 64, 512, 1000]
    assert len(suite) == 5
    assert suite.checkpoints[1] == Checkpoint(
        "step8", 8, None, str(tmp_path / "tiny" / "step8"), None
    )


def test_other_things_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    grow(tmp_path, ["step1", "step2", ".cache"])
    (tmp_path / "logs").mkdir()
    (tmp_path / "figures 2").mkdir()
    (tmp_path / "study.yaml").write_text("x")
    (tmp_path / "step3").write_text("a file")
    assert labels(load_suite(tmp_path)) == ["step1", "step2"]


def test_a_relative_folder_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path / "tiny", ["step0"])
    monkeypatch.chdir(tmp_path / "tiny")
    for source in ("../tiny", ".", Path("../tiny/step0/..")):
        suite = load_suite(source)
        assert suite.name == "tiny"
        assert suite.checkpoints[0].source == str(tmp_path / "tiny" / "step0")


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    grow(tmp_path / "tiny", ["step0"])
    assert labels(load_suite("~/tiny")) == ["step0"]
    assert "there is no folder" in refusal("~nobody-of-that-name/tiny")


def test_a_link_keeps_its_name(tmp_path: Path) -> None:
    grow(tmp_path / "elsewhere", ["a1b2c3"])
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "step5").symlink_to(tmp_path / "elsewhere" / "a1b2c3")
    suite = load_suite(tmp_path / "tiny")
    assert [checkpoint.step for checkpoint in suite] == [5]


@pytest.mark.parametrize(("name", "step"), [("step40", 40), ("pythia-410m", None)])
def test_a_folder_that_is_one_checkpoint(tmp_path: Path, name: str, step: int | None) -> None:
    grow(tmp_path, [name])
    suite = load_suite(tmp_path / name)
    assert [(item.label, item.step) for item in suite] == [(name, step)]


def test_two_checkpoints_of_one_step(tmp_path: Path) -> None:
    message = refusal(grow(tmp_path, ["step10", "step_10", "step5"]))
    assert "step10 and step_10 are both at step 10" in message


def test_a_checkpoint_without_a_step_among_others(tmp_path: Path) -> None:
    grow(tmp_path, ["step10", "final"])
    assert "the step of final is unknown" in refusal(tmp_path)
    assert labels(load_suite(tmp_path, steps=[10])) == ["step10"]


def test_a_checkpoint_that_holds_checkpoints(tmp_path: Path) -> None:
    grow(tmp_path, ["run", "run/checkpoint-5", "run/checkpoint-10"])
    assert labels(load_suite(tmp_path / "run")) == ["checkpoint-5", "checkpoint-10"]
    assert find_suite(tmp_path / "run").aside == ("run",)
    grow(tmp_path, ["other", "other/onnx"])
    message = refusal(tmp_path / "other")
    assert "is a checkpoint itself and holds others, such as onnx" in message
    assert "suite.yaml" in message


@pytest.mark.parametrize("inside", ["model.safetensors", "pytorch_model.bin", None])
def test_a_checkpoint_that_is_not_whole(tmp_path: Path, inside: str | None) -> None:
    grow(tmp_path, ["step0", "step2"])
    (tmp_path / "step1").mkdir()
    if inside is not None:
        (tmp_path / "step1" / inside).write_text("weights")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / 'step1'}: no config.json")
    assert labels(load_suite(tmp_path, steps=[0, 2])) == ["step0", "step2"]


def test_folders_without_checkpoints(tmp_path: Path) -> None:
    assert "the folder is empty" in refusal(tmp_path)
    for name in "abcdef":
        (tmp_path / name).mkdir()
    (tmp_path / "0.txt").write_text("")
    message = refusal(tmp_path)
    assert "no checkpoints: the folder holds 0.txt, a/, b/, c/ and 3 more" in message
    assert "config.json" in message


def test_weights_without_a_config_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    assert "holds model.safetensors; expected subfolders with a config.json" in refusal(tmp_path)


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    grow(tmp_path / "tiny", ["step0"])
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "the folder cannot be read: Permission denied" in refusal(tmp_path / "tiny")


@pytest.mark.parametrize("name", ["a\nb step1", "café step1", "step1 😀", " step1"])
def test_strange_names_of_folders(tmp_path: Path, name: str) -> None:
    folder = grow(tmp_path / name, ["step0", "step1"])
    suite = load_suite(folder)
    path = tmp_path / "suite.yaml"
    path.write_text(suite.to_yaml(), encoding="utf-8")
    assert load_suite(path) == suite


# Steps


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (None, [0, 64, 512, 1000]),
        ("all", [0, 64, 512, 1000]),
        ([512, 0], [0, 512]),
        ((64,), [64]),
        (range(0, 128, 64), [0, 64]),
        ("0,512,1000", [0, 512, 1000]),
        (" 1000 , 64", [64, 1000]),
    ],
)
def test_steps_choose_from_a_folder(tmp_path: Path, steps: Any, expected: list[int]) -> None:
    grow(tmp_path, ["step1000", "step64", "step512", "step0"])
    assert [checkpoint.step for checkpoint in load_suite(tmp_path, steps=steps)] == expected


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        ([64, 700], ["no checkpoint at step 700 (", "its neighbours are step512 and step1000"]),
        ([5000], ["5000 (the last is step1000)"]),
        ([3], ["3 (the first is step64)"]),
        ([1, 2, 3, 4, 5], ["1 (", "2 (", "3 (", "and 2 more"]),
        ("paper", ["no checkpoint at step 0 ("]),
    ],
)
def test_a_step_that_is_missing(tmp_path: Path, steps: Any, parts: list[str]) -> None:
    grow(tmp_path, ["step1000", "step64", "step512"])
    message = refusal(tmp_path, steps=steps)
    for part in parts:
        assert part in message


def test_steps_of_a_suite_without_steps(tmp_path: Path) -> None:
    grow(tmp_path, ["final"])
    assert "no checkpoint's step is known" in refusal(tmp_path, steps=[3])


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        ("papre", "'papre' is not a step"),
        ("", "'' is not a step"),
        ("1,,2", "'' is not a step"),
        ("1.5", "'1.5' is not a step"),
        ([1.5], "1.5 is not a step"),
        ([True], "True is not a step"),
        ([None], "None is not a step"),
        (512, "512 is not a list"),
        ([], "an empty list"),
        ([-1], "-1 is negative"),
        ("3,5,3", "3 stands there twice"),
        ("log:0", "asks for none"),
        ("log", "'log' is not a step"),
        ("log:x", "Did you mean 'log'?"),
        ("evry:3", "Did you mean 'every'?"),
        ("papr", "Did you mean 'paper'?"),
    ],
)
def test_steps_that_are_none(steps: Any, part: str) -> None:
    message = refusal(PYTHIA, steps=steps)  # said before the hub is asked
    assert message.startswith("steps: ")
    assert part in message


# The hub


def test_the_steps_of_the_paper() -> None:
    expected = [0, 512, 1000, 3000, 5000, *range(10000, 150000, 10000), 143000]
    assert tuple(expected) == PAPER_STEPS
    assert read_steps("paper").steps == PAPER_STEPS


def test_a_folder_comes_before_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path / "EleutherAI" / "pythia-410m-deduped", ["step0", "step512"])
    monkeypatch.chdir(tmp_path)
    suite = load_suite(PYTHIA, steps=[0])
    assert suite.checkpoints[0].revision is None


@pytest.mark.parametrize(
    "source",
    [
        "nothing",
        "./a/b",
        "a/b/c",
        "/absent/path",
        "runs/suite.yaml",
        "a/../b",
        "a b/c",
        "a/b@x",
        "a\0b",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("steps", [None, "paper"])
def test_a_path_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, steps: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SuiteError, match="there is no folder or file"):
        load_suite(source, steps=steps)


def test_a_path_misspelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "runs" / "tiny-model", ["step0"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="and there is no folder or file of that name") as caught:
        load_suite("runs/tiny-modle")
    assert "Did you mean 'runs/tiny-model'?" in str(caught.value)
    assert "Did you mean" in refusal(tmp_path / "runs" / "tiny-modell")
    assert "is empty" in refusal("")


# Suite files

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


def write(folder: Path, text: str, name: str = "suite.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


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


# The suite as an object


def checkpoint(step: int | None, label: str = "", **more: Any) -> Checkpoint:
    values = {"tokens": None, "source": f"/suite/{step}", "revision": None} | more
    return Checkpoint(label or f"step{step}", step, **values)


def test_a_suite_orders_its_checkpoints() -> None:
    suite = Suite("x", (checkpoint(10), checkpoint(2), checkpoint(0)))
    assert [item.step for item in suite] == [0, 2, 10]
    assert pickle.loads(pickle.dumps(suite)) == suite
    with pytest.raises(FrozenInstanceError):
        suite.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("checkpoints", "part"),
    [
        ((), "no checkpoints"),
        ((checkpoint(1), checkpoint(2, "step1")), "two checkpoints are called step1"),
        ((checkpoint(1), checkpoint(1, "other")), "step1 and other are both at step 1"),
        ((checkpoint(1), checkpoint(None, "other")), "the step of other is unknown"),
        ((checkpoint(-1),), "at step -1"),
        ((checkpoint(1, "a", stage="s"), checkpoint(1, stage="s")), "both at step 1 of s"),
        ((checkpoint(None, "a", stage="s"),), "a has the stage s, but no step"),
        ((checkpoint(1, "a", stage="s\n"),), "the stage 's\\n' holds a line break"),
        ((checkpoint(1, "a\nb"),), "line break"),
        ((checkpoint(1, source=""),), "the source '' is empty"),
        ((checkpoint(1, source="/a\udc80"),), "U+DC80"),
    ],
)
def test_suites_that_cannot_be(checkpoints: tuple[Checkpoint, ...], part: str) -> None:
    with pytest.raises(SuiteError) as caught:
        Suite("tiny", checkpoints)
    assert part in str(caught.value)
    assert "tiny" in str(caught.value)


def test_stages_come_in_order_and_may_share_steps() -> None:
    suite = Suite(
        "x",
        tuple(
            checkpoint(step, f"{stage}-{step}", stage=stage)
            for stage in ("stage10", "stage2", None, "stage2-ingredient3")
            for step in (5, 0)
        ),
    )
    assert labels(suite) == [
        f"{stage}-{step}"
        for stage in (None, "stage2", "stage2-ingredient3", "stage10")
        for step in (0, 5)
    ]
    assert suite.stages == (None, "stage2", "stage2-ingredient3", "stage10")


def test_a_stage_is_part_of_the_digest_and_its_absence_is_not() -> None:
    plain = Suite("x", (checkpoint(3, "a", source="/a"),))
    # As it was before there were stages: runs made then go on.
    content = json.dumps([["a", 3, None, None, None]])
    assert plain.digest == hashlib.sha256(content.encode()).hexdigest()
    staged = Suite("x", (checkpoint(3, "a", source="/a", stage="stage2"),))
    assert staged.digest != plain.digest
    assert plain.differences(staged) == ["stage of a: None -> stage2"]


def test_digest_and_differences() -> None:
    hub = checkpoint(2, source="a/b", revision="r", tokens=7)
    suite = Suite("x", (checkpoint(0), checkpoint(1), hub))
    same = Suite("y", (hub, replace(checkpoint(1), source="/moved/1"), checkpoint(0)))
    assert same.digest == suite.digest
    assert suite.differences(same) == []
    changed = {
        "label": (
            replace(hub, label="other"),
            ["checkpoint step2 is gone", "checkpoint other is new"],
        ),
        "step": (replace(hub, step=3), ["step of step2: 2 -> 3"]),
        "tokens": (replace(hub, tokens=None), ["tokens of step2: 7 -> None"]),
        "repository": (replace(hub, source="a/c"), ["source of step2: a/b at r -> a/c at r"]),
        "revision": (replace(hub, revision="s"), ["source of step2: a/b at r -> a/b at s"]),
        "folder": (
            replace(hub, source="/a/b", revision=None),
            ["source of step2: a/b at r -> /a/b"],
        ),
    }
    for other, expected in changed.values():
        changed_suite = Suite("x", (checkpoint(0), checkpoint(1), other))
        assert changed_suite.digest != suite.digest
        assert suite.differences(changed_suite) == expected
    fewer = Suite("x", (checkpoint(0), checkpoint(1)))
    assert fewer.digest != suite.digest
    assert suite.differences(fewer) == ["checkpoint step2 is gone"]
    assert fewer.differences(suite) == ["checkpoint step2 is new"]
    one, two = (checkpoint(None, name, source=name) for name in "ab")
    assert Suite("x", (one, two)).differences(Suite("x", (two, one))) == [
        "the checkpoints come in another order"
    ]


def test_a_suite_moves_with_its_file(tmp_path: Path) -> None:
    grow(tmp_path / "old", ["step0", "step64"])
    suite = load_suite(tmp_path / "old")
    (tmp_path / "old" / "suite.yaml").write_text(suite.to_yaml(relative_to=tmp_path / "old"))
    assert load_suite(tmp_path / "old") == suite
    (tmp_path / "old").rename(tmp_path / "new")
    moved = load_suite(tmp_path / "new" / "suite.yaml")
    assert [item.source for item in moved] == [
        str(tmp_path / "new" / "step0"),
        str(tmp_path / "new" / "step64"),
    ]
    assert moved.digest == suite.digest
    moved.check_present()
    with pytest.raises(SuiteError, match=r"2 of 2 checkpoints have no config.json: step0, step64"):
        suite.check_present()


def test_a_suite_file_stays_readable_after_its_weights_are_gone(tmp_path: Path) -> None:
    suite = load_suite(grow(tmp_path / "tiny", ["step0", "step1"]))
    file = write(tmp_path / "run", suite.to_yaml())
    for name in ("step0", "step1"):
        (tmp_path / "tiny" / name / "config.json").unlink()
    assert load_suite(file) == suite


_LABELS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)


@st.composite
def suites(draw: st.DrawFn) -> Suite:
    names = draw(st.lists(_LABELS, min_size=1, max_size=5, unique=True))
    steps: list[int | None] = list(
        draw(
            st.lists(
                st.integers(0, 2**63 - 1), min_size=len(names), max_size=len(names), unique=True
            )
        )
    )
    if draw(st.booleans()):
        steps = [None] * len(names)
    made = []
    for name, step in zip(names, steps, strict=True):
        tokens = draw(st.none() | st.integers(0, 10**15))
        stage = None if step is None else draw(st.none() | _LABELS)
        if draw(st.booleans()):
            revision = draw(_LABELS)
            made.append(Checkpoint(name, step, tokens, "owner/model.x", revision, stage))
        else:
            folder = draw(_LABELS).replace("/", "_").strip(".") or "x"
            made.append(Checkpoint(name, step, tokens, f"/suite/{folder}", None, stage))
    return Suite(draw(_LABELS), tuple(made))


@settings(deadline=None, max_examples=100)
@given(suite=suites(), relative=st.booleans())
def test_yaml_round_trip(
    suite: Suite, relative: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "round trip.yaml"
    path.write_text(suite.to_yaml(relative_to=folder if relative else None), encoding="utf-8")
    again = load_suite(path)
    assert again == suite
    assert again.digest == suite.digest
    assert suite.differences(again) == []


def test_reading_a_suite_loads_nothing_heavy(tmp_path: Path) -> None:
    grow(tmp_path, ["step0", "step1"])
    code = (
        "import sys, kntrace.suite\n"
        f"kntrace.suite.load_suite({str(tmp_path)!r}, steps='log:2')\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'zarr', 'numpy'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
