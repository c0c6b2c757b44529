"""Time the engine against the ways of others, in one process, on random weights.

Rivals: the public code's way (a hook, the whole sequence, one layer at a time, its 20 nodes) and
captum's LayerIntegratedGradients. The machine's own limit is the speed of a large matrix product
measured in the same run; what each way really computes is counted by torch.

    python benchmarks/engine.py --shape 410m --tokens 24
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from kntrace.attribution import Engine
from kntrace.attribution.rules import quadrature
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

# hidden, layers, heads of the Pythia models
SHAPES = {"70m": (512, 6, 8), "160m": (768, 12, 12), "410m": (1024, 24, 16)}
VOCABULARY = 50_304


def build(shape: str) -> GPTNeoXForCausalLM:
    """A model of that shape with random weights, spread so that no layer is near linear."""
    hidden, layers, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
    )
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def prompts(count: int, tokens: int) -> list[Encoded]:
    """Random prompts of the wanted length."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (count, tokens + 1))
    return [Encoded(tuple(map(int, row[:-1])), (int(row[-1]),)) for row in ids]


def public_way(model: GPTNeoXForCausalLM, prompt: Encoded, layers: list[int]) -> None:
    """All nodes of one layer as a batch of whole sequences, one layer after the other."""
    rule = quadrature("public_code", 20)
    ids = torch.tensor([prompt.ids]).expand(20, -1)
    points = torch.tensor(rule.points, dtype=torch.float32)[:, None]
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
    ids = torch.tensor([prompt.ids])

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


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the faster of two goes, and what the work gave."""
    best, given = float("inf"), None
    for _ in range(2):
        start = time.perf_counter()
        given = work()
        best = min(best, time.perf_counter() - start)
    return best, given


def peak() -> float:
    """Floating-point operations a second of a large matrix product, best of five."""
    a, b = torch.randn(2048, 4096), torch.randn(4096, 4096)
    best = min(timed(lambda: a @ b)[0] for _ in range(5))
    return 2 * a.shape[0] * a.shape[1] * b.shape[1] / best


def main() -> None:
    """Measure and print one table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="410m")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rivals", choices=["all", "sample", "none"], default="all",
                        help="time rivals on all layers, or on three and scale up")  # fmt: skip
    given = parser.parse_args()
    model = build(given.shape)
    layers = list(range(len(model.gpt_neox.layers)))
    limit = peak()
    print(f"{given.shape} shape, {given.tokens} tokens, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, matrix product {limit / 1e9:.0f} GFLOP/s\n")  # fmt: skip
    print("| way | together | seconds a prompt | ratio | share of peak | worst layer's error |")
    print("| --- | --- | --- | --- | --- | --- |")
    base = float("nan")
    one = prompts(1, given.tokens)[0]
    if given.rivals != "none":
        chosen = layers if given.rivals == "all" else [0, len(layers) // 2, len(layers) - 1]
        scale = len(layers) / len(chosen)
        for name, way in (("public code's way", public_way), ("captum", captum_way)):
            start = time.perf_counter()
            way(model, one, chosen)
            seconds = (time.perf_counter() - start) * scale
            base = seconds if name.startswith("public") else base
            row = f"| {name}, 20 nodes | 1 | {seconds:.1f} | {base / seconds:.1f} | | |"
            print(row, flush=True)
    with Engine(model, None, Settings(rule="gauss_legendre", nodes=64)) as engine:
        truth = engine.attribute_many([one])[0].score
    for rule, nodes in (("public_code", 20), ("gauss_legendre", 8), ("adaptive", 8)):
        for together in given.prompts:
            asked = prompts(together, given.tokens)
            settings = Settings(rule=rule, nodes=nodes)
            with Engine(model, None, settings) as engine:
                seconds, found = timed(
                    lambda engine=engine, asked=asked: engine.attribute_many(asked)
                )
                with FlopCounterMode(display=False) as count:
                    engine.attribute_many(asked)
            off = np.linalg.norm(found[0].score - truth, axis=1) / np.linalg.norm(truth, axis=1)
            share = count.get_total_flops() / seconds / limit
            spent = f"{found[0].nodes.mean():.1f}" if rule == "adaptive" else str(nodes)
            print(
                f"| {rule}, {spent} nodes | {together} | {seconds / together:.2f} | "
                f"{base * together / seconds:.0f} | {share:.0%} | {off.max():.0e} |",
                flush=True,
            )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**30
    print(f"\nWeights {weights:.2f} GiB, peak memory of the process {most:.2f} GiB.")


if __name__ == "__main__":
    main()
