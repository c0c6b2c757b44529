"""Audits of every kind of source, of runs, and of tables drawn at random."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch

import kntrace
import tiny_gguf
from conftest import TinySuite
from hub_server import HubServer
from kntrace.archive import Run, audit_run, open_run, read_prints, status
from kntrace.audit import CheckpointPrint, Finding, TensorPrint, audit_suite, find
from kntrace.audit.reading import read_safetensors
from kntrace.models import load_checkpoint, read_bin
from kntrace.progress import silent
from kntrace.suite import load_suite
from test_audit import audited, only, save, steps, suite, trained
from test_cli import kn

# Prints are those of the loaded model


def test_prints_are_those_of_the_model_that_is_loaded(tiny_suite: TinySuite) -> None:
    checkpoint = tiny_suite.suite.checkpoints[1]
    read = dict(read_safetensors(Path(checkpoint.source) / "model.safetensors"))
    loaded = load_checkpoint(checkpoint)
    assert len(loaded.prints) == len(read) > 20
    # transformers calls the head of a GPT-NeoX otherwise than its files do.
    names = {name: "lm_head.weight" if "embed_out" in name else name for name in read}
    assert {name: one.hash for name, one in loaded.prints.items()} == {
        names[name]: one.hash for name, one in read.items()
    }
    taken = loaded.printed(1)
    assert taken.config == json.loads((Path(checkpoint.source) / "config.json").read_text())
    assert CheckpointPrint.from_json(taken.to_json()) == taken


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_files_of_both_formats_have_equal_prints(tmp_path: Path, dtype: torch.dtype) -> None:
    save(tmp_path, trained(1))
    weights = {n: w.to(dtype) for n, w in load_torch(tmp_path / "model.safetensors").items()}
    weights |= {"counts": torch.arange(3), "mask": torch.ones(2, 2, dtype=torch.bool)}
    from safetensors.torch import save_file as save_torch

    save_torch(weights, tmp_path / "model.safetensors")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    mine = dict(read_safetensors(tmp_path / "model.safetensors"))
    theirs = {
        name: replace(one, file="model.safetensors")
        for name, one in read_bin(tmp_path / "pytorch_model.bin")
    }
    assert mine == theirs
    assert mine["layers.0.mlp.weight"].dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: Any, size: int) -> None:
    values = {"a": np.array([1, 2, 1, 2, 3][:size], np.float32), "b": np.float32([[np.nan, 1]])}
    save_file(values, tmp_path / "model.safetensors")
    whole = dict(read_safetensors(tmp_path / "model.safetensors"))
    monkeypatch.setattr("kntrace.audit.reading._PIECE", 2)
    # By what they are written as: NaN equals nothing.
    assert repr(dict(read_safetensors(tmp_path / "model.safetensors"))) == repr(whole)
    assert whole["a"].varied is (size == 5)
    assert whole["b"].not_finite == 1


def test_memory_stays_at_a_piece(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("kntrace.audit.reading._PIECE", 1 << 12)
    values = {str(n): np.arange(1 << 20, dtype=np.float16) for n in range(2)}
    save_file(values, tmp_path / "model.safetensors")
    del values
    tracemalloc.start()
    dict(read_safetensors(tmp_path / "model.safetensors"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A tensor is 2 MB as it is saved, and 4 MB as it is hashed.
    assert most < 5e5


# Files


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-5]), "unreadable", "cannot be read"),
        (lambda file: file.write_bytes(b""), "unreadable", "cannot be read"),
        (lambda file: file.write_bytes(b"\xff" * 50), "unreadable", "cannot be read"),
        (lambda file: file.unlink(), "missing", "no weights"),
    ],
)
def test_damaged_files(
    tmp_path: Path, spoil: Callable[[Path], object], kind: str, says: str
) -> None:
    suite(tmp_path, range(3))
    spoil(tmp_path / "step1" / "model.safetensors")
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == (kind, "error", steps(1))
    assert says in found.says


def as_bin(folder: Path) -> None:
    torch.save(load_torch(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_bin_files(tmp_path: Path) -> None:
    suite(tmp_path, {0: 0, 1: 4, 2: 2, 3: 4})
    as_bin(tmp_path / "step1")
    unread = only(audited(tmp_path))
    assert (unread.kind, unread.severity, unread.checkpoints) == ("unread", "note", steps(1))
    found = only(audited(tmp_path, read_bin=read_bin))
    assert (found.kind, found.checkpoints) == ("repeated", steps(1, 3))
    assert "step1 and step3 both hold" in " ".join(
        kn("suite", tmp_path, "--audit", expect=1).stdout.split()
    )
    (tmp_path / "step1" / "pytorch_model.bin").write_bytes(b"no pickle")
    assert only(audited(tmp_path, read_bin=read_bin)).kind == "unreadable"


def test_gguf_files(tmp_path: Path) -> None:
    for step, seed in enumerate((0, 5, 2, 5)):
        tiny_gguf.write(tmp_path / f"step{step}.gguf", tiny_gguf.weights(seed))
    entries = "\n".join(f"- {{file: step{step}.gguf, step: {step}}}" for step in range(4))
    (tmp_path / "suite.yaml").write_text(f"checkpoints:\n{entries}\n")
    found = only(audited(tmp_path / "suite.yaml"))
    assert (found.kind, found.severity, found.checkpoints) == ("repeated", "error", steps(1, 3))
    (tmp_path / "step2.gguf").write_bytes(b"GGUF")
    assert {one.kind for one in audited(tmp_path / "suite.yaml")} == {"repeated", "unreadable"}


# Repositories


@pytest.fixture
def served(hub: HubServer, tmp_path: Path) -> HubServer:
    """A repository of which steps 1 and 3 have the first file of the last one."""
    home = suite(tmp_path / "made", sharded=True)
    name = "model-00001-of-00002.safetensors"
    for step in (1, 3):
        shutil.copy(home / "step5" / name, home / f"step{step}" / name)
    steps_ = {f"step{step}": home / f"step{step}" for step in range(6)}
    hub.add("lab/model", steps_ | {"main": home / "step5"})
    return hub


def test_a_repository_is_fetched_and_read(served: HubServer, tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        told.append((stage, done, total, detail))

    checkpoints = load_suite("lab/model").checkpoints
    found = audit_suite(checkpoints, progress=progress)
    assert (only(found.findings).kind, only(found.findings).checkpoints) == (
        "shared",
        steps(1, 3, 5),
    )
    files = [*(tmp_path / "made" / "step0").glob("*.safetensors")]
    assert found.bytes == 6 * sum(file.stat().st_size for file in files)
    assert told[2] == ("audit", 2, 6, "step2")
    assert told[-1] == ("audit", 6, 6, "")
    fetched = served.count("/cdn/", "GET")
    assert audit_suite(checkpoints).findings == found.findings
    assert served.count("/cdn/", "GET") == fetched


def test_without_a_network_the_cache_is_read(served: HubServer, monkeypatch: Any) -> None:
    checkpoints = load_suite("lab/model").checkpoints
    whole = audit_suite(checkpoints)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = served.count()
    assert audit_suite(checkpoints).findings == whole.findings
    assert served.count() == before


def test_what_is_not_in_the_cache_is_said(served: HubServer, monkeypatch: Any) -> None:
    checkpoints = load_suite("lab/model").checkpoints
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = only(audit_suite(checkpoints).findings)
    assert (found.kind, found.severity, found.checkpoints) == ("unread", "note", steps(*range(6)))
    assert "there is no network" in found.says
    # Of one there is a part.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    from huggingface_hub import hf_hub_download

    hf_hub_download("lab/model", "config.json", revision="step2")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert only(audit_suite(checkpoints).findings) == found


def test_by_file_nothing_is_fetched(served: HubServer, tmp_path: Path) -> None:
    found = json.loads(kn("suite", "lab/model", "--audit", "--by-file", "--json", expect=1).stdout)
    shared = only(found["audit"]["findings"])
    assert (shared["kind"], shared["severity"]) == ("shared", "error")
    assert tuple(shared["checkpoints"]) == steps(1, 3, 5)
    assert shared["tensors"] == ["model-00001-of-00002.safetensors"]
    assert (found["audit"]["by_file"], found["audit"]["bytes"]) == (True, 0)
    assert served.count("/cdn/") == 0
    assert served.count("/resolve/") == 0
    assert "share 1 of 2 files of weights" in shared["says"]
    assert "the whole of" not in shared["says"]
    # Names under which there are no weights, or not all.
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    (tmp_path / "made" / "step0" / "model-00001-of-00002.safetensors").unlink()
    served.add("lab/model", {"step4": bare, "step0": tmp_path / "made" / "step0"})
    printed = kn("suite", "lab/model", "--audit", "--by-file", expect=1).stdout
    assert "step4: there are no weights" in printed
    assert "step0: file 1 of 2 is not there" in printed


def test_by_file_files_may_have_any_size_and_name(tmp_path: Path) -> None:
    """Folders too; of files only equality means anything, and a damaged one is as good as any."""
    suite(tmp_path, {0: 0, 1: 7, 2: 2, 3: 7})
    as_bin(tmp_path / "step0")
    save(tmp_path / "step2", {"a": trained(1)["embed.weight"]})
    found = audit_suite(load_suite(tmp_path).checkpoints, by_file=True)
    assert (only(found.findings).kind, only(found.findings).checkpoints) == (
        "repeated",
        steps(1, 3),
    )
    assert (found.tensors, found.by_file) == (4, True)
    (tmp_path / "step2" / "model.safetensors").unlink()
    found = audit_suite(load_suite(tmp_path).checkpoints, by_file=True)
    assert [one.kind for one in found.findings] == ["repeated", "missing"]


# The command


def test_the_command_prints_a_table_and_fails_on_errors(tmp_path: Path) -> None:
    suite(tmp_path / "suite", {0: 9, 1: 9, 2: 2, 3: 9, 4: 4, 5: 9})
    (tmp_path / "suite" / "step4" / "model.safetensors").write_bytes(b"")
    done = kn("suite", tmp_path / "suite", "--audit", expect=1)
    assert re.search(r"audit \(6 checkpoints, 110 tensors, 0.0 MB in .* s\): 2 errors", done.stdout)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    text = " ".join(done.stdout.split())
    assert "error repeated" in text
    assert "error unreadable" in text
    found = json.loads(kn("suite", tmp_path / "suite", "--audit", "--json", expect=1).stdout)
    assert found["audit"]["errors"] == 2
    assert len(found["checkpoints"]) == 6


def test_the_command_is_content_with_a_healthy_suite(tiny_suite: TinySuite) -> None:
    assert "nothing found" in kn("suite", tiny_suite.folder, "--audit").stdout
    assert "audit" not in kn("suite", tiny_suite.folder).stdout
    found = json.loads(kn("suite", tiny_suite.folder, "--audit", "--json").stdout)["audit"]
    assert (found["errors"], found["warnings"], found["findings"]) == (0, 0, [])


def test_warnings_do_not_fail(tmp_path: Path) -> None:
    suite(tmp_path / "suite", {0: 0, 1: 0, 2: 2, 3: 3})
    assert "1 warning" in kn("suite", tmp_path / "suite", "--audit").stdout


def test_labels_are_text_and_no_markup(tmp_path: Path) -> None:
    for step, seed in ((0, 7), (1, 1), (2, 7)):
        save(tmp_path / f"c{step}", trained(seed))
    entries = "\n".join(
        f"- {{label: '[red]{step}[/red]', folder: c{step}, step: {step}}}" for step in range(3)
    )
    (tmp_path / "suite.yaml").write_text(f"checkpoints:\n{entries}\n")
    printed = kn("suite", tmp_path / "suite.yaml", "--audit", expect=1).stdout
    assert "[red]0[/red] and [red]2[/red] both hold" in " ".join(printed.split())


def test_names_of_tensors_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    name = "layers.\x1b[2Jx\n.weight"
    for step in range(3):
        weights = trained(step) | {name: trained(step)["embed.weight"]}
        weights[name][0, 0] = np.nan
        save(tmp_path / f"step{step}", weights)
    found = audited(tmp_path)
    assert len(found) == 3
    assert all(one.says.isprintable() and one.tensors == (name,) for one in found)


def test_weights_of_nothing_but_ones(tmp_path: Path) -> None:
    for step in range(3):
        save(tmp_path / f"step{step}", {"w": np.full((2, 2), max(step, 1), np.float32)})
    assert only(audited(tmp_path)).checkpoints == steps(0, 1)


@pytest.mark.parametrize("arguments", [["--audit"], ["--by-file"]])
def test_options_that_mean_nothing(arguments: list[str]) -> None:
    assert kn("suite", *arguments, expect=2).stderr.startswith("kntrace: input: ")


# Runs


@pytest.fixture(scope="module")
def spoilt(tiny_suite: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> TinySuite:
    """Four checkpoints: the first again as the third, and a feed-forward matrix of it as well."""
    home = tmp_path_factory.mktemp("spoilt")
    for step, of in ((0, 0), (1, 10), (2, 0), (3, 100)):
        shutil.copytree(tiny_suite.folder / f"step{of}", home / "suite" / f"step{step}")
    weights = load_torch(home / "suite" / "step0" / "model.safetensors")
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    from safetensors.torch import save_file as save_torch

    last = home / "suite" / "step3" / "model.safetensors"
    save_torch(load_torch(last) | {name: weights[name]}, last, metadata={"format": "pt"})
    return TinySuite(home / "suite", tiny_suite.study_file)


@pytest.fixture(scope="module")
def scored(spoilt: TinySuite, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("scored") / "run"
    return kntrace.run(spoilt.study, spoilt.suite, out, threads=1, progress=silent)


def prints(run: Run) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run.path / "audit").iterdir()}


def test_a_run_keeps_prints_and_tells_what_they_show(scored: Run, spoilt: TinySuite) -> None:
    shared, repeated = sorted(audit_run(scored), key=lambda one: one.kind, reverse=True)
    assert (repeated.kind, repeated.severity, repeated.checkpoints) == (
        "repeated",
        "error",
        steps(0, 2),
    )
    assert (shared.kind, shared.severity, shared.checkpoints) == ("shared", "error", steps(0, 2, 3))
    assert shared.tensors == ("gpt_neox.layers.1.mlp.dense_h_to_4h.weight",)
    # A run and an audit by itself find the same.
    kinds = [(one.kind, one.severity, one.checkpoints, one.tensors) for one in audit_run(scored)]
    by_itself = audited(spoilt.folder)
    assert [(one.kind, one.severity, one.checkpoints, one.tensors) for one in by_itself] == kinds
    assert "audit: error (repeated): step0 and step2 both hold" in str(status(scored))
    printed = kn("status", scored.path).stdout
    assert "audit: error (shared): step0, step2, step3 share 1 of" in printed
    plain = json.loads(kn("status", scored.path, "--json").stdout)
    assert [one["kind"] for one in plain["findings"]] == [kind for kind, *_ in kinds]


def test_the_command_run_says_it_at_the_end(scored: Run, spoilt: TinySuite) -> None:
    done = kn("run", spoilt.study_file, spoilt.folder, "--out", scored.path)
    assert "Careful: step0 and step2 both hold equal weights" in done.stdout


def test_prints_are_the_same_after_an_interruption(
    scored: Run, spoilt: TinySuite, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int, detail: str = "") -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kntrace.run(spoilt.study, spoilt.suite, tmp_path / "run", threads=1, progress=stop)
    begun = open_run(tmp_path / "run")
    assert set(prints(begun)) == {"00000.json", "00001.json"}
    assert audit_run(begun) == ()
    assert [bool(one.tensors) for one in read_prints(begun)] == [True, True, False, False]
    again = kntrace.run(spoilt.study, spoilt.suite, tmp_path / "run", threads=1, progress=silent)
    assert prints(again) == prints(scored)


def test_prints_that_are_lost_leave_the_fingerprint(scored: Run, tmp_path: Path) -> None:
    shutil.copytree(scored.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    (run.path / "audit" / "00000.json").write_text('{"tensors": 3}')
    (run.path / "audit" / "00003.json").unlink()
    assert [bool(one.tensors) for one in read_prints(run)] == [False, True, True, False]
    found = only(audit_run(run))
    assert (found.kind, found.checkpoints) == ("repeated", steps(0, 2))
    shutil.rmtree(run.path / "audit")  # a run of an older version
    assert only(audit_run(run)) == found
    # Prints of other weights than those that were scored say nothing.
    shutil.copytree(scored.path / "audit", run.path / "audit")
    other = (run.path / "audit" / "00001.json").read_text().replace('"place": 1', '"place": 0')
    (run.path / "audit" / "00000.json").write_text(other.replace("step1", "step0"))
    assert not read_prints(run)[0].tensors


# Tables at random


@st.composite
def tables(draw: st.DrawFn) -> list[CheckpointPrint]:
    """Checkpoints of a few tensors of few values, so that many are equal."""
    names = ["a.0.w", "a.1.w", "a.0.b", "a.1.b", "head"]
    value = st.integers(0, 3)
    made = []
    for place in range(draw(st.integers(1, 5))):
        tensors = {
            name: TensorPrint(
                f"{name} {draw(value)}", (2,) * (1 + name.endswith("w")), "float32", True
            )
            for name in names
            if draw(st.integers(0, 9))
        }
        made.append(CheckpointPrint(f"s{place}", place, tensors, complete=True))
    return made


@given(tables(), st.randoms())
def test_the_order_in_which_things_come_makes_no_difference(
    table: list[CheckpointPrint], chance: Any
) -> None:
    expected = find(table)
    shuffled = []
    for item in chance.sample(table, len(table)):
        names = chance.sample([*item.tensors], len(item.tensors))
        shuffled.append(replace(item, tensors={name: item.tensors[name] for name in names}))
    assert find(shuffled) == expected


@given(tables())
def test_other_names_for_checkpoints_change_nothing_else(table: list[CheckpointPrint]) -> None:
    renamed = find([replace(item, label=f"{item.label}x") for item in table])
    assert [(one.kind, one.severity, one.tensors) for one in renamed] == [
        (one.kind, one.severity, one.tensors) for one in find(table)
    ]


@given(tables())
def test_findings_are_those_of_a_slow_comparison_of_pairs(table: list[CheckpointPrint]) -> None:
    found = find(table)

    def together(kind: str, one: str, other: str) -> list[Finding]:
        return [f for f in found if f.kind == kind and {one, other} <= {*f.checkpoints}]

    for mine, other in itertools.combinations(table, 2):
        if not mine.tensors or not other.tensors:
            continue
        pair = (mine.label, other.label)
        whole = dict(mine.tensors) == dict(other.tensors)
        assert bool(together("repeated", *pair)) == whole
        same = {n for n, one in mine.tensors.items() if other.tensors.get(n) == one}
        told = {
            n for kind in ("shared", "untrained") for f in together(kind, *pair) for n in f.tensors
        }
        if whole:
            # What both share with a third one, if with any.
            assert told <= same
        else:
            assert told == same
