"""Exported scores: the same numbers under the same labels, or nothing at all."""

# ruff: noqa: E501 - tables of cases are read best with a case a line

from __future__ import annotations

import errno
import json
import tracemalloc
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import xarray as xr

import test_cli
from counting import excess
from kntrace.archive import open_run
from kntrace.errors import RunError, SettingsError
from kntrace.export import FORMATS, export_run
from kntrace.export.blocks import ScoredBlock
from kntrace.export.public_code import FILE, _line
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"Pets": ("cat", "dog, or hound"), "Hues": ("red", "猫")}
COLUMNS = ["checkpoint", "step", "word", "group", "wording", "prompt", "layer", "neuron", "score"]


def uneven(**drawn):
    """Scores of a study in which a word lacks a prompt, in two wordings."""
    data = synthetic_scores(
        groups=GROUPS, checkpoints=3, prompts=2, layers=2, width=5, wordings=("main", "plain"), **drawn
    )  # fmt: skip
    lacking = (data["word"] == "cat") & (data["prompt"] == 1)
    for name in ("score", "gap", "probability"):
        data[name] = data[name].where(~lacking)
    data["rank"] = data["rank"].where(~lacking, -1)
    return data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic_run(tmp_path_factory.mktemp("export") / "run", uneven())


def expected(run):
    """The table, made the slow way: one look-up a score."""
    scores = run.scores.load()
    rows = []
    for checkpoint in scores["checkpoint"].values:
        for word in scores["word"].values:
            for slot in scores["prompt"].values:
                cell = scores.sel(checkpoint=checkpoint, word=word, prompt=slot)
                if int(cell["rank"]) < 0:
                    continue
                wording = str(cell["wording"].values)
                number = int((scores["wording"].values[:slot] == wording).sum())
                for layer in range(scores.sizes["layer"]):
                    for neuron in range(scores.sizes["neuron"]):
                        score = float(cell["score"].sel(layer=layer, neuron=neuron))
                        labels = (
                            str(checkpoint),
                            int(cell["step"]),
                            str(word),
                            str(cell["group"].values),
                        )
                        rows.append((*labels, wording, number, layer, neuron, score))
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_has_every_score_under_its_labels(kind, run, tmp_path):
    path = export_run(run, kind, tmp_path / f"scores.{kind}")
    found = pd.read_parquet(path) if kind == "parquet" else pd.read_csv(path)
    wanted = expected(run)
    assert list(found.columns) == COLUMNS
    for column in COLUMNS[:-1]:
        assert found[column].tolist() == wanted[column].tolist()
    assert (found["score"].to_numpy(np.float32) == wanted["score"].to_numpy(np.float32)).all()


def test_parquet_types_and_where_it_came_from(run, tmp_path):
    path = export_run(run, "parquet", tmp_path / "s.parquet")
    schema = pyarrow.parquet.read_schema(path)
    assert [str(schema.field(name).type) for name in ("step", "layer", "score")] == [
        "int64",
        "int32",
        "float",
    ]
    assert schema.metadata[b"kntrace.study"].decode() == run.study.digest
    assert json.loads(schema.metadata[b"kntrace.settings"])["rule"] == run.settings.rule
    assert pd.read_parquet(path)["word"].dtype == "category"


def public_mean(path):
    """Read the layout as the public code's description says: mean of the list times 1e6."""
    means = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            for word, neurons in json.loads(line).items():
                for place, entry in neurons.items():
                    means[word, place] = sum(entry["IGs"]) / len(entry["IGs"]) * 10**6
    return means


def test_the_public_codes_layout(run, tmp_path):
    folder = export_run(run, "jsonl", tmp_path / "out")
    scores = run.scores.load()
    assert sorted(path.name for path in folder.iterdir()) == ["step0", "step100", "step200"]
    for place, step in enumerate((0, 100, 200)):
        means = public_mean(folder / f"step{step}" / FILE)
        first = scores["score"].isel(checkpoint=place, prompt=scores["wording"].values == "main")
        wanted = first.mean("prompt", skipna=True)
        assert len(means) == 4 * 2 * 5
        for (word, key), mean in means.items():
            layer, neuron = map(int, key.split("_"))
            assert mean == pytest.approx(
                float(wanted.sel(word=word, layer=layer, neuron=neuron)) * 1e6, rel=1e-5
            )
    line = json.loads((folder / "step0" / FILE).read_text(encoding="utf-8").splitlines()[0])
    assert [len(entry["IGs"]) for entry in line["cat"].values()] == [
        1
    ] * 10  # the other prompt is lacking
    exact = scores["score"].sel(word="cat").isel(checkpoint=0, prompt=0).values
    assert np.float32(line["cat"]["1_3"]["IGs"][0]) == exact[1, 3]


def test_lines_are_json_whatever_the_numbers_and_the_word():
    odd = np.array([0, -0.0, 1e-45, -3.4e38, 1e-5, 12345678, 1 / 3, 1e16], np.float32)
    block = ScoredBlock(0, 0, np.arange(2), odd.reshape(2, 2, 2))
    word = 'a "b" \\ \u2028 猫'
    line = _line(word, ["0_0", "0_1", "1_0", "1_1"], block)
    assert line.endswith("\n")
    found = json.loads(line)[word]
    back = np.array([found[key]["IGs"] for key in found], np.float32).T
    assert np.array_equal(back, odd.reshape(2, 4))


def test_jsonl_needs_steps(tmp_path):
    data = uneven()
    data = data.assign_coords(step=("checkpoint", np.full(3, -1)))
    run = synthetic_run(tmp_path / "run", data)
    with pytest.raises(RunError, match="the step of 'step0' is not known"):
        export_run(run, "jsonl")
    assert not any((run.path / "export").glob("*"))
    assert pd.read_parquet(export_run(run, "parquet"))["step"].isna().all()


@pytest.mark.parametrize("kind", FORMATS)
def test_it_lies_in_the_run_and_is_not_overwritten(kind, tmp_path):
    run = synthetic_run(tmp_path / "run", uneven())
    path = export_run(run, kind)
    assert path.parent == run.path / "export"
    before = _content(path)
    with pytest.raises(RunError, match="is there already"):
        export_run(run, kind)
    assert export_run(run, kind, overwrite=True) == path
    assert _content(path) == before
    assert open_run(run.path).missing() == []  # still a run like any other
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def _content(path):
    files = [path] if path.is_file() else sorted(path.rglob("*.jsonl"))
    return [file.read_bytes() for file in files]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_unfinished_or_damaged_run_leaves_nothing(kind, tmp_path):
    run = synthetic_run(tmp_path / "run", uneven())
    chunk = run.path / "scores.zarr" / "score" / "c.2.1.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(RunError, match="is damaged"):
        export_run(run, kind)
    chunk.unlink()
    with pytest.raises(RunError, match="1 of 12 blocks are missing, the first is step200 · dog"):
        export_run(run, kind)
    assert not any((run.path / "export").glob("*"))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_leaves_nothing_and_is_one_line(kind, run, tmp_path, monkeypatch):
    real = xr.DataArray.values.fget
    reads = []

    def fills_up(array):
        if array.dims == ("prompt", "layer", "neuron"):
            reads.append(1)
            if len(reads) == 5:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(array)

    monkeypatch.setattr(xr.DataArray, "values", property(fills_up))
    with pytest.raises(RunError, match="the disk is full"):
        export_run(run, kind, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_wrong_formats_and_places(run, tmp_path):
    with pytest.raises(SettingsError, match=r"format 'parkuet'.*Did you mean 'parquet'"):
        export_run(run, "parkuet")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        export_run(run, "csv", tmp_path / "file" / "scores.csv")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("kntrace.export.tables._ROWS", 2**13)

    def peak(checkpoints):
        home = tmp_path / str(checkpoints)
        run = synthetic_run(home, groups=GROUPS, checkpoints=checkpoints, layers=4, width=256)
        tracemalloc.start()
        for kind in ("csv", "jsonl"):
            export_run(run, kind)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(24) < 1.5 * peak(6)


def test_twice_as_many_words_are_exported_with_twice_the_work(tmp_path):
    def work(words):
        groups = {
            f"g{group}": tuple(f"w{group}x{word}" for word in range(20))
            for group in range(words // 20)
        }
        run = synthetic_run(
            Path(mkdtemp(dir=tmp_path)) / "run", groups=groups, checkpoints=1, layers=2, width=16
        )

        def export():
            about = pyarrow.parquet.ParquetFile(export_run(run, "parquet")).metadata
            assert (about.num_rows, about.num_row_groups) == (words * 4 * 32, 1)

        return export

    assert excess(work, 20) < 0.02


def test_export_on_the_command_line(run, tmp_path):
    out = tmp_path / "scores.csv"
    assert test_cli.kn("export", run.path, "--format", "csv", "--out", out).stdout.strip() == str(
        out
    )
    assert (
        "is there already"
        in test_cli.kn("export", run.path, "--format", "csv", "--out", out, expect=2).stderr
    )
    test_cli.kn("export", run.path, "--format", "csv", "--out", out, "--force")
    assert (
        "expected one of parquet"
        in test_cli.kn("export", run.path, "--format", "x", expect=2).stderr
    )
    assert "absent" in test_cli.kn("export", "absent", "--format", "csv", expect=2).stderr
