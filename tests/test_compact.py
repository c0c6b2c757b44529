"""Runs that keep only the neurons that are ever chosen: what they tell, and what they refuse."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import kntrace
from archives import flip
from conftest import TinySuite
from kntrace import compact, formation_processes, knowledge_neurons, open_run
from kntrace.analysis import Analysis, analyse, load_analysis
from kntrace.archive import Run, status
from kntrace.archive.chunks import chunk_name
from kntrace.archive.folder import BEGUN, SCORES
from kntrace.archive.opening import resume_run
from kntrace.distance import pairwise_distances
from kntrace.errors import AnalysisError, KntraceError, RunError, SettingsError
from kntrace.export import export_run
from kntrace.figures import draw_all
from kntrace.formation import prompt_mean
from kntrace.progress import silent
from kntrace.report import write_report
from kntrace.settings import Settings
from kntrace.testing import synthetic_run, synthetic_scores
from kntrace.views import VIEWS, WEIGHT_VIEWS, compute_views, lacking
from test_cli import kn
from test_untrusted_runs import bomb

GROUPS = {"Birds": ("Hen", "Owl", "Jay"), "Metals": ("Tin", "Zinc", "Iron")}
TOP = 7


@pytest.fixture(name="runs", scope="module")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The same scores: of every prompt, their means, and what is compacted of each."""
    data = synthetic_scores(
        groups=GROUPS, checkpoints=3, width=40, structure=0.6, wordings=("main", "neutral")
    )
    home = tmp_path_factory.mktemp("compact")
    runs = {
        "prompts": synthetic_run(home / "prompts", data),
        "means": synthetic_run(home / "means", data, keep="means"),
    }
    before = {name: contents(run.path) for name, run in runs.items()}
    small = compact(runs["means"], home / "small", top=TOP)
    of_prompts = compact(runs["prompts"], home / "of_prompts", top=TOP)
    assert before == {name: contents(run.path) for name, run in runs.items()}
    return runs | {"small": small, "of_prompts": of_prompts}


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_it_keeps_the_strongest_of_every_checkpoint(runs: dict[str, Run]) -> None:
    means, small = runs["means"].scores["mean_score"].values, runs["small"].scores
    flat = means.reshape(*means.shape[:3], -1)
    kept = small["kept_neuron"].values
    for word in range(len(kept)):
        order = np.argsort(-flat[:, word], axis=-1, kind="stable")[..., :TOP]
        expected = np.unique(order)
        assert kept[word, : len(expected)].tolist() == expected.tolist()
        assert (kept[word, len(expected) :] == -1).all()
        there = small["kept_score"].values[:, word]
        np.testing.assert_array_equal(there[..., : len(expected)], flat[:, word][..., expected])
        assert np.isnan(there[..., len(expected) :]).all()
    assert runs["small"].kept == kept.shape[1] < flat.shape[-1]
    sizes = np.abs(means).sum(axis=-1, dtype=np.float64)
    of_layers = small["layer_size"].transpose("checkpoint", "word", "mean_over", "layer")
    np.testing.assert_array_equal(of_layers.values, sizes)
    for name in ("gap", "probability", "rank", "nodes", "converged", "fingerprint", "baseline"):
        np.testing.assert_array_equal(small[name].values, runs["means"].scores[name].values)


def test_of_prompts_and_of_their_means_it_is_the_same(runs: dict[str, Run]) -> None:
    one, other = (contents(runs[name].path / SCORES) for name in ("small", "of_prompts"))
    assert one == other


@pytest.fixture(name="analysed", scope="module")
def both_analyses(runs: dict[str, Run]) -> list[Analysis]:
    return [analyse(runs[name], k=5, permutations=19) for name in ("means", "small")]


def test_an_analysis_is_that_of_the_means_to_the_last_bit(
    runs: dict[str, Run], analysed: list[Analysis]
) -> None:
    true, small = analysed
    assert small.neurons.equals(true.neurons)
    assert small.formation.equals(true.formation)
    for mine, theirs in (
        (small.distances, true.distances),
        (small.corrected, true.corrected),
    ):
        assert mine.keys() == theirs.keys()
        assert all(matrix.identical(theirs[name]) for name, matrix in mine.items())
    assert {name: found.to_dict() for name, found in small.contrasts.items()} == {
        name: found.to_dict() for name, found in true.contrasts.items()
    }
    for table in ("tests", "overlap_by_layer"):
        pd.testing.assert_frame_equal(getattr(small, table), getattr(true, table))
    pd.testing.assert_frame_equal(small.early.table, true.early.table)
    pd.testing.assert_frame_equal(small.early.checkpoints, true.early.checkpoints)
    assert small.overlap.matrix.equals(true.overlap.matrix)
    assert small.overlap.to_dict() == true.overlap.to_dict()
    assert small.times.to_dict() == true.times.to_dict()
    assert set(small.verdicts) == {"main", "neutral"}
    assert small.verdict.to_dict() == true.verdict.to_dict()
    assert str(small) == str(true)
    again = load_analysis(open_run(runs["small"].path))
    assert again.formation.equals(true.formation)
    # Another's analysis is not taken for it.
    shutil.copytree(
        runs["means"].path / "analysis", runs["of_prompts"].path / "analysis", dirs_exist_ok=True
    )
    with pytest.raises(AnalysisError, match="another run"):
        load_analysis(runs["of_prompts"])


@pytest.mark.parametrize("name", ["cosine", "identity"])
@pytest.mark.parametrize("wording", ["main", "neutral"])
def test_distances_over_all_neurons(runs: dict[str, Run], name: str, wording: str) -> None:
    true, mine = (
        pairwise_distances(runs[run].scores, name, wording=wording) for run in ("means", "small")
    )
    assert mine.identical(true)
    for part in ({"word": slice(0, 4)}, {"checkpoint": slice(1, 3)}):
        with pytest.raises(AnalysisError, match=r"needs all neurons.*all checkpoints"):
            pairwise_distances(runs["small"].scores.isel(part), name, wording=wording)


def test_neurons_chosen_at_any_checkpoint(runs: dict[str, Run]) -> None:
    for checkpoint in (0, "step100", -1):
        for wording in ("main", "neutral"):
            true, mine = (
                knowledge_neurons(runs[run].scores, TOP, wording=wording, checkpoint=checkpoint)
                for run in ("means", "small")
            )
            assert mine.equals(true)
            assert formation_processes(runs["small"].scores, mine).equals(
                formation_processes(runs["means"].scores, true)
            )


def test_what_it_cannot_tell_is_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["small"]
    with pytest.raises(AnalysisError, match=r"8 strongest .* 7 strongest.*7 at most"):
        analyse(run, k=8)
    with pytest.raises(AnalysisError, match=r"looks at every prompt.*top:K"):
        analyse(run, select="threshold:0.2:2")
    with pytest.raises(AnalysisError, match=r"'public_code' looks at every prompt"):
        knowledge_neurons(run.scores, 5, averaging="public_code")
    with pytest.raises(AnalysisError, match=r"scores of all neurons.*7 strongest"):
        prompt_mean(run.scores)
    other = knowledge_neurons(runs["means"].scores, 30)
    with pytest.raises(AnalysisError, match=r"was not kept.*7 strongest at any checkpoint"):
        formation_processes(run.scores, other)
    with pytest.raises(RunError, match=r"only means over prompts"):
        export_run(run, "parquet", tmp_path / "out")
    with pytest.raises(RunError, match="compacted before"):
        compact(run, tmp_path / "again")


def test_views_work_or_are_refused(runs: dict[str, Run]) -> None:
    run = runs["small"]
    made = compute_views(run, formats=())
    assert set(made) == {"acquisition", "turnover"}
    true = compute_views(runs["means"], [VIEWS[name] for name in made], select="top:4", formats=())
    made = compute_views(run, [VIEWS[name] for name in made], select="top:4", formats=())
    for name, found in made.items():
        assert repr(found.facts) == repr(true[name].facts)
        for table, rows in found.tables.items():
            pd.testing.assert_frame_equal(rows, true[name].tables[table])
    for name, view in (VIEWS | WEIGHT_VIEWS).items():
        if name in ("acquisition", "turnover", "super_weights", "firing"):
            assert not lacking(run, view)
            continue
        assert lacking(run, view)
        with pytest.raises(AnalysisError, match=r"has not kept.*kntrace compact"):
            compute_views(run, [view], formats=())


def test_the_usual_number_is_one_that_it_can_tell(runs: dict[str, Run], tmp_path: Path) -> None:
    # One in forty of 120 neurons.
    assert compact(runs["means"], tmp_path / "usual").settings.top == 3
    few = compact(runs["means"], tmp_path / "few", top=2, activations=False)
    assert analyse(few, permutations=9, distances=["jaccard"]).k == 2
    assert "kept_activation" not in few.scores


@pytest.mark.slow
def test_figures_and_report(runs: dict[str, Run], analysed: list[Analysis], tmp_path: Path) -> None:
    drawn = draw_all(analysed[1], tmp_path / "figures", formats=("png",))
    assert drawn
    page = write_report(runs["small"], analysed[1], tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    assert "only means over prompts" in text
    assert f"of every word the neurons ever among its {TOP} strongest" in text


def copied(run: Run, to: Path) -> Path:
    shutil.copytree(run.path, to)
    return to


def test_damage_is_found_and_named(runs: dict[str, Run], tmp_path: Path) -> None:
    path = copied(runs["small"], tmp_path / "run")
    assert status(path).complete
    flip(path / SCORES / "kept_score" / chunk_name("kept_score", 1, 2))
    flip(path / SCORES / "identity" / chunk_name("identity", 4))
    labels = [checkpoint.label for checkpoint in runs["small"].suite]
    with pytest.raises(RunError, match=r"damaged.*in another folder"):
        compact(runs["means"], path, top=TOP)
    found = status(path)
    assert found.damaged == tuple(
        (label, word)
        for label in labels
        for word in ("Jay", "Zinc")
        if (label, word)[1] == "Zinc" or label == labels[1]
    )
    assert "kntrace compact" in str(found)
    assert "`kntrace run`" not in str(found)
    with pytest.raises(RunError, match=r"4 of 18 blocks are damaged.*kntrace compact"):
        analyse(open_run(path))


def test_what_is_not_finished_or_damaged_is_not_compacted(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    path, out = copied(runs["prompts"], tmp_path / "run"), tmp_path / "out"
    flip(path / SCORES / "score" / chunk_name("score", 2, 3))
    with pytest.raises(RunError, match="damaged"):
        compact(open_run(path), out)
    assert not (out / SCORES).exists()
    (path / SCORES / "score" / chunk_name("score", 2, 3)).unlink()
    with pytest.raises(RunError, match=r"1 of 18 blocks are missing.*`kntrace run`"):
        compact(open_run(path), out)


def test_a_call_that_was_stopped_is_no_run(runs: dict[str, Run], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(stage: str, done: int, total: int, detail: str = "") -> None:
        if stage == "write" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(runs["means"], out, top=TOP, progress=stop)
    assert not any((out / BEGUN).iterdir())
    with pytest.raises(RunError, match=r"stopped while it was being made.*same command"):
        open_run(out)
    compact(runs["means"], out, top=TOP)
    assert contents(out / SCORES) == contents(runs["small"].path / SCORES)


def test_places_that_it_cannot_go_to(runs: dict[str, Run], tmp_path: Path) -> None:
    means = runs["means"]
    for run, top in ((means, TOP - 1), (runs["prompts"], TOP)):
        with pytest.raises(RunError, match="a run already, and another"):
            compact(run, runs["small"].path, top=top)
    with pytest.raises(RunError, match=r"lies in the run"):
        compact(means, means.path)
    with pytest.raises(RunError, match="lies in the run"):
        compact(means, means.path / "small")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").touch()
    with pytest.raises(RunError, match="no run and holds 'file'"):
        compact(means, tmp_path / "some")


@pytest.mark.parametrize("top", [0, -1, 121])
def test_numbers_that_are_none(runs: dict[str, Run], tmp_path: Path, top: int) -> None:
    with pytest.raises(SettingsError, match=r"from 1 to 120"):
        compact(runs["means"], tmp_path / "out", top=top)


def test_no_sweep_goes_on_with_it(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["small"]
    with pytest.raises(RunError, match=r"top: 7 -> None.*`kntrace compact` made this folder"):
        resume_run(run.path, run.study, run.suite, Settings(keep="means"))
    with pytest.raises(SettingsError, match=r"kntrace compact"):
        kntrace.run(run.study, run.suite, tmp_path / "new", settings=run.settings)
    with pytest.raises(SettingsError, match=r"keeps means"):
        Settings.of(top=5)
    assert Settings.from_yaml(run.settings.to_yaml()) == run.settings


def test_words_that_lack_a_wording(tmp_path: Path) -> None:
    data = synthetic_scores(
        groups=GROUPS, checkpoints=2, prompts=2, width=30, wordings=("main", "neutral")
    )
    rank, score = data["rank"].values.copy(), data["score"].values.copy()
    rank[:, 1, 2:], score[:, 1, 2:] = -1, np.nan
    scarce = data.assign(rank=(data["rank"].dims, rank), score=(data["score"].dims, score))
    run = synthetic_run(tmp_path / "run", scarce, keep="means")
    small = compact(run, tmp_path / "small", top=4)
    assert np.isnan(small.scores["identity"].sel(mean_over="neutral")).all()
    few = {"permutations": 9, "distances": ["identity"]}
    true, mine = (analyse(one, k=4, **few) for one in (run, small))
    assert str(mine) == str(true)
    assert set(mine.verdicts) == {"main"}


@pytest.mark.parametrize(
    "neurons", [[0] * 12, [-1] * 12, [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 10, 11], [*range(109, 121)]]
)
def test_a_list_of_neurons_from_a_stranger(runs: dict[str, Run], neurons: list[int]) -> None:
    scores = runs["small"].scores.load()
    listed = np.full_like(scores["kept_neuron"].values, -1)
    listed[:, : len(neurons)] = neurons[: listed.shape[1]]
    forged = scores.assign(kept_neuron=(("word", "kept"), listed))
    with pytest.raises(KntraceError, match="list of the neurons"):
        knowledge_neurons(forged, 3)
    assert isinstance(forged, xr.Dataset)


def test_the_command_line(runs: dict[str, Run], tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = kn("compact", runs["prompts"].path, out, "--top", TOP, "--json").stdout
    found = json.loads(told)
    assert (found["top"], found["neurons"], found["most"]) == (TOP, 120, runs["small"].kept)
    assert 0 < found["bytes"] < found["bytes_before"]
    assert contents(out / SCORES) == contents(runs["small"].path / SCORES)
    assert "a run already" in kn("compact", runs["prompts"].path, out, expect=2).stderr
    assert (
        json.loads(kn("compact", runs["prompts"].path, out, "--top", TOP, "--json").stdout) == found
    )
    less = tmp_path / "less"
    told = kn("compact", runs["prompts"].path, less, "--no-activations").stdout
    assert "neurons a word are kept" in told
    assert "--k 3 or less" in told
    assert not open_run(less).settings.activations
    kn("analyse", out, "--k", 5, "--permutations", 9, "--no-figures")
    assert "8 strongest" in kn("analyse", out, "--k", 8, "--no-figures", expect=2).stderr
    assert "18 of 18 blocks done" in kn("status", out).stdout


@pytest.mark.slow
def test_it_is_ablated_as_its_source(tiny_suite: TinySuite, tmp_path: Path) -> None:
    means = kntrace.run(
        *(tiny_suite.study, tiny_suite.suite, tmp_path / "means"),
        settings=Settings(keep="means"),
        threads=1,
        progress=silent,
    )
    small = compact(means, tmp_path / "small", top=4)
    little = {"partners": 1, "draws": 1, "singles": 3, "methods": ("zero",), "progress": silent}
    true, mine = (kntrace.ablate(run, doses=(1, 4), **little) for run in (means, small))
    pd.testing.assert_frame_equal(mine.table, true.table)
    for kind, part in mine.singles.groupby("kind", observed=True):
        whole = true.singles[true.singles["kind"] == kind]
        known = part["score"].notna()
        pd.testing.assert_frame_equal(part[known], whole[known])
        # Of a random neuron that was not kept there is no score to be told.
        assert known.all() == (kind == "own")
    for asked in ({"doses": (5,)}, {"select": "top:5"}):
        with pytest.raises(AnalysisError, match=r"5 .*what the run has kept|5 .*at most 4"):
            kntrace.ablate(small, anew=True, **asked, **little)
    # Unless said otherwise, no more than there are: here one in twenty, of 48.
    assert kntrace.ablate(small, anew=True, **little).settings.doses == (1, 2)
    few = compact(means, tmp_path / "few", top=1)
    assert kntrace.ablate(few, **little).settings.doses == (1,)


def test_at_a_url(runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNTRACE_CACHE", str(tmp_path / "here"))
    url, store = "memory://compacted/small", fsspec.filesystem("memory")
    store.mkdirs("/compacted", exist_ok=True)
    try:
        made = compact(runs["means"], url, top=TOP)
        assert made.path.is_relative_to(tmp_path / "here")
        there = [name for name in store.find("/compacted/small") if SCORES in name]
        assert len(there) == len(contents(runs["small"].path / SCORES))
        monkeypatch.setenv("KNTRACE_CACHE", str(tmp_path / "there"))
        assert contents(open_run(url).path / SCORES) == contents(runs["small"].path / SCORES)
    finally:
        store.rm("/compacted", recursive=True)


@pytest.mark.parametrize("name", ["kept_score", "kept_neuron", "identity", "layer_size"])
@pytest.mark.parametrize("fault", ["gone", "of another shape", "a bomb"])
def test_arrays_from_a_stranger(
    runs: dict[str, Run], tmp_path: Path, name: str, fault: str
) -> None:
    path = copied(runs["small"], tmp_path / "run")
    array = path / SCORES / name
    if fault == "gone":
        shutil.rmtree(array)
    elif fault == "of another shape":
        said = json.loads((array / "zarr.json").read_text())
        said["shape"][-1] += 1
        (array / "zarr.json").write_text(json.dumps(said))
    else:
        next(array.glob("c.*")).write_bytes(bomb(64))
        with pytest.raises(RunError, match="damaged"):
            open_run(path).scores[name].load()
        return
    with pytest.raises(RunError, match=r"are not those|cannot be read"):
        open_run(path)


@pytest.mark.slow
def test_it_holds_one_block_however_many_there_are(tmp_path: Path) -> None:
    peaks, block = [], 2 * 3 * 4000 * 4
    for checkpoints in (2, 8):
        run = synthetic_run(
            tmp_path / f"run-{checkpoints}",
            synthetic_scores(groups=GROUPS, checkpoints=checkpoints, prompts=2, width=4000),
        )
        tracemalloc.start()
        try:
            compact(run, tmp_path / f"small-{checkpoints}", top=3)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # 36 blocks more; what each leaves are the places of a few neurons.
    assert peaks[1] - peaks[0] < 6 * block
