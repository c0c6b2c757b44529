"""A finished run to be spoilt, and how it is refused."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from kntrace.analysis import analyse
from kntrace.errors import KntraceError
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"Pets": ("cat", "dog", "fox"), "Hues": ("red", "blue", "grey")}


@pytest.fixture(name="offline", autouse=True)
def fixture_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader asks the hub, not even one that nobody answers for."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(name="master", scope="module")
def fixture_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scores = synthetic_scores(groups=GROUPS, checkpoints=2, prompts=2, layers=2, width=4)
    run = synthetic_run(tmp_path_factory.mktemp("strange") / "run", scores)
    analyse(run, k=2, permutations=19)
    return run.path


@pytest.fixture(name="run")
def fixture_run(tmp_path: Path, master: Path) -> Path:
    """A finished and analysed run that the test may do anything to."""
    return Path(shutil.copytree(master, tmp_path / "run"))


def refused(
    kind: type[KntraceError], said: str, work: Callable[..., object], *given: object
) -> None:
    with pytest.raises(kind, match=said):
        work(*given)


def memory(work: Callable[[], object]) -> float:
    """Megabytes that the work takes at its height, as far as Python and numpy know."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
