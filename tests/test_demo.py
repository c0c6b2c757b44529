"""The demonstration in small: the same path, a model that learns next to nothing."""

from __future__ import annotations

import pytest

import kntrace
from kntrace.analysis import load_analysis
from kntrace.demo import demo
from kntrace.errors import SuiteError


@pytest.mark.slow
def test_the_demonstration_goes_from_nothing_to_a_report_and_resumes(tmp_path):
    small = {"layers": 1, "hidden": 32, "heads": 2, "steps": 8, "batch": 8, "checkpoints": 3}
    told: list[str] = []
    stages: set[str] = set()

    def progress(stage, done, total, detail=""):
        assert 0 <= done <= total
        stages.add(stage)

    result = demo(tmp_path, tell=told.append, progress=progress, **small)
    assert len(told) == 4
    assert {"grow", "sweep", "figures"} <= stages
    assert result.report.is_file()
    assert all(path.is_file() for path in result.figures)
    run = kntrace.open_run(result.run)
    assert dict(run.scores.sizes) == {
        "checkpoint": 3, "word": 38, "prompt": 8, "layer": 1, "neuron": 128,
    }  # fmt: skip
    assert load_analysis(run).verdict == result.analysis.verdict
    chunks = (result.run / "scores.zarr" / "score").glob
    scores = {path: path.stat().st_mtime_ns for path in chunks("c.*")}
    assert len(scores) == 3 * 38
    again = demo(tmp_path, tell=told.append, **small)
    assert again.analysis.verdict == result.analysis.verdict
    assert {path: path.stat().st_mtime_ns for path in chunks("c.*")} == scores


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SuiteError, match="not a demonstration's folder"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
