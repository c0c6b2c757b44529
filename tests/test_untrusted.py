"""What a stranger may put into a study, a suite or a run folder, and what must not come of it."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs.zstd import Zstd

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

import readers

from kntrace.analysis import analyse, load_analysis
from kntrace.archive import create_run, load_array, open_run, status, writing
from kntrace.archive.bounded import LARGEST_CHUNK
from kntrace.documents import each_line
from kntrace.errors import KntraceError, RunError, SettingsError, StudyError, SuiteError
from kntrace.settings import Settings
from kntrace.study import Study, Word, load_study
from kntrace.study.importing import import_study
from kntrace.suite import Suite, load_suite
from kntrace.sweep.baselines import given_baseline
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"Pets": ("cat", "dog", "fox"), "Hues": ("red", "blue", "grey")}
SEEDS = [
    pytest.param(folder.name, file, id=f"{folder.name}/{file.name}")
    for folder in sorted(readers.CORPUS.iterdir())
    for file in sorted(folder.iterdir())
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader asks the hub, not even one that nobody answers for."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scores = synthetic_scores(groups=GROUPS, checkpoints=2, prompts=2, layers=2, width=4)
    run = synthetic_run(tmp_path_factory.mktemp("strange") / "run", scores)
    analyse(run, k=2, permutations=19)
    return run.path


@pytest.fixture
def run(tmp_path: Path, master: Path) -> Path:
    """A finished and analysed run that the test may do anything to."""
    return Path(shutil.copytree(master, tmp_path / "run"))


def refused(
    kind: type[KntraceError], said: str, work: Callable[..., object], *given: object
) -> None:
    with pytest.raises(kind, match=said):
        work(*given)


def memory(work: Callable[[], object]) -> float:
    """Megabytes that the work takes at its height, as far as Python and numpy know."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


# The readers that are fuzzed


def test_every_reader_has_seeds() -> None:
    assert {folder.name for folder in readers.CORPUS.iterdir()} == set(readers.READERS)


@pytest.mark.parametrize(("name", "file"), SEEDS)
def test_kept_inputs(name: str, file: Path) -> None:
    """Seeds are accepted; what fuzzing found is refused in one line, or read."""
    readers.read(name, file.read_bytes())


# Those that open a whole folder for each input are left to `make fuzz`.
QUICK = sorted(set(readers.READERS) - {"run", "analysis", "array"})


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A kept input with some stretches replaced by others, from anywhere, or by anything."""
    files = sorted((readers.CORPUS / name).iterdir())
    data = bytearray(draw(st.sampled_from(files)).read_bytes())
    other = draw(st.sampled_from(files)).read_bytes()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        cut = draw(st.integers(0, max(len(other) - 1, 0)))
        pieces = st.sampled_from([other[cut : cut + 20], b"\n", b'"', b"{", b"[", b"&a ", b"*a"])
        data[start:end] = draw(st.one_of(pieces, st.binary(max_size=12)))
    return bytes(data)


@pytest.mark.parametrize("name", QUICK)
def test_mutated_inputs(name: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(name))
    def read(data: bytes) -> None:
        readers.read(name, data)

    read()


# Too much of something


def test_a_million_words_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    words = ",".join(f'"w{n}":["q"]' for n in range(1_000_000))
    path.write_text(f'{{"groups":{{"A":{{{words}}}}}}}')
    used = memory(lambda: refused(StudyError, "1,000,000 entries", load_study, path))
    assert used < 200


def test_more_words_than_a_study_may_have() -> None:
    words = tuple(Word(text=f"w{n}", group="A", prompts={"main": ("q",)}) for n in range(3))
    many = words[:2] + tuple(words[2].model_copy(update={"text": f"x{n}"}) for n in range(100_000))
    with pytest.raises(StudyError, match=r"has 100,002 words; expected at most 100,000"):
        Study(name="many", words=many)


def test_groups_of_many_words_are_told_apart_quickly() -> None:
    word = Word(text="w", group="A", prompts={"main": ("q",)})
    words = [word.model_copy(update={"text": f"w{n}", "group": f"g{n}"}) for n in range(20_000)]
    assert len(Study(name="many", words=tuple(words)).groups) == 20_000


def test_as_many_wordings_as_words_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    words = {f"w{n}": {f"wording number {n}": ["q"]} for n in range(3000)}
    path.write_text(json.dumps({"groups": {"A": words}}))
    with pytest.raises(StudyError, match=r"3,000 wordings; expected at most 100"):
        load_study(path)


def test_alternatives_by_the_thousand_are_read(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    word = {"alternatives": [f"a{n}" for n in range(50_000)], "prompts": ["q"]}
    path.write_text(json.dumps({"groups": {"A": {"w": word}}}))
    assert len(load_study(path).words[0].alternatives) == 50_000


def test_long_names_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"x" * 10**6: 1, "groups": {}}))
    with pytest.raises(StudyError, match="unknown key") as caught:
        load_study(path)
    assert len(str(caught.value)) < 1000


def test_a_json_text_of_megabytes_takes_no_more_than_some_times_that(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"groups": {"A": {"w": ["x" * (8 * 2**20), "\\" * 2**20]}}}))
    assert memory(lambda: load_study(path)) < 200


def test_blank_lines_by_the_million_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text("\n" * (8 * 2**20))
    assert memory(lambda: refused(StudyError, "empty", import_study, [path], "jsonl")) < 40


def test_more_prompts_than_a_table_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kntrace.study.importing.gather.MOST_PROMPTS", 1000)
    path = tmp_path / "table.csv"
    rows = [f"{n % 9},A,{n}\n" for n in range(1001)]
    path.write_text("word,group,prompt\n" + "".join(rows[:1000]))
    assert len(import_study([path], "csv").study.words) == 9
    path.write_text("word,group,prompt\n" + "".join(rows))
    with pytest.raises(StudyError, match=r"more than 1,000 prompts"):
        import_study([path], "csv")


def test_lines_are_numbered_as_they_stand() -> None:
    for text in ("", "\n", "a", " \n a\n\n\t\nb \n", "\n\na\r\nb\n ", "a\n\nb\n\nc"):
        lines = enumerate(text.split("\n"), start=1)
        assert list(each_line(text)) == [(n, line) for n, line in lines if line.strip()]


def test_aliases_in_settings_stay_short() -> None:
    text = "rule: &a [x, x]\n" + "".join(
        f"k{n}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for n, (old, new) in enumerate(zip("abcdefghijkl", "bcdefghijklm", strict=True))
    )
    with pytest.raises(SettingsError, match="aliases counted in full"):
        Settings.from_yaml(text)
    with pytest.raises(SettingsError, match="nested too deeply"):
        Settings.from_yaml("rule: " + "[" * 100_000)
    with pytest.raises(SettingsError, match="has no meaning here"):
        Settings.from_yaml("rule: !!python/object/apply:os.system ['true']")


def test_a_pattern_that_would_never_end(tmp_path: Path) -> None:
    (tmp_path / ("a" * 60)).mkdir()
    (tmp_path / ("a" * 60) / "config.json").write_text("{}")
    file = tmp_path / "suite.yaml"
    file.write_text(
        "checkpoints:\n- {folder: ., steps: all, pattern: '(a|aa)+(?P<step>[0-9]+)$'}\n"
    )
    with pytest.raises(SuiteError, match="without repetitions inside of repetitions"):
        load_suite(file)


# Files of numbers


def npy(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.mark.parametrize(
    "content",
    [
        npy("(1000000000, 1000000000)"),
        npy("(100000000, 100)", b"\0" * 64),
        npy("(-1, 3)", b"\0" * 64),
        npy("(0, 3)"),
        npy("(2, 3)", pickle.dumps(print), "'|O'"),
        npy("(" * 5000),
        npy("(2, 3)", b"\0" * 64, "[('a', '<f4', (10**9,))]"),
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x80\x04\x95",
        b"PK\x03\x04",
        b"",
    ],
)
def test_a_baseline_of_another_make(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "start.npy"
    file.write_bytes(content)
    used = memory(lambda: refused(SettingsError, "baseline", given_baseline, Settings(), file))
    assert used < 20


def test_a_sound_baseline_is_read(tmp_path: Path) -> None:
    file = tmp_path / "start.npy"
    np.save(file, np.arange(6.0).reshape(2, 3))
    found, vector = given_baseline(Settings(), file)
    assert found.baseline.startswith("sha256:")
    assert vector is not None
    assert vector.tolist() == [[0, 1, 2], [3, 4, 5]]


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
