"""What the benchmarks say of their measurements; the measuring itself takes minutes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kntrace.models import load_checkpoint
from kntrace.models.tokens import Encoded
from kntrace.suite import load_suite
from tiny_gguf import LAYERS, vocabulary, weights, write

HOME = Path(__file__).parents[1] / "benchmarks"


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", HOME / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def measurement(seconds: float, **extra: Any) -> dict[str, Any]:
    return {"stats": {"min": seconds}, "extra_info": extra}


def way(seconds: float, name: str, together: int = 1, **more: Any) -> dict[str, Any]:
    fixed = {"table": "ways", "shape": "410m", "tokens": 24, "weights": 2**30, "limit": 2e11}
    costs = {"flops": 10**11, "memory": 2**29, "scale": 1}
    return measurement(seconds, way=name, together=together, **fixed, **(costs | more))


def test_tables_scale_rivals_and_divide_by_company():
    tables = module("tables")
    measured = {
        "machine_info": {"device": "cpu", "threads": 2, "torch": "9.9"},
        "benchmarks": [
            way(5.0, tables.PUBLIC, scale=8.0),
            way(2.0, "adaptive, 1e-3", 4, error=2e-4, nodes=6.25),
            way(1.0, "captum, 20 nodes", memory=None),
            measurement(1.0),
        ],
    }
    text = tables.tables(measured)
    assert "cpu, 2 threads, torch 9.9." in text
    assert "Matrix product 200 GFLOP/s; weights 1.00 GiB." in text
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    # 5 s on an eighth of the layers is 40 s; 2 s for four prompts is half a second each.
    assert lines == [
        "| public code's way, 20 nodes | 1 | 40.0 | 1.00 | 10% | 0.50 |  |",
        "| adaptive, 1e-3: 6.2 nodes | 4 | 0.500 | 80.0 | 25% | 0.50 | 2e-04 |",
        "| captum, 20 nodes | 1 | 1.00 | 40.0 | 50% |  |  |",
    ]


def test_growth_is_the_exponent_of_a_power():
    tables = module("tables")
    assert tables.exponent({1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2)
    assert np.isnan(tables.exponent({5: 1.0}))
    rows = [
        measurement(size**0.5 * 0.1, table="growth", shape="70m", axis="nodes", size=size, way="g")
        for size in (1, 4, 16)
    ]
    machine = {"device": "cpu", "threads": 1, "torch": "9.9"}
    text = tables.tables({"machine_info": machine, "benchmarks": rows})
    assert "### Growth with nodes, Pythia-70M's shape" in text
    assert "| g | 0.100 | 0.200 | 0.400 | 0.50 |" in text


def test_figures():
    figures = module("tables").figures
    assert [figures(value) for value in (0.01234, 0.5, 9.876, 73.91, 1234.5)] == [
        "0.0123", "0.500", "9.88", "73.9", "1234",
    ]  # fmt: skip


def test_the_converged_rule_sees_sharp_turns():
    pretrained = module("pretrained")
    for rule, turn in ((pretrained.first_layer(8), 1e-5), (pretrained.other_layers(8), 1e-3)):
        assert rule.weights.sum() == pytest.approx(1)
        found = rule.weights @ (1 / (rule.points + turn))
        assert found == pytest.approx(np.log((1 + turn) / turn), rel=1e-6)


def test_the_pretrained_check_passes_on_a_tiny_file(tmp_path):
    """The whole of `make validate-model`, but for the model."""
    pretrained = module("pretrained")
    (checkpoint,) = load_suite(write(tmp_path / "tiny.gguf", weights(0)))
    model = load_checkpoint(checkpoint).model
    rng = np.random.default_rng(0)
    ids = rng.integers(3, len(vocabulary()[0]), (2, 7)).tolist()
    prompts = [Encoded(tuple(row[:-1]), (row[-1],)) for row in ids]
    fast, _ = pretrained.against_full_forward(model, prompts)
    assert fast.error.shape == (2, LAYERS)
    assert 0 < fast.error.max() < 1e-4
    text = pretrained.report(model, prompts)
    table = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0] for line in table] == [f"| {name}" for name, _ in pretrained.RULES]
    worst = [max(map(float, cell.split(" / "))) for cell in (t.split(" | ")[2] for t in table)]
    assert worst[0] <= 1e-3 < worst[1]
