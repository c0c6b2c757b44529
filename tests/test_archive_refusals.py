"""Run folders that are refused: none, changed, damaged, or of another study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import zarr

from archives import copied_run, empty, make, study, suite, tree, truncate, whole_run  # noqa: F401  (fixtures)
from kntrace.archive import (
    Run,
    open_run,
    resume_run,
    writing,
)
from kntrace.errors import RunError
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Checkpoint, Suite


def test_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "study.yaml").write_text("precious")
    for name, message in (
        ("file", "file: a file"),
        ("folder", "a folder without scores.zarr"),
        ("absent", "no such folder"),
    ):
        with pytest.raises(RunError, match=message):
            open_run(tmp_path / name)
    for name in ("file", "folder"):
        with pytest.raises(RunError, match=r"a file, not|holds 'study\.yaml'"):
            make(tmp_path / name)
        with pytest.raises(RunError, match=r"a file, not|holds 'study\.yaml'"):
            writing(tmp_path / name).__enter__()
    assert tree(tmp_path) == {"file": b"x", "folder/study.yaml": b"precious"}


@pytest.mark.parametrize("name", ["x" * 300, "nul\0"])
def test_names_that_no_folder_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="cannot be looked up"):
        open_run(tmp_path / name)
    with pytest.raises(RunError, match="cannot be looked up"):
        make(tmp_path / name)
    with pytest.raises(RunError, match="cannot be looked up"):
        writing(tmp_path / name).__enter__()


def test_a_run_is_not_made_twice(run: Run) -> None:
    before = tree(run.path)
    with pytest.raises(RunError, match="a run already"):
        make(run.path)
    assert tree(run.path) == before


@pytest.mark.parametrize("name", ["study", "suite", "settings"])
def test_changed_copies_are_refused(run: Run, name: str) -> None:
    file = run.path / f"{name}.yaml"
    text = file.read_text()
    old, new = {
        "study": ("second 3", "another 3"),
        "suite": ("step: 70", "step: 71"),
        "settings": ("nodes: 8", "nodes: 9"),
    }[name]
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=rf"{name}\.yaml: changed since the run was made"):
        open_run(run.path)
    file.write_text("[")
    with pytest.raises(RunError, match="cannot be read"):
        open_run(run.path)
    file.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        open_run(run.path)
    file.write_text(text)
    open_run(run.path)


@pytest.mark.parametrize(
    "name", ["zarr.json", "score/zarr.json", "word/zarr.json", "word/c/0", "layer/c/0"]
)
@pytest.mark.parametrize("damage", [truncate, empty, Path.unlink])
@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")
def test_a_damaged_description_is_refused(
    run: Run, name: str, damage: Callable[[Path], None]
) -> None:
    damage(run.path / "scores.zarr" / name)
    with pytest.raises(RunError, match=r"scores\.zarr|labels"):
        open_run(run.path)


def test_another_format_is_refused(run: Run) -> None:
    zarr.open_group(run.path / "scores.zarr", mode="r+").attrs["kntrace_format"] = 1
    with pytest.raises(RunError, match=r"format 1.*version of kntrace"):
        open_run(run.path)


def test_a_broken_record_is_named(run: Run) -> None:
    run.update_provenance({"device": "cpu", "note": "色"})
    assert open_run(run.path).provenance == {"device": "cpu", "note": "色"}
    (run.path / "provenance.json").write_text("{")
    with pytest.raises(RunError, match=r"provenance\.json.*Remove the file"):
        _ = run.provenance
    (run.path / "provenance.json").unlink()
    assert run.provenance == {}


def resumed_with(
    run: Run, *, words: Study | None = None, places: Suite | None = None, **settings: object
) -> str:
    with pytest.raises(RunError) as caught:
        resume_run(run.path, words or study(), places or suite(), Settings.of(**settings))
    assert "--out" in str(caught.value)
    assert "remove this folder" in str(caught.value)
    return str(caught.value)


def test_another_study_is_refused_and_named(run: Run) -> None:
    before = tree(run.path)
    words = list(study().words)
    words[5] = words[5].model_copy(
        update={"prompts": {"main": ("first 5", "changed"), "neutral": ("third 5",)}}
    )
    message = resumed_with(run, words=study().model_copy(update={"words": tuple(words)}))
    assert "study: prompt 2 (main) of 'Cat': 'second 5' -> 'changed'" in message
    message = resumed_with(run, words=study(template="A {question}"))
    assert "study: template 'Q {question}' -> 'A {question}'" in message
    fewer = study().model_copy(update={"words": study().words[1:]})
    assert "study: word '../up' is gone" in resumed_with(run, words=fewer)
    swapped = (*study().words[1::-1], *study().words[2:])
    message = resumed_with(run, words=study().model_copy(update={"words": swapped}))
    assert "study: the words come in another order" in message
    answer = (study().words[0].model_copy(update={"answer": "else"}), *study().words[1:])
    message = resumed_with(run, words=study().model_copy(update={"words": answer}))
    assert "answer of '../up': 'answer 0' -> 'else'" in message
    assert tree(run.path) == before


def test_another_suite_or_setting_is_refused_and_named(run: Run) -> None:
    shorter = Suite("toy", suite().checkpoints[:2])
    assert "suite: checkpoint end is gone" in resumed_with(run, places=shorter)
    message = resumed_with(run, nodes=9, rule="public_code")
    assert "settings: rule: adaptive -> public_code; settings: nodes: 8 -> 9" in message


def test_names_and_moved_checkpoints_are_no_change(run: Run) -> None:
    moved = Suite(
        "another name",
        tuple(Checkpoint(c.label, c.step, c.tokens, f"/else{c.source}", None) for c in suite()),
    )
    assert resume_run(run.path, study(name="renamed"), moved, Settings()) is not None
