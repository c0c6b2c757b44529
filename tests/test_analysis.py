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
from kntrace.distance import (
    HubCorrection,
    PairCovariate,
    WordCovariate,
    correct,
    pairwise_distances,
    regress_out,
)
from kntrace.errors import AnalysisError, RunError
from kntrace.formation import knowledge_neurons
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite
from kntrace.testing import synthetic_scores
from kntrace.verdict import VerdictRule

# Words that tables of other makes take for something else.
GROUPS = {
    "Odd": ("NA", "null", "1984", "no", 'say "so", twice'),
    "Colours": ("red", "blue", "green", "naïve 色"),
    "Beasts": ("ant", "bat", "cat", "dog"),
}
FILES = {
    *("analysis.json", "neurons.parquet", "formation.zarr", "distances.csv", "contrast.csv"),
    *("contrast.json", "overlap.csv", "overlap.json", "verdict.json", "tests.csv"),
    *("reliability.csv", "overlap_by_layer.csv", "early.csv", "times.csv", "statistics.json"),
    "formation_times.parquet",
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
    xr.testing.assert_identical(analysis.neurons, chosen.assign_attrs(selection="top:7"))
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


def test_word_effects_are_taken_out_of_every_distance(analysis: Analysis) -> None:
    for name in ("emd", "emd_euclidean", "identity"):
        by_hand = correct(analysis.distances[name], HubCorrection())
        xr.testing.assert_identical(analysis.corrected[f"{name} | hub"], by_hand)
        alone = contrast(by_hand, GROUPS, permutations=99, seed=3)
        assert analysis.contrasts[f"{name} | hub"].to_dict() == alone.to_dict()
    assert set(analysis.contrasts) == {*analysis.distances, *analysis.corrected}


def test_covariates_by_name_and_from_a_file(run: Run, data: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "given: odd.csv"
    words = [word for members in GROUPS.values() for word in members]
    numbers = np.random.default_rng(0).normal(size=len(words)).round(3)
    table = pd.DataFrame({"word": words, "frequency": numbers, "other": 1.0})
    table.to_csv(path, index=False)
    asked = ["word_length", f"{path}:frequency", "learning_time"]
    found = analyse_scores(data, distances=["identity"], covariates=asked, permutations=9)
    names = ("probability_curve", "hub", "word_length", "frequency", "learning_time")
    joint = "identity | probability_curve, word_length, frequency, learning_time"
    assert list(found.corrected) == [*(f"identity | {name}" for name in names), joint]
    assert set(found.contrasts) == {"identity", "probability_curve", *found.corrected}
    length = WordCovariate("word_length", {word: len(word) for word in words})
    times = data["probability"].sel(prompt=[0, 1]).astype(float).mean(["prompt", "checkpoint"])
    learnt = WordCovariate("learning_time", dict(zip(words, times.values, strict=True)))
    given = WordCovariate("frequency", dict(zip(words, numbers, strict=True)))
    for covariate in (length, learnt, given):
        by_hand = correct(found.distances["identity"], covariate)
        np.testing.assert_array_equal(
            found.corrected[f"identity | {covariate.name}"].values, by_hand.values
        )
    curve = PairCovariate("probability_curve", found.distances["probability_curve"])
    by_hand = correct(found.distances["identity"], learnt, given, length, curve)
    np.testing.assert_allclose(found.corrected[joint].values, by_hand.values, atol=1e-8)
    assert "frequency of given: odd.csv" in found.corrected[joint].attrs["given"]
    assert "  | frequency" in str(found)


def test_covariates_are_kept_with_the_analysis(data: xr.Dataset, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", data)
    words = [word for members in GROUPS.values() for word in members]
    run.update_provenance({"answers": {word: [7 + 3 * i, 1] for i, word in enumerate(words)}})
    ids = WordCovariate("token_id", {word: 7 + 3 * i for i, word in enumerate(words)})
    own = WordCovariate("own", {word: float(i % 3) for i, word in enumerate(words)})
    found = analyse(run, distances=["jaccard"], covariates=["token_id", own], permutations=9)
    by_hand = correct(found.distances["jaccard"], ids)
    np.testing.assert_array_equal(found.corrected["jaccard | token_id"].values, by_hand.values)
    again = load_analysis(open_run(run.path))
    assert list(again.corrected) == list(found.corrected)
    assert "jaccard | probability_curve, token_id, own" in again.corrected
    for name, matrix in found.corrected.items():
        xr.testing.assert_identical(again.corrected[name], matrix)
        assert again.contrasts[name].to_dict() == found.contrasts[name].to_dict()
    assert set(found.corrected) < set(pd.read_csv(run.path / "analysis" / "distances.csv"))
    table = json.loads((run.path / "analysis" / "contrast.json").read_text(encoding="utf-8"))
    assert set(found.corrected) < set(table)
    with pytest.raises(AnalysisError, match="'answer_tokens': 2 for every word"):
        analyse(run, covariates=["answer_tokens"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["word_lenght"], "Did you mean 'word_length'"),
        (["nowhere.csv:x"], "no covariate 'nowhere.csv:x', and no such file"),
        (["token_id"], "the answers' tokens are not recorded"),
        (["word_length", "word_length"], "two corrections of the name 'word_length'"),
        ([WordCovariate("hub", {})], "two corrections of the name 'hub'"),
        ([WordCovariate("some", {"red": 1.0})], "no value for 12 of 13 words"),
    ],
)
def test_covariates_that_are_none_are_refused(
    asked: list[Any], said: str, data: xr.Dataset, run: Run
) -> None:
    before = contents(run)
    with pytest.raises(AnalysisError, match=said):
        analyse(run, covariates=asked, permutations=9)
    assert contents(run) == before


def test_a_confounder_along_the_groups_is_taken_out(data: xr.Dataset) -> None:
    """Groups mean nothing, but are learnt one after the other: learning time explains it."""
    shape: dict[str, Any] = {"groups": None, "structure": 0.0, "learning_time": "by_group"}
    found = analyse_scores(
        scores(**shape), distances=["emd"], covariates="learning_time", permutations=99
    )
    auc = {name: found.contrasts[name].overall["auc"] for name in found.contrasts}
    assert auc["emd"] > 0.65
    assert auc["emd | learning_time"] < auc["emd"] - 0.1
    real = analyse_scores(
        scores(groups=None, structure=0.5), distances=["identity"], covariates=["word_length"],
        permutations=99,
    )  # fmt: skip
    auc = {name: real.contrasts[name].overall["auc"] for name in real.contrasts}
    assert auc["identity | word_length"] == pytest.approx(auc["identity"], abs=0.06)


def test_too_few_words_for_word_effects() -> None:
    found = analyse_scores(scores(groups={"A": ("a", "b"), "B": ("c",)}), permutations=9)
    assert not any("hub" in name for name in found.contrasts)
    assert "word effects were not taken out" in found.notes[-1]


def test_workers_reach_the_distances(data: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(*arguments: Any, workers: int = 1, **options: Any) -> xr.DataArray:
        asked.append(workers)
        return pairwise_distances(*arguments, workers=workers, **options)

    monkeypatch.setattr("kntrace.analysis.matrices.pairwise_distances", counted)
    analyse_scores(data, distances=["emd"], permutations=9, workers=3)
    assert asked[0] == 3


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
        assert again.contrasts[name].to_dict() == found.to_dict()
        assert str(again.contrasts[name]) == str(found)
    assert list(again.corrected) == list(analysis.corrected)
    for name, matrix in analysis.corrected.items():
        xr.testing.assert_identical(again.corrected[name], matrix)
    xr.testing.assert_identical(again.overlap.matrix, analysis.overlap.matrix)
    assert again.overlap.to_dict() == analysis.overlap.to_dict()
    for name in ("tests", "reliability", "overlap_by_layer"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(analysis, name))
    for name in ("table", "checkpoints"):
        pd.testing.assert_frame_equal(getattr(again.early, name), getattr(analysis.early, name))
    assert again.early.to_dict() == analysis.early.to_dict()
    xr.testing.assert_identical(again.times.neurons, analysis.times.neurons)
    pd.testing.assert_frame_equal(again.times.words, analysis.times.words)
    assert again.times.to_dict() == analysis.times.to_dict()
    assert again.prompt_noise == analysis.prompt_noise
    assert str(again) == str(analysis)


def test_the_baseline_and_the_corrected_stand_beside_everything(analysis: Analysis) -> None:
    others = [name for name in analysis.distances if name != "probability_curve"]
    taken_out = [f"{name} | {what}" for what in ("probability_curve", "hub") for name in others]
    names = [*analysis.distances, *taken_out]
    assert list(analysis.contrasts) == names
    assert list(dict.fromkeys(analysis.tests["distance"])) == names
    assert list(analysis.reliability["distance"]) == names


def test_what_is_printed_says_what_the_verdict_rests_on(analysis: Analysis) -> None:
    text = " ".join(str(analysis).split())
    for limit in VerdictRule().limits:
        assert " ".join(limit.split()) in text
    for part in ("mean of groups", "repeats", "prompts by themselves", "half-rise", "leverage"):
        assert part in text
    assert max(map(len, str(analysis).splitlines())) <= 80


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
    assert str(again) == str(found)
    for name, one in found.contrasts.items():
        assert again.contrasts[name].to_dict() == one.to_dict()
        pd.testing.assert_frame_equal(again.contrasts[name].words, one.words)


def test_one_prompt_and_one_checkpoint_leave_things_undefined_and_survive(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", scores(prompts=1, checkpoints=1))
    found = analyse(run, permutations=9)
    again = load_analysis(run)
    assert found.reliability.empty
    assert again.reliability.empty
    assert "nan" not in str(found)
    assert str(again) == str(found)
    assert "one prompt" in " ".join(found.notes)


def test_distances_asked_for_and_the_baseline(data: xr.Dataset) -> None:
    found = analyse_scores(data, distances=["emd_euclidean"], permutations=9)
    assert list(found.distances) == ["emd_euclidean", "probability_curve"]
    assert list(found.contrasts) == [
        *("emd_euclidean", "probability_curve"),
        *("emd_euclidean | probability_curve", "emd_euclidean | hub"),
    ]
    assert set(found.verdicts) == {"main", "neutral"}
    with pytest.raises(AnalysisError, match="'emd'"):
        analyse_scores(data, distances=["edm"])


@pytest.mark.slow
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
