"""The unembedding is run at the positions that somebody looks at, and at no other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import test_large
import test_masked
from families import FAMILIES, make
from kntrace.attribution.engine import Engine
from kntrace.attribution.frozen_cache import FrozenCache
from kntrace.attribution.full_forward import FullForward
from kntrace.attribution.greedy import written_by
from kntrace.attribution.joint import Intervention, intervene
from kntrace.attribution.memory import Memory
from kntrace.attribution.objectives import find_objective
from kntrace.attribution.prefix_attention import attention_through
from kntrace.attribution.replays import Rows
from kntrace.attribution.shared_prefix import SharedPrefix
from kntrace.models.feedforward import find_stack
from kntrace.models.head import logits_at
from kntrace.models.tokens import Encoded
from kntrace.probes.asking import ask, text_loss
from kntrace.settings import Settings

# No width of `families` is this, or a multiple of it.
VOCABULARY = 101
OUTSIDE_THE_INTERFACE = {"bloom", "falcon_alibi", "falcon_rotary", "mpt", "gpt_neo"}


class Unembedded(TorchDispatchMode):
    """Counts vectors that are multiplied into the vocabulary, in whatever way a model does it."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].partition(".")[0]
        products = name in ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "addmv", "mv")
        if products and isinstance(found, Tensor) and found.shape[-1] == VOCABULARY:
            self.vectors += found.numel() // VOCABULARY
        return found


def counted(work: Any) -> int:
    with Unembedded() as seen:
        work()
    return seen.vectors


def prompts(tokens: int) -> list[Encoded]:
    """Of three lengths, one of them a single token."""
    generator = torch.Generator().manual_seed(11)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 90, (length,), generator=generator).tolist())

    return [Encoded(draw(length), draw(tokens)) for length in (12, 7, 1)]


def check(replay: Any, asked: list[Encoded], *, ends: bool = False) -> None:
    """Record and evaluate a row of every prompt; with `ends`, at the activation too."""
    tokens = len(asked[0].answer)
    found: list[Any] = []
    assert counted(lambda: found.append(replay.record(asked))) == len(asked) * tokens
    (recording,) = found
    layers = recording.activation.shape[1]
    prompt = torch.arange(len(asked))
    rows = Rows(prompt, prompt % layers, 0.5 * recording.activation[prompt, prompt % layers])
    done = counted(lambda: replay.evaluate(recording, rows, at_activation=ends))
    # With them a row more for every prompt; in the slow way, for every prompt and layer.
    more = len(asked) * (layers if isinstance(replay, FullForward) else 1) if ends else 0
    assert done == (len(rows) + more) * tokens


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_way_of_replaying_looks_where_the_answer_is(name: str) -> None:
    """Soft caps, scales and projections at the end included."""
    model = make(name, vocab_size=VOCABULARY).eval().requires_grad_(False)
    blocks, objective = find_stack(model), find_objective("probability")
    for tokens, ends in ((1, True), (3, False)):
        asked = prompts(tokens)
        check(FullForward(model, blocks, "post_activation", objective), asked, ends=ends)
        check(FrozenCache(model, blocks, "post_activation", objective), asked, ends=ends)
        if name not in OUTSIDE_THE_INTERFACE:
            with attention_through(model):
                shared = SharedPrefix(model, blocks, "post_activation", objective)
                check(shared, asked, ends=ends)


@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gemma2", "mpt"])
def test_a_spread_model_looks_there_too(name: str, tmp_path: Path) -> None:
    """With what accelerate puts around every module, on the disk and in memory."""
    model = test_large.split(make(name, vocab_size=VOCABULARY), tmp_path)
    with Engine(model, None, Settings(rule="gauss_legendre", nodes=2)) as engine:
        assert engine.replay == ("full_forward" if name == "mpt" else "shared_prefix")
        check(engine._replay, prompts(1), ends=True)
        check(engine._replay, prompts(2))


@pytest.mark.parametrize("name", list(test_masked.MASKED))
def test_a_masked_model_looks_at_the_mask(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_masked, "VOCABULARY", VOCABULARY)
    model = test_masked.make(name).requires_grad_(False)
    asked = [Encoded((1, 7, 3, 20, 2), (9,), mask=2), Encoded((1, 3, 2), (30,), mask=1)]
    replay = FullForward(model, find_stack(model), "post_activation", find_objective("probability"))
    check(replay, asked)
    assert counted(lambda: ask(model, asked)) == 2


class Writing:
    """What of a reader the model needs to write on."""

    def written_on(self, encoded: Encoded, token: int) -> Encoded:
        return replace(encoded, ids=(*encoded.ids, token))


@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gemma2", "mpt"])
def test_joint_changes_and_what_the_model_writes_look_there(name: str) -> None:
    model = make(name, vocab_size=VOCABULARY)
    changes = [
        Intervention(np.array([0, 2]), np.array([3, 5])),
        Intervention(np.array([1]), np.array([4]), 2.0),
    ]
    asked, memory = replace(prompts(3)[0], text="some text"), Memory(10**9, 1000, 1000)
    with Engine(model, None, Settings(rule="gauss_legendre", nodes=2)) as engine:
        slow = FullForward(model, engine._entered, "post_activation", find_objective("probability"))
        for replay, everywhere in ((engine._replay, False), (slow, True)):
            recording = replay.record([asked])
            work = partial(intervene, replay, recording, changes, memory, everywhere=everywhere)
            assert counted(work) == len(changes) * 3
        # As the public code does: the last token of a prompt that grows, and not of the last.
        assert counted(lambda: written_by(model, Writing(), asked)) == 2


@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gemma2", "mpt", "gpt_neo"])
def test_what_a_model_answers_is_read_where_it_is(name: str) -> None:
    model = make(name, vocab_size=VOCABULARY).eval()
    asked = [*prompts(1), *prompts(3)]
    assert counted(lambda: ask(model, asked)) == 3 + 9
    # Only the loss over a text wants every token.
    assert counted(lambda: text_loss(model, asked)) == sum(len(one.sequence) for one in asked)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_logits_are_those_of_an_ordinary_pass(name: str) -> None:
    model = make(name, torch.float64).eval()
    ids = torch.tensor([[5, 90, 3, 17, 2], [8, 9, 44, 1, 30]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        for positions in ([[4], [1]], [[0, 3], [2, 2]], [[0, 1, 2, 3, 4]] * 2):
            where = torch.tensor(positions)
            found = logits_at(model, ids, where, use_cache=False)
            torch.testing.assert_close(found, whole[torch.arange(2)[:, None], where])
        found = logits_at(model, ids, torch.tensor([1, 3]))
        torch.testing.assert_close(found, whole[:, [1, 3]])
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_model_without_a_reachable_end_is_chosen_from() -> None:
    model = make("llama").eval()
    ids, where = torch.tensor([[5, 90, 3, 17, 2]]), torch.tensor([[1, 4]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        model.get_output_embeddings = lambda: None
        torch.testing.assert_close(logits_at(model, ids, where), whole[:, [1, 4]])
