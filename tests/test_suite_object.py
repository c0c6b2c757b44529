"""The suite as an object: order, digest, round trip."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kntrace.errors import SuiteError
from kntrace.suite import Checkpoint, Suite, load_suite
from suite_folders import checkpoint, grow, labels, write


def test_a_suite_orders_its_checkpoints() -> None:
    suite = Suite("x", (checkpoint(10), checkpoint(2), checkpoint(0)))
    assert [item.step for item in suite] == [0, 2, 10]
    assert pickle.loads(pickle.dumps(suite)) == suite
    with pytest.raises(FrozenInstanceError):
        suite.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("checkpoints", "part"),
    [
        ((), "no checkpoints"),
        ((checkpoint(1), checkpoint(2, "step1")), "two checkpoints are called step1"),
        ((checkpoint(1), checkpoint(1, "other")), "step1 and other are both at step 1"),
        ((checkpoint(1), checkpoint(None, "other")), "the step of other is unknown"),
        ((checkpoint(-1),), "at step -1"),
        ((checkpoint(1, "a", stage="s"), checkpoint(1, stage="s")), "both at step 1 of s"),
        ((checkpoint(None, "a", stage="s"),), "a has the stage s, but no step"),
        ((checkpoint(1, "a", stage="s\n"),), "the stage 's\\n' holds a line break"),
        ((checkpoint(1, "a\nb"),), "line break"),
        ((checkpoint(1, source=""),), "the source '' is empty"),
        ((checkpoint(1, source="/a\udc80"),), "U+DC80"),
    ],
)
def test_suites_that_cannot_be(checkpoints: tuple[Checkpoint, ...], part: str) -> None:
    with pytest.raises(SuiteError) as caught:
        Suite("tiny", checkpoints)
    assert part in str(caught.value)
    assert "tiny" in str(caught.value)


def test_stages_come_in_order_and_may_share_steps() -> None:
    suite = Suite(
        "x",
        tuple(
            checkpoint(step, f"{stage}-{step}", stage=stage)
            for stage in ("stage10", "stage2", None, "stage2-ingredient3")
            for step in (5, 0)
        ),
    )
    assert labels(suite) == [
        f"{stage}-{step}"
        for stage in (None, "stage2", "stage2-ingredient3", "stage10")
        for step in (0, 5)
    ]
    assert suite.stages == (None, "stage2", "stage2-ingredient3", "stage10")


def test_a_stage_is_part_of_the_digest_and_its_absence_is_not() -> None:
    plain = Suite("x", (checkpoint(3, "a", source="/a"),))
    # As it was before there were stages: runs made then go on.
    content = json.dumps([["a", 3, None, None, None]])
    assert plain.digest == hashlib.sha256(content.encode()).hexdigest()
    staged = Suite("x", (checkpoint(3, "a", source="/a", stage="stage2"),))
    assert staged.digest != plain.digest
    assert plain.differences(staged) == ["stage of a: None -> stage2"]


def test_digest_and_differences() -> None:
    hub = checkpoint(2, source="a/b", revision="r", tokens=7)
    suite = Suite("x", (checkpoint(0), checkpoint(1), hub))
    same = Suite("y", (hub, replace(checkpoint(1), source="/moved/1"), checkpoint(0)))
    assert same.digest == suite.digest
    assert suite.differences(same) == []
    changed = {
        "label": (
            replace(hub, label="other"),
            ["checkpoint step2 is gone", "checkpoint other is new"],
        ),
        "step": (replace(hub, step=3), ["step of step2: 2 -> 3"]),
        "tokens": (replace(hub, tokens=None), ["tokens of step2: 7 -> None"]),
        "repository": (replace(hub, source="a/c"), ["source of step2: a/b at r -> a/c at r"]),
        "revision": (replace(hub, revision="s"), ["source of step2: a/b at r -> a/b at s"]),
        "folder": (
            replace(hub, source="/a/b", revision=None),
            ["source of step2: a/b at r -> /a/b"],
        ),
    }
    for other, expected in changed.values():
        changed_suite = Suite("x", (checkpoint(0), checkpoint(1), other))
        assert changed_suite.digest != suite.digest
        assert suite.differences(changed_suite) == expected
    fewer = Suite("x", (checkpoint(0), checkpoint(1)))
    assert fewer.digest != suite.digest
    assert suite.differences(fewer) == ["checkpoint step2 is gone"]
    assert fewer.differences(suite) == ["checkpoint step2 is new"]
    one, two = (checkpoint(None, name, source=name) for name in "ab")
    assert Suite("x", (one, two)).differences(Suite("x", (two, one))) == [
        "the checkpoints come in another order"
    ]


def test_a_suite_moves_with_its_file(tmp_path: Path) -> None:
    grow(tmp_path / "old", ["step0", "step64"])
    suite = load_suite(tmp_path / "old")
    (tmp_path / "old" / "suite.yaml").write_text(suite.to_yaml(relative_to=tmp_path / "old"))
    assert load_suite(tmp_path / "old") == suite
    (tmp_path / "old").rename(tmp_path / "new")
    moved = load_suite(tmp_path / "new" / "suite.yaml")
    assert [item.source for item in moved] == [
        str(tmp_path / "new" / "step0"),
        str(tmp_path / "new" / "step64"),
    ]
    assert moved.digest == suite.digest
    moved.check_present()
    with pytest.raises(SuiteError, match=r"2 of 2 checkpoints have no config.json: step0, step64"):
        suite.check_present()


def test_a_suite_file_stays_readable_after_its_weights_are_gone(tmp_path: Path) -> None:
    suite = load_suite(grow(tmp_path / "tiny", ["step0", "step1"]))
    file = write(tmp_path / "run", suite.to_yaml())
    for name in ("step0", "step1"):
        (tmp_path / "tiny" / name / "config.json").unlink()
    assert load_suite(file) == suite


_LABELS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)


@st.composite
def suites(draw: st.DrawFn) -> Suite:
    names = draw(st.lists(_LABELS, min_size=1, max_size=5, unique=True))
    steps: list[int | None] = list(
        draw(
            st.lists(
                st.integers(0, 2**63 - 1), min_size=len(names), max_size=len(names), unique=True
            )
        )
    )
    if draw(st.booleans()):
        steps = [None] * len(names)
    made = []
    for name, step in zip(names, steps, strict=True):
        tokens = draw(st.none() | st.integers(0, 10**15))
        stage = None if step is None else draw(st.none() | _LABELS)
        if draw(st.booleans()):
            revision = draw(_LABELS)
            made.append(Checkpoint(name, step, tokens, "owner/model.x", revision, stage))
        else:
            folder = draw(_LABELS).replace("/", "_").strip(".") or "x"
            made.append(Checkpoint(name, step, tokens, f"/suite/{folder}", None, stage))
    return Suite(draw(_LABELS), tuple(made))


@settings(deadline=None, max_examples=100)
@given(suite=suites(), relative=st.booleans())
def test_yaml_round_trip(
    suite: Suite, relative: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "round trip.yaml"
    path.write_text(suite.to_yaml(relative_to=folder if relative else None), encoding="utf-8")
    again = load_suite(path)
    assert again == suite
    assert again.digest == suite.digest
    assert suite.differences(again) == []


def test_reading_a_suite_loads_nothing_heavy(tmp_path: Path) -> None:
    grow(tmp_path, ["step0", "step1"])
    code = (
        "import sys, kntrace.suite\n"
        f"kntrace.suite.load_suite({str(tmp_path)!r}, steps='log:2')\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'zarr', 'numpy'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
