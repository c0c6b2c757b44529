"""A text, and a tiny suite grown on it once."""

from __future__ import annotations

import numpy as np
import pytest

from kntrace.grow import grow_text

SMALL = {
    "vocabulary": 300,
    "layers": 1,
    "hidden": 16,
    "heads": 2,
    "context": 16,
    "steps": 24,
    "batch": 4,
    "checkpoints": "log:5",
    "held_out": 0.1,
    "learning_rate": 0.01,
}
MARKS = (0, 1, 4, 10, 24)


def prose(lines, seed=0):
    """Some lines that repeat themselves, with letters of more than one byte."""
    rng = np.random.default_rng(seed)
    who = ["the fox", "a hen", "the old wolf", "Zoë", "the naïve ant"]
    does = ["runs to", "sees", "sings of", "is afraid of"]
    return "".join(
        f"And {rng.choice(who)} {rng.choice(does)} {rng.choice(who)}.\n" for _ in range(lines)
    )


@pytest.fixture(name="corpus", scope="module")
def fixture_corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "tale.txt"
    file.write_text(prose(300), encoding="utf-8")
    return file


@pytest.fixture(name="grown", scope="module")
def fixture_grown(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown") / "tale"
    told = []
    suite = grow_text(folder, corpus, **SMALL, progress=lambda *what: told.append(what))
    return folder, suite, told
