"""GGUF files: what is loaded is what was written, and what cannot be read whole is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import kntrace
from kntrace.archive import source_config, source_state
from kntrace.errors import RunError, SuiteError
from kntrace.models import load_checkpoint
from kntrace.progress import silent
from kntrace.suite import Checkpoint, Suite, load_suite
from kntrace.sweep import run
from tiny_gguf import HEAD, HEADS, LAYERS, WIDTH, as_read, twin, vocabulary, weights, write


def checkpoint(path: Path) -> Checkpoint:
    return load_suite(path).checkpoints[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file and the weights that were written to it; never changed."""
    tensors = weights(0)
    path = write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tensors)
    return path, {name: as_read(name, tensor) for name, tensor in tensors.items()}


def test_every_tensor_is_the_one_that_was_written(made, capfd):
    path, expected = made
    loaded = load_checkpoint(checkpoint(path))
    assert capfd.readouterr().err == ""
    state = loaded.model.state_dict()
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), tensor, err_msg=name)
    # Packing must have changed something, or this shows nothing of it.
    raw = weights(0)
    assert any(not np.array_equal(raw[name], tensor) for name, tensor in expected.items())


def test_it_scores_like_the_same_model_from_elsewhere(made):
    path, expected = made
    loaded = load_checkpoint(checkpoint(path))
    assert loaded.tokenizer(" which pet says meow")["input_ids"][-4:] == [
        vocabulary()[0].index(f"Ġ{word}") for word in ("which", "pet", "says", "meow")
    ]
    given = (loaded.tokenizer, " which pet says meow", "cat", "adaptive")
    mine = kntrace.attribute(loaded.model, *given)
    theirs = kntrace.attribute(twin(expected), *given)
    assert mine.score.shape == (LAYERS, WIDTH)
    np.testing.assert_allclose(mine.score, theirs.score, rtol=1e-5, atol=1e-9)


def test_a_tied_head_and_double_precision(tmp_path):
    tensors = weights(1, tied=True)
    loaded = load_checkpoint(checkpoint(write(tmp_path / "tied.gguf", tensors)), dtype="float64")
    model = loaded.model
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert {weight.dtype for weight in model.parameters()} == {torch.float64}
    np.testing.assert_array_equal(
        model.lm_head.weight.detach().numpy(), tensors["model.embed_tokens.weight"]
    )


def test_fingerprints_are_of_the_weights_and_not_of_the_file(made, tmp_path):
    path, expected = made
    copy = shutil.copy(path, tmp_path / "step3.gguf")
    plain = write(tmp_path / "plain.gguf", expected, packed=False)
    other = write(tmp_path / "other.gguf", weights(2))
    first, *rest = [load_checkpoint(checkpoint(one)) for one in (path, copy, plain, other)]
    assert [one.fingerprint == first.fingerprint for one in rest] == [True, True, False]
    for one in rest:
        one.check_architecture(first.architecture)


# What is refused


def refusal(path: Path) -> str:
    one = Checkpoint("here", None, None, str(path), None)
    with pytest.raises(SuiteError) as caught:
        load_checkpoint(one)
    message = str(caught.value)
    assert "\n" not in message
    assert "here" in message
    return message


@pytest.mark.parametrize("missing", [["gguf"], ["accelerate"], ["gguf", "accelerate"]])
def test_missing_packages_are_named_with_what_to_do(made, monkeypatch, missing):
    for name in missing:
        monkeypatch.setattr(f"kntrace.models.gguf.is_{name}_available", lambda: False)
    message = refusal(made[0])
    assert f"{' and '.join(missing)} must be installed" in message
    assert "pip install 'kntrace[gguf]'" in message


def test_missing_tensors_are_an_error(tmp_path):
    tensors = weights(0)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    message = refusal(write(tmp_path / "x.gguf", tensors))
    assert "1 tensors are missing from the weights (model.layers.1.mlp.up_proj.weight)" in message


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"blk.0.attn_q.bias": np.ones(HEADS * HEAD, np.float32)}, "holds 22 tensors, of which"),
        ({"rope_freqs.weight": np.ones(HEAD // 2, np.float32)}, "scales its rotary positions"),
        ({"llama.rope.scaling.type": "linear"}, "scales its rotary positions"),
    ],
)
def test_what_transformers_would_leave_out_is_refused(tmp_path, extra, message):
    assert message in refusal(write(tmp_path / "x.gguf", weights(0), extra=extra))


def test_no_scaling_said_aloud_is_none(tmp_path):
    path = write(tmp_path / "x.gguf", weights(0), extra={"llama.rope.scaling.type": "none"})
    load_checkpoint(checkpoint(path))


def test_a_tensor_that_is_not_finite_is_named(tmp_path):
    tensors = weights(0)
    tensors["model.norm.weight"][3] = np.inf
    assert "the weights model.norm.weight hold" in refusal(write(tmp_path / "x.gguf", tensors))


def test_a_billion_layers_are_refused_before_anything_is_made_of_them(tmp_path):
    path = write(tmp_path / "x.gguf", weights(0))
    data = bytearray(path.read_bytes())
    place = data.index(b"llama.block_count") + len(b"llama.block_count") + 4  # and its type
    data[place : place + 4] = (10**9).to_bytes(4, "little")
    path.write_bytes(data)
    assert "block_count is 1000000000; expected at most 1,000" in refusal(path)


def test_unknown_architectures_are_refused(tmp_path):
    path = write(tmp_path / "x.gguf", weights(0), architecture="klingon")
    assert "cannot be loaded" in refusal(path)


@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.1, 0.5, 0.999])
def test_files_cut_short_end_in_one_line(made, tmp_path, share):
    whole = made[0].read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cannot be loaded" in refusal(path)


def test_files_of_another_kind_and_folders_are_refused(tmp_path):
    (tmp_path / "text.gguf").write_text("not at all\n" * 100)
    assert "cannot be loaded" in refusal(tmp_path / "text.gguf")
    (tmp_path / "folder.gguf").mkdir()
    assert "there is no file" in refusal(tmp_path / "folder.gguf")


# Suites of them


def test_one_file_is_a_suite(tmp_path, monkeypatch):
    (tmp_path / "SmolLM2-135M.Q4_1.gguf").write_bytes(b"GGUF")
    (tmp_path / "step40.GGUF").write_bytes(b"GGUF")
    suite = load_suite(tmp_path / "SmolLM2-135M.Q4_1.gguf")
    path = str(tmp_path / "SmolLM2-135M.Q4_1.gguf")
    assert suite.name == "SmolLM2-135M.Q4_1"
    assert suite.checkpoints == (Checkpoint("SmolLM2-135M.Q4_1", None, None, path, None),)
    monkeypatch.chdir(tmp_path)
    (only,) = load_suite("step40.GGUF")
    assert (only.label, only.step, only.gguf) == ("step40", 40, True)
    with pytest.raises(SuiteError, match=r"no folder or file 'models/x\.gguf'"):
        load_suite("models/x.gguf", steps="0")


def test_a_suite_file_names_files_and_reads_back(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.gguf").write_bytes(b"GGUF")
    file = tmp_path / "suite.yaml"
    file.write_text(
        "name: mixed\ncheckpoints:\n- {file: old/a.gguf, step: 1}\n"
        "- {label: b, file: b.gguf, step: 2}\n- {folder: c, step: 3}\n"
    )
    suite = load_suite(file)
    assert [(one.label, one.gguf) for one in suite] == [("a", True), ("b", True), ("c", False)]
    assert suite.checkpoints[0].source == str(tmp_path / "old" / "a.gguf")
    text = suite.to_yaml(tmp_path)
    assert "file: old/a.gguf" in text
    assert "folder: c" in text
    file.write_text(text)
    assert load_suite(file) == suite
    suite.check_present(["a"])
    with pytest.raises(SuiteError, match=r"2 of 3 checkpoints are not there: b, c"):
        suite.check_present()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{file: a.gguf, folder: a}", "has both a folder and a file"),
        ("{file: a.gguf, revision: main}", "has a revision, but no repository"),
        ("{file: a.safetensors}", "has the file 'a.safetensors'"),
        ("{folder: a.gguf}", "has the folder 'a.gguf'"),
    ],
)
def test_entries_that_fit_no_file_are_refused(tmp_path, entry, message):
    (tmp_path / "suite.yaml").write_text(f"checkpoints:\n- {entry}\n")
    with pytest.raises(SuiteError, match=message):
        load_suite(tmp_path)


def test_a_touched_file_is_noticed(tmp_path):
    path = tmp_path / "a.gguf"
    one = Checkpoint("a", None, None, str(path), None)
    assert source_state(one) is None
    path.write_bytes(b"GGUF")
    before = source_state(one)
    assert before is not None
    assert source_state(one) == before
    (tmp_path / "beside.txt").write_text("no matter")
    assert source_state(one) == before
    os.utime(path, ns=(1, 1))
    assert source_state(one) != before
    assert source_config(one) is None


def test_a_run_over_files_resumes_and_refuses_other_weights(tmp_path):
    for step, seed in ((0, 3), (5, 4)):
        write(tmp_path / f"step{step}.gguf", weights(seed))
    (tmp_path / "suite.yaml").write_text(
        "checkpoints:\n- {file: step0.gguf, step: 0}\n- {file: step5.gguf, step: 5}\n"
    )
    (tmp_path / "study.yaml").write_text(
        'name: tiny\ntemplate: " {question}"\ngroups:\n'
        "  Pets: {cat: [which pet says meow], dog: [which pet says]}\n"
    )
    study, suite = kntrace.load_study(tmp_path / "study.yaml"), load_suite(tmp_path)
    first = run(study, suite, tmp_path / "run", progress=silent)
    assert not first.missing()
    assert load_suite(tmp_path / "run" / "suite.yaml") == suite
    assert run(study, suite, tmp_path / "run", progress=silent).path == first.path
    write(tmp_path / "step5.gguf", weights(5))
    with pytest.raises(RunError, match="step5"):
        run(study, suite, tmp_path / "run", progress=silent)
    moved = Suite(suite.name, tuple(replace(one, source="/gone.gguf") for one in suite))
    assert moved.digest == suite.digest
