"""Repositories on the stand-in hub, and what is refused of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub_server import HubServer
from kntrace.errors import KntraceError, SuiteError
from kntrace.suite import (
    load_suite,
)


def model(folder: Path, said: Any = "", *, weights: str = "model.safetensors") -> Path:
    """Make what has the files of a checkpoint, and weights that nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"said": said}))
    (folder / weights).write_bytes(f"weights {said}".encode())
    return folder


def serve(hub: HubServer, home: Path, repository: str, *names: str, tags: bool = False) -> None:
    folders = {name: model(home / repository / str(i), name) for i, name in enumerate(names)}
    main = {"main": folders.pop("main", None) or model(home / repository / "main", "main")}
    if tags:
        hub.add(repository, main, tags=folders)
    else:
        hub.add(repository, main | folders)


def refusal(source: str | Path, kind: type[KntraceError] = SuiteError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_suite(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


FAMILIES = {
    "EleutherAI/pythia-14m": (
        ["step1000", "step0", "step512"],
        [(None, 0, None), (None, 512, None), (None, 1000, None), (None, 143000, None)],
    ),
    "EleutherAI/pythia-160m-data-seed1": (
        ["step1", "step143000"],
        [(None, 1, None), (None, 143000, None)],
    ),
    "allenai/OLMo-2-1124-7B": (
        [
            "stage2-ingredient2-step1000-tokens5B",
            "stage2-ingredient1-step1000-tokens5B",
            "stage2-ingredient1-step500-tokens3B",
            "step3000-tokens13B",
            "stage1-step150-tokens1B",
            "stage1-step928646-tokens3896B",
        ],
        [
            ("stage1", 150, 10**9),
            ("stage1", 3000, 13 * 10**9),
            ("stage1", 928646, 3896 * 10**9),
            ("stage2-ingredient1", 500, 3 * 10**9),
            ("stage2-ingredient1", 1000, 5 * 10**9),
            ("stage2-ingredient2", 1000, 5 * 10**9),
        ],
    ),
    "allenai/OLMo-1B-hf": (
        ["step738020-tokens3095B", "step20000-tokens84B"],
        [(None, 20000, 84 * 10**9), (None, 738020, 3095 * 10**9)],
    ),
    "LLM360/Amber": (
        ["ckpt_358", "ckpt_000"],
        [(None, 0, None), (None, 358, None), (None, 359, None)],
    ),
    "LLM360/Crystal": (
        ["CrystalCoder_phase2_checkpoint_000500", "CrystalCoder_phase1_checkpoint_055500"],
        [("phase1", 55500, None), ("phase2", 500, None)],
    ),
    "stanford-crfm/alias-gpt2-small-x21": (
        ["checkpoint-400000", "checkpoint-0", "checkpoint-50"],
        [(None, 0, None), (None, 50, None), (None, 400000, None)],
    ),
    "HuggingFaceTB/SmolLM2-135M-intermediate-checkpoints": (
        ["step-240000", "step-80000"],
        [(None, 80000, None), (None, 240000, None)],
    ),
    "HuggingFaceTB/SmolLM3-3B-checkpoints": (
        ["stage2-step-40000", "stage1-step-80000", "lc-4k-to-32k-step-20000"],
        [("stage1", 80000, None), ("stage2", 40000, None)],
    ),
    "swiss-ai/Apertus-8B-2509": (
        ["step2627139-tokens15T", "step50000-tokens210B"],
        [(None, 50000, 210 * 10**9), (None, 2627139, 15 * 10**12)],
    ),
    "OpenLLM-France/Lucie-7B": (
        ["step0005000", "step0753851"],
        [(None, 5000, None), (None, 753851, None)],
    ),
}


def kntrace(hub: HubServer, home: Path, *arguments: str, **more: str) -> tuple[int, str, str]:
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "kntrace", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | hub.environment(home) | {"COLUMNS": "120"} | more,
        cwd=home,
    )
    return done.returncode, done.stdout, done.stderr
