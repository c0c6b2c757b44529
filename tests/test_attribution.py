"""The engine against ways of computing the same numbers that share no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import kntrace
from families import VOCABULARY, make
from kntrace.attribution import Engine
from kntrace.attribution.rules import RULES, quadrature
from kntrace.errors import ModelError, SettingsError
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

SITES = ("post_activation", "pre_activation")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(name="tokenizer")
def _tokenizer(word_tokenizer):
    return word_tokenizer


class Swap:
    """A hook on one linear map that reads its last position or puts something in its place."""

    def __init__(self, layer, site):
        self.seen = self.value = None
        if site == "post_activation":
            linear = layer.mlp.dense_4h_to_h
            self.handle = linear.register_forward_pre_hook(lambda _, args: (self(args[0]),))
        else:
            linear = layer.mlp.dense_h_to_4h
            self.handle = linear.register_forward_hook(lambda _, args, output: self(output))

    def __call__(self, tensor):
        self.seen = tensor[0, -1].detach().clone()
        if self.value is None:
            return tensor
        return torch.cat([tensor[:, :-1], self.value[None, None]], 1)


def by_hand(model, ids, target, site, rule):
    """Scores and gap of a GPT-NeoX from the definition: a hook, a loop, the whole sequence."""
    model.eval()
    scores, gaps = [], []
    for layer in model.gpt_neox.layers:
        swap = Swap(layer, site)

        def probability(value, swap=swap):
            swap.value = value
            return model(torch.tensor([ids])).logits[0, -1].softmax(-1)[target]

        with torch.no_grad():
            full = probability(None)
            activation = swap.seen
            empty = probability(torch.zeros_like(activation))
        total = torch.zeros_like(activation)
        for point, weight in zip(rule.points, rule.weights, strict=True):
            value = (point * activation).requires_grad_()
            (slope,) = torch.autograd.grad(probability(value), value)
            total += weight * slope
        swap.handle.remove()
        scores.append(activation * total)
        gaps.append(scores[-1].sum() - (full - empty))
    return torch.stack(scores), torch.stack(gaps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gpt_neox_sequential"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("rule", "nodes"), [("gauss_legendre", 6), ("public_code", 20)])
def test_scores_equal_the_definition(name, dtype, site, rule, nodes, tokenizer):
    model = make(name, dtype)
    prompt, target = "w5 w90 w3 w17 w17 w2 w40", 61
    found = kntrace.attribute(model, tokenizer, prompt, "w61", rule, nodes, site)
    ids = tokenizer(prompt).input_ids
    score, gap = by_hand(model, ids, target, site, quadrature(rule, nodes))
    for mine, true in zip(found.score, score.numpy(), strict=True):
        assert np.linalg.norm(mine - true) < TOLERANCE[dtype] * np.linalg.norm(true)
    np.testing.assert_allclose(found.gap, gap.numpy(), atol=TOLERANCE[dtype])
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
    assert found.probability == pytest.approx(float(logits.softmax(-1)[target]), rel=1e-5)
    assert found.rank == int((logits > logits[target]).sum())


@pytest.mark.parametrize("site", SITES)
def test_scores_equal_captum(site, tokenizer):
    """captum integrates all positions at once, so it is asked about a prompt of one token."""
    model = make("gpt_neox_parallel", torch.float64).eval()
    found = kntrace.attribute(model, tokenizer, "w9", "w61", "gauss_legendre", 12, site)
    for index, layer in enumerate(model.gpt_neox.layers):
        inward = site == "post_activation"
        captum = LayerIntegratedGradients(
            lambda ids: model(ids).logits[:, -1].softmax(-1)[:, 61],
            layer.mlp.dense_4h_to_h if inward else layer.mlp.dense_h_to_4h,
        )
        # From a zero activation: captum's own baselines are inputs, so the path is built here.
        ids = torch.tensor([[9]])
        theirs = _captum_from_zero(captum, ids, inward)
        # captum keeps its step sizes in single precision.
        assert np.linalg.norm(found.score[index] - theirs) < 1e-7 * np.linalg.norm(theirs)


def _captum_from_zero(captum, ids, inward):
    """Scale the layer's tensor to zero for captum's baseline input (token 0) by a hook."""
    layer = captum.layer

    def silence(value):
        keep = torch.ones(len(value), 1, 1, dtype=value.dtype)
        keep[current["ids"][:, 0] == 0] = 0
        return value * keep

    current = {"ids": ids}
    outer = captum.forward_func

    def forward(given):
        current["ids"] = given
        return outer(given)

    captum.forward_func = forward
    hook = (
        layer.register_forward_pre_hook(lambda _, args: (silence(args[0]),))
        if inward
        else layer.register_forward_hook(lambda _, args, out: silence(out))
    )
    scores = captum.attribute(
        ids,
        baselines=torch.zeros_like(ids),
        n_steps=12,
        method="gausslegendre",
        attribute_to_layer_input=inward,
    )
    hook.remove()
    scores = scores[0] if isinstance(scores, tuple) else scores
    return scores[0, -1].detach().numpy()


def test_an_integral_known_by_hand(tokenizer):
    """Two tokens and no final norm: P = sigmoid(z) with z linear in the neurons.

    Then Attr_i = a_i c_i (P(a) - P(0)) / (c . a), c being what a neuron adds to z.
    """
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=2,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            initializer_range=0.5,
        )
    ).double()
    model.gpt_neox.final_layer_norm = nn.Identity()
    with Engine(model, tokenizer, Settings(rule="gauss_legendre", nodes=40)) as engine:
        found = engine.attribute_many([Encoded((1, 0, 1), (1,))])[0]
    head, down = model.lm_head.weight.detach(), model.gpt_neox.layers[0].mlp.dense_4h_to_h.weight
    adds = ((head[1] - head[0]) @ down.detach()).numpy() * found.activation[0]
    z = np.log(found.probability / (1 - found.probability))
    risen = found.probability - 1 / (1 + np.exp(adds.sum() - z))
    np.testing.assert_allclose(found.score[0], adds * risen / adds.sum(), rtol=1e-10)
    assert abs(found.gap[0]) < 1e-14


ANSWER = ("w61", "w8", "w20")


def of_several(model, tokenizer, policy, answer="w61 w8 w20"):
    return kntrace.attribute(
        model, tokenizer, "w5 w90 w3", answer, "gauss_legendre", 6, answer_tokens=policy
    )


def test_the_first_token_alone(tokenizer):
    model = make("gpt_neox_parallel", torch.float64)
    first, alone = (
        of_several(model, tokenizer, "first"),
        of_several(model, tokenizer, "error", "w61"),
    )
    np.testing.assert_array_equal(first.score, alone.score)


def test_the_mean_over_tokens_is_the_mean_of_each_after_those_before_it(tokenizer):
    model = make("gpt_neox_parallel", torch.float64)
    found = of_several(model, tokenizer, "mean")
    parts = [
        kntrace.attribute(
            model, tokenizer, " ".join(("w5 w90 w3", *ANSWER[:place])), word, "gauss_legendre", 6
        )
        for place, word in enumerate(ANSWER)
    ]
    np.testing.assert_allclose(found.score, np.mean([p.score for p in parts], 0), rtol=1e-9)
    assert found.probability == pytest.approx(np.mean([p.probability for p in parts]))


def test_the_whole_answer_by_the_definition(tokenizer):
    """P(answer) is the product over its tokens; the neurons are at the prompt's last token."""
    model = make("gpt_neox_parallel", torch.float64).eval()
    found = of_several(model, tokenizer, "joint")
    prompt, answer = [5, 90, 3], [61, 8, 20]
    rule = quadrature("gauss_legendre", 6)
    for index, layer in enumerate(model.gpt_neox.layers):
        held = {}

        def put(_, args, held=held):
            held.setdefault("activation", args[0][0, 2].detach().clone())
            value = held.get("value", held["activation"])
            return (torch.cat([args[0][:, :2], value[None, None], args[0][:, 3:]], 1),)

        hook = layer.mlp.dense_4h_to_h.register_forward_pre_hook(put)

        def probability():
            logits = model(torch.tensor([prompt + answer[:-1]])).logits[0, 2:]
            return logits.softmax(-1)[range(3), answer].prod()

        assert found.probability == pytest.approx(float(probability().detach()))
        total = torch.zeros_like(held["activation"])
        for point, weight in zip(rule.points, rule.weights, strict=True):
            held["value"] = (point * held["activation"]).requires_grad_()
            (slope,) = torch.autograd.grad(probability(), held["value"])
            total += weight * slope
        hook.remove()
        true = (held["activation"] * total).numpy()
        assert np.linalg.norm(found.score[index] - true) < 1e-10 * np.linalg.norm(true)


def test_answers_of_different_lengths_stand_side_by_side(tokenizer):
    model = make("gpt_neox_parallel", torch.float64)
    given = [("w5 w90", "w1 w2"), ("w7", "w3"), ("w5 w90 w4", "w1 w9")]
    with Engine(model, tokenizer, Settings(answer_tokens="joint")) as engine:
        together = engine.attribute_many([engine.encode(*pair) for pair in given])
        alone = [engine.attribute_many([engine.encode(*pair)])[0] for pair in given]
    for mine, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine.score, theirs.score, rtol=1e-9, atol=1e-15)


def test_log_probability_adds_up_to_its_own_rise(tokenizer):
    """A chain rule by another way: d log P = dP / P along the path, so the gaps vanish alike."""
    model = make("gpt_neox_parallel", torch.float64)
    found = kntrace.attribute(
        model, tokenizer, "w5 w90 w3", "w61", "gauss_legendre", 40, objective="log_probability"
    )
    plain = kntrace.attribute(model, tokenizer, "w5 w90 w3", "w61", "gauss_legendre", 40)
    risen = plain.score.sum(1) - plain.gap
    for layer in range(3):
        empty = plain.probability - risen[layer]
        assert found.score[layer].sum() == pytest.approx(
            np.log(plain.probability / empty), rel=1e-6
        )


def test_rules_integrate_a_square_as_their_formulas_say():
    square = {}
    for name in RULES:
        rule = quadrature(name, 20)
        assert (np.diff(rule.points) > 0).all()
        square[name] = float(rule.points**2 @ rule.weights)
    assert square["gauss_legendre"] == pytest.approx(1 / 3, abs=1e-14)
    assert square["left"] == pytest.approx(19 * 39 / (6 * 400))
    assert square["right"] == pytest.approx(21 * 41 / (6 * 400))
    assert square["midpoint"] == pytest.approx(1 / 3 - 1 / (12 * 400))
    assert square["trapezoid"] == pytest.approx(1 / 3 + 1 / (6 * 19**2))
    assert square["public_code"] == pytest.approx(0.342, abs=5e-4)
    assert square["gradient_x_activation"] == 1


def encode_all(count: int, answer_tokens: int = 1) -> list[Encoded]:
    generator = torch.Generator().manual_seed(3)
    lengths = [7, 12, 1, 9, 12, 4][:count]

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    return [Encoded(draw(length), draw(answer_tokens)) for length in lengths]


def scores(model, tokenizer, groups, **options):
    with Engine(model, tokenizer, Settings(rule="gauss_legendre", nodes=4), **options) as engine:
        return [found.score for group in groups for found in engine.attribute_many(group)]


@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gpt2", "opt_pre", "gemma2", "bloom"])
def test_company_order_and_memory_change_nothing(name, tokenizer):
    """Replayed together, alone, in another order or a row at a time: the same scores."""
    model, prompts = make(name, torch.float64), encode_all(6)
    together = scores(model, tokenizer, [prompts])
    alone = scores(model, tokenizer, [[prompt] for prompt in prompts])
    backwards = scores(model, tokenizer, [prompts[::-1]])[::-1]
    small = scores(model, tokenizer, [prompts], memory=1)
    within = 1e-6 if name == "bloom" else 1e-11  # whose softmax is in float32 whatever is asked
    for others in (alone, backwards, small):
        for mine, theirs in zip(together, others, strict=True):
            assert np.linalg.norm(mine - theirs) < within * np.linalg.norm(mine)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails, tokenizer):
    model = make("gpt_neox_parallel").train()
    model.gpt_neox.embed_in.requires_grad_(False)
    model.gpt_neox.layers[1].eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    learning = [weight.requires_grad for weight in model.parameters()]
    training = [part.training for part in model.modules()]
    attention = model.config._attn_implementation
    if fails:
        with pytest.raises(ModelError):
            kntrace.attribute(model, tokenizer, "w1 w2", "elephant")
    else:
        kntrace.attribute(model, tokenizer, "w1 w2", "w3")
    assert [weight.requires_grad for weight in model.parameters()] == learning
    assert [part.training for part in model.modules()] == training
    assert model.config._attn_implementation == attention
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    for part in model.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert "forward" not in vars(part)


def test_an_exception_in_the_middle_leaves_no_hook(tokenizer, monkeypatch):
    model = make("gpt_neox_parallel")

    def burst(logits, answers):
        raise RuntimeError("burst")

    def work():
        with Engine(model, tokenizer) as engine:
            monkeypatch.setattr(engine._replay, "_objective", burst)
            engine.attribute_many(encode_all(2))

    with pytest.raises(RuntimeError, match="burst"):
        work()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "simpson"}, "rule 'simpson'; expected one of adaptive, gauss_legendre"),
        ({"nodes": 0}, "nodes"),
        ({"rule": "trapezoid", "nodes": 1}, "at least 2 nodes"),
        ({"site": "middle"}, "site 'middle'; expected one of post_activation"),
        ({"site": "up_projection"}, "have no gate"),
        ({"answer_form": "loud"}, "answer form 'loud'"),
        ({"objective": "joy"}, "objective 'joy'; expected one of probability"),
        ({"answer_tokens": "some"}, "answer_tokens"),
    ],
)
def test_wrong_settings_are_named(options, message, tokenizer):
    with pytest.raises(SettingsError, match=message):
        kntrace.attribute(make("gpt_neox_parallel"), tokenizer, "w1 w2", "w3", **options)


@pytest.mark.parametrize(
    ("prompt", "answer", "message"),
    [
        ("w1 w2", "w3 w4", "has 2 tokens"),
        ("w1 w2", "", "answer is empty"),
        ("", "w3", "prompt has no token"),
        ("w1 w2", "hippopotamus", "unknown to the tokenizer"),
        (None, "w3", "the prompt is None; expected a text"),
        ("w1 w2", 3, "the answer is 3; expected a text"),
        (["w1 w2"], "w3", "expected a text"),
        ("w1 zebra", "w3", "prompt holds a word that is unknown"),
        (" ".join(["w1"] * 65), "w3", "65 tokens; expected at most the model's 64"),
    ],
)
def test_unreadable_prompts_are_named(prompt, answer, message, tokenizer):
    with pytest.raises(ModelError, match=message):
        kntrace.attribute(make("gpt_neox_parallel"), tokenizer, prompt, answer)


def test_hyphens_are_underscores(tokenizer):
    model = make("gpt_neox_parallel")
    names = [("public-code", "pre-activation"), ("public_code", "pre_activation")]
    mine, theirs = (
        kntrace.attribute(model, tokenizer, "w1 w2", "w3", rule, 5, site) for rule, site in names
    )
    np.testing.assert_array_equal(mine.score, theirs.score)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_on_a_cpu_is_refused(dtype, tokenizer):
    with pytest.raises(ModelError, match=r"on a CPU; expected float32.*model\.float"):
        kntrace.attribute(make("gpt2", dtype), tokenizer, "w1 w2", "w3")


def test_numbers_that_are_none_are_no_result(tokenizer):
    model = make("gpt_neox_parallel")
    model.gpt_neox.layers[1].mlp.dense_h_to_4h.weight.data[3, 3] = float("nan")
    with pytest.raises(ModelError, match="scores that are not finite numbers, in layer"):
        kntrace.attribute(model, tokenizer, "w1 w2", "w3")


def test_many_nodes_need_little_memory(tokenizer):
    """2,000 nodes a few rows at a time agree with 40 Gauss-Legendre nodes at once."""
    model, prompts = make("gpt_neox_parallel", torch.float64), encode_all(1)
    with Engine(model, tokenizer, Settings(rule="midpoint", nodes=2000), memory=200_000) as engine:
        fine = engine.attribute_many(prompts)[0]
    with Engine(model, tokenizer, Settings(rule="gauss_legendre", nodes=40)) as engine:
        exact = engine.attribute_many(prompts)[0]
    assert np.linalg.norm(fine.score - exact.score) < 1e-5 * np.linalg.norm(exact.score)
    assert np.abs(exact.gap).max() < 1e-9
