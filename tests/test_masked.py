"""Masked models: the neurons at the one mask, held against hooks written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import kntrace
from families import VOCABULARY
from kntrace.attribution import Engine, Intervention
from kntrace.attribution.rules import quadrature
from kntrace.errors import ModelError
from kntrace.models.tokens import encode
from kntrace.settings import Settings

_BERT = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
MASKED = {
    "bert": ("BertConfig", _BERT),
    "roberta": ("RobertaConfig", _BERT),
    "xlm_roberta": ("XLMRobertaConfig", _BERT),
    "electra": ("ElectraConfig", {**_BERT, "embedding_size": 16}),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 32, "hidden_dim": 56, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 64},
    ),
    "modernbert": (
        "ModernBertConfig",
        {**_BERT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "local_attention": 4},
    ),
    "mpnet": ("MPNetConfig", _BERT),
}


def make(name, dtype=torch.float64):
    kind, options = MASKED[name]
    config = getattr(transformers, kind)(vocab_size=VOCABULARY, **options)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.AutoModelForMaskedLM.from_config(config).to(dtype)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.25) if weight.dim() > 1 else weight.data.add_(
                0.2 * torch.randn_like(weight)
            )
    return model.eval()


def masked_tokenizer() -> PreTrainedTokenizerFast:
    special = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3, "[UNK]": 4}
    words = special | {f"w{i}": i for i in range(5, VOCABULARY)}
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="[UNK]",
        mask_token="[MASK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


@pytest.fixture(name="tokenizer", scope="module")
def _tokenizer() -> PreTrainedTokenizerFast:
    return masked_tokenizer()


def by_hand(model, ids, place, target, layer, down):
    """Scores of one layer from the definition: a hook on its second map, a loop, all tokens."""
    rule, state = quadrature("gauss_legendre", 12), {"value": None}

    def put(_, args):
        if state["value"] is None:
            state["seen"] = args[0].reshape(1, len(ids), -1)[0, place].clone()
            return None
        whole = args[0].reshape(1, len(ids), -1)
        whole = torch.cat([whole[:, :place], state["value"][None, None], whole[:, place + 1 :]], 1)
        return (whole.reshape(args[0].shape), *args[1:])

    def probability(value):
        state["value"] = value
        return model(torch.tensor([ids])).logits[0, place].softmax(-1)[target]

    hook = down.register_forward_pre_hook(put)
    probability(None)
    total = 0
    for point, weight in zip(rule.points, rule.weights, strict=True):
        value = (point * state["seen"]).detach().requires_grad_()
        total = total + weight * torch.autograd.grad(probability(value), value)[0]
    hook.remove()
    return (state["seen"] * total).detach().numpy()


@pytest.mark.parametrize("name", list(MASKED))
def test_scores_at_the_mask_equal_the_definition(name, tokenizer):
    model = make(name)
    found = kntrace.attribute(
        model, tokenizer, "w9 w20 [MASK] w7 w8 w90", "w61", "gauss_legendre", 12
    )
    ids = [1, 9, 20, 3, 7, 8, 90, 2]
    with Engine(model, tokenizer) as engine:
        assert engine.replay == "full_forward"
        blocks = list(engine._entered)
    assert found.score.shape == (3, 56)
    for index, block in enumerate(blocks):
        true = by_hand(model, ids, 3, 61, block.layer, block.down)
        assert np.linalg.norm(true) > 0
        assert np.linalg.norm(found.score[index] - true) < 1e-10 * np.linalg.norm(true)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, 3]
    assert found.probability == pytest.approx(float(logits.softmax(-1)[61]))
    assert found.rank == int((logits > logits[61]).sum())


def test_the_adaptive_rule_converges_under_post_norms(tokenizer):
    found = kntrace.attribute(make("bert"), tokenizer, "w9 w20 [MASK] w7", "w61", tolerance=1e-4)
    fine = kntrace.attribute(
        make("bert"), tokenizer, "w9 w20 [MASK] w7", "w61", "gauss_legendre", 200
    )
    assert found.converged.all()
    off = np.linalg.norm(found.score - fine.score, axis=1) / np.linalg.norm(fine.score, axis=1)
    assert off.max() < 1e-4


@pytest.mark.parametrize(
    ("prompt", "answer", "options", "message"),
    [
        ("w9 w20", "w61", {}, r"no mask; expected exactly one \[MASK\]"),
        ("w9 [MASK] [MASK]", "w61", {}, "holds 2 masks"),
        ("w9 [MASK]", "w61 w7", {}, "has 2 tokens"),
        ("w9 [MASK]", "w61 w7", {"answer_tokens": "joint"}, "one mask holds one token"),
        ("w9 [MASK]", "zebra", {}, "unknown to the tokenizer"),
    ],
)
def test_unreadable_masked_prompts_are_named(prompt, answer, options, message, tokenizer):
    with pytest.raises(ModelError, match=message):
        kntrace.attribute(make("bert"), tokenizer, prompt, answer, **options)


def test_the_length_leaves_out_the_positions_that_roberta_never_uses(tokenizer):
    """Its positions begin after the padding token's: two of the 64 are lost."""
    long = " ".join(["w9"] * 61)
    for name, most in (("bert", 64), ("roberta", 62)):
        with Engine(make(name), tokenizer) as engine:
            words = most - 3
            engine.encode(" ".join(["w9"] * words + ["[MASK]"]), "w7")
            with pytest.raises(ModelError, match=f"at most the model's {most}"):
                engine.encode(f"{long} w9 w9 [MASK]", "w7")


def test_a_mask_in_a_prompt_that_is_continued_is_refused(tokenizer):
    with pytest.raises(ModelError, match=r"holds the mask \[MASK\].*fills in no masks"):
        encode(tokenizer, "w9 [MASK]", "w7")


def test_the_answer_takes_the_space_that_the_mask_took():
    """As in RoBERTa: its mask swallows the space before it, and the word's token has it."""
    pieces = {"<unk>": 0, "<mask>": 1, "The": 2, "Ġcat": 3, "Ġruns": 4, "cat": 5, "Ġthe": 6}
    plain = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")
    tokenizer.add_special_tokens(
        {"mask_token": transformers.AddedToken("<mask>", lstrip=True, special=True)}
    )
    found = encode(tokenizer, "The <mask> runs", "cat", masked=True)
    assert (found.ids, found.answer, found.mask) == ((2, 1, 4), (3,), 1)
    alone = encode(tokenizer, "The <mask> runs", "cat", "no_space", masked=True)
    assert alone.answer == (5,)


@pytest.mark.parametrize("kind", ["BertConfig", "RobertaConfig"])
def test_a_masked_model_loaded_as_a_decoder_is_refused(kind):
    config = getattr(transformers, kind)(vocab_size=VOCABULARY, **_BERT)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match="AutoModelForMaskedLM"), Engine(model, None):
        pass


def test_a_study_with_a_masked_suite_runs(tokenizer, tmp_path):
    for step in (0, 10):
        model = make("bert", torch.float32)
        model.bert.encoder.layer[0].output.dense.weight.data += step
        model.save_pretrained(tmp_path / "suite" / f"step{step}")
        tokenizer.save_pretrained(tmp_path / "suite" / f"step{step}")
    study = kntrace.study.Study(
        name="masks",
        template="{question} w9",
        words=tuple(
            kntrace.study.Word(
                text=f"w{i}", group="ab"[i % 2], prompts={"main": (f"w{i + 20} [MASK] w7",)}
            )
            for i in (10, 12, 11, 13)
        ),
    )
    run = kntrace.run(study, kntrace.load_suite(tmp_path / "suite"), tmp_path / "run")
    first = run.scores.sel(word="w10").isel(checkpoint=0, prompt=0)
    alone = kntrace.attribute(make("bert", torch.float32), tokenizer, "w30 [MASK] w7 w9", "w10")
    np.testing.assert_allclose(first["score"], alone.score, rtol=1e-3, atol=1e-7)


def test_settings_of_a_masked_model(tokenizer):
    with Engine(make("bert"), tokenizer, Settings(site="pre_activation")) as engine:
        one = engine.attribute_many([engine.encode("w9 [MASK]", "w7")])[0]
    assert (one.activation < -0.2).any()  # not yet through the nonlinearity


@pytest.mark.parametrize("policy", ["mean", "greedy", "joint"])
def test_a_policy_for_several_tokens_leaves_the_mask_where_it_is(policy, tokenizer):
    given = (make("bert"), tokenizer, "w9 [MASK] w7 w8", "w61", "gauss_legendre", 5)
    plain, found = kntrace.attribute(*given), kntrace.attribute(*given, answer_tokens=policy)
    np.testing.assert_array_equal(found.score, plain.score)


@pytest.mark.parametrize("everywhere", [False, True])
def test_joint_changes_at_the_mask(tokenizer, everywhere):
    """Two neurons in two layers at once, by hooks on the second maps."""
    model = make("bert")
    with Engine(model, tokenizer) as engine:
        encoded = engine.encode("w20 [MASK] w7 w9", "w10")
        row = Intervention(np.array([0, 2]), np.array([5, 6]), 0.0, np.array([0.7, -0.2]))
        found = engine.intervene(encoded, [row], everywhere=everywhere)

    def put(neuron, value):
        def change(_, args):
            whole = args[0].clone()
            whole[:, slice(None) if everywhere else encoded.position, neuron] = value
            return (whole, *args[1:])

        return change

    layers = model.bert.encoder.layer
    hooks = [
        layers[0].output.dense.register_forward_pre_hook(put(5, 0.7)),
        layers[2].output.dense.register_forward_pre_hook(put(6, -0.2)),
    ]
    with torch.no_grad():
        logits = model(torch.tensor([encoded.ids])).logits[0, encoded.position]
    for hook in hooks:
        hook.remove()
    expected = float(logits.softmax(-1)[encoded.answer[0]])
    assert found.probability[0] == pytest.approx(expected, rel=1e-10)
