"""The whole analysis of a run: what it finds, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from kntrace.analysis import Analysis, analyse, analyse_scores, load_analysis
from kntrace.archive import Block, Run, create_run, open_run
from kntrace.archive.variables import BLOCK_VARIABLES
from kntrace.contrasts import contrast
from kntrace.distance import pairwise_distances, regress_out
from kntrace.errors import AnalysisError, RunError
from kntrace.formation import knowledge_neurons
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite
from kntrace.testing import synthetic_scores

# Words that tables of other makes take for something else.
GROUPS = {
    "Odd": ("NA", "null", "1984", "no", 'say "so", twice'),
    "Colours": ("red", "blue", "green", "naïve 色"),
    "Beasts": ("ant", "bat", "cat", "dog"),
}
FILES = {
    *("analysis.json", "neurons.parquet", "formation.zarr", "distances.csv", "contrast.csv"),
    *("contrast.json", "overlap.csv", "overlap.json", "verdict.json"),
}


def scores(**changes: Any) -> xr.Dataset:
    shape: dict[str, Any] = {"groups": GROUPS, "checkpoints": 4, "prompts": 2, "width": 30}
    return synthetic_scores(**(shape | {"structure": 0.5} | changes))


def run_of(path: Path, data: xr.Dataset, *, leave_out: int = 0) -> Run:
    """A run folder that holds `data`, without its last `leave_out` blocks."""
    wordings = dict.fromkeys(str(name) for name in data["wording"].values)
    asked = {
        name: tuple(f"{name} question {i}" for i in range(int((data["wording"] == name).sum())))
        for name in wordings
    }
    words = tuple(
        Word(text=str(word), group=str(group), prompts=asked)
        for word, group in zip(data["word"].values, data["group"].values, strict=True)
    )
    checkpoints = tuple(
        Checkpoint(label=str(label), step=int(step), tokens=None, source="nowhere", revision=None)
        for label, step in zip(data["checkpoint"].values, data["step"].values, strict=True)
    )
    run = create_run(
        path,
        Study(name="toy", words=words),
        Suite(name="toy", checkpoints=checkpoints),
        Settings(),
        layers=data.sizes["layer"],
        width=data.sizes["neuron"],
    )
    places = list(np.ndindex(data.sizes["checkpoint"], data.sizes["word"]))
    for checkpoint, word in places[: len(places) - leave_out]:
        run.write_fingerprint(checkpoint, str(data["fingerprint"].values[checkpoint]))
        cell = data.isel(checkpoint=checkpoint, word=word)
        parts = {name: cell[name].values for name in BLOCK_VARIABLES}
        run.write_block(checkpoint, word, Block(**parts))
    return open_run(path)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return scores(wordings=("main", "neutral"))


@pytest.fixture(scope="module")
def run(data: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(tmp_path_factory.mktemp("runs") / "run", data)


@pytest.fixture(scope="module")
def analysis(run: Run) -> Analysis:
    return analyse(run, k=7, permutations=99, seed=3)


def test_the_parts_are_what_the_parts_alone_give(analysis: Analysis, data: xr.Dataset) -> None:
    chosen = knowledge_neurons(data, 7)
    xr.testing.assert_identical(analysis.neurons, chosen)
    emd = pairwise_distances(analysis.formation, "emd")
    xr.testing.assert_identical(analysis.distances["emd"], emd)
    alone = contrast(emd, GROUPS, permutations=99, seed=3)
    assert analysis.contrasts["emd"].to_dict() == alone.to_dict()
    baseline = pairwise_distances(data, "probability_curve")
    corrected = contrast(regress_out(emd, baseline), GROUPS, permutations=99, seed=3)
    assert analysis.contrasts["emd | probability_curve"].to_dict() == corrected.to_dict()
    assert set(analysis.verdicts) == {"main", "neutral"}
    assert analysis.overlap.total_neurons == 90
    assert analysis.groups == GROUPS


def test_scores_alone_give_the_same(analysis: Analysis, data: xr.Dataset) -> None:
    again = analyse_scores(data, k=7, permutations=99, seed=3)
    assert again.run is None
    assert again.verdict == analysis.verdict
    for name, matrix in analysis.distances.items():
        np.testing.assert_array_equal(again.distances[name], matrix)


def test_k_is_one_in_forty_unless_given(data: xr.Dataset) -> None:
    assert analyse_scores(data, permutations=9).k == 90 // 40


def test_reads_back_what_it_wrote(analysis: Analysis, run: Run) -> None:
    again = load_analysis(open_run(run.path))
    for name in ("groups", "wording", "k", "permutations", "seed", "verdict", "verdicts", "notes"):
        assert getattr(again, name) == getattr(analysis, name), name
    xr.testing.assert_identical(again.probability, analysis.probability)
    xr.testing.assert_identical(again.neurons, analysis.neurons)
    xr.testing.assert_identical(again.formation, analysis.formation)
    assert list(again.distances) == list(analysis.distances)
    for name, matrix in analysis.distances.items():
        xr.testing.assert_identical(again.distances[name], matrix)
    assert list(again.contrasts) == list(analysis.contrasts)
    for name, found in analysis.contrasts.items():
        pd.testing.assert_frame_equal(again.contrasts[name].words, found.words)
        pd.testing.assert_frame_equal(again.contrasts[name].groups, found.groups)
        assert again.contrasts[name].overall == found.overall
        assert str(again.contrasts[name]) == str(found)
    xr.testing.assert_identical(again.overlap.matrix, analysis.overlap.matrix)
    assert again.overlap.to_dict() == analysis.overlap.to_dict()


def test_files(analysis: Analysis, run: Run) -> None:
    folder = run.path / "analysis"
    assert {path.name for path in folder.iterdir()} == FILES
    neurons = pd.read_parquet(folder / "neurons.parquet")
    assert list(neurons) == ["word", "group", "rank", "layer", "neuron", "score"]
    assert len(neurons) == 13 * 7
    distances = pd.read_csv(folder / "distances.csv", keep_default_na=False)
    assert len(distances) == 13 * 12 / 2
    assert {"emd", "emd_euclidean", "identity", "probability_curve"} < set(distances)
    table = json.loads((folder / "contrast.json").read_text(encoding="utf-8"))
    assert set(table) == set(analysis.contrasts)
    assert {"auc", "p"} <= set(table["emd"]["overall"])
    assert set(table["emd"]["groups"]) == set(GROUPS)
    keys = {"share_above", "share_above_with_self", "chance", "auc", "p"}
    assert keys <= set(table["emd"]["groups"]["Odd"])
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["verdict"]["answer"] == analysis.verdict.answer
    assert set(verdict["wordings"]) == {"main", "neutral"}
    assert verdict["rule"]["alpha"] == 0.025
    assert verdict["limits"]
    assert verdict["measured"]
    assert verdict["validated"]


def contents(run: Run) -> dict[str, bytes]:
    files = sorted((run.path / "analysis").rglob("*"))
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files if path.is_file()}


def test_same_input_same_bytes(analysis: Analysis, run: Run) -> None:
    before = contents(run)
    analyse(open_run(run.path), k=7, permutations=99, seed=3)
    assert contents(run) == before


def test_a_group_of_one_word_survives_the_files(tmp_path: Path) -> None:
    groups = {"A": ("a", "b", "c"), "B": ("d", "e"), "C": ("f",)}
    run = run_of(tmp_path / "run", scores(groups=groups))
    found = analyse(run, permutations=9)
    again = load_analysis(run)
    for name, one in found.contrasts.items():
        assert again.contrasts[name].to_dict() == one.to_dict()
        pd.testing.assert_frame_equal(again.contrasts[name].words, one.words)


def test_distances_asked_for_and_the_baseline(data: xr.Dataset) -> None:
    found = analyse_scores(data, distances=["emd_euclidean"], permutations=9)
    assert list(found.distances) == ["emd_euclidean", "probability_curve"]
    assert list(found.contrasts) == [
        *("emd_euclidean", "probability_curve"),
        "emd_euclidean | probability_curve",
    ]
    assert set(found.verdicts) == {"main", "neutral"}
    with pytest.raises(AnalysisError, match="'emd'"):
        analyse_scores(data, distances=["edm"])


def test_says_yes_and_no_where_it_must() -> None:
    shape: dict[str, Any] = {"groups": None, "wordings": ("main", "neutral")}
    assert analyse_scores(scores(structure=0.4, **shape)).verdict.answer == "yes"
    assert analyse_scores(scores(structure=0.0, **shape)).verdict.answer == "no"
    fooled = analyse_scores(scores(structure=0.0, learning_time="by_group", **shape))
    assert fooled.verdict.answer != "yes"
    assert fooled.contrasts["emd"].overall["p"] <= 0.005
    assert fooled.contrasts["probability_curve"].overall["p"] <= 0.005


def test_a_wording_that_not_every_word_has_is_not_judged(data: xr.Dataset) -> None:
    partial = data.copy(deep=True)
    for name, nothing in {"score": np.nan, "probability": np.nan, "rank": -1}.items():
        partial[name].loc[{"word": "cat", "prompt": [2, 3]}] = nothing
    found = analyse_scores(partial, permutations=9)
    assert set(found.verdicts) == {"main"}
    assert found.verdict == found.verdicts["main"]
    assert "'neutral' was not judged" in found.notes[0]


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", scores(), leave_out=2)
    with pytest.raises(RunError, match="2 of 52 blocks are missing: step300 · cat") as refusal:
        analyse(run)
    assert "kntrace run" in str(refusal.value)
    assert not any((run.path / "analysis").iterdir())


def test_no_analysis_of_another_make_is_read(data: xr.Dataset, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", data)
    with pytest.raises(AnalysisError, match="kntrace analyse"):
        load_analysis(run)
    analyse(run, permutations=9)
    load_analysis(run)
    other = data.copy()
    other["fingerprint"] = ("checkpoint", ["ab" * 32] * 4)
    elsewhere = run_of(tmp_path / "other", other)
    (run.path / "analysis").rename(tmp_path / "kept")
    (elsewhere.path / "analysis").rmdir()
    (tmp_path / "kept").rename(elsewhere.path / "analysis")
    with pytest.raises(AnalysisError, match="of other weights"):
        load_analysis(elsewhere)


@pytest.mark.parametrize("name", sorted(FILES - {"formation.zarr"}))
def test_a_changed_or_missing_file_is_noticed(
    name: str, analysis: Analysis, run: Run, tmp_path: Path
) -> None:
    path = run.path / "analysis" / name
    kept = path.read_bytes()
    try:
        path.write_bytes(kept[:-2])
        with pytest.raises(AnalysisError, match=name):
            load_analysis(run)
        path.unlink()
        with pytest.raises(AnalysisError, match="kntrace analyse"):
            load_analysis(run)
    finally:
        path.write_bytes(kept)
    load_analysis(run)


def test_an_analysis_cut_short_does_not_pass_for_one(
    data: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", data)
    analyse(run, permutations=9)

    def cut_short(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kntrace.analysis.files.save_array", cut_short)
    with pytest.raises(KeyboardInterrupt):
        analyse(run, permutations=19)
    with pytest.raises(AnalysisError, match="no finished analysis"):
        load_analysis(run)
    monkeypatch.undo()
    analyse(run, permutations=19)
    assert load_analysis(run).permutations == 19


def test_arguments_out_of_range_are_refused_before_anything_is_written(
    data: xr.Dataset, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", data)
    for arguments in ({"k": 91}, {"k": 0}, {"distances": ["?"]}, {"permutations": 0}):
        with pytest.raises(AnalysisError):
            analyse(run, **arguments)
    assert not any((run.path / "analysis").iterdir())
