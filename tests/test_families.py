"""Contract: every family is found, replayed and scored as an ordinary forward pass would."""

from __future__ import annotations

import pytest
import torch
import transformers

from families import FAMILIES, VOCABULARY, make
from kntrace.attribution.engine import Engine
from kntrace.attribution.full_forward import FullForward
from kntrace.attribution.integrate import Tolerance, integrate
from kntrace.attribution.memory import Memory
from kntrace.attribution.objectives import find_objective
from kntrace.attribution.rules import quadrature
from kntrace.errors import ModelError, SettingsError
from kntrace.models.feedforward import SITES
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

# Families whose attention is not behind transformers' interface.
OUTSIDE_THE_INTERFACE = {"bloom", "falcon_alibi", "falcon_rotary", "mpt", "gpt_neo"}
GATED = {
    "llama", "llama_tied", "olmo", "olmo2", "olmo3", "qwen2", "qwen2_window", "qwen3",
    "mistral_window", "phi3", "gemma", "gemma2", "gemma3", "cohere", "cohere2", "granite",
    "stablelm", "smollm3",
}  # fmt: skip
MEMORY = Memory(10**9, 1000, 1000)
TOLERANCE = Tolerance(1e-3, 1e-7)


def encoded(tokens: int) -> list[Encoded]:
    generator = torch.Generator().manual_seed(11)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    # Longer than the sliding windows of `families`, of different lengths, one of a single token.
    return [Encoded(draw(length), draw(tokens)) for length in (12, 7, 1, 9)]


@pytest.mark.parametrize("tokens", [1, 3], ids=["one token", "three tokens"])
@pytest.mark.parametrize("site", list(SITES))
@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_chosen_replay_equals_the_full_forward(name, site, tokens):
    if site in ("gate_activation", "up_projection") and name not in GATED:
        with pytest.raises(SettingsError, match="no gate"):
            Engine(make(name), None, Settings(site=site)).__enter__()
        return
    model, rule = make(name), quadrature("gauss_legendre", 3)
    prompts = encoded(tokens)
    with Engine(model, None, Settings(site=site)) as engine:
        expected = "frozen_cache" if name in OUTSIDE_THE_INTERFACE else "shared_prefix"
        assert engine.replay == expected
        mine = engine._replay.record(prompts)
        zero = torch.zeros_like(mine.activation)
        fast = integrate(engine._replay, mine, rule, zero, TOLERANCE, MEMORY)
        blocks = engine._entered
    model.eval().requires_grad_(False)
    slow = FullForward(model, blocks, site, find_objective("probability"))
    plain = slow.record(prompts)
    truth = integrate(slow, plain, rule, zero, TOLERANCE, MEMORY)
    assert torch.equal(mine.rank, plain.rank)
    torch.testing.assert_close(mine.probability, plain.probability, rtol=1e-4, atol=0)
    error = (fast.score - truth.score).norm(dim=-1) / truth.score.norm(dim=-1)
    assert float(truth.score.norm(dim=-1).min()) > 0
    assert float(error.max()) < 5e-5, error


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_width_is_the_feed_forward_layers(name):
    model = make(name)
    with Engine(model, None) as engine:
        config = model.config
        width = {"bloom": 128, "falcon_alibi": 128, "falcon_rotary": 128, "mpt": 128}.get(name, 56)
        assert (engine.layers, engine.width) == (config.num_hidden_layers, width)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "MixtralConfig",
            {"num_local_experts": 2, "num_key_value_heads": 2},
            "mixture-of-experts",
        ),
        ("Qwen2MoeConfig", {"num_experts": 2, "moe_intermediate_size": 8}, "mixture-of-experts"),
    ],
)
def test_mixtures_of_experts_are_refused(kind, options, message):
    config = getattr(transformers, kind)(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        **options,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match=message), Engine(model, None):
        pass


def test_encoder_decoders_are_refused():
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_ff=24, num_layers=2, num_heads=2, d_kv=8
    )
    model = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(ModelError, match="encoder-decoder"), Engine(model, None):
        pass


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("MambaConfig", {}),
        ("RecurrentGemmaConfig", {"intermediate_size": 64, "num_attention_heads": 2}),
    ],
)
def test_layers_without_attention_are_refused(kind, options):
    config = getattr(transformers, kind)(
        vocab_size=VOCABULARY, num_hidden_layers=2, hidden_size=32, **options
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match="has no attention"), Engine(model, None):
        pass


@pytest.mark.parametrize("part", ["mlp", "mlp.c_fc"])
def test_maps_used_by_two_layers_are_refused(part):
    model = make("gpt2")
    first, second = model.transformer.h[0], model.transformer.h[1]
    owner, _, name = part.rpartition(".")
    setattr(second.get_submodule(owner), name, first.get_submodule(part))
    with (
        pytest.raises(ModelError, match="layers 0 and 1 use one and the same"),
        Engine(model, None),
    ):
        pass


def test_anything_else_is_refused():
    with pytest.raises(ModelError, match="Linear object; expected a Hugging Face language model"):
        Engine(torch.nn.Linear(2, 2), None).__enter__()
