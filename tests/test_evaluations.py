"""What else was measured at the checkpoints, beside formation: joined exactly or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kntrace.analysis import analyse
from kntrace.comparison.compute import compare_members
from kntrace.comparison.evaluations import correlations, join, read_evaluations
from kntrace.comparison.members import Member, find_runs, load_members, share_words
from kntrace.errors import AnalysisError
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"A": ("a0", "a1", "a2"), "B": ("b0", "b1", "b2")}
STEPS = tuple(range(0, 600, 100))


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Member]:
    home = tmp_path_factory.mktemp("seeds")
    for seed in (1, 2):
        run = synthetic_run(
            home / f"seed{seed}", synthetic_scores(groups=GROUPS, prompts=1, layers=1, seed=seed)
        )
        analyse(run, k=3, distances=["probability_curve"], permutations=9)
    return load_members(find_runs(home))


def rows(*steps: int, run: str = "", task: str = "lambada") -> str:
    return "".join(f"{run},{step},{task},{0.1 + step / 1000}\n" for step in steps)


def written(path: Path, text: str, header: str = "run,step,task,value") -> Path:
    path.write_text(f"{header}\n{text}")
    return path


def test_values_stand_beside_the_curves_of_their_step(
    members: list[Member], tmp_path: Path
) -> None:
    text = rows(*STEPS, 9000, run="seed1") + rows(*STEPS, run="seed2", task="piqa")
    found = compare_members(members, written(tmp_path / "e.csv", text), permutations=9)
    table = found.evaluations
    assert len(table) == 2 * len(STEPS)
    one = table[table["run"] == "seed1"]
    assert one["step"].tolist() == list(STEPS)
    np.testing.assert_allclose(one["value"], [0.1 + step / 1000 for step in STEPS])
    analysis = members[0].analysis
    np.testing.assert_allclose(one["probability"], analysis.probability.mean("word"))
    np.testing.assert_allclose(one["formation"], analysis.formation.mean(["word", "rank"]))
    half = analysis.times.neurons.values
    expected = [np.mean(half <= place) for place in range(len(STEPS))]
    np.testing.assert_allclose(one["half_risen"], expected)
    assert one["half_risen"].iloc[-1] == pytest.approx(np.mean(half >= 0))
    assert any("9000" in note for note in found.notes)
    assert "Levels of two curves that rise always agree" in str(found)
    assert len(json.loads(json.dumps(found.to_dict()))["correlations"]) == 6


def test_a_step_near_by_is_no_step(members: list[Member], tmp_path: Path) -> None:
    steps = [step + (step == 300) for step in STEPS]
    text = rows(*steps, run="seed1") + rows(*STEPS, run="seed2")
    with pytest.raises(AnalysisError, match="'lambada' has no value at step 300"):
        compare_members(members, written(tmp_path / "e.csv", text))


def test_whose_they_are_is_not_guessed(members: list[Member], tmp_path: Path) -> None:
    text = "".join(f"{step},lambada,0.5\n" for step in STEPS)
    path = written(tmp_path / "e.csv", text, "step,task,value")
    with pytest.raises(AnalysisError, match="no column `run`"):
        compare_members(members, path)
    path = written(tmp_path / "e.csv", rows(*STEPS, run="sed1"))
    with pytest.raises(AnalysisError, match=r"no run 'sed1'.*Did you mean 'seed1'"):
        compare_members(members, path)


def test_runs_of_the_same_checkpoints_share_them(members: list[Member], tmp_path: Path) -> None:
    """Two studies of one suite: the file need not say whose its values are."""
    one = members[0]
    both = [one, replace(one, label="short")]
    text = "".join(f"{step},lambada,{step}\n" for step in STEPS)
    path = written(tmp_path / "e.csv", text, "step,task,value")
    table, _ = join(read_evaluations(path), both, share_words(both))
    assert table.groupby("run").size().to_dict() == {"seed1": 6, "short": 6}


@pytest.mark.parametrize(
    ("header", "text", "said"),
    [
        ("step,task", "0,x\n", "no column 'value'"),
        ("step,task,value", "", "no rows"),
        ("step,task,value", "0.5,x,1\n", "'0.5'; expected a whole number"),
        ("step,task,value", "-1,x,1\n", "a whole number"),
        ("step,task,value", "0,x,nan\n", "'nan'; expected a finite number"),
        ("step,task,value", "0,x,high\n", "'high'"),
        ("step,task,value", "0,,1\n", "no task"),
        ("step,task,value,run", "0,x,1,\n", "no run"),
        ("step,task,value", "0,x,1\n0,x,2\n", "2 for 'x' at step 0, which has 1 further up"),
        ("step,task,value", "0,x\n", "row 2 has 2 cells"),
        ("step,task,step", "0,x,1\n", "two columns 'step'"),
    ],
)
def test_files_that_say_something_else(tmp_path: Path, header: str, text: str, said: str) -> None:
    with pytest.raises(AnalysisError, match=said):
        read_evaluations(written(tmp_path / "e.csv", text, header))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="No such file"):
        read_evaluations(tmp_path / "nothing.csv")


class TestCorrelations:
    """Levels agree whatever they are of; changes agree where something is shared."""

    @staticmethod
    def table(seed: int, *, shared: float, steps: np.ndarray | None = None) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        steps = np.arange(25) * 100 if steps is None else steps
        gaps = np.diff(steps, prepend=0) / 100
        both = rng.exponential(size=len(steps))
        curves = [
            np.cumsum(gaps * (shared * both + (1 - shared) * rng.exponential(size=len(steps))))
            for _ in range(2)
        ]
        return pd.DataFrame(
            {"run": "r", "task": "t", "checkpoint": "", "step": steps, "value": curves[0],
             "probability": curves[1], "formation": curves[1], "half_risen": 0.0}
        )  # fmt: skip

    def test_levels_always_agree_and_changes_only_if_they_share_something(self) -> None:
        apart = [
            correlations(self.table(seed, shared=0), permutations=99, seed=0).iloc[0]
            for seed in range(40)
        ]
        assert all(row["levels"] == pytest.approx(1) for row in apart)
        assert np.mean([row["changes_p"] <= 0.05 for row in apart]) <= 0.15
        assert abs(np.mean([row["changes"] for row in apart])) < 0.1
        row = correlations(self.table(0, shared=0.9), permutations=199, seed=0).iloc[0]
        assert row["changes"] > 0.8
        assert row["changes_p"] <= 0.01

    def test_uneven_gaps_make_changes_agree_and_are_regressed_out(self) -> None:
        steps = np.cumsum(np.tile([10, 1000, 20, 3000, 50], 5))
        found = [
            correlations(self.table(seed, shared=0, steps=steps), permutations=59, seed=0).iloc[0]
            for seed in range(30)
        ]
        assert np.mean([row["changes"] for row in found]) > 0.5
        assert abs(np.mean([row["given_gaps"] for row in found])) < 0.15
        assert np.mean([row["given_gaps_p"] <= 0.05 for row in found]) <= 0.2

    def test_a_curve_that_stands_still_has_no_correlation(self) -> None:
        table = correlations(self.table(0, shared=0), permutations=9, seed=0)
        still = table[table["curve"] == "half_risen"].iloc[0]
        assert np.isnan(still["changes"])
        assert np.isnan(still["levels"])
