"""Runs that keep only means over prompts: what they can still do, and what they refuse."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from archives import FINGERPRINT, LAYERS, PROMPTS, WIDTH, flip, random_block, study, suite
from kntrace import knowledge_neurons, open_run
from kntrace.analysis import Analysis, analyse, load_analysis
from kntrace.archive import Run, create_run, status
from kntrace.archive.chunks import chunk_name
from kntrace.archive.opening import resume_run
from kntrace.distance import pairwise_distances
from kntrace.errors import AnalysisError, RunError
from kntrace.export import export_run
from kntrace.formation import prompt_mean
from kntrace.probes import Weights
from kntrace.progress import silent
from kntrace.report import write_report
from kntrace.settings import Settings
from kntrace.suite import load_suite
from kntrace.sweep import run as sweep
from kntrace.testing import synthetic_run, synthetic_scores
from kntrace.views import VIEWS, compute_views, find_views, lacking
from kntrace.wording import read_wording, wordings_of

GROUPS = {"Birds": ("Hen", "Owl", "Jay"), "Metals": ("Tin", "Zinc", "Iron")}
MEANS = Settings(keep="means")


@pytest.fixture(name="data", scope="module")
def drawn_scores() -> xr.Dataset:
    return synthetic_scores(
        groups=GROUPS, checkpoints=3, width=40, structure=0.6, wordings=("main", "neutral")
    )


@pytest.fixture(name="pair", scope="module")
def both_runs(tmp_path_factory: pytest.TempPathFactory, data: xr.Dataset) -> tuple[Run, Run]:
    """The same scores, of every prompt and their means."""
    home = tmp_path_factory.mktemp("keep")
    return synthetic_run(home / "all", data), synthetic_run(home / "means", data, keep="means")


def test_the_means_are_those_of_every_prompt(pair: tuple[Run, Run], data: xr.Dataset) -> None:
    whole, means = pair
    assert "score" not in means.scores
    assert "activation" not in means.scores
    assert means.scores["mean_score"].dims == ("checkpoint", "word", "mean_over", "layer", "neuron")
    assert means.scores["mean_over"].values.tolist() == ["main", "neutral"]
    for name in ("score", "activation"):
        for wording in wordings_of(data):
            mine = data[name].isel(prompt=np.flatnonzero(data["wording"].values == wording))
            expected = mine.values.astype(np.float64).mean(axis=2)
            kept = means.scores[f"mean_{name}"].sel(mean_over=wording).values
            np.testing.assert_allclose(kept, expected, rtol=2**-23, atol=0)
    for wording in ("main", "neutral"):
        true, kept_mean = (prompt_mean(run.scores, wording).values for run in pair)
        np.testing.assert_allclose(kept_mean, true, rtol=2**-23, atol=0)
    # All else is as it was.
    for name in ("gap", "probability", "rank", "nodes", "converged", "baseline"):
        np.testing.assert_array_equal(means.scores[name].values, whole.scores[name].values)


def test_prompts_that_a_word_lacks_are_no_part_of_its_means(tmp_path: Path) -> None:
    data = synthetic_scores(groups=GROUPS, checkpoints=2, prompts=3)
    rank, score = data["rank"].values.copy(), data["score"].values.copy()
    rank[:, 1, 2], score[:, 1, 2] = -1, np.nan
    scarce = data.assign(rank=(data["rank"].dims, rank), score=(data["score"].dims, score))
    run = synthetic_run(tmp_path / "run", scarce, keep="means")
    kept = run.scores["mean_score"].values[:, 1, 0]
    expected = score[:, 1, :2].astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(kept, expected, rtol=2**-23, atol=0)


@pytest.fixture(name="analysed", scope="module")
def both_analyses(pair: tuple[Run, Run]) -> list[Analysis]:
    return [analyse(run, k=15, permutations=19) for run in pair]


def test_an_analysis_of_means_is_that_of_every_prompt(
    pair: tuple[Run, Run], analysed: list[Analysis]
) -> None:
    whole, means = analysed
    for name, matrix in whole.distances.items():
        np.testing.assert_allclose(means.distances[name], matrix, rtol=1e-4, atol=1e-9)
    for name in ("layer", "neuron"):
        np.testing.assert_array_equal(means.neurons[name], whole.neurons[name])
    assert means.verdict.answer == whole.verdict.answer
    assert set(means.verdicts) == {"main", "neutral"}
    # What looks at single prompts is not made up, and its absence is said.
    assert not whole.reliability.empty
    assert means.reliability.empty
    assert np.isfinite(whole.prompt_noise.prompt_sd)
    assert np.isnan(means.prompt_noise.share)
    assert any("only means over prompts" in note for note in means.notes)
    assert "only means over prompts" in str(means)
    again = load_analysis(open_run(pair[1].path))
    assert again.reliability.empty
    assert again.notes == means.notes


def test_the_report_of_means_says_what_is_not_known(
    pair: tuple[Run, Run], analysed: list[Analysis], tmp_path: Path
) -> None:
    page = write_report(pair[1], analysed[1], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "only means over prompts" in page


def test_what_needs_every_prompt_is_refused(pair: tuple[Run, Run]) -> None:
    run = pair[1]
    with pytest.raises(AnalysisError, match=r"'public_code' looks at every prompt.*--keep means"):
        knowledge_neurons(run.scores, 5, averaging="public_code")
    with pytest.raises(AnalysisError, match=r"'threshold:0.2:2' looks at every prompt.*top:K"):
        analyse(run, select="threshold:0.2:2")
    with pytest.raises(RunError, match=r"only means over prompts.*without --keep means"):
        export_run(run, "parquet")
    for name in ("threshold_sets", "agreement", "predictivity"):
        assert lacking(run, VIEWS[name])
        with pytest.raises(AnalysisError, match=r"of every prompt.*without --keep means"):
            compute_views(run, [VIEWS[name]], formats=())


def test_views_of_means_are_those_of_every_prompt(pair: tuple[Run, Run]) -> None:
    made = compute_views(pair[1], formats=())
    assert set(made) == {"acquisition", "turnover"}
    whole = compute_views(pair[0], [VIEWS[name] for name in made], formats=())
    for name, found in made.items():
        for table, rows in found.tables.items():
            expected = whole[name].tables[table]
            # What leaving prompts out one by one would change of sets cannot be told from means.
            unknown = [column for column in rows if str(column).startswith("prompts_")]
            if name == "turnover" and unknown:
                assert rows[unknown].isna().all(axis=None)
                assert not expected[unknown].isna().all(axis=None)
                rows, expected = (kind.drop(columns=unknown) for kind in (rows, expected))
            assert rows.equals(expected) or np.allclose(
                rows.select_dtypes("number"), expected.select_dtypes("number"), equal_nan=True
            )


def test_views_of_weights_and_means_are_those_of_every_prompt(
    run_with_suite: Run, tmp_path: Path
) -> None:
    """Where every prompt was kept and where only their means were, from the same checkpoints."""
    home = Path(shutil.copytree(run_with_suite.path.parent, tmp_path / "home"))
    suite = load_suite(home / "suite")
    how: dict[str, Any] = {"settings": MEANS, "threads": 1, "progress": silent}
    means = sweep(run_with_suite.study, suite, home / "means", **how)
    # What fires over a text, and super weights, ask for no scores.
    names = ("read_out", "erase", "edit")
    views = find_views(names, {"doses": "2", "neurons": "4"})
    whole, kept = (
        compute_views(run, views, weights=Weights(run, threads=1, steps="100"), formats=())
        for run in (open_run(home / "run"), means)
    )
    assert set(kept) == set(names)
    for name, found in kept.items():
        assert found.tables.keys() == whole[name].tables.keys()
        for table, rows in found.tables.items():
            expected = whole[name].tables[table]
            numbers = rows.select_dtypes("number")
            np.testing.assert_allclose(
                numbers, expected[numbers.columns], rtol=1e-3, atol=1e-5, err_msg=f"{name} {table}"
            )
            others = rows.drop(columns=numbers.columns)
            pd.testing.assert_frame_equal(others, expected[others.columns])


def test_distances_of_another_wording(pair: tuple[Run, Run]) -> None:
    true, means = (pairwise_distances(run.scores, "identity", wording="neutral") for run in pair)
    np.testing.assert_allclose(means, true, atol=1e-6)
    other = pairwise_distances(pair[1].scores, "identity", wording="main")
    assert not np.allclose(other, means, atol=1e-3)
    assert read_wording(pair[1].scores, "neutral").name == "neutral"


def made(path: Path, settings: Settings) -> Run:
    run = create_run(path, study(), suite(), settings, layers=LAYERS, width=WIDTH)
    for checkpoint, word in run.missing():
        run.write_fingerprint(checkpoint, FINGERPRINT)
        run.write_block(checkpoint, word, random_block(100 * checkpoint + word))
    return run


def test_a_damaged_mean_is_found_named_and_computed_again(tmp_path: Path) -> None:
    run = made(tmp_path / "run", MEANS)
    assert not status(run).missing
    assert not status(run).damaged
    flip(run.path / "scores.zarr" / "mean_score" / chunk_name("mean_score", 1, 2))
    assert status(run.path).damaged == (("step 5/…", run.study.words[2].text),)
    run.write_block(1, 2, random_block(102))
    assert status(run.path).complete
    gone = run.path / "scores.zarr" / "mean_score" / chunk_name("mean_score", 0, 3)
    gone.unlink()
    assert open_run(run.path).missing() == [(0, 3)]


def test_a_run_goes_on_only_with_what_it_keeps(tmp_path: Path) -> None:
    run = made(tmp_path / "run", MEANS)
    assert resume_run(run.path, study(), suite(), MEANS) is not None
    with pytest.raises(RunError, match=r"keep: means -> prompts.*Go on with --keep means"):
        resume_run(run.path, study(), suite(), Settings())
    assert MEANS.digest != Settings().digest
    assert Settings.from_yaml(Settings(keep="means").to_yaml()) == MEANS


def test_fewer_bits_of_means(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", MEANS).scores["mean_score"].values
    few = made(tmp_path / "few", Settings(keep="means", keepbits=7)).scores["mean_score"].values
    assert whole.shape == (3, 8, 2, LAYERS, WIDTH)
    assert PROMPTS == 3
    assert 0 < np.abs(few / whole - 1).max() <= 2**-8


def test_an_array_of_every_prompt_in_a_run_of_means_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "run", MEANS)
    other = made(tmp_path / "other", Settings())
    (other.path / "scores.zarr" / "score").rename(run.path / "scores.zarr" / "score")
    with pytest.raises(RunError, match=r"not those of its study and suite.*score"):
        open_run(run.path)
