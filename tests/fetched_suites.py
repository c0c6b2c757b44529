"""A tiny suite on the stand-in hub, run from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import kntrace
from conftest import TinySuite
from hub_server import HubServer
from kntrace.archive import Run
from kntrace.errors import KntraceError
from kntrace.progress import silent
from kntrace.suite import Suite, load_suite

NAME = "owner/tiny"
WORDS = 4


@pytest.fixture(name="tiny")
def fixture_tiny(hub: HubServer, tiny_suite: TinySuite, tmp_path: Path) -> TinySuite:
    """The tiny suite, served as a repository; a copy that the test may do anything to."""
    folder = tmp_path / "mine" / "suite"
    shutil.copytree(tiny_suite.folder, folder)
    hub.add_suite(NAME, folder)
    return TinySuite(folder, tiny_suite.study_file)


@pytest.fixture(name="expected", scope="module")
def fixture_expected(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run over the same checkpoints in folders."""
    return sweep(tiny_suite, tmp_path_factory.mktemp("expected") / "run", tiny_suite.suite)


def sweep(tiny: TinySuite, out: Path, suite: Suite | None = None, **options: Any) -> Run:
    chosen = load_suite(NAME) if suite is None else suite
    return kntrace.run(tiny.study, chosen, out, **({"progress": silent, "threads": 1} | options))


def refusal(kind: type[KntraceError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        sweep(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stop_after(blocks: int) -> Callable[..., None]:
    """A `Progress` that makes an end, as if something had failed, after so many blocks."""

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        if stage == "sweep" and done == blocks:
            raise ZeroDivisionError

    return progress


def in_cache() -> set[str]:
    """Commits of which the cache has anything."""
    found = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    return {path.name for path in found}


def commits(hub: HubServer, name: str = NAME) -> dict[str, str]:
    return hub.repositories[name].branches


def same_scores(run: Run, other: Run) -> bool:
    return bool(run.scores["score"].equals(other.scores["score"]))
