"""Loading a checkpoint: complete, finite, in the wanted format, and told from any other."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import kntrace
from kntrace.attribution import Engine
from kntrace.errors import ModelError, SettingsError, SuiteError
from kntrace.models import load_checkpoint
from kntrace.suite import Checkpoint


@pytest.fixture
def folder(tiny_suite, tmp_path):
    return shutil.copytree(tiny_suite.folder / "step10", tmp_path / "step10")


def checkpoint(folder):
    return Checkpoint(label="step10", step=10, tokens=None, source=str(folder), revision=None)


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_equal_weights_have_equal_fingerprints_wherever_they_lie(folder, tiny_suite):
    here, there = checkpoint(folder), checkpoint(tiny_suite.folder / "step10")
    other = checkpoint(tiny_suite.folder / "step100")
    prints = [load_checkpoint(one).fingerprint for one in (here, there, other)]
    assert prints[0] == prints[1] != prints[2]
    change_weights(
        folder, lambda weights: weights["gpt_neox.layers.0.mlp.dense_h_to_4h.bias"].add_(1e-3)
    )
    loaded = load_checkpoint(here)
    assert loaded.fingerprint != prints[0]
    old = load_checkpoint(there).prints
    changed = [name for name, value in loaded.prints.items() if old[name] != value]
    assert changed == ["gpt_neox.layers.0.mlp.dense_h_to_4h.bias"]


def test_half_precision_weights_are_computed_in_single(folder, tiny_suite):
    """A checkpoint saved as float16 loads as float32 and scores like its float32 twin."""
    model = AutoModelForCausalLM.from_pretrained(folder).half()
    model.save_pretrained(folder)
    loaded = load_checkpoint(checkpoint(folder))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    prompt, answer = tiny_suite.study.rendered("cat")[0], "cat"
    mine = kntrace.attribute(loaded.model, loaded.tokenizer, prompt, answer)
    twin = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = kntrace.attribute(twin, loaded.tokenizer, prompt, answer)
    np.testing.assert_array_equal(mine.score, theirs.score)
    double = load_checkpoint(checkpoint(folder), dtype="float64")
    exact = kntrace.attribute(double.model, double.tokenizer, prompt, answer)
    assert np.linalg.norm(mine.score - exact.score) < 1e-4 * np.linalg.norm(exact.score)


def test_missing_weights_are_an_error_and_a_tied_head_is_none(folder):
    change_weights(
        folder, lambda weights: weights.pop("gpt_neox.layers.1.mlp.dense_h_to_4h.weight")
    )
    with pytest.raises(SuiteError, match=r"step10: 1 tensors are missing.*layers\.1\.mlp"):
        load_checkpoint(checkpoint(folder))


def test_a_tied_head_needs_no_weights_of_its_own(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    change_weights(folder, lambda weights: weights.pop("lm_head.weight", None))
    load_checkpoint(checkpoint(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(folder, value):
    def spoil(weights):
        weights["gpt_neox.layers.0.attention.dense.weight"][0, 0] = value

    change_weights(folder, spoil)
    with pytest.raises(SuiteError, match=r"step10: the weights .*attention\.dense\.weight hold"):
        load_checkpoint(checkpoint(folder))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text('{"model_type": "klingon"}'), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be loaded"),
    ],
)
def test_broken_folders_end_in_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(SuiteError, match=message) as caught:
        load_checkpoint(checkpoint(folder))
    assert "\n" not in str(caught.value)
    assert "step10" in str(caught.value)


def test_a_shape_that_the_config_does_not_allow_is_named(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(SuiteError, match="step10"):
        load_checkpoint(checkpoint(folder))


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(folder):
    (folder / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    with pytest.raises(ModelError, match="encoder-decoder"):
        load_checkpoint(checkpoint(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device 'abacus'"),
        ({"device": "cuda"}, "this machine has none"),
        ({"dtype": "float8"}, "dtype 'float8'"),
        ({"dtype": "float16"}, "float16 on a CPU"),
    ],
)
def test_what_the_machine_cannot_do_is_said(folder, options, message):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SettingsError, match=message):
        load_checkpoint(checkpoint(folder), **options)


def test_a_repository_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    missing = Checkpoint(
        label="step0", step=0, tokens=None, source="nobody/nothing-410m", revision="step0"
    )
    with pytest.raises(SuiteError, match=r"step0: nobody/nothing-410m at step0") as caught:
        load_checkpoint(missing)
    assert "\n" not in str(caught.value)


def test_engine_sees_layers_and_width(folder):
    loaded = load_checkpoint(checkpoint(folder))
    with Engine(loaded.model, loaded.tokenizer) as engine:
        assert (engine.layers, engine.width) == (2, 24)
        assert engine.replay == "shared_prefix"
