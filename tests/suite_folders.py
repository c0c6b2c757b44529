"""Folders of checkpoints that hold no weights worth the name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kntrace.errors import SuiteError
from kntrace.suite import Checkpoint, Suite, load_suite


def grow(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    return folder


def labels(suite: Suite) -> list[str]:
    return [checkpoint.label for checkpoint in suite]


def refusal(source: str | Path, **options: Any) -> str:
    with pytest.raises(SuiteError) as caught:
        load_suite(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def write(folder: Path, text: str, name: str = "suite.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def checkpoint(step: int | None, label: str = "", **more: Any) -> Checkpoint:
    values = {"tokens": None, "source": f"/suite/{step}", "revision": None} | more
    return Checkpoint(label or f"step{step}", step, **values)
