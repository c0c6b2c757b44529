"""Weights that belong to another time of training stand out, and those of real paths do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kntrace.audit import CheckpointPrint, TensorPrint, audit_suite, find
from kntrace.grow import grow
from kntrace.suite import Suite
from test_audit import audited, only, save, trained

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 32000, 64000)


def path(kind: str, seed: int, steps: Sequence[int] = STEPS) -> np.ndarray:
    """Weights at each of the steps, (checkpoint, weight), after one of several ways to train."""
    rng = np.random.default_rng(seed)
    size, last = 600, steps[-1]
    start, aim = rng.normal(size=size), 1.5 * rng.normal(size=size)
    time = np.array(steps) / last
    if kind == "straight":
        return start + time[:, None] * aim
    if kind == "walk":
        moves = rng.normal(size=(len(steps), size)) * np.sqrt(np.diff(time, prepend=0))[:, None]
        return start + 2 * np.cumsum(moves, axis=0)
    if kind == "settling":  # at its end early, and noise about it ever after, which then cools
        noise = rng.normal(size=(len(steps), size)) * np.where(time < 1, 0.5, 0.0)[:, None]
        return start + (1 - np.exp(-time * 50))[:, None] * (aim + noise)
    if kind == "noise":
        return start + rng.normal(size=(len(steps), size))
    if kind == "decay":  # weights shrink, and grow elsewhere
        return start * np.exp(-5 * time)[:, None] + aim * (1 - np.exp(-5 * time))[:, None]
    raise ValueError(kind)


KINDS = ("straight", "walk", "settling", "noise", "decay")


def table(weights: np.ndarray) -> list[CheckpointPrint]:
    names = [f"a.{n}.w" for n in range(weights.shape[1] // 12)]
    return [
        CheckpointPrint(
            f"s{place}",
            place,
            {
                name: TensorPrint(
                    f"{name} {place}", (3, 4), "float32", True, sample=tuple(row[n * 12 :][:12])
                )
                for n, name in enumerate(names)
            },
            complete=True,
        )
        for place, row in enumerate(weights)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [STEPS, range(0, 64001, 8000), (0, 1000, 32000, 64000), (0, 9)])
def test_training_that_moves_on_is_left_in_peace(kind: str, steps: Sequence[int]) -> None:
    for seed in range(10):
        assert find(table(path(kind, seed, steps))) == ()


@pytest.mark.parametrize("kind", ["straight", "walk", "decay"])
@pytest.mark.parametrize("place", [3, 8, 12])
def test_one_checkpoint_of_another_time(kind: str, place: int) -> None:
    """As step 32000 of Pythia-12b-deduped once was: late weights that no other name has."""
    weights = path(kind, 1, (*STEPS[:-1], 63000, STEPS[-1]))
    late = weights[-2]
    rest = np.delete(weights, -2, axis=0)
    rest[place] = late
    found = only(find(table(rest)))
    assert (found.kind, found.severity, found.checkpoints) == ("order", "warning", (f"s{place}",))


@pytest.mark.parametrize("kind", ["straight", "walk"])
@pytest.mark.parametrize("block", [range(4), range(2, 9), (0,), (0, 1, 2, 5, 6, 7)])
def test_many_checkpoints_of_the_end(kind: str, block: Sequence[int]) -> None:
    """As 86 of Pythia-2.8b, were their weights not equal but a little apart."""
    weights = path(kind, 2, range(0, 64001, 4000))
    near = np.random.default_rng(0).normal(size=weights.shape) * 0.02
    for place in block:
        weights[place] = weights[-1] + near[place]
    found = find(table(weights))
    assert {one.kind for one in found} == {"order"}
    assert {label for one in found for label in one.checkpoints} == {f"s{n}" for n in block}


def test_what_is_known_to_be_wrong_is_told_once(tmp_path: Path) -> None:
    home = tmp_path
    weights = [trained(0)]
    for step in range(1, 7):
        last = weights[-1]
        moved = {name: value + 0.3 * (trained(step)[name] - 1) for name, value in last.items()}
        weights.append({name: value.astype(np.float32) for name, value in moved.items()})
    for step, saved in enumerate(weights):
        save(home / f"step{step}", weights[6] if step in (1, 3) else saved)
    assert only(audited(home)).kind == "repeated"
    save(home / "step1", weights[1])
    save(home / "step3", {name: value + 1e-3 for name, value in weights[6].items()})
    found = only(audited(home))
    assert (found.kind, found.checkpoints) == ("order", ("step3",))


@pytest.mark.slow
def test_a_longer_training_and_its_checkpoints_exchanged(tmp_path: Path) -> None:
    size = {"layers": 2, "hidden": 32, "heads": 2, "steps": 60, "batch": 8}
    suite = grow(tmp_path / "suite", **size, checkpoints=[0, 1, 2, 4, 8, 15, 30, 45, 60])
    assert audit_suite(suite.checkpoints).findings == ()
    places = [*suite.checkpoints]
    places[3], places[-2] = (
        type(one)(other.label, other.step, other.tokens, one.source, None)
        for one, other in ((places[-2], places[3]), (places[3], places[-2]))
    )
    found = audit_suite(Suite("mixed", tuple(places)).checkpoints).findings
    assert {one.kind for one in found} == {"order"}
    assert {label for one in found for label in one.checkpoints} == {"step4", "step45"}
