"""Read-out: the end of the model as it is, ranks against whole logits, and what was planted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from drawn_figures import assert_readable
from families import make
from kntrace.archive import Run
from kntrace.cli import main
from kntrace.errors import AnalysisError, RunError, SettingsError
from kntrace.figures import SIZES, render, sized
from kntrace.models.feedforward import decoder_layers, find_stack
from kntrace.models.tail import tail_of
from kntrace.probes import Weights
from kntrace.probes.read_out import ReadOut, read_out
from kntrace.probes.surgery import value_vectors
from kntrace.report.views import sections
from kntrace.suite import load_suite
from kntrace.testing import synthetic_scores
from kntrace.views import WEIGHT_VIEWS, Asked, compute_views, find_views, read_view
from kntrace.views.lines import value_at

# Norms of both kinds, tied and not, a projection after the stack, caps and scales on logits,
# tuples and tensors as outputs.
KINDS = ("gpt_neox_parallel", "gpt_neox_sequential", "gemma2", "opt_post", "gpt2", "cohere", "mpt")


def at_the_end(model: Any, vector: torch.Tensor) -> torch.Tensor:
    """The model runs as ever, and its last layer's output is replaced."""

    def put(_: Any, __: Any, output: Any) -> Any:
        new = vector.expand(1, 1, -1)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    hook = decoder_layers(model)[-1].register_forward_hook(put)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5]])).logits[0, 0]
    hook.remove()
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_the_model_is_the_models_own(kind: str) -> None:
    model = make(kind).eval()
    before = model(input_ids=torch.tensor([[3, 4]])).logits
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    with tail_of(model) as tail:
        found = tail(vectors)
    for row, vector in zip(found, vectors, strict=True):
        torch.testing.assert_close(row, at_the_end(model, vector))
    assert torch.equal(model(input_ids=torch.tensor([[3, 4]])).logits, before)


def test_a_borrowed_end_is_given_back_after_an_exception() -> None:
    model = make("gpt_neox_parallel").eval()
    with pytest.raises(ZeroDivisionError), tail_of(model):
        raise ZeroDivisionError
    assert all("forward" not in layer.__dict__ for layer in decoder_layers(model))


def test_it_is_the_final_norm_and_the_unembedding() -> None:
    model = make("gpt_neox_parallel").eval()
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), tail_of(model) as tail:
        by_hand = model.lm_head(model.gpt_neox.final_layer_norm(vector))
        torch.testing.assert_close(tail(vector), by_hand)


def test_a_masked_model_reads_through_its_whole_head() -> None:
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2,
    )  # fmt: skip
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    vector = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), tail_of(model) as tail:
        torch.testing.assert_close(tail(vector), model.cls(vector))


@pytest.mark.parametrize("kind", ["gpt_neox_parallel", "gpt2", "llama_tied"])
def test_ranks_are_those_of_whole_logits(kind: str) -> None:
    model = make(kind).eval()
    stack = find_stack(model)
    neurons = np.array([0, 5, 56 + 3, 2 * 56 + 55])
    tokens, vocabulary = np.array([7, 90, 3]), 91
    found = read_out(model, stack, neurons, tokens, 4, vocabulary)
    for place, neuron in enumerate(neurons):
        vector = value_vectors(stack.layers[neuron // 56])[neuron % 56].detach()
        # The same from the module: what it adds for a neuron of 1, beside its bias.
        down = stack.layers[neuron // 56].down
        one = torch.zeros(56)
        one[neuron % 56] = 1
        with torch.no_grad():
            torch.testing.assert_close(vector, down(one) - down(torch.zeros(56)))
        for sign, times in enumerate((1, -1)):
            logits = at_the_end(model, times * vector) - at_the_end(model, 0 * vector)
            values = logits[:vocabulary].numpy().astype(np.float64)
            assert found.top[place, sign].tolist() == np.argsort(-values)[:4].tolist()
            for column, token in enumerate(tokens):
                lower = sum(other < values[token] for other in values)
                assert found.below[place, sign, column] == pytest.approx(lower / (vocabulary - 1))


def test_a_neuron_that_writes_a_word_promotes_it() -> None:
    model = make("gpt_neox_parallel").eval()
    stack = find_stack(model)
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        stack.layers[1].down.weight[:, 4] = 9 * head[33]
        stack.layers[1].down.weight[:, 5] = -9 * head[33]
    found = read_out(model, stack, np.array([56 + 4, 56 + 5]), np.array([33]), 1, 96)
    assert found.top[0, 0] == found.top[1, 1] == 33
    assert found.below[0, 0, 0] == found.below[1, 1, 0] == 1
    assert found.below[0, 1, 0] < 0.1


# The view


GROUPS = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3"), "C": ("c1", "c2", "c3")}
WORDS = [word for members in GROUPS.values() for word in members]


class Said:
    """Weights that were never there: every neuron's place of every answer is drawn or planted."""

    def __init__(self, own: list[set[int]] | None, width: int = 40) -> None:
        self.own, self.vocabulary = own, 1000

    def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        assert otherwise == "all"
        for place in range(3):
            yield (
                place,
                SimpleNamespace(
                    answers=lambda wording: np.arange(10),
                    read_out=lambda *asked, place=place: self.read(place, *asked),
                    token=lambda token: f"t{token}",
                    vocabulary=self.vocabulary,
                ),
            )

    def read(self, place: int, neurons: Any, tokens: Any, top: int) -> ReadOut:
        rng = np.random.default_rng((place, 4))
        # The same for a neuron whoever asks.
        below = rng.random((80, 2, 10)).astype(np.float32)
        if self.own is not None and place == 2:
            for word, members in enumerate(self.own):
                below[sorted(members), 0, word] = 1.0
                below[sorted(members), 1, word] = 0.0
        return ReadOut(below[neurons], np.zeros((len(neurons), 2, top), dtype=np.int64))


def run_of(sets: list[set[int]]) -> Any:
    """Scores that choose these neurons, at the last checkpoint; all activations are positive."""
    data = synthetic_scores(groups=GROUPS, checkpoints=3, layers=2, width=40).load()
    data["activation"].values[:] = np.abs(data["activation"].values) + 0.1
    flat = data["score"].values.reshape(3, 10, 4, 80)
    for word, members in enumerate(sets):
        flat[-1, word][:, sorted(members)] += 1
    return data


def test_the_view_finds_neurons_that_come_to_write_their_word() -> None:
    rng = np.random.default_rng(8)
    sets = [set(rng.permutation(80)[:8].tolist()) for _ in WORDS]
    view = find_views(["read_out"], {"neurons": "8"})[0]
    found = view.compute(Asked(run_of(sets), weights=Said(sets)))
    lines = found.main
    assert value_at(lines, "below", "own", "step200")["value"] == 1
    assert value_at(lines, "below", "own", "step0")["value"] == pytest.approx(0.5, abs=0.1)
    assert found.facts["own_minus_other_last"]["low"] > 0.2
    assert found.facts["matched_last"]["value"] < 0.75
    # By loops: what other words' neurons do for a word's answer, and the map of layers.
    below = Said(sets).read(2, np.arange(80), None, 1).below[:, 0]
    codes = np.repeat([0, 1, 2], [4, 3, 3])
    by_word = []
    for word in range(10):
        others = [below[sorted(sets[u]), word].mean() for u in range(10) if codes[u] != codes[word]]
        by_word.append(np.mean(others))
    other = value_at(lines, "below", "other_group", "step200")["value"]
    assert other == pytest.approx(np.mean(by_word), abs=1e-6)
    layers = found.tables["layers"].set_index(["checkpoint", "layer"])
    assert layers.loc[("step200", 0), "own"] == layers.loc[("step200", 1), "own"] == 1
    assert layers["neurons"].groupby("checkpoint").sum().tolist() == [80] * 3
    tokens = found.tables["tokens"]
    assert (tokens["rank"] == 0).all()
    for word, members in zip(WORDS, sets, strict=True):
        rows = tokens[tokens["word"] == word]
        assert set(40 * rows["layer"] + rows["neuron"]) == members
    # Negative activations turn the vectors round.
    data = run_of(sets)
    data["activation"].values[:] *= -1
    turned = view.compute(Asked(data, weights=Said(sets)))
    assert value_at(turned.main, "below", "own", "step200")["value"] == 0


def test_the_view_finds_nothing_in_noise() -> None:
    rng = np.random.default_rng(9)
    outside = 0
    for _ in range(4):
        sets = [set(rng.permutation(80)[:8].tolist()) for _ in WORDS]
        view = find_views(["read_out"], {"neurons": "8", "chosen_at": "each"})[0]
        facts = view.compute(Asked(run_of(sets), weights=Said(None))).facts
        difference = facts["own_minus_other_last"]
        outside += not difference["low"] < 0 < difference["high"]
        assert facts["own_last"]["value"] == pytest.approx(0.5, abs=0.12)
    assert outside <= 2


def test_options_and_weights_that_are_wrong() -> None:
    with pytest.raises(SettingsError, match=r"chosen_at = 'first'.*expected last or each"):
        find_views(["read_out"], {"chosen_at": "first"})
    with pytest.raises(AnalysisError, match=r"reads the weights, and no weights"):
        WEIGHT_VIEWS["read_out"].compute(Asked(run_of([{1}] * 10)))


@pytest.mark.slow
def test_a_run_is_read_from_its_checkpoints_kept_drawn_and_shown(tiny_run_copy: Run) -> None:
    run = tiny_run_copy
    view = find_views(["read_out"], {"neurons": "6", "top": "3"})[0]
    found = compute_views(run, [view], weights=Weights(run, threads=1), formats=("png",))[
        "read_out"
    ]
    again = read_view(run, "read_out")
    for part, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[part], table, check_dtype=False)
    assert render(view.draw(again), "svg") == render(view.draw(found), "svg")
    for size in SIZES:
        with sized(size) as room:
            assert_readable(view.draw(found), size, room)
    assert (run.path / "figures" / "read_out.png").stat().st_size > 5_000
    (shown,) = sections(run, lambda view, kept: view.describe(kept))
    assert shown.name == "read_out"
    assert shown.tables[0].rows
    # A row against the checkpoint loaded by hand.
    model = transformers.AutoModelForCausalLM.from_pretrained(run.suite.checkpoints[-1].source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.suite.checkpoints[-1].source)
    row = found.tables["tokens"].iloc[7]
    scores = run.scores.isel(checkpoint=-1).sel(word=row["word"])
    activation = float(scores["activation"].sel(layer=row["layer"], neuron=row["neuron"]).mean())
    assert row["activation"] == pytest.approx(activation, rel=1e-5)
    block = model.gpt_neox.layers[int(row["layer"])]
    vector = block.mlp.dense_4h_to_h.weight[:, int(row["neuron"])] * np.sign(activation)
    with torch.no_grad():
        logits = at_the_end(model, vector) - at_the_end(model, 0 * vector)
    answer = tokenizer(row["word"])["input_ids"][0]
    assert row["rank"] == int((logits > logits[answer]).sum())
    names = [tokenizer.decode([int(token)]) for token in logits.topk(3).indices]
    assert row["promotes"] == " | ".join(names)


def test_other_weights_are_refused(tiny_run_copy: Run, tmp_path: Path) -> None:
    run = tiny_run_copy
    last = Path(run.suite.checkpoints[-1].source)
    spoilt = tmp_path / "suite"
    shutil.copytree(last.parent, spoilt)
    shutil.copy(last.parent / "step0" / "model.safetensors", spoilt / last.name)
    view = find_views(["read_out"], {"neurons": "2"})[0]
    with pytest.raises(RunError, match="are not those that were scored"):
        compute_views(run, [view], weights=Weights(run, suite=load_suite(spoilt)), formats=())


def test_the_command(
    tiny_run_copy: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*options: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["kntrace", "view", str(tiny_run_copy.path), *options])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == code
        caught = capsys.readouterr()
        return caught.err if code else caught.out

    assert "(reads the weights)" in said()
    text = said("read_out", "--steps", "0,100", "--no-figures", "--set", "neurons=4")
    assert "tokens below a word's answer" in text
    assert "step0" in text
    assert "--steps, but turnover read no weights" in said("turnover", "--steps", "0", code=2)
    assert "step" in said("read_out", "--steps", "7", code=2)
