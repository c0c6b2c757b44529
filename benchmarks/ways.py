"""Models of known shapes, the ways of others, and what a piece of work costs."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from kntrace.attribution import Engine
from kntrace.attribution.rules import quadrature
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

# hidden, layers, heads of the Pythia models
SHAPES = {"70m": (512, 6, 8), "160m": (768, 12, 12), "410m": (1024, 24, 16)}
VOCABULARY = 50_304


@lru_cache(maxsize=1)
def build(shape: str, device: str, layers: int | None = None) -> GPTNeoXForCausalLM:
    """A model of that shape with random weights; one at a time is kept."""
    hidden, usual, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers or usual,
        num_attention_heads=heads,
        max_position_embeddings=2048,
    )
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False).to(device)


def prompts(count: int, tokens: int) -> list[Encoded]:
    """Random prompts of the wanted length; the first are the same whatever the count."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (count, tokens + 1))
    return [Encoded(tuple(map(int, row[:-1])), (int(row[-1]),)) for row in ids]


@lru_cache(maxsize=1)
def truth(shape: str, device: str, tokens: int) -> NDArray[np.floating[Any]]:
    """Scores of the first prompt, (layer, neuron), by Gauss-Legendre with 64 nodes."""
    settings = Settings(rule="gauss_legendre", nodes=64)
    with Engine(build(shape, device), None, settings) as engine:
        score: NDArray[np.floating[Any]] = engine.attribute_many(prompts(1, tokens))[0].score
    return score


# The ways of others


def public_way(model: GPTNeoXForCausalLM, prompt: Encoded, layers: list[int]) -> None:
    """All nodes of one layer as a batch of whole sequences, one layer after the other."""
    rule = quadrature("public_code", 20)
    ids = torch.tensor([prompt.ids], device=model.device).expand(20, -1)
    points = torch.tensor(rule.points, dtype=torch.float32, device=model.device)[:, None]
    for layer in layers:
        linear = model.gpt_neox.layers[layer].mlp.dense_h_to_4h
        seen: list[torch.Tensor] = []
        hook = linear.register_forward_hook(lambda _, args, out, seen=seen: seen.append(out[0, -1]))
        with torch.no_grad():
            model(ids[:1], use_cache=False)
        hook.remove()
        value = (points * seen[0]).requires_grad_()

        def put(_: Any, args: Any, out: torch.Tensor, value: torch.Tensor = value) -> torch.Tensor:
            return torch.cat([out[:, :-1], value[:, None]], 1)

        hook = linear.register_forward_hook(put)
        probability = model(ids, use_cache=False).logits[:, -1].softmax(-1)[:, prompt.answer[0]]
        hook.remove()
        torch.autograd.grad(probability.sum(), value)


def captum_way(model: GPTNeoXForCausalLM, prompt: Encoded, layers: list[int]) -> None:
    """captum, one layer after the other, 20 steps; its path starts at another prompt."""
    ids = torch.tensor([prompt.ids], device=model.device)

    def probability(given: torch.Tensor) -> torch.Tensor:
        return model(given, use_cache=False).logits[:, -1].softmax(-1)[:, prompt.answer[0]]

    for layer in layers:
        linear = model.gpt_neox.layers[layer].mlp.dense_4h_to_h
        LayerIntegratedGradients(probability, linear).attribute(
            ids,
            baselines=torch.zeros_like(ids),
            n_steps=20,
            method="riemann_left",
            attribute_to_layer_input=True,
        )


RIVALS = {"public code's way": public_way, "captum": captum_way}


# What work costs


def finished(work: Callable[[], Any], device: str) -> Callable[[], Any]:
    """The same work, done only when the device is done with it."""
    if not device.startswith("cuda"):
        return work

    def waited() -> Any:
        given = work()
        torch.cuda.synchronize(device)
        return given

    return waited


def peak_speed(device: str) -> float:
    """Floating-point operations a second of a large float32 matrix product, best of ten."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    multiply = finished(lambda: a @ b, device)
    multiply()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - start)
    return float(2 * size**3 / min(times))


def cost(work: Callable[[], Any], device: str) -> tuple[int, int | None]:
    """Floating-point operations of the work, and bytes it takes over what was taken before.

    The bytes are None where the system does not tell: they are read from Linux's account of
    the process, or from CUDA's allocator.
    """
    gc.collect()
    with FlopCounterMode(display=False) as counter:
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            work()
            used: int | None = torch.cuda.max_memory_allocated(device) - before
        else:
            start = _resident_from_now()
            work()
            used = None if start is None else _status("VmHWM") - start
    return int(counter.get_total_flops()), used


def _resident_from_now() -> int | None:
    """Start the count of the largest resident size anew; the size now, in bytes."""
    if not sys.platform.startswith("linux"):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what earlier work gave back would hide what this one takes
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
