"""Never from other inputs than before."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import kntrace
from conftest import TinySuite, save_checkpoint
from kntrace.archive import (
    Run,
    status,
)
from kntrace.errors import ModelError, SuiteError
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.suite import load_suite
from kntrace.sweep import run as sweep
from sweeps import (  # noqa: F401
    finish,
    fixture_done,
    fixture_loads,
    fixture_master,
    fixture_mine,
    fixture_one_thread,
    refused,
    remove,
    tree,
)


def test_a_changed_study_is_refused(mine: TinySuite, done: Run) -> None:
    mine.study_file.write_text(mine.study_file.read_text().replace("hunts mice", "says meow"))
    message = refused(mine, done)
    assert "prompt 2 (main) of 'cat': 'what hunts mice' -> 'what says meow'" in message
    assert "another --out" in message


def test_a_changed_setting_is_refused(tiny_suite: TinySuite, done: Run) -> None:
    message = refused(tiny_suite, done, settings=Settings.of(rule="midpoint"))
    assert "settings: rule: adaptive -> midpoint" in message


def test_a_checkpoint_of_another_architecture_is_refused(mine: TinySuite, tmp_path: Path) -> None:
    file = mine.folder / "step10" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"use_parallel_residual": False}))
    with pytest.raises(ModelError, match=r"step10.*use_parallel_residual True -> False"):
        finish(mine, tmp_path / "run")


def test_a_missing_folder_is_found_before_anything_is_scored(
    mine: TinySuite, tmp_path: Path
) -> None:
    suite = mine.suite
    shutil.rmtree(mine.folder / "step10")
    with pytest.raises(SuiteError, match="step10"):
        kntrace.run(mine.study, suite, tmp_path / "run", progress=silent)
    assert not (tmp_path / "run" / "scores.zarr").exists()


def test_another_suite_is_refused(mine: TinySuite, done: Run) -> None:
    shutil.rmtree(mine.folder / "step10")
    assert "suite: checkpoint step10 is gone" in refused(mine, done)


@pytest.mark.parametrize("left", [[], [(1, 2)], [(2, 0)]])
def test_changed_weights_are_refused(
    mine: TinySuite, done: Run, left: list[tuple[int, int]]
) -> None:
    """Also where the checkpoint was finished and others, or none, are still to do."""
    for pair in left:
        remove(done, *pair)
    file = mine.folder / "step10" / "model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    assert "the weights of 'step10' have changed" in refused(mine, done)


def test_a_changed_configuration_is_refused(mine: TinySuite, done: Run) -> None:
    file = mine.folder / "step10" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"transformers_version": "9.9"}))
    finish(mine, done.path)
    file.write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    assert "the configuration of 'step10' has changed" in refused(mine, done)


def test_a_moved_and_touched_suite_goes_on(
    mine: TinySuite, done: Run, master: Path, loads: list[str]
) -> None:
    for file in mine.folder.rglob("*"):
        os.utime(file, ns=(1, 1))
    remove(done, 2, 1)
    finish(mine, done.path)
    assert loads == ["step0", "step10", "step100"], "touched files have to be looked at"
    assert tree(done) == tree(master)
    finish(mine, done.path)
    assert len(loads) == 3, "and only once"


def test_finished_checkpoints_may_be_deleted(
    mine: TinySuite, done: Run, master: Path, tmp_path: Path
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(mine.suite.to_yaml())
    shutil.rmtree(mine.folder / "step0")
    remove(done, 2, 1)
    sweep(mine.study, load_suite(suite), done.path, threads=1, progress=silent)
    assert tree(done) == tree(master)


def test_another_tokenizer_is_refused(mine: TinySuite, done: Run, tmp_path: Path) -> None:
    for folder in (mine.folder / "step10", mine.folder / "step100"):
        file = folder / "tokenizer.json"
        text = file.read_text().replace('"meow"', '"@"').replace('"woof"', '"meow"')
        file.write_text(text.replace('"@"', '"woof"'))
    with pytest.raises(ModelError, match=r"step10: its tokenizer reads the study's prompts"):
        finish(mine, done.path)
    with pytest.raises(ModelError, match=r"step10: its tokenizer reads the study's prompts"):
        finish(mine, tmp_path / "new")


def test_a_checkpoint_of_another_shape_is_refused(mine: TinySuite, tmp_path: Path) -> None:
    shutil.rmtree(mine.folder / "step10")
    save_checkpoint(mine.folder / "step10", seed=1, layers=3)
    with pytest.raises(ModelError, match=r"step10: .*num_hidden_layers 2 -> 3"):
        finish(mine, tmp_path / "run")
    assert status(tmp_path / "run").done == 4
