"""Objectives and baselines against the definition written out with hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kntrace
from families import VOCABULARY, make
from kntrace.attribution import Engine
from kntrace.attribution.rules import quadrature
from kntrace.errors import ModelError, RunError, SettingsError
from kntrace.models import load_checkpoint
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

PROMPT = Encoded((5, 90, 3, 17, 2), (61,), alternatives=(8, 20))
OTHER = Encoded((7, 12, 40), (33,), alternatives=(9,))
SOLO = Encoded((7, 12, 40, 41), (30,), alternatives=(9, 10, 11))


def by_hand(model, prompt, objective, baseline, nodes=12):
    """Scores of a GPT-NeoX for any objective and baseline: a hook, a loop, the whole sequence."""
    rule, scores = quadrature("gauss_legendre", nodes), []
    for index, layer in enumerate(model.gpt_neox.layers):
        state = {"value": None}

        def put(_, args, state=state):
            if state["value"] is None:
                state["seen"] = args[0][0, -1].clone()
                return None
            return (torch.cat([args[0][:, :-1], state["value"][None, None]], 1),)

        hook = layer.mlp.dense_4h_to_h.register_forward_pre_hook(put)
        with torch.no_grad():
            model(torch.tensor([prompt.ids]))
        total, start = 0, torch.as_tensor(baseline[index])
        for point, weight in zip(rule.points, rule.weights, strict=True):
            value = (start + point * (state["seen"] - start)).detach().requires_grad_()
            state["value"] = value
            reached = objective(model(torch.tensor([prompt.ids])).logits[0, -1])
            total = total + weight * torch.autograd.grad(reached, value)[0]
        hook.remove()
        scores.append(((state["seen"] - start) * total).detach().numpy())
    return np.stack(scores)


def close(mine, true, within=1e-10):
    for layer, (one, other) in enumerate(zip(mine, true, strict=True)):
        assert np.linalg.norm(other) > 0
        assert np.linalg.norm(one - other) < within * np.linalg.norm(other), layer


@pytest.mark.parametrize("baseline", ["zero", "given"])
@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("probability", lambda z: z.softmax(-1)[61]),
        ("log_probability", lambda z: z.log_softmax(-1)[61]),
        ("logit_difference", lambda z: z[61] - (z[8] + z[20]) / 2),
    ],
)
def test_every_objective_from_every_baseline_by_the_definition(name, objective, baseline):
    model = make("gpt_neox_parallel", torch.float64).eval()
    start = np.zeros((3, 56))
    if baseline == "given":
        start = np.random.default_rng(0).normal(size=(3, 56))
    settings = Settings(rule="gauss_legendre", nodes=12, objective=name)
    with Engine(model, None, settings, baseline=start) as engine:
        found, _, _ = engine.attribute_many([PROMPT, OTHER, SOLO])
        np.testing.assert_allclose(engine.baseline, start, atol=1e-6)
    close(found.score, by_hand(model, PROMPT, objective, start))


def test_alternatives_of_different_numbers_side_by_side():
    model = make("llama", torch.float64)
    with Engine(model, None, Settings(objective="logit_difference")) as engine:
        together = engine.attribute_many([PROMPT, OTHER, SOLO])
        alone = [engine.attribute_many([one])[0] for one in (PROMPT, OTHER, SOLO)]
    for mine, theirs in zip(together, alone, strict=True):
        close(mine.score, theirs.score)


@pytest.mark.parametrize("name", ["gpt2", "bloom"])
def test_a_logit_difference_on_every_replay(name):
    """On a fast replay and on a cache, against the sum of what the scores say of each token."""
    model = make(name, torch.float64)
    rule = {"rule": "gauss_legendre", "nodes": 40}
    with Engine(model, None, Settings(objective="logit_difference", **rule)) as engine:
        both = engine.attribute_many([PROMPT])[0]
        ones = [
            engine.attribute_many([Encoded(PROMPT.ids, PROMPT.answer, alternatives=(token,))])[0]
            for token in PROMPT.alternatives
        ]
    close(
        both.score, np.mean([one.score for one in ones], axis=0), within=1e-7
    )  # Bloom takes its softmax in float32


def test_scores_add_up_to_the_rise_from_the_baseline():
    """Completeness from a baseline that is another prompt's activation."""
    model = make("gpt_neox_sequential", torch.float64)
    with Engine(model, None) as engine:
        other = engine.attribute_many([OTHER])[0].activation
        engine.baseline = other
        settings = engine.attribute_many([PROMPT])[0]
        lost = engine.ablate(PROMPT, [(1, 5)])
        engine.baseline = None
        zero = engine.attribute_many([PROMPT])[0]
    assert np.abs(settings.gap).max() < 1e-3 * np.abs(settings.score).sum(1).min()
    assert np.linalg.norm(settings.score - zero.score) > 0.1 * np.linalg.norm(zero.score)
    assert abs(lost[0]) > 0


def test_a_path_of_no_length_has_no_scores():
    model = make("gpt_neox_parallel", torch.float64)
    with Engine(model, None) as engine:
        engine.baseline = engine.attribute_many([PROMPT])[0].activation
        found = engine.attribute_many([PROMPT])[0]
    np.testing.assert_allclose(found.score, 0, atol=1e-15)
    assert found.converged.all()


def test_the_mean_activation():
    model = make("gpt_neox_parallel", torch.float64)
    with Engine(model, None) as engine:
        ones = [engine.attribute_many([one])[0].activation for one in (PROMPT, OTHER)]
        mean = engine.mean_activation([PROMPT, OTHER])
    np.testing.assert_allclose(mean, np.mean(ones, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (np.zeros((3, 55)), r"shape \(3, 55\); expected finite numbers, .* = \(3, 56\)"),
        (np.full((3, 56), np.nan), "not finite"),
    ],
)
def test_wrong_baselines_are_named(baseline, message):
    named = pytest.raises(SettingsError, match=message)
    with named, Engine(make("gpt_neox_parallel"), None, baseline=baseline):
        pass


@pytest.mark.parametrize(
    ("alternatives", "answer", "message"),
    [
        ((), "w61", "no alternatives to the answer 'w61'"),
        (("w61",), "w61", "begins with the same token"),
        (("w8 w9",), "w61", "the answer 'w8 w9' has 2 tokens"),
        (("w8",), "w61 w9", "has 2 tokens"),
    ],
)
def test_wrong_alternatives_are_named(alternatives, answer, message, word_tokenizer):
    with pytest.raises(ModelError, match=message):
        kntrace.attribute(
            make("gpt2"), word_tokenizer, "w1 w2", answer,
            objective="logit-difference", alternatives=alternatives,
        )  # fmt: skip


def test_alternatives_reach_the_engine(word_tokenizer):
    model = make("gpt_neox_parallel", torch.float64).eval()
    found = kntrace.attribute(
        model, word_tokenizer, "w5 w90 w3 w17 w2", "w61", "gauss_legendre", 12,
        objective="logit_difference", alternatives=("w8", "w20"),
    )  # fmt: skip
    assert VOCABULARY > 90
    true = by_hand(model, PROMPT, lambda z: z[61] - (z[8] + z[20]) / 2, np.zeros((3, 56)))
    close(found.score, true)


# Through a whole run


def test_a_run_from_the_mean_activation(tiny_suite, tmp_path):
    run = kntrace.run(
        tiny_suite.study, tiny_suite.suite, tmp_path / "run", settings=Settings(baseline="mean")
    )
    loaded = load_checkpoint(tiny_suite.suite.checkpoints[1])
    with Engine(loaded.model, loaded.tokenizer) as engine:
        encoded = [
            engine.encode(prompt, word.answer)
            for word in tiny_suite.study.words
            for prompt in tiny_suite.study.rendered(word)
            if prompt is not None
        ]
        start = np.mean([one.activation for one in engine.attribute_many(encoded)], axis=0)
        engine.baseline = start
        alone = engine.attribute_many(encoded[:1])[0]
    np.testing.assert_allclose(run.baseline(1), start, atol=1e-6)
    np.testing.assert_allclose(run.scores["baseline"][1], start, atol=1e-6)
    kept = run.scores["score"].isel(checkpoint=1, word=0, prompt=0)
    np.testing.assert_allclose(kept, alone.score, rtol=1e-3, atol=1e-7)
    again = kntrace.run(
        tiny_suite.study, tiny_suite.suite, tmp_path / "run", settings=Settings(baseline="mean")
    )
    assert again.provenance["sessions"][-1]["blocks"] == 12


def test_a_run_from_a_given_vector(tiny_suite, tmp_path):
    study, suite = tiny_suite.study, tiny_suite.suite
    vector = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)
    np.save(tmp_path / "start.npy", vector)
    run = kntrace.run(study, suite, tmp_path / "run", baseline=tmp_path / "start.npy")
    np.testing.assert_array_equal(run.baseline(2), vector)
    assert run.settings.baseline.startswith("sha256:")
    kntrace.run(study, suite, tmp_path / "run", baseline=vector)
    with pytest.raises(RunError, match="baseline: sha256"):
        kntrace.run(study, suite, tmp_path / "run", baseline=vector + 1)
    with pytest.raises(RunError, match="baseline: sha256"):
        kntrace.run(study, suite, tmp_path / "run")
    with pytest.raises(SettingsError, match="no such vector was given"):
        kntrace.run(study, suite, tmp_path / "run", settings=run.settings)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("not numbers"), "cannot be read"),
        (lambda path: np.save(path, np.zeros(3)), r"shape \(3,\)"),
        (lambda path: np.save(path, np.array([[{}]]), allow_pickle=True), "cannot be read"),
        (lambda path: None, "No such file"),
    ],
)
def test_files_that_are_no_baseline_are_named(write, message, tiny_suite, tmp_path):
    write(tmp_path / "start.npy")
    with pytest.raises(SettingsError, match=message):
        kntrace.run(
            tiny_suite.study, tiny_suite.suite, tmp_path / "run", baseline=tmp_path / "start.npy"
        )
    assert not (tmp_path / "run" / "scores.zarr").exists()


def test_a_run_of_logit_differences(tiny_suite, tmp_path):
    wanted = Settings(objective="logit_difference")
    with pytest.raises(ModelError, match=r"4 of 4 words do not fit.*no alternatives"):
        kntrace.run(tiny_suite.study, tiny_suite.suite, tmp_path / "none", settings=wanted)
    text = tiny_suite.study_file.read_text()
    for word, other in (("cat", "dog"), ("dog", "cat"), ("red", "blue"), ("blue", "red")):
        text = text.replace(f"    {word}: [", f"    {word}: {{alternatives: [{other}], prompts: [")
    study_file = tmp_path / "study.yaml"
    study_file.write_text(text.replace("]\n", "]}\n"))
    study = kntrace.load_study(study_file)
    assert study.words[0].alternatives == ("dog",)
    assert study.digest != tiny_suite.study.digest
    run = kntrace.run(study, tiny_suite.suite, tmp_path / "run", settings=wanted)
    assert kntrace.open_run(run.path).study == study
    loaded = load_checkpoint(tiny_suite.suite.checkpoints[0])
    alone = kntrace.attribute(
        loaded.model, loaded.tokenizer, study.rendered("cat")[0], "cat",
        objective="logit_difference", alternatives=["dog"],
    )  # fmt: skip
    kept = run.scores["score"].isel(checkpoint=0, word=0, prompt=0)
    np.testing.assert_allclose(kept, alone.score, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("policy", ["mean", "greedy"])
def test_an_answer_of_one_token_keeps_its_alternatives_whatever_the_policy(policy):
    """They were once lost on the way, and the difference taken to nothing."""
    model = make("gpt_neox_parallel", torch.float64)
    found = []
    for answer_tokens in ("error", policy):
        settings = Settings(objective="logit_difference", answer_tokens=answer_tokens)
        with Engine(model, None, settings) as engine:
            found.append(engine.attribute_many([PROMPT])[0].score)
    np.testing.assert_array_equal(*found)
