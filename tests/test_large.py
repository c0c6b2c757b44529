"""Models that do not fit one device: their weights in memory and on the disk, fetched as needed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from accelerate import dispatch_model
from accelerate.hooks import remove_hook_from_module

import kntrace
from families import make
from kntrace.attribution import Engine
from kntrace.attribution.patching import recomputed
from kntrace.errors import SettingsError
from kntrace.models import load_checkpoint, placement
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings
from kntrace.suite import load_suite

PROMPTS = [Encoded((5, 90, 3, 17, 2), (61,)), Encoded((8, 9), (10,))]


def split(model, folder):
    """Norms and every second layer are on the disk, the rest is in memory."""
    layers = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
    places = {}

    def place(part, prefix=""):
        for name, child in part.named_children():
            if any(inner is layers for inner in child.modules()):
                place(child, f"{prefix}{name}.")
            else:
                away = name.isdigit() and int(name) % 2 == 0
                places[prefix + name] = "disk" if away or "norm" in name else "cpu"

    place(model)
    return dispatch_model(model, places, main_device="cpu", offload_dir=folder, force_hooks=True)


@pytest.mark.parametrize("rule", ["adaptive", "gauss_legendre"])
@pytest.mark.parametrize("name", ["gpt_neox_parallel", "llama_tied", "gemma2", "bloom"])
def test_an_offloaded_model_scores_as_a_whole_one(name, rule, tmp_path):
    settings = Settings(rule=rule)
    with Engine(make(name), None, settings) as engine:
        whole = engine.attribute_many(PROMPTS)
        ablated = engine.ablate(PROMPTS[0], [(0, 3), (2, 5)])
    model = split(make(name), tmp_path)
    assert placement.is_offloaded(model)
    away = {name for name, weight in model.named_parameters() if weight.device.type == "meta"}
    before = {part: vars(part).get("forward") for part in model.modules()}
    with Engine(model, None, settings) as engine:
        assert engine.replay == ("full_forward" if name == "bloom" else "shared_prefix")
        found = engine.attribute_many(PROMPTS)
        np.testing.assert_allclose(
            engine.ablate(PROMPTS[0], [(0, 3), (2, 5)]), ablated, rtol=1e-4, atol=1e-7
        )
    for mine, true in zip(found, whole, strict=True):
        off = np.linalg.norm(mine.score - true.score, axis=1)
        assert (off < 1e-4 * np.linalg.norm(true.score, axis=1)).all()
    # As it was: what accelerate put in place still is, and what was away is away again.
    assert {part: vars(part).get("forward") for part in model.modules()} == before
    assert away == {n for n, weight in model.named_parameters() if weight.device.type == "meta"}


def test_gradients_keep_no_weights(tmp_path):
    """What a pass keeps for its gradient, with and without running layers twice."""
    shapes = []

    def keep(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor

    def kept(model):
        with Engine(model, None, Settings(rule="gauss_legendre", nodes=2)) as engine:
            recording = engine._replay.record(PROMPTS)
            shapes.clear()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                engine.attribute_many(PROMPTS)
        assert recording.activation.shape == (2, 3, 56)
        return Counter(shapes)

    weights = {(56, 32), (32, 56)}
    assert weights & set(kept(make("llama")))
    assert not weights & set(kept(split(make("llama"), tmp_path)))


def test_running_layers_twice_changes_nothing():
    model = make("gpt2").eval()
    ids = torch.tensor([[3, 9, 4]])
    plain = torch.autograd.grad(model(ids).logits[0, -1, 7], model.transformer.wte.weight)
    with recomputed(list(model.transformer.h)):
        twice = torch.autograd.grad(model(ids).logits[0, -1, 7], model.transformer.wte.weight)
    assert torch.equal(plain[0], twice[0])
    assert not any("forward" in vars(layer) for layer in model.transformer.h)


def test_weights_on_the_disk_have_the_same_prints(tiny_suite, tmp_path, monkeypatch):
    """A run with `auto`, here made to put a layer on the disk, is the plain run."""
    kind = transformers.AutoModelForCausalLM
    load = kind.from_pretrained

    parts = ("embed_in", "rotary_emb", "layers.0", "layers.1", "final_layer_norm")
    places = {f"gpt_neox.{part}": "cpu" for part in parts} | {"gpt_neox.layers.0": "disk"}

    def spread(source, **options):
        if options.get("device_map") == "auto":
            options["device_map"] = {**places, "lm_head": "disk"}
        return load(source, **options)

    monkeypatch.setattr(kind, "from_pretrained", spread)
    plain = kntrace.run(tiny_suite.study, tiny_suite.suite, tmp_path / "plain")
    run = kntrace.run(tiny_suite.study, tiny_suite.suite, tmp_path / "spread", device="auto")
    np.testing.assert_allclose(run.scores["score"], plain.scores["score"], rtol=1e-3, atol=1e-9)
    for label, told in plain.provenance["checkpoints"].items():
        assert run.provenance["checkpoints"][label]["fingerprint"] == told["fingerprint"]
    checkpoint = load_suite(tiny_suite.folder).checkpoints[0]
    loaded = load_checkpoint(checkpoint, device="auto")
    assert placement.is_offloaded(loaded.model)
    assert placement.home(loaded.model) == torch.device("cpu")
    remove_hook_from_module(loaded.model, recurse=True)


def test_what_auto_cannot_do_is_refused(tiny_suite, monkeypatch):
    checkpoint = load_suite(tiny_suite.folder).checkpoints[0]
    with pytest.raises(SettingsError, match="dtype bfloat16 with device 'auto'"):
        load_checkpoint(checkpoint, device="auto", dtype="bfloat16")
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"needs the package accelerate.*kntrace\[large\]"):
        load_checkpoint(checkpoint, device="auto")
