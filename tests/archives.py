"""Runs that the tests of the archive begin from, and what is done to their files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kntrace.archive import (
    Block,
    Run,
    create_run,
    open_run,
)
from kntrace.archive.chunks import chunk_name
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite

LAYERS, WIDTH, PROMPTS = 2, 5, 3

FINGERPRINT = "0f" * 32

# Words that would escape, collide or break if they were ever part of a path.
WORDS = ("../up", "a/b", "CON", "naïve 色", ".", "Cat", "cat", "x" * 300)


def study(**changes: str | None) -> Study:
    words = tuple(
        Word(
            text=text,
            group="odd" if place < 4 else "plain",
            answer=f"answer {place}",
            prompts={
                "main": (f"first {place}", f"second {place}"),
                "neutral": (f"third {place}",),
            },
        )
        for place, text in enumerate(WORDS)
    )
    return Study(name="odd names", template="Q {question}", words=words).model_copy(update=changes)


def suite() -> Suite:
    places = (("start", 0), ("step 5/…", 5), ("end", 70))
    return Suite(
        "toy", tuple(Checkpoint(label, step, None, f"/no/{step}", None) for label, step in places)
    )


def random_block(seed: int) -> Block:
    rng = np.random.default_rng(seed)
    return Block(
        rng.standard_normal((PROMPTS, LAYERS, WIDTH)).astype(np.float32),
        rng.standard_normal((PROMPTS, LAYERS)).astype(np.float32),
        rng.random(PROMPTS).astype(np.float32),
        rng.integers(0, 50, PROMPTS).astype(np.int32),
        rng.integers(3, 90, (PROMPTS, LAYERS)).astype(np.int32),
        rng.integers(0, 2, (PROMPTS, LAYERS)).astype(np.int8),
        rng.standard_normal((PROMPTS, LAYERS, WIDTH)).astype(np.float32),
    )


MEAN = Settings(baseline="mean")


def make(path: Path, fill: bool = True, settings: Settings | None = None) -> Run:
    settings = settings or Settings()
    run = create_run(path, study(), suite(), settings, layers=LAYERS, width=WIDTH)
    for checkpoint, word in run.missing() if fill else []:
        run.write_fingerprint(checkpoint, FINGERPRINT)
        run.write_block(checkpoint, word, random_block(100 * checkpoint + word))
    return run


@pytest.fixture(name="master", scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("master") / "run").path


@pytest.fixture(name="run")
def copied_run(tmp_path: Path, master: Path) -> Run:
    """A finished run that the test may do anything to."""
    shutil.copytree(master, tmp_path / "run")
    return open_run(tmp_path / "run")


def chunk(run: Run, variable: str, checkpoint: int, word: int) -> Path:
    return run.path / "scores.zarr" / variable / chunk_name(variable, checkpoint, word)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(item.relative_to(path)): item.read_bytes() for item in path.rglob("*") if item.is_file()
    }
