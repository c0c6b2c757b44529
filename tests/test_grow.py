"""The grown worlds say what they claim, and growing is repeatable."""

from __future__ import annotations

import errno
import json
import socket

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from kntrace.errors import SettingsError, SuiteError
from kntrace.grow import grow, make_world, schedule
from kntrace.models.tokens import encode
from kntrace.study import load_study
from kntrace.suite import load_suite

TINY = {"layers": 1, "hidden": 16, "heads": 2, "steps": 6, "batch": 4, "checkpoints": 3}


def weights(folder, step=6):
    return (folder / f"step{step}" / "model.safetensors").read_bytes()


@given(st.integers(1, 3000), st.integers(2, 60))
def test_schedules_begin_at_the_start_and_end_at_the_end(steps, checkpoints):
    if checkpoints > steps + 1:
        return
    kept = schedule(steps, checkpoints)
    assert len(kept) == checkpoints == len(set(kept))
    assert (kept[0], kept[-1]) == (0, steps)
    assert kept == sorted(kept)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """One tiny suite, grown while nothing but this machine can be reached."""
    folder = tmp_path_factory.mktemp("grown") / "a"
    told = []

    def refuse(*args, **kwargs):
        raise AssertionError("growing asked the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        suite = grow(folder, **TINY, progress=lambda *what: told.append(what))
    return folder, suite, told


def test_a_grown_suite_is_complete(grown):
    folder, suite, told = grown
    assert suite == load_suite(folder)
    assert [checkpoint.step for checkpoint in suite] == [0, 3, 6]
    assert [checkpoint.label for checkpoint in suite] == ["step0", "step3", "step6"]
    assert suite.checkpoints[0].tokens == 0 < suite.checkpoints[1].tokens
    assert {path.name for path in folder.iterdir()} == {
        *("step0", "step3", "step6", "recipe.json", "study.yaml", "suite.yaml"),
        *("training.json", "world.yaml"),
    }
    assert (folder / "suite.yaml").read_text().count("folder: step") == 3
    assert [(stage, done, total) for stage, done, total, _ in told] == [
        ("grow", step, 6) for step in range(7)
    ]
    assert "loss" in told[-1][3]
    assert "answered" in told[-1][3]


def test_a_checkpoint_is_an_ordinary_model(grown):
    folder, _, _ = grown
    assert len({weights(folder, step) for step in (0, 3, 6)}) == 3
    model = AutoModelForCausalLM.from_pretrained(folder / "step6")
    tokenizer = AutoTokenizer.from_pretrained(folder / "step6")
    study = load_study(folder / "study.yaml")
    assert study == make_world("structured", 0).study()
    assert sum(len(words) for words in study.groups.values()) == 38
    ids = tokenizer(study.rendered("Cat")[0], return_tensors="pt")["input_ids"]
    assert ids[0, 0] == tokenizer.bos_token_id == model.config.bos_token_id
    assert torch.isfinite(model(ids).logits).all()


def test_the_record_agrees_with_the_checkpoint(grown):
    folder, suite, _ = grown
    record = json.loads((folder / "training.json").read_text())
    assert len(record["loss"]) == 6
    assert record["loss"][-1] < record["loss"][0]
    assert [state["step"] for state in record["checkpoints"]] == [0, 3, 6]
    assert [state["tokens"] for state in record["checkpoints"]] == [c.tokens for c in suite]
    assert record["recipe"] == json.loads((folder / "recipe.json").read_text())
    # The same questions, asked one by one of the saved model.
    model = AutoModelForCausalLM.from_pretrained(folder / "step6").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "step6")
    study = load_study(folder / "study.yaml")
    found = {}
    for word in study.words:
        for (wording, _), prompt in zip(study.slots, study.rendered(word), strict=True):
            encoded = encode(tokenizer, prompt, word.answer)
            with torch.no_grad():
                logits = model(torch.tensor([encoded.ids])).logits[0, -1]
            (answer,) = encoded.answer
            found.setdefault((wording, word.group), []).append(
                (float(logits.softmax(-1)[answer]), int(logits.argmax()), answer)
            )
    last = record["checkpoints"][-1]
    for (wording, group), answers in found.items():
        probability = np.mean([p for p, _, _ in answers])
        right = np.mean([given == wanted for _, given, wanted in answers])
        assert last["probability_by_group"][wording][group] == pytest.approx(probability, rel=1e-4)
        assert last["accuracy_by_group"][wording][group] == pytest.approx(right)


def test_the_same_seed_gives_the_same_weights_whatever_the_caller_has_set(grown, tmp_path):
    folder, _, _ = grown
    torch.manual_seed(5)
    expected = torch.rand(1)
    before = torch.get_num_threads(), logging.get_verbosity()
    logging.set_verbosity_info()
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            grow(tmp_path / "b", **TINY)
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(before[0])
        logging.set_verbosity(before[1])
    assert torch.equal(torch.rand(1), expected), "growing disturbed the caller's random numbers"
    for step in (0, 3, 6):
        assert weights(tmp_path / "b", step) == weights(folder, step)


def test_another_seed_gives_other_weights_and_another_dealing(grown, tmp_path):
    folder, _, _ = grown
    grow(tmp_path / "c", **TINY, seed=1)
    grow(tmp_path / "d", **TINY, seed=1, world_seed=0)
    assert weights(tmp_path / "c", 0) != weights(folder, 0)
    worlds = [(place / "world.yaml").read_text() for place in (folder, *sorted(tmp_path.iterdir()))]
    assert worlds[0] == worlds[2] != worlds[1]
    assert weights(tmp_path / "c", 0) == weights(tmp_path / "d", 0), "initial weights hang on seed"
    assert weights(tmp_path / "c") != weights(tmp_path / "d")


def test_checkpoints_can_be_given_as_steps(tmp_path, grown):
    suite = grow(tmp_path / "e", **{**TINY, "checkpoints": [0, 2, 3]})
    assert [checkpoint.step for checkpoint in suite] == [0, 2, 3]
    assert weights(tmp_path / "e", 3) == weights(grown[0], 3)
    assert grow(tmp_path / "e", **{**TINY, "checkpoints": (0, 2, 3)}) == suite


def test_a_finished_suite_is_kept_and_another_recipe_refused(tmp_path):
    grow(tmp_path, **TINY)
    before = (tmp_path / "step6" / "model.safetensors").stat().st_mtime_ns
    told = []
    grow(tmp_path, **TINY, progress=lambda *what: told.append(what))
    assert told == [("grow", 6, 6, "this suite was there already")]
    with pytest.raises(SuiteError, match=r"\(seed 0 -> 3\)"):
        grow(tmp_path, **TINY, seed=3, world_seed=0)
    assert (tmp_path / "step6" / "model.safetensors").stat().st_mtime_ns == before


def test_another_architecture_and_names_of_several_tokens(tmp_path):
    grow(tmp_path, **TINY, architecture="llama", world="name_length")
    config = json.loads((tmp_path / "step6" / "config.json").read_text())
    assert config["model_type"] == "llama"
    answers = {word.answer for word in load_study(tmp_path / "study.yaml").words}
    assert {len(answer.split()) for answer in answers} == {1, 2, 3, 4}
    record = json.loads((tmp_path / "training.json").read_text())
    assert 0 < record["checkpoints"][-1]["probability"]["grouped"] < 1
    with pytest.raises(SuiteError, match=r"architecture llama -> gpt_neox"):
        grow(tmp_path, **TINY, world="name_length")


def test_a_record_that_does_not_speak_of_the_architecture_is_of_gpt_neox(tmp_path):
    grow(tmp_path, **TINY)
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    del recipe["architecture"]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    told = []
    grow(tmp_path, **TINY, progress=lambda *what: told.append(what))
    assert told == [("grow", 6, 6, "this suite was there already")]


@pytest.mark.parametrize("stop", [0, 4])
def test_a_growth_cut_short_is_begun_anew(stop, tmp_path, grown):
    def interrupt(stage, done, total, detail=""):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path, **TINY, progress=interrupt)
    assert not (tmp_path / "suite.yaml").exists()
    # As a kill in the midst of saving leaves them: a folder half written, and a file.
    (tmp_path / ".step6.partial").mkdir()
    (tmp_path / ".step6.partial" / "config.json").write_text("{")
    (tmp_path / ".study.yaml.partial").write_text("name")
    assert len(grow(tmp_path, **TINY)) == 3
    assert weights(tmp_path) == weights(grown[0])
    assert not list(tmp_path.glob(".*"))


def test_a_growth_cut_short_before_its_first_file_is_begun_anew(tmp_path):
    (tmp_path / ".recipe.json.partial").write_text("{")
    assert len(grow(tmp_path, **TINY)) == 3


def test_a_suite_that_lost_a_part_is_grown_again_and_nothing_else_is_touched(tmp_path, grown):
    grow(tmp_path, **TINY)
    (tmp_path / "step6" / "model.safetensors").unlink()
    for other in ("step6-notes", "steps"):
        (tmp_path / other).mkdir()
    (tmp_path / "step6.txt").write_text("mine")
    grow(tmp_path, **TINY)
    assert weights(tmp_path) == weights(grown[0])
    assert (tmp_path / "step6-notes").is_dir()
    assert (tmp_path / "steps").is_dir()
    assert (tmp_path / "step6.txt").read_text() == "mine"


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SuiteError, match="is not a grown suite"):
        grow(tmp_path, **TINY)
    with pytest.raises(SuiteError, match="is not a grown suite"):
        grow(tmp_path / "thesis.txt", **TINY)
    with pytest.raises(SuiteError, match="cannot be written"):
        grow(tmp_path / "thesis.txt" / "suite", **TINY)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["{", "[]", "\udc80", "[" * 100_000])
def test_a_broken_recipe_is_named(content, tmp_path):
    (tmp_path / "recipe.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SuiteError, match=r"recipe\.json"):
        grow(tmp_path, **TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world": "round"}, "world 'round'; expected one of structured, flat"),
        ({"hidden": 30, "heads": 4}, "hidden = 30 with heads = 4"),
        ({"hidden": 8, "heads": 4}, "at least 4 channels for each"),
        ({"checkpoints": 9}, "checkpoints = 9 with steps = 6"),
        ({"checkpoints": 1}, "checkpoints = 1 with steps = 6"),
        ({"checkpoints": [0, 4, 2]}, r"checkpoints = \[0, 4, 2\] with steps = 6; expected two"),
        ({"checkpoints": [0, 7]}, r"rising, from 0 to 6"),
        ({"checkpoints": 2.5}, r"checkpoints = 2\.5"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": 6.5}, r"steps = 6\.5"),
        ({"batch": -1}, "batch = -1"),
        ({"seed": -1}, "seed = -1"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"threads": 0}, "threads = 0; expected 1 or more"),
        ({"architecture": "gpt5"}, "architecture 'gpt5'; expected one of gpt_neox, llama"),
    ],
)
def test_impossible_recipes_are_named(change, message, tmp_path):
    with pytest.raises(SettingsError, match=message):
        grow(tmp_path / "new", **{**TINY, **change})
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_one_line_and_the_next_go_begins_anew(tmp_path, monkeypatch):
    def full(self, step):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kntrace.grow.pretrain.Pretraining.keep", full)
        with pytest.raises(SuiteError, match=r"could not be written .*No space left.*Make room"):
            grow(tmp_path / "suite", **TINY)
    assert len(grow(tmp_path / "suite", **TINY)) == 3
