"""Number formats: TF32 by choice alone, half precision measured, devices without doubles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kntrace
from families import VOCABULARY, make
from kntrace.attribution import Engine, engine, precision
from kntrace.models import load
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

PROMPTS = [Encoded((5, 90, 3, 17, 2), (61,)), Encoded((8, 9), (10,))]


@pytest.mark.parametrize(("dtype", "within"), [("float32", "highest"), ("tf32", "high")])
@pytest.mark.parametrize("before", ["medium", "highest"])
def test_products_are_rounded_by_choice_alone(dtype, within, before, monkeypatch):
    standing = torch.get_float32_matmul_precision()
    seen = []
    try:
        torch.set_float32_matmul_precision(before)
        with Engine(make("gpt2"), None, Settings(dtype=dtype)) as entered:
            objective = entered._replay._objective

            def note(logits, answers):
                seen.append(torch.get_float32_matmul_precision())
                return objective(logits, answers)

            entered._replay._objective = note
            entered.attribute_many(PROMPTS)
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(standing)
    assert set(seen) == {within}


@pytest.mark.parametrize("rule", ["adaptive", "gauss_legendre"])
@pytest.mark.parametrize("name", ["gpt_neox_parallel", "bloom"])
def test_a_device_without_doubles(rule, name, monkeypatch):
    """As on Apple's GPUs: nothing in double precision is made, and scores hold to float32."""
    with Engine(make(name), None, Settings(rule=rule)) as entered:
        exact = entered.attribute_many(PROMPTS)
    for part in ("integrate", "adaptive", "objectives", "shared_prefix", "frozen_cache"):
        monkeypatch.setattr(f"kntrace.attribution.{part}.exact_dtype", lambda device: torch.float32)
    made = set()
    with Engine(make(name), None, Settings(rule=rule)) as entered:
        whole = entered._integrate

        def watched(recording, memory):
            found = whole(recording, memory)
            made.update({found.score.dtype, found.gap.dtype, recording.objective.dtype})
            return found

        entered._integrate = watched
        found = entered.attribute_many(PROMPTS)
    assert made == {torch.float32}
    for mine, true in zip(found, exact, strict=True):
        assert np.linalg.norm(mine.score - true.score) < 1e-4 * np.linalg.norm(true.score)
    assert precision.exact_dtype(torch.device("mps")) == torch.float32
    assert precision.exact_dtype(torch.device("cuda")) == torch.float64


def test_half_precision_is_measured_at_load_and_recorded(tiny_suite, tmp_path, monkeypatch):
    """Where a device has it. A CPU stands in for one here, which kntrace refuses by itself."""
    monkeypatch.setattr(engine, "refuse_half_on_cpu", lambda model: None)
    monkeypatch.setattr(load, "_refuse_format", lambda device, dtype: None)
    settings = Settings(dtype="bfloat16", rule="gauss_legendre")
    run = kntrace.run(tiny_suite.study, tiny_suite.suite, tmp_path / "half", settings=settings)
    exact = kntrace.run(
        tiny_suite.study, tiny_suite.suite, tmp_path / "whole",
        settings=Settings(rule="gauss_legendre"),
    )  # fmt: skip
    true, mine = (one.scores["score"].values for one in (exact, run))
    there = np.isfinite(true).all((-1, -2))
    off = np.linalg.norm(mine - true, axis=-1)[there] / np.linalg.norm(true, axis=-1)[there]
    for label in ("step0", "step10", "step100"):
        found = run.provenance["checkpoints"][label]["rounding"]
        assert found["prompts"] == 4
        assert 1e-4 < found["median"] < 0.2
        assert found["median"] <= found["worst"] <= off.max() * 1.001
        assert "rounding" not in exact.provenance["checkpoints"][label]
    assert VOCABULARY > 90
    assert {p["fingerprint"] for p in run.provenance["checkpoints"].values()} == {
        p["fingerprint"] for p in exact.provenance["checkpoints"].values()
    }
