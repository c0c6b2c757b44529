"""Run folders of strangers: links, pipes, bombs, and what describes itself falsely."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from numcodecs.zstd import Zstd

from kntrace.analysis import load_analysis
from kntrace.archive import create_run, load_array, open_run, status, writing
from kntrace.archive.bounded import LARGEST_CHUNK
from kntrace.errors import KntraceError, RunError
from kntrace.settings import Settings
from kntrace.study import Study, Word, load_study
from kntrace.study.importing import import_study
from kntrace.suite import Suite, load_suite
from kntrace.sweep.baselines import given_baseline
from strangers import fixture_master, fixture_offline, fixture_run, memory, refused  # noqa: F401

# Run folders: nothing outside of them


@pytest.mark.parametrize(
    "name",
    [
        *(".lock", "provenance.json.partial", "study.yaml", "report.html.partial", "scores.zarr"),
        *("analysis", "figures", "export", "analysis/neurons.parquet.partial"),
        *("figures/forest.png.partial", "scores.zarr/score", "scores.zarr/zarr.json"),
        *("scores.zarr/word/c", "scores.zarr/word/zarr.json"),
    ],
)
def test_a_link_is_refused_before_anything_is_written(run: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    place = run / name
    if place.exists():
        place.rename(precious)
    else:
        precious.write_text("precious")
    place.symlink_to(precious)
    before = precious.read_bytes() if precious.is_file() else sorted(precious.iterdir())
    with pytest.raises(RunError, match="a link; expected files and folders alone"):
        open_run(run)
    if name.count("/") < 2:
        with pytest.raises(RunError, match="a link"), writing(run):
            pass
    assert before == (precious.read_bytes() if precious.is_file() else sorted(precious.iterdir()))


def test_the_run_folder_itself_may_be_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    opened = open_run(tmp_path / "link")
    assert status(opened).complete
    load_analysis(opened)


@pytest.mark.parametrize("name", ["c.0.0.0.0.0", "c.1.3.0.0.0"])
def test_a_chunk_that_is_a_link_is_damaged(run: Path, tmp_path: Path, name: str) -> None:
    place = run / "scores.zarr" / "score" / name
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert status(run).done == 11
    with pytest.raises(RunError, match="ordinary file"):
        open_run(run).scores["score"].load()


def test_a_pipe_is_not_waited_for(run: Path) -> None:
    os.mkfifo(run / "note")
    with pytest.raises(RunError, match="neither a file nor a folder"):
        open_run(run)
    (run / "note").unlink()
    chunk = run / "scores.zarr" / "gap" / "c.0.0.0.0"
    chunk.unlink()
    os.mkfifo(chunk)
    assert status(run).done == 11


def test_a_frozen_suite_looks_for_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("kntrace.suite.hub.branches_and_tags", asked)
    (run / "suite.yaml").write_text("checkpoints:\n- {repository: me/mine, steps: all}\n")
    with pytest.raises(RunError, match=r"an entry with `steps: all`"):
        open_run(run)


# Run folders: nothing larger than it may be


def sealed(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def bomb(megabytes: int) -> bytes:
    """Some hundred bytes that stand for so many megabytes, with a sound checksum."""
    return sealed(bytes(Zstd(level=19).encode(np.zeros(megabytes * 2**20, np.uint8))))


@pytest.mark.parametrize("variable", ["score", "gap", "nodes", "converged", "fingerprint"])
def test_a_chunk_that_would_unfold_to_more_is_damaged(run: Path, variable: str) -> None:
    chunk = next((run / "scores.zarr" / variable).glob("c.*"))
    chunk.write_bytes(bomb(256))

    def read() -> None:
        opened = open_run(run)
        refused(RunError, "damaged", lambda: opened.scores[variable].load())
        with suppress(RunError):  # the checksum is right, so that no look at it alone can tell
            status(opened)

    assert memory(read) < 60


def test_labels_that_would_unfold_to_more_are_refused(run: Path) -> None:
    (run / "scores.zarr" / "word" / "c" / "0").write_bytes(bomb(256))
    assert memory(lambda: refused(RunError, "labels", open_run, run)) < 60


def test_texts_that_say_there_are_more_of_them(run: Path) -> None:
    """The number stands before the texts, and room is made for so many."""
    raw = (2**31 - 1).to_bytes(4, "little") + b"\0" * 100
    file = run / "analysis" / "formation.zarr" / "word" / "c" / "0"
    file.write_bytes(sealed(bytes(Zstd().encode(raw))))
    with pytest.raises(RunError, match="another number of texts"):
        load_array(run / "analysis" / "formation.zarr")


def described(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


HUGE = {
    "shape": [2, 6, 2, 2_000_000, 2_000_000],
    "chunk_grid": {
        "name": "regular",
        "configuration": {"chunk_shape": [1, 1, 2, 2_000_000, 2_000_000]},
    },
}
GZIP = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "gzip", "configuration": {"level": 5}},
    {"name": "crc32c"},
]
SHARDED = [
    {
        "name": "sharding_indexed",
        "configuration": {"chunk_shape": [1, 1, 1, 1, 1], "codecs": GZIP, "index_codecs": GZIP},
    }
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (HUGE, r"8,000,000,000,000 scores a word and checkpoint"),
        ({"shape": [2, 6, 2, -2, 4]}, "no shape that scores can have"),
        ({"shape": [2, 6, 2, 2, True]}, "no shape that scores can have"),
        ({"shape": [10**9, 6, 2, 2, 4]}, r"not those of its study and suite \(score\)"),
        ({"codecs": GZIP}, r"\(score\)"),
        ({"codecs": SHARDED}, r"\(score\)"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, r"\(score\)"),
        ({"data_type": "float64"}, r"\(score\)"),
        ({"storage_transformers": [{"name": "elsewhere"}]}, r"\(score\)"),
        ({"chunk_key_encoding": {"name": "v2"}}, r"\(score\)"),
        ({"zarr_format": 2}, r"\(score\)"),
    ],
)
def test_scores_described_as_kntrace_never_would(
    run: Path, changes: dict[str, object], message: str
) -> None:
    described(run / "scores.zarr" / "score" / "zarr.json", **changes)
    with pytest.raises(RunError, match=message):
        open_run(run)


def test_an_archive_of_zarr_2_with_a_pickle_in_it(run: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "owned",)

    scores = run / "scores.zarr"
    attributes = json.loads((scores / "zarr.json").read_text())["attributes"]
    (scores / "zarr.json").unlink()
    (scores / ".zgroup").write_text('{"zarr_format": 2}')
    (scores / ".zattrs").write_text(json.dumps(attributes))
    shutil.rmtree(scores / "word")
    (scores / "word").mkdir()
    (scores / "word" / ".zarray").write_text(
        json.dumps(
            {
                "zarr_format": 2,
                **{"shape": [6], "chunks": [6], "dtype": "|O", "fill_value": None, "order": "C"},
                **{"compressor": None, "filters": [{"id": "pickle", "protocol": 5}]},
            }
        )
    )
    (scores / "word" / "0").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunError, match="description cannot be read"):
        open_run(run)
    assert not (tmp_path / "owned").exists()


def test_an_array_that_is_one_too_many(run: Path) -> None:
    shutil.copytree(run / "scores.zarr" / "gap", run / "scores.zarr" / "byte")
    with pytest.raises(RunError, match=r"not those of its study and suite \(byte\)"):
        open_run(run)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("formation", {"shape": [10**6, 10**6, 10**6]}),
        ("formation", {"shape": [6, 2, 3]}),
        ("rank", {"shape": [10**9]}),
        (
            "word",
            {"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 4}}},
        ),
        ("formation", {"codecs": GZIP}),
    ],
)
def test_formation_described_as_kntrace_never_would(
    run: Path, name: str, changes: dict[str, object]
) -> None:
    described(run / "analysis" / "formation.zarr" / name / "zarr.json", **changes)
    with pytest.raises(KntraceError, match="cannot be read"):
        load_analysis(open_run(run))


def test_a_block_too_large_to_be_a_chunk_is_not_begun(tmp_path: Path) -> None:
    study = Study(name="s", words=(Word(text="w", group="A", prompts={"main": ("q",)}),))
    suite = load_suite_of_one(tmp_path)
    with pytest.raises(RunError, match="scores a word and checkpoint"):
        create_run(tmp_path / "run", study, suite, Settings(), layers=2**15, width=LARGEST_CHUNK)
    assert not (tmp_path / "run" / "scores.zarr").exists()


def load_suite_of_one(tmp_path: Path) -> Suite:
    (tmp_path / "step0").mkdir()
    (tmp_path / "step0" / "config.json").write_text("{}")
    return load_suite(tmp_path / "step0")


# Run folders: nothing of another kind


@pytest.mark.parametrize(
    "record",
    [
        *("[]", "1", "{", "[" * 100_000, '{"sessions": 1}', '{"sessions": [{"seconds": "x"}]}'),
        *('{"checkpoints": []}', '{"checkpoints": {"a": 1}}', '{"versions": {"a": {}}}'),
        '{"checkpoints": {"a": {"commit": 5}}}',
    ],
)
def test_a_record_of_another_make(run: Path, record: str) -> None:
    (run / "provenance.json").write_text(record)
    with pytest.raises(RunError, match="Remove the file"):
        _ = open_run(run).provenance


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("analysis.json", '"k": 2', '"k": 9999999999'),
        ("analysis.json", '"k": 2', '"k": "2"'),
        ("analysis.json", '"notes": []', '"notes": [[]]'),
        ("analysis.json", '"wording": "main"', '"wording": "other"'),
        ("verdict.json", '"p": ', '"p": "x", "q": '),
        ("verdict.json", '"wordings"', '"other"'),
        ("contrast.json", '"seed": 0', '"sed": 0'),
        ("overlap.json", '"expected"', '"unexpected"'),
    ],
)
def test_an_analysis_of_another_make(run: Path, name: str, old: str, new: str) -> None:
    """Its checksums are right: whoever made it can write those too."""
    folder = run / "analysis"
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    head = json.loads((folder / "analysis.json").read_text())
    if name in head["files"]:
        head["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "analysis.json").write_text(json.dumps(head))
    with pytest.raises(KntraceError):
        load_analysis(open_run(run))


def test_a_terabyte_of_nothing(tmp_path: Path) -> None:
    """It takes no room on disk, and must take none in memory."""
    for name in ("study.yaml", "study.json", "table.csv", "start.npy"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)
    for work in (
        lambda: load_study(tmp_path / "study.yaml"),
        lambda: load_study(tmp_path / "study.json"),
        lambda: import_study([tmp_path / "table.csv"]),
        lambda: given_baseline(Settings(), tmp_path / "start.npy"),
    ):
        with pytest.raises(KntraceError):
            work()
