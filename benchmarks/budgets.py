"""Milliseconds a prompt by rule, company and memory budget: what a card gains from larger passes.

python benchmarks/budgets.py --device cuda --shape 410m --gib 2 8 32
"""

from __future__ import annotations

import argparse
import time

import torch

from kntrace.attribution import Engine
from kntrace.settings import Settings
from ways import SHAPES, build, finished, prompts

RULES = {
    "gauss_legendre, 8 nodes": {"rule": "gauss_legendre", "nodes": 8},
    "adaptive, 1e-3": {"rule": "adaptive"},
    "public_code, 20 nodes": {"rule": "public_code", "nodes": 20},
}


def seconds(model: torch.nn.Module, rule: str, together: int, budget: int, device: str) -> float:
    """Seconds a prompt of 24 tokens, the second time that it is asked for."""
    asked = prompts(together, 24)
    with Engine(model, None, Settings(**RULES[rule]), memory=budget) as engine:
        work = finished(lambda: engine.attribute_many(asked), device)
        work()
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) / together


def main() -> None:
    """Print one line a rule and company, one column a budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", default="410m", choices=SHAPES)
    parser.add_argument("--gib", type=float, nargs="+", default=[2, 8, 32])
    parser.add_argument("--together", type=int, nargs="+", default=[8, 32])
    given = parser.parse_args()
    on_card = given.device.startswith("cuda")
    print(torch.cuda.get_device_name(given.device) if on_card else given.device, torch.__version__)
    model = build(given.shape, given.device)
    print(f"| rule | together | {' | '.join(f'{gib:g} GiB' for gib in given.gib)} |")
    print(f"| --- | --- | {' | '.join('---' for _ in given.gib)} |")
    for rule in RULES:
        for together in given.together:
            times = [
                seconds(model, rule, together, int(gib * 2**30), given.device) for gib in given.gib
            ]
            cells = " | ".join(f"{1000 * each:.1f}" for each in times)
            print(f"| {rule} | {together} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
