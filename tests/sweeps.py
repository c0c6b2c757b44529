"""A finished sweep over the tiny suite, and what is done to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import STEPS, TinySuite
from kntrace.archive import Run, open_run
from kntrace.archive.chunks import chunk_name
from kntrace.archive.variables import BLOCK_VARIABLES
from kntrace.errors import RunError
from kntrace.progress import silent
from kntrace.sweep import run as sweep

TOTAL = len(STEPS) * 4


def finish(tiny: TinySuite, out: Path, **options: Any) -> Run:
    settled: dict[str, Any] = {"threads": 1, "progress": silent} | options
    return sweep(tiny.study, tiny.suite, out, **settled)


def tree(run: Run | Path) -> dict[str, bytes]:
    home = (run if isinstance(run, Path) else run.path) / "scores.zarr"
    return {str(f.relative_to(home)): f.read_bytes() for f in home.rglob("*") if f.is_file()}


def times(run: Run) -> dict[tuple[int, int], list[int]]:
    """When the chunks of each finished block were written."""
    home, lacking = run.path / "scores.zarr", {*run.missing(), *run.damaged()}
    return {
        pair: [(home / n / chunk_name(n, *pair)).stat().st_mtime_ns for n in BLOCK_VARIABLES]
        for pair in np.ndindex(run.shape)
        if pair not in lacking
    }


@pytest.fixture(name="one_thread", scope="module", autouse=True)
def fixture_one_thread() -> Iterator[None]:
    """Models as small as these are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="master", scope="module")
def fixture_master(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tiny_suite, tmp_path_factory.mktemp("master") / "run").path


@pytest.fixture(name="done")
def fixture_done(master: Path, tmp_path: Path) -> Run:
    """A finished run that the test may do anything to."""
    shutil.copytree(master, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.fixture(name="mine")
def fixture_mine(tiny_suite: TinySuite, tmp_path: Path) -> TinySuite:
    """A copy of the suite that the test may do anything to."""
    shutil.copytree(tiny_suite.folder, tmp_path / "mine" / "suite")
    shutil.copy(tiny_suite.study_file, tmp_path / "mine")
    return TinySuite(tmp_path / "mine" / "suite", tmp_path / "mine" / "study.yaml")


@pytest.fixture(name="loads")
def fixture_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of the checkpoints that are loaded, as they are."""
    import kntrace.models

    labels: list[str] = []
    load = kntrace.models.load_checkpoint

    def spy(checkpoint: Any, **options: Any) -> Any:
        labels.append(checkpoint.label)
        return load(checkpoint, **options)

    monkeypatch.setattr("kntrace.models.load_checkpoint", spy)
    return labels


def remove(run: Run, checkpoint: int, word: int, variable: str = "score") -> None:
    (run.path / "scores.zarr" / variable / chunk_name(variable, checkpoint, word)).unlink()


def refused(tiny: TinySuite, run: Run, **options: Any) -> str:
    """The message with which the run is refused, after a look that nothing was changed."""
    before = tree(run)
    with pytest.raises(RunError) as caught:
        finish(tiny, run.path, **options)
    assert tree(run) == before
    assert not (run.path / ".lock").exists()
    return str(caught.value)
