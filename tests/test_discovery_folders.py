"""Suite files of any mixture, and a user's own folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hub_server import HubServer
from hub_suites import model, refusal, serve
from kntrace.errors import SuiteError
from kntrace.suite import (
    Checkpoint,
    check_revisions,
    find_suite,
    load_suite,
)


def test_a_suite_file_with_whole_places(hub: HubServer, tmp_path: Path) -> None:
    """SmolLM2: intermediate checkpoints in one repository, the final model in another."""
    serve(hub, tmp_path, "a/many", "step-10", "step-20", "step-30")
    hub.add("a/final", {"main": model(tmp_path / "final")})
    for step in (0, 2):
        hub.add(f"a/early-step_{step}", {"main": model(tmp_path / f"early{step}")})
    model(tmp_path / "own" / "step_40")
    model(tmp_path / "own" / "other_50")
    text = r"""
name: mixed
checkpoints:
- {repository: a/early-step_*, steps: all}
- {repository: a/many, steps: every:20}
- {folder: own, steps: all, pattern: 'step_(?P<step>\d+)'}
- {folder: own/other_50, step: 50}
- {label: final, step: 60, repository: a/final}
- {stage: stage2, folder: later, steps: '5'}
"""
    model(tmp_path / "later" / "checkpoint-5")
    model(tmp_path / "later" / "checkpoint-6")
    (tmp_path / "suite.yaml").write_text(text)
    suite = load_suite(tmp_path)
    assert [(item.label, item.stage, item.step) for item in suite] == [
        ("early-step_0", None, 0),
        ("early-step_2", None, 2),
        ("step-20", None, 20),
        ("step_40", None, 40),
        ("other_50", None, 50),
        ("final", None, 60),
        ("checkpoint-5", "stage2", 5),
    ]
    # What a run keeps of it needs no hub, and stays the same when more is published.
    hub.requests.clear()
    (tmp_path / "frozen.yaml").write_text(suite.to_yaml())
    assert load_suite(tmp_path / "frozen.yaml") == suite
    assert hub.requests == []
    assert [item.step for item in load_suite(tmp_path, steps="20,50")] == [20, 50]


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("repository: a/b, steps: papre", "'papre' is not a step"),
        ("repository: a/b, steps: all, step: 3", "has both steps and a step"),
        ("repository: a/b, steps: all, revision: x", "has both steps and a revision"),
        ("repository: a/b, pattern: 'x(?P<step>1)'", "has a pattern, but no steps"),
        ("repository: 'a/b*'", "has the repository 'a/b*'"),
        ("folder: x, stage: s", "x has the stage s, but no step"),
    ],
)
def test_entries_that_cannot_be(tmp_path: Path, entry: str, part: str) -> None:
    (tmp_path / "suite.yaml").write_text(f"checkpoints:\n- {{{entry}}}\n")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/suite.yaml:2: ")
    assert part in message


def test_revisions_of_a_suite_file_are_looked_up(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path, "a/b", "step5", "step7")
    commit = hub.repositories["a/b"].branches["step7"]

    def checked(*revisions: str) -> dict[str, str]:
        return check_revisions(
            tuple(Checkpoint(name, None, None, "a/b", name) for name in revisions)
        )

    assert checked("step5", commit)[commit] == commit
    assert hub.count("/api/models") == 2
    with pytest.raises(SuiteError, match=r"no revision 'stpe5'.*Did you mean 'step5'\?"):
        checked("step7", "stpe5")


# A user's own folders


def test_what_the_trainer_of_transformers_leaves(tmp_path: Path) -> None:
    run = tmp_path / "out"
    for step in (1000, 500):
        model(run / f"checkpoint-{step}")
    (run / "runs").mkdir()
    suite = load_suite(run)
    assert suite.name == "out"
    assert [item.label for item in suite] == ["checkpoint-500", "checkpoint-1000"]
    model(run, "the final model")
    assert find_suite(run).aside == ("out",)
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 1234}))
    assert [(item.label, item.step) for item in load_suite(run)][-1] == ("out", 1234)
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 1000}))
    found = find_suite(run)
    assert [item.step for item in found.checkpoints] == [500, 1000]
    model(run / "final")
    (run / "final" / "trainer_state.json").write_text("[")
    assert len(load_suite(run)) == 2
    (run / "trainer_state.json").unlink()
    (run / "config.json").unlink()
    assert "the step of final is unknown" in refusal(run)
    (run / "final" / "trainer_state.json").write_text(json.dumps({"global_step": 1500}))
    assert [(item.label, item.step) for item in load_suite(run)][-1] == ("final", 1500)


def test_checkpoints_a_folder_further_down(tmp_path: Path) -> None:
    for step in (10, 0):
        model(tmp_path / "x" / "checkpoints" / f"step_{step}")
    (tmp_path / "x" / "logs").mkdir()
    suite = load_suite(tmp_path / "x")
    assert (suite.name, [item.step for item in suite]) == ("x", [0, 10])
    assert suite.checkpoints[0].source == str(tmp_path / "x" / "checkpoints" / "step_0")
    model(tmp_path / "x" / "ema" / "step_5")
    message = refusal(tmp_path / "x")
    assert "several folders hold checkpoints: checkpoints, ema" in message
    assert str(tmp_path / "x" / "checkpoints") in message


def test_folders_by_a_pattern(tmp_path: Path) -> None:
    for name in ("a-7x", "a-12x", "b-1"):
        model(tmp_path / name)
    found = find_suite(tmp_path, pattern=r"a-(?P<step>\d+)x")
    assert [item.step for item in found.checkpoints] == [7, 12]
    assert found.aside == ("b-1",)
    assert "the pattern finds nothing in a-12x" in refusal(tmp_path, pattern=r"z(?P<step>\d)")


def test_stages_in_folders(tmp_path: Path) -> None:
    for name in ("stage2-step5", "stage1-step5", "stage1-step9"):
        model(tmp_path / name)
    assert [item.label for item in load_suite(tmp_path)] == [
        "stage1-step5", "stage1-step9", "stage2-step5",
    ]  # fmt: skip


def test_a_run_over_two_stages(tiny_suite: Any, tmp_path: Path) -> None:
    """Equal steps in two stages: archived side by side, and no axis of the figures."""
    import kntrace
    from kntrace.analysis import analyse
    from kntrace.figures.steps import StepAxis
    from kntrace.report.cautions import cautions

    places = [("stage2", "step0"), ("stage1", "step0"), ("stage1", "step100")]
    entries = "".join(
        f"- {{label: {stage}-{name}, stage: {stage}, step: {name[4:]}, "
        f"folder: {json.dumps(str(tiny_suite.folder / name))}}}\n"
        for stage, name in places
    )
    (tmp_path / "suite.yaml").write_text(f"checkpoints:\n{entries}")
    suite = load_suite(tmp_path)
    kntrace.run(tiny_suite.study, suite, tmp_path / "run", threads=1)
    run = kntrace.open_run(tmp_path / "run")
    assert run.suite == suite
    assert run.scores["step"].values.tolist() == [0, 100, 0]
    assert run.scores["checkpoint"].values.tolist() == [
        "stage1-step0", "stage1-step100", "stage2-step0",
    ]  # fmt: skip
    axis = StepAxis.of(run.scores)
    assert (axis.known, axis.places.tolist()) == (False, [0, 1, 2])
    assert (axis.edges[1:] > axis.edges[:-1]).all()
    analysis = analyse(run, permutations=9)
    said = " ".join(f"{caution.title} {caution.text}" for caution in cautions(run, analysis))
    assert "several stages of training" in said
    assert "stage1, stage2" in said
