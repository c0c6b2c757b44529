"""Time the engine against the ways of others, in one process, on random weights.

Rivals: the public code's way (a hook, the whole sequence, one layer at a time, its 20 nodes) and
captum's LayerIntegratedGradients. What each way really computes is counted by torch; the
machine's own limit is the speed of a large matrix product, the better of one measured just before
and one just after.

    python -m pytest benchmarks --benchmark-json=build/benchmark.json
    python benchmarks/tables.py build/benchmark.json
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import RULES
from kntrace.attribution import Engine
from kntrace.settings import Settings
from ways import RIVALS, SHAPES, build, cost, finished, peak_speed, prompts, truth


def bench_rivals(
    benchmark: Any,
    request: pytest.FixtureRequest,
    shape: str,
    tokens: int,
    way: str,
    device: str,
    limit: float,
) -> None:
    """One prompt the way others do it: once, on the first, middle and last layer."""
    model = build(shape, device)
    count = SHAPES[shape][1]
    every = request.config.getoption("every_layer")
    layers = list(range(count)) if every else [0, count // 2, count - 1]
    (prompt,) = prompts(1, tokens)
    RIVALS[way](model, prompt, layers[-1:])  # nobody's first call is timed
    work = finished(lambda: RIVALS[way](model, prompt, layers), device)
    benchmark.pedantic(work, rounds=1, warmup_rounds=int(device != "cpu"))
    flops, memory = cost(work, device)
    benchmark.extra_info.update(
        table="ways",
        shape=shape,
        tokens=tokens,
        way=f"{way}, 20 nodes",
        together=1,
        scale=count / len(layers),
        flops=flops,
        memory=memory,
        weights=weights_of(model),
        limit=max(limit, peak_speed(device)),
    )


def bench_engine(
    benchmark: Any,
    shape: str,
    tokens: int,
    rule: str,
    together: int,
    device: str,
    limit: float,
    rounds: int,
) -> None:
    """Our way: so many prompts in one replay."""
    model = build(shape, device)
    true = truth(shape, device, tokens)
    asked = prompts(together, tokens)
    with Engine(model, None, Settings(**RULES[rule])) as engine:
        work = finished(lambda: engine.attribute_many(asked), device)
        found = benchmark.pedantic(work, rounds=rounds, warmup_rounds=int(device != "cpu"))
        flops, memory = cost(work, device)
    off = np.linalg.norm(found[0].score - true, axis=1) / np.linalg.norm(true, axis=1)
    benchmark.extra_info.update(
        table="ways",
        shape=shape,
        tokens=tokens,
        way=rule,
        together=together,
        scale=1,
        flops=flops,
        memory=memory,
        weights=weights_of(model),
        limit=max(limit, peak_speed(device)),
        error=float(off.max()),
        nodes=float(np.mean([one.nodes.mean() for one in found])),
    )


def bench_growth(
    benchmark: Any, growing: tuple[str, str, int, str], device: str, rounds: int
) -> None:
    """How time grows along one axis, the others kept: 1 prompt of 24 tokens, all layers."""
    shape, axis, size, rule = growing
    settings = dict(RULES[rule])
    if axis == "nodes":
        settings["nodes"] = size
        rule = "gauss_legendre"
    model = build(shape, device, size if axis == "layers" else None)
    asked = prompts(size if axis == "prompts" else 1, size if axis == "tokens" else 24)
    with Engine(model, None, Settings(**settings)) as engine:
        work = finished(lambda: engine.attribute_many(asked), device)
        benchmark.pedantic(work, rounds=rounds, warmup_rounds=int(device != "cpu"))
    benchmark.extra_info.update(table="growth", shape=shape, axis=axis, size=size, way=rule)


def weights_of(model: Any) -> int:
    """Bytes of a model's weights."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())
