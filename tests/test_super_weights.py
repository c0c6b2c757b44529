"""Super weights: a planted one is found and confirmed, and a healthy model has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from conftest import save_checkpoint
from drawn_figures import assert_readable
from families import make
from kntrace.archive import Run
from kntrace.errors import SettingsError
from kntrace.figures import SIZES, render, sized
from kntrace.grow import grow
from kntrace.models.feedforward import find_stack
from kntrace.models.tokens import Encoded
from kntrace.probes import OpenedCheckpoint, Weights
from kntrace.probes.asking import ask, text_loss
from kntrace.probes.spikes import spikes
from kntrace.probes.surgery import Change, changed, value_vectors
from kntrace.report.views import sections
from kntrace.settings import Settings
from kntrace.study import load_study
from kntrace.views import Asked, compute_views, find_views, read_view
from kntrace.views.super_weights import SuperWeights

LAYER, ROW, COLUMN = 1, 9, 7
PROMPTS = [Encoded((5, 8, 3, 2 + n), (n + 20,)) for n in range(5)]


def plant(model: Any) -> None:
    """A neuron that always fires and writes a huge value into one channel, which tames logits."""
    block = find_stack(model).layers[LAYER]
    with torch.no_grad():
        block.up.bias[COLUMN] = 20.0
        value_vectors(block)[COLUMN] = 0.0
        value_vectors(block)[COLUMN, ROW] = 300.0
        model.get_output_embeddings().weight[:, ROW] = 0.0


def test_a_planted_weight_is_found_in_its_layer() -> None:
    model = make("gpt_neox_parallel", num_hidden_layers=8).eval()
    stack = find_stack(model)
    healthy = spikes(model, stack, PROMPTS)
    assert healthy["ratio"].max() < 50
    plant(model)
    found = spikes(model, stack, PROMPTS).set_index("layer").loc[LAYER]
    assert (found["row"], found["column"]) == (ROW, COLUMN)
    assert found["weight"] == 300
    assert found["weight_rank"] == 0
    assert found["share"] > 0.9
    assert found["persists"] == 1
    assert found["ratio"] > 500
    assert found["prompts"] == 1
    # Asked for by its coordinate it is the same; another weight of the channel has no share.
    (same,) = spikes(model, stack, PROMPTS, (LAYER, ROW, COLUMN)).to_dict("records")
    assert same["ratio"] == found["ratio"]
    (other,) = spikes(model, stack, PROMPTS, (LAYER, ROW, COLUMN + 1)).to_dict("records")
    assert other["share"] < 0.1


@pytest.mark.parametrize("kind", ["gpt_neox_parallel", "gpt2", "opt_pre", "llama"])
def test_numbers_are_those_of_hidden_states(kind: str) -> None:
    """By transformers' own hidden states, and the down-projection run by hand."""
    model = make(kind).eval()
    stack = find_stack(model)
    layer, prompt = 0, PROMPTS[0]
    entered = {}
    hook = stack.layers[layer].down.register_forward_pre_hook(
        lambda _, args: entered.update(x=args[0].detach().reshape(-1, args[0].shape[-1]))
    )
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([prompt.ids]), output_hidden_states=True)
        left = stack.layers[layer].down(entered["x"])
    hook.remove()
    token, row = np.unravel_index(int(left.abs().argmax()), left.shape)
    parts = entered["x"][token] * value_vectors(stack.layers[layer])[:, row].detach()
    found = spikes(model, stack, [prompt]).iloc[layer]
    assert (found["row"], found["column"]) == (row, int(parts.abs().argmax()))
    assert found["largest_output"] == pytest.approx(float(left.abs().max()), rel=1e-4)
    assert found["share"] == pytest.approx(float(parts.abs().max() / parts.abs().sum()), rel=1e-4)
    stream = hidden.hidden_states[layer + 1][0].abs()
    assert found["ratio"] == pytest.approx(float(stream[token, row] / stream.median()), rel=1e-4)


def test_losses_are_cross_entropy_and_answers_are_softmax() -> None:
    model = make("llama").eval()
    total = []
    for one in PROMPTS:
        ids = torch.tensor([one.ids + one.answer])
        with torch.no_grad():
            total.append(float(model(input_ids=ids, labels=ids).loss))
    assert text_loss(model, PROMPTS) == pytest.approx(np.mean(total), rel=1e-5)
    two = [Encoded((4, 9, 11), (7, 8)), Encoded((4, 9), (6,)), Encoded((3, 9, 11), (7, 5))]
    found = ask(model, two)
    for place, one in enumerate(two):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([one.sequence])).logits[0].double()
        p = 1.0
        for at, token in enumerate(one.answer):
            p *= float(logits[one.position + at].softmax(-1)[token])
        assert np.exp(found.log_probability[place]) == pytest.approx(p, rel=1e-5)
        assert found.log_odds[place] == pytest.approx(np.log(p / (1 - p)), rel=1e-4)
        first = logits[one.position]
        assert found.rank[place] == int((first > first[one.answer[0]]).sum())


@pytest.mark.parametrize("kind", ["gpt_neox_parallel", "gpt2"])
def test_changed_weights_come_back_bit_by_bit(kind: str) -> None:
    model = make(kind).eval()
    stack = find_stack(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def same() -> bool:
        return all(torch.equal(before[name], now) for name, now in model.state_dict().items())

    # Some touch one another.
    changes = [
        Change(1, np.array([3, 5])),
        Change(1, np.array([5]), 2.5, 4),
        Change(2, np.array([0]), torch.full((1, 32), 0.1)),
    ]
    with changed(stack, changes):
        assert value_vectors(stack.layers[1])[3].abs().sum() == 0
        assert value_vectors(stack.layers[1])[5].abs().sum() == 2.5
        assert (value_vectors(stack.layers[2])[0] == 0.1).all()
        assert not same()
    assert same()
    with pytest.raises(KeyboardInterrupt), changed(stack, changes):
        raise KeyboardInterrupt
    assert same()
    with pytest.raises(IndexError), changed(stack, [*changes, Change(0, np.array([999]))]):
        pass
    assert same()


# The view


class Planted:
    """Three checkpoints of eight layers, a weight planted into some of them."""

    def __init__(self, run: Run, folder: Path, where: tuple[bool, ...]) -> None:
        self.run, self.folder, self.where = run, folder, where

    def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        assert (otherwise, backwards) == ("all", True)
        for place in (2, 1, 0):
            save_checkpoint(self.folder, seed=3, layers=8)
            model = transformers.AutoModelForCausalLM.from_pretrained(self.folder).eval()
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
            if self.where[place]:
                plant(model)
            loaded = SimpleNamespace(model=model, tokenizer=tokenizer)
            yield place, OpenedCheckpoint(self.run, loaded)  # type: ignore[arg-type]


def test_the_view_finds_when_a_weight_comes_and_that_it_matters(
    tiny_run: Run, tmp_path: Path
) -> None:
    view = find_views(["super_weights"])[0]
    weights = Planted(tiny_run, tmp_path / "model", (False, True, True))
    found = view.compute(Asked(tiny_run.scores, weights=weights))
    facts, table = found.facts, found.main
    assert (facts["layer"], facts["row"], facts["column"]) == (LAYER, ROW, COLUMN)
    assert table["candidate"].tolist() == [0, 1, 1]
    assert table["confirmed"].tolist() == [0, 1, 1]
    assert facts["first_seen"] == "step10"
    rise = table["loss_weight"] - table["loss"]
    assert rise.iloc[-1] > 0.1
    assert table["random_most"].iloc[-1] < 0.01
    # The largest weight of the matrix is this one.
    assert table["loss_largest"].iloc[-1] == table["loss_weight"].iloc[-1]
    assert "There is a super weight" in view.describe(found)
    render(view.draw(found), "svg")


def test_a_healthy_run_has_none_and_is_kept_and_shown(tiny_run_copy: Run) -> None:
    run = tiny_run_copy
    (view,) = find_views(["super_weights"])
    found = compute_views(run, [view], weights=Weights(run, threads=1), formats=("png",))[view.name]
    assert not found.facts["candidate"]
    assert found.facts["candidates_anywhere"] == 0
    assert found.facts["first_seen"] is None
    assert "There is no super weight" in view.describe(found)
    again = read_view(run, view.name)
    for part, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[part], table, check_dtype=False)
    assert render(view.draw(again), "svg") == render(view.draw(found), "svg")
    for size in SIZES:
        with sized(size) as room:
            assert_readable(view.draw(found), size, room)
    (shown,) = sections(run, lambda one, kept: one.describe(kept))
    assert shown.name == view.name


@pytest.mark.slow
def test_a_weight_planted_in_a_grown_model_is_found_and_a_grown_model_has_none(
    tmp_path: Path,
) -> None:
    """One neuron of layer 1 always on, one of its weights large: every sentence stands on it."""
    small = {"layers": 6, "hidden": 32, "heads": 2, "steps": 120, "batch": 16}
    suite = grow(tmp_path / "suite", checkpoints=[0, 120], **small)  # type: ignore[arg-type]
    study = load_study(tmp_path / "suite" / "study.yaml")
    run = SimpleNamespace(study=study, settings=Settings())
    view = SuperWeights()

    def nearest(model: Any) -> tuple[Any, dict[str, float]]:
        loaded = SimpleNamespace(model=model, tokenizer=tokenizer)
        opened = OpenedCheckpoint(run, loaded)  # type: ignore[arg-type]
        found = opened.spikes(study.wordings[0])
        best = found.loc[view.nearness(found).idxmax()]
        where = (int(best["layer"]), int(best["row"]), int(best["column"]))
        losses = opened.losses_without(study.wordings[0], where, 4, 0)
        return best.to_dict() | {"nearness": view.nearness(found).max()}, losses

    folder = suite.checkpoints[-1].source
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    healthy, losses = nearest(model)
    assert healthy["nearness"] < 1
    assert abs(losses["loss_weight"] - losses["loss"]) < 0.01
    block = find_stack(model).layers[LAYER]
    with torch.no_grad():
        block.up.weight[COLUMN] = 0.0
        block.up.bias[COLUMN] = 30.0
        value_vectors(block)[COLUMN, ROW] = 20.0
    best, without = nearest(model)
    assert (best["layer"], best["row"], best["column"]) == (LAYER, ROW, COLUMN)
    assert best["nearness"] >= 1
    assert best["share"] > 0.9
    assert best["persists"] == 1
    # Nobody trained this model to live with it: its loss falls when the weight goes.
    assert without["loss"] > losses["loss"] + view.loss
    fall = without["loss"] - without["loss_weight"]
    assert fall > view.loss
    assert -without["rise_weight_high"] < fall < -without["rise_weight_low"]
    assert without["random_most"] < fall / 10
    assert without["log_odds_weight"] > without["log_odds"]


@pytest.mark.parametrize(
    ("option", "message"),
    [({"share": "1.5"}, "shares above 0 and at most 1"), ({"draws": "0"}, "1 draw or more")],
)
def test_wrong_options(option: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find_views(["super_weights"], option)
