"""What an audit costs: python benchmarks/audit.py

Seconds are the processor's, so that other work on the machine does not count.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from kntrace.audit import CheckpointPrint, TensorPrint, audit_suite, find
from kntrace.suite import load_suite

CHECKPOINTS, TENSORS, SIDE = 154, 400, 4096


def reading(dtype: type) -> None:
    """Two checkpoints of four square matrices."""
    with tempfile.TemporaryDirectory() as name:
        for step in range(2):
            folder = Path(name) / f"step{step}"
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            draw = np.random.default_rng(step)
            weights = {f"{n}": draw.normal(size=(SIDE, SIDE)).astype(dtype) for n in range(4)}
            save_file(weights, folder / "model.safetensors")
        checkpoints = load_suite(name).checkpoints
        begun = time.process_time()
        found = audit_suite(checkpoints)
        took = time.process_time() - begun
        print(f"{dtype.__name__}: {found.bytes / 1e9 / took:.2f} GB a second")


def comparing() -> None:
    """As many prints as Pythia has checkpoints, of a model of 1.4 billion weights."""
    draw = np.random.default_rng(0)
    prints = [
        CheckpointPrint(
            f"step{place}",
            place,
            {
                f"layers.{n}.weight": TensorPrint(
                    draw.bytes(32).hex(),
                    (SIDE, SIDE),
                    "float32",
                    True,
                    sample=tuple(draw.normal(size=12).round(5).tolist()),
                )
                for n in range(TENSORS)
            },
            complete=True,
        )
        for place in range(CHECKPOINTS)
    ]
    begun = time.process_time()
    find(prints)
    print(f"{CHECKPOINTS} x {TENSORS} tensors compared in {time.process_time() - begun:.2f} s")
    size = sum(len(item.to_json()) for item in prints)
    print(f"{size / CHECKPOINTS / TENSORS:.0f} bytes a tensor in the run folder")


if __name__ == "__main__":
    reading(np.float32)
    reading(np.float16)
    comparing()
