"""Zero ablation of single neurons against a forward pass in which one number is put to zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from families import make
from kntrace.attribution import Engine
from kntrace.errors import SettingsError
from kntrace.models.tokens import Encoded

PROMPT = Encoded((5, 90, 3, 17, 2), (61,))


def without(model, layer, neuron):
    """P(answer) with one neuron silent at the last position, by a hook on the down-projection."""

    def silence(_, args):
        changed = args[0].clone()
        changed[0, -1, neuron] = 0
        return (changed,)

    hook = model.gpt_neox.layers[layer].mlp.dense_4h_to_h.register_forward_pre_hook(silence)
    with torch.no_grad():
        probability = model(torch.tensor([PROMPT.ids])).logits[0, -1].softmax(-1)[61]
    hook.remove()
    return float(probability)


def test_every_neuron_by_the_definition():
    model = make("gpt_neox_parallel", torch.float64).eval()
    with Engine(model, None) as engine:
        found = engine.ablate(PROMPT)
    with torch.no_grad():
        whole = float(model(torch.tensor([PROMPT.ids])).logits[0, -1].softmax(-1)[61])
    true = [[whole - without(model, layer, i) for i in range(56)] for layer in range(3)]
    np.testing.assert_allclose(found, true, rtol=1e-9, atol=1e-15)


def test_chosen_neurons_in_their_order_whatever_the_memory():
    model = make("llama", torch.float64)
    chosen = [(2, 5), (0, 1), (1, 55), (0, 0)]
    with Engine(model, None) as engine:
        every, some = engine.ablate(PROMPT), engine.ablate(PROMPT, chosen)
    with Engine(model, None, memory=1) as engine:
        slowly = engine.ablate(PROMPT, chosen)
    np.testing.assert_allclose(some, [every[pair] for pair in chosen], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(some, slowly, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("pair", [(3, 0), (0, 56), (-1, 2)])
def test_a_neuron_that_is_not_there_is_named(pair):
    named = pytest.raises(SettingsError, match=f"neuron {pair[1]} of layer {pair[0]}")
    with Engine(make("gpt_neox_parallel"), None) as engine, named:
        engine.ablate(PROMPT, [pair])
