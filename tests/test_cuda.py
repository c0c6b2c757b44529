"""On a CUDA card: the same scores, the formats it has, its memory. Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

import kntrace
from families import FAMILIES, VOCABULARY, make
from kntrace.attribution import Engine
from kntrace.cli import app
from kntrace.errors import ModelError
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here")

MIB = 2**20


def prompts(tokens: int = 1) -> list[Encoded]:
    generator = torch.Generator().manual_seed(11)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    return [Encoded(draw(length), draw(tokens)) for length in (12, 7, 1, 9)]


def scored(model, settings=None, given=None, **options):
    with Engine(model, None, settings, **options) as engine:
        return engine.attribute_many(given or prompts()), engine.replay


def worst(mine, true) -> float:
    """The worst layer's relative error of any prompt."""
    pairs = zip(mine, true, strict=True)
    return max(
        float((np.linalg.norm(m.score - t.score, axis=-1) / np.linalg.norm(t.score, axis=-1)).max())
        for m, t in pairs
    )


def large(dtype: torch.dtype = torch.float32, **options):
    """Wide enough that rounded products and memory show: 6 layers of 4096 neurons."""
    config = transformers.GPTNeoXConfig(
        vocab_size=8192, hidden_size=1024, intermediate_size=4096, num_hidden_layers=6,
        num_attention_heads=16, max_position_embeddings=128, **options,
    )  # fmt: skip
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(config).to("cuda", dtype)


def long_prompts(count: int) -> list[Encoded]:
    return [Encoded(tuple(range(5 + i, 29 + i)), (7,)) for i in range(count)]


@pytest.mark.parametrize("tokens", [1, 3], ids=["one token", "three tokens"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_scores_as_on_the_processor(name, tokens):
    settings = Settings(rule="gauss_legendre", nodes=3, answer_tokens="joint")
    exact, _ = scored(make(name).double(), settings, prompts(tokens))
    double, _ = scored(make(name).double().cuda(), settings, prompts(tokens))
    single, tier = scored(make(name).cuda(), settings, prompts(tokens))
    with Engine(make(name), None, settings) as engine:
        assert tier == engine.replay
    # bloom's and gemma's own code rounds to float32 on the way, whatever is asked for.
    assert worst(double, exact) < 1e-5
    assert worst(single, exact) < 2e-4


@pytest.mark.parametrize("objective", ["probability", "log_probability", "logit_difference"])
def test_the_adaptive_rule_and_every_objective(objective):
    rival = {"alternatives": (3, 9)} if objective == "logit_difference" else {}
    given = [Encoded(one.ids, one.answer, **rival) for one in prompts()]
    settings = Settings(objective=objective)
    exact, _ = scored(make("gpt_neox_parallel").double(), settings, given)
    found, _ = scored(make("gpt_neox_parallel").cuda(), settings, given)
    assert worst(found, exact) < 1e-3
    for one in found:
        assert one.converged.all()


def test_single_neurons_silenced_as_on_the_processor():
    with Engine(make("llama").double(), None) as engine:
        exact = engine.ablate(prompts()[0])
    with Engine(make("llama").cuda(), None) as engine:
        found = engine.ablate(prompts()[0])
    assert np.linalg.norm(found - exact) < 1e-4 * np.linalg.norm(exact)


def test_scores_do_not_depend_on_what_is_replayed_together():
    model = large(torch.float64)
    together, _ = scored(model, None, long_prompts(5))
    alone = [scored(model, None, [one])[0][0] for one in long_prompts(5)]
    assert worst(alone, together) < 1e-6
    backwards, _ = scored(model, None, long_prompts(5)[::-1])
    assert worst(backwards[::-1], together) < 1e-6


def test_tf32_by_choice_alone():
    model = large()
    exact, _ = scored(large().double(), Settings(rule="gauss_legendre"), long_prompts(2))
    single, _ = scored(model, Settings(rule="gauss_legendre"), long_prompts(2))
    rounded, _ = scored(model, Settings(rule="gauss_legendre", dtype="tf32"), long_prompts(2))
    assert worst(single, exact) < 1e-4
    assert worst(rounded, exact) > 5 * worst(single, exact)
    assert worst(rounded, exact) < 0.05


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_and_its_error_is_recorded(dtype, tiny_suite, tmp_path):
    options = {"rule": "gauss_legendre"}
    half = kntrace.run(
        tiny_suite.study, tiny_suite.suite, tmp_path / "half",
        settings=Settings(dtype=dtype, **options), device="cuda",
    )  # fmt: skip
    whole = kntrace.run(
        tiny_suite.study, tiny_suite.suite, tmp_path / "whole", settings=Settings(**options)
    )
    true, mine = (one.scores["score"].values for one in (whole, half))
    there = np.isfinite(true).all((-1, -2))
    off = np.linalg.norm(mine - true, axis=-1)[there] / np.linalg.norm(true, axis=-1)[there]
    for checkpoint in half.provenance["checkpoints"].values():
        found = checkpoint["rounding"]
        assert 0 < found["median"] <= found["worst"] <= off.max() * 1.01
    assert off.max() < 0.2


def test_numbers_that_overflow_half_precision_are_refused():
    model = large(torch.float16)
    with torch.no_grad():
        model.gpt_neox.layers[2].mlp.dense_4h_to_h.weight.mul_(1e5)
    with pytest.raises(ModelError, match=r"finite"):
        scored(model, None, long_prompts(1))


def test_a_card_out_of_memory_gets_half_as_much():
    """A real shortage: the card's allocator is given 150 MiB beside the weights, the rows a TiB."""
    model, settings = large(), Settings(rule="gauss_legendre", nodes=40)
    given = long_prompts(8)
    roomy, _ = scored(model, settings, given)
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 150 * MIB
    total = torch.cuda.get_device_properties(0).total_memory
    before = torch.cuda.memory_stats()["num_ooms"]
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        found, _ = scored(model, settings, given, memory=2**40)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] > before
    assert worst(found, roomy) < 1e-4


@pytest.mark.parametrize(("rule", "nodes"), [("adaptive", 8), ("gauss_legendre", 2000)])
def test_memory_stays_within_the_budget(rule, nodes):
    model, budget = large(), 64 * MIB
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    beside = torch.cuda.memory_allocated() - weights  # of other tests
    scored(model, Settings(rule=rule, nodes=nodes), long_prompts(2), memory=budget)
    assert torch.cuda.max_memory_allocated() - beside <= 1.3 * weights + budget


def test_a_model_of_the_users_own_is_left_as_it_was(word_tokenizer):
    model = make("gpt_neox_parallel").cuda().train()
    kept = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    kntrace.attribute(model, word_tokenizer, "w3 w8 w2", "w9")
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_run_from_the_command_line(tiny_suite, tmp_path):
    study, suite = str(tiny_suite.study_file), str(tiny_suite.folder)
    for device in ("cuda", "cpu"):
        given = ["run", study, suite, "--out", str(tmp_path / device), "--device", device]
        ended = CliRunner().invoke(app, given)
        assert ended.exit_code == 0, ended.output
    on_card, plain = (kntrace.open_run(tmp_path / device) for device in ("cuda", "cpu"))
    mine, true = (one.scores["score"].values for one in (on_card, plain))
    there = np.isfinite(true)
    assert np.array_equal(np.isfinite(mine), there)
    assert np.linalg.norm(mine[there] - true[there]) < 1e-3 * np.linalg.norm(true[there])
    told = on_card.provenance["checkpoints"]
    assert {one["fingerprint"] for one in told.values()} == {
        one["fingerprint"] for one in plain.provenance["checkpoints"].values()
    }
