"""What a stranger may put into a study, a suite or a run folder, and what must not come of it."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

import readers

from kntrace.documents import each_line
from kntrace.errors import SettingsError, StudyError, SuiteError
from kntrace.settings import Settings
from kntrace.study import Study, Word, load_study
from kntrace.study.importing import import_study
from kntrace.suite import load_suite
from kntrace.sweep.baselines import given_baseline
from strangers import fixture_master, fixture_offline, fixture_run, memory, refused  # noqa: F401

SEEDS = [
    pytest.param(folder.name, file, id=f"{folder.name}/{file.name}")
    for folder in sorted(readers.CORPUS.iterdir())
    for file in sorted(folder.iterdir())
]


# The readers that are fuzzed


def test_every_reader_has_seeds() -> None:
    assert {folder.name for folder in readers.CORPUS.iterdir()} == set(readers.READERS)


@pytest.mark.parametrize(("name", "file"), SEEDS)
def test_kept_inputs(name: str, file: Path) -> None:
    """Seeds are accepted; what fuzzing found is refused in one line, or read."""
    readers.read(name, file.read_bytes())


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("overlap.json", ("p",), "x"),
        ("overlap.json", ("groups",), []),
        ("statistics.json", ("early", "high"), None),
        ("statistics.json", ("prompt_noise", "words"), 1.5),
        ("statistics.json", ("early", "own"), 1),
        ("contrast.json", ("identity", "notes"), 5),
        ("verdict.json", ("verdict", "p"), "x"),
    ],
)
def test_numbers_of_an_analysis_that_are_none(
    name: str, path: tuple[str, ...], value: object
) -> None:
    number = readers._ANALYSIS_FILES.index(name)
    content = json.loads((readers._made("run") / "analysis" / name).read_text())
    inside = content
    for part in path[:-1]:
        inside = inside[part]
    inside[path[-1]] = value
    message = readers.read("analysis", bytes([number]) + json.dumps(content).encode())
    assert message is not None
    assert "not what `kntrace analyse` writes" in message


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
