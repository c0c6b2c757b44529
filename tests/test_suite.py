"""Suites: which checkpoints are found, in which order, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kntrace.errors import HubError, SuiteError
from kntrace.suite import PAPER_STEPS, Checkpoint, find_suite, load_suite
from kntrace.suite.names import read_name
from kntrace.suite.schedules import read_steps
from suite_folders import grow, labels, refusal

PYTHIA = "EleutherAI/pythia-410m-deduped"


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
