"""What a run would take: from one real block, and without touching the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPTNeoXConfig
from typer.testing import CliRunner

import kntrace
from conftest import STEPS, TinySuite
from kntrace.archive import Run
from kntrace.attribution import Engine
from kntrace.cli import app
from kntrace.errors import ModelError, SettingsError
from kntrace.models.shape import read_shape
from kntrace.models.tokens import Encoded
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.suite import Checkpoint, Suite
from kntrace.sweep.estimate import Estimate, _in_hours, _kinds, plan
from kntrace.sweep.reckoning import SHARE, Reckoning, operations
from kntrace.sweep.trial import Trial

TRIAL = Trial("step9", "cat", 4, 4, "cpu", 1, 3.0, 2.0, 1000, 500, 1e11)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def estimate(tiny: TinySuite, **options: Any) -> Estimate:
    return plan(tiny.study, tiny.suite, **({"threads": 1} | options))


def test_one_block_stands_for_all(tiny_suite: TinySuite, tmp_path: Path) -> None:
    found = estimate(tiny_suite)
    assert (found.checkpoints, found.words, found.prompts) == (3, 4, 7)
    assert (found.total, found.missing, found.download) == (12, 12, 0)
    trial = found.trial
    assert isinstance(trial, Trial)
    assert (trial.checkpoint, trial.prompts, trial.threads) == ("step100", 2, 1)
    assert min(trial.loading, trial.scoring, trial.speed, trial.memory) > 0
    (kind,) = found.kinds
    # 3 checkpoints, each loaded once, with 7 prompts where the trial had 2.
    seconds = 3 * (trial.loading + trial.scoring * 7 / 2)
    assert kind.hours == pytest.approx(seconds / 3600)
    run = kntrace.run(tiny_suite.study, tiny_suite.suite, tmp_path / "run", progress=silent)
    assert found.archive == pytest.approx(_size(run), rel=0.1)


def _size(run: Run) -> int:
    return sum(file.stat().st_size for file in (run.path / "scores.zarr").glob("*/c.*.*.0*"))


def test_of_a_run_that_was_begun_what_lacks_is_counted_and_nothing_is_touched(
    tiny_suite: TinySuite, tmp_path: Path
) -> None:
    run = kntrace.run(
        tiny_suite.study, tiny_suite.suite, tmp_path / "run", progress=silent, shard="1/3"
    )
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    found = estimate(tiny_suite, out=run.path)
    assert (found.total, found.missing) == (12, 8)
    assert isinstance(found.trial, Trial)
    assert found.kinds[0].hours == pytest.approx(
        2 * (found.trial.loading + found.trial.scoring * 3.5) / 3600
    )
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before
    other = Settings(rule="midpoint", nodes=3)
    with pytest.raises(kntrace.KntraceError, match="made from something else"):
        estimate(tiny_suite, out=run.path, settings=other)


def test_kinds_of_machines_say_what_they_rest_on() -> None:
    kinds = _kinds(12.0, TRIAL, 2, 3, {"card": 20.0})
    assert [(kind.processes, round(kind.hours, 3), kind.memory) for kind in kinds] == [
        *((1, 12.0, 500), (2, 6.0, 1000), (6, 2.0, 1000), (1, 0.06, 500)),
    ]
    assert "extrapolated" not in kinds[0].how
    assert all("extrapolated" in kind.how for kind in kinds[1:])
    assert "20 TFLOP/s against 0.1 here" in kinds[3].how
    assert [_in_hours(hours) for hours in (1.26, 0.5, 0.001)] == ["1.3 h", "30.0 min", "4 s"]


def test_on_the_command_line(tiny_suite: TinySuite) -> None:
    command = ["plan", str(tiny_suite.study_file), str(tiny_suite.folder), "--threads", "1"]
    command += ["--workers", "2", "--machine", "card=20"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0] == "12 blocks: 3 checkpoints x 4 words, 7 prompts a checkpoint"
    assert lines[1].startswith("archive: ")
    assert lines[1].endswith("to download: nothing")
    assert sum("extrapolated" in line for line in lines) == 2
    assert max(map(len, lines)) <= 80
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert found["missing"] == len(STEPS) * 4
    assert [kind["name"] for kind in found["kinds"]][-1] == "card, one process"


@pytest.mark.parametrize("text", ["card", "card=", "=3", "card=fast", "card=-1", "card=nan"])
def test_what_is_no_machine(tiny_suite: TinySuite, text: str) -> None:
    command = ["plan", str(tiny_suite.study_file), str(tiny_suite.folder), "--machine", text]
    ended = CliRunner().invoke(app, command)
    assert isinstance(ended.exception, SettingsError)
    assert "such as card=20" in str(ended.exception)


def test_what_a_run_would_refuse_is_refused(tiny_suite: TinySuite, tmp_path: Path) -> None:
    text = tiny_suite.study_file.read_text().replace("says meow", "says moo")
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ModelError, match="unknown"):
        plan(kntrace.load_study(tmp_path / "study.yaml"), tiny_suite.suite)
    with pytest.raises(SettingsError, match="0 shards"):
        estimate(tiny_suite, shards=0)


# Reckoned, not tried


def shaped(tiny: TinySuite, folder: Path, **options: int) -> Checkpoint:
    """A checkpoint with a tokenizer and this configuration, and no weights."""
    for file in Path(tiny.suite.checkpoints[-1].source).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    GPTNeoXConfig(**options).save_pretrained(folder)
    return Checkpoint("step143000", 143_000, None, str(folder), None)


@pytest.mark.parametrize("nodes", [7, 20])
@pytest.mark.parametrize("layers", [1, 2, 6])
def test_operations_are_those_that_torch_counts(
    tiny_suite: TinySuite, tmp_path: Path, layers: int, nodes: int
) -> None:
    checkpoint = shaped(
        tiny_suite, tmp_path, hidden_size=128, intermediate_size=512, num_attention_heads=4,
        num_hidden_layers=layers, vocab_size=3000,
    )  # fmt: skip
    shape = read_shape(checkpoint)
    assert (shape.layers, shape.width) == (layers, 512)
    model = AutoModelForCausalLM.from_config(GPTNeoXConfig.from_pretrained(tmp_path)).eval()
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    prompts = [Encoded(tuple(range(5, 29)), (7,))]
    settings = Settings(rule="gauss_legendre", nodes=nodes)
    with Engine(model, None, settings) as engine:
        engine.attribute_many(prompts)  # what a row takes in memory is counted once
        with FlopCounterMode(display=False) as counter:
            engine.attribute_many(prompts)
    reckoned = operations(shape, (nodes, nodes), tokens=24)
    # Of which torch also counts what attention does between tokens, and the path's start.
    assert 0.85 * counter.get_total_flops() < reckoned < counter.get_total_flops()


def test_without_a_trial_no_weights_are_read(
    tiny_suite: TinySuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kntrace.models.load_checkpoint", None)
    found = estimate(tiny_suite, tried=False, memory=10**6)
    made = found.trial
    assert isinstance(made, Reckoning)
    assert (found.total, found.missing) == (12, 12)
    assert found.kinds[0].memory == round(1.3 * 4 * made.parameters) + 10**6
    seconds = 3 * sum(made.operations) / (made.speed * SHARE)
    assert found.kinds[0].hours == pytest.approx(seconds / 3600)
    assert found.archive == 3 * 7 * made.layers * made.width * 8
    means = estimate(tiny_suite, tried=False, settings=Settings(keep="means", activations=False))
    assert means.archive < found.archive / 2


def test_twelve_billion_weights_are_planned_for_where_they_do_not_fit(
    tiny_suite: TinySuite, tmp_path: Path
) -> None:
    """Pythia-12B's shape: only its configuration is there."""
    checkpoint = shaped(
        tiny_suite, tmp_path, hidden_size=5120, intermediate_size=20480, num_attention_heads=40,
        num_hidden_layers=36, vocab_size=50688,
    )  # fmt: skip
    suite = Suite("large", (checkpoint,))
    found = plan(tiny_suite.study, suite, tried=False, threads=1)
    made = found.trial
    assert isinstance(made, Reckoning)
    assert made.parameters == pytest.approx(11.8e9, rel=0.01)
    assert found.kinds[0].memory == pytest.approx(1.3 * 47.4e9 + 2 * 2**30, rel=0.01)
    assert (made.layers, made.width) == (36, 20480)
    assert found.kinds[0].hours > 0
    said = str(found)
    assert "36 layers of 20,480 neurons, 11.8 billion weights" in said
    assert max(map(len, said.splitlines())) <= 80
