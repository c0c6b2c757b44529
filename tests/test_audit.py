"""Each fault that public suites are known for is found, and a healthy suite is left in peace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from conftest import TinySuite
from kntrace.audit import Finding, audit_suite
from kntrace.grow import grow
from kntrace.suite import load_suite

Weights = dict[str, np.ndarray]
LAYERS, SHARDS = 4, 2
LAST = 5


def trained(step: int, *, tied: bool = False) -> Weights:
    """A model whose weights are random, but for what is benign: a mask, norms and biases."""
    rng = np.random.default_rng(step)
    made = {"embed.weight": rng.normal(size=(11, 6)).astype(np.float32)}
    for layer in range(LAYERS):
        home = f"layers.{layer}"
        made[f"{home}.mlp.weight"] = rng.normal(size=(6, 6)).astype(np.float32)
        # Not moved yet at the first steps, and then trained.
        moved = rng.normal(size=6) * (step > 1)
        made[f"{home}.mlp.bias"] = moved.astype(np.float32)
        made[f"{home}.norm.weight"] = (1 + moved).astype(np.float32)
        made[f"{home}.attention.bias"] = np.tril(np.ones((1, 1, 4, 4), np.float32))
        made[f"{home}.rotary_emb.inv_freq"] = (10.0 ** -np.arange(3)).astype(np.float32)
    made["head.weight"] = made["embed.weight"] if tied else rng.normal(size=(11, 6))
    return {name: np.ascontiguousarray(value, np.float32) for name, value in made.items()}


def shards(weights: Weights) -> list[Weights]:
    """Early layers and embeddings in the first file, the others in the second."""
    first = {n: w for n, w in weights.items() if n.startswith(("embed", "layers.0", "layers.1"))}
    return [first, {name: value for name, value in weights.items() if name not in first}]


def save(folder: Path, weights: Weights, *, sharded: bool = False, **config: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said = {"model_type": "gpt_neox", "num_hidden_layers": LAYERS, "hidden_act": "gelu"} | config
    (folder / "config.json").write_text(json.dumps(said))
    words = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [], "normalizer": None}
    (folder / "tokenizer.json").write_text(json.dumps(words))
    if not sharded:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = {}
    for number, part in enumerate(shards(weights), 1):
        name = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        save_file(part, folder / name)
        names |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def suite(
    home: Path, steps: Mapping[int, int] | Sequence[int] = range(LAST + 1), **how: Any
) -> Path:
    """Save checkpoints; a mapping says whose weights each has."""
    whose = steps if isinstance(steps, Mapping) else {step: step for step in steps}
    for step, of in whose.items():
        save(home / f"step{step}", trained(of), **how)
    return home


def audited(home: Path, **how: Any) -> tuple[Finding, ...]:
    return audit_suite(load_suite(home).checkpoints, **how).findings


def steps(*numbers: int) -> tuple[str, ...]:
    return tuple(f"step{number}" for number in numbers)


def only(found: Sequence[Finding]) -> Finding:
    assert len(found) == 1, [str(one) for one in found]
    return found[0]


# Nothing is wrong


@pytest.mark.parametrize("how", [{}, {"sharded": True}, {"tie_word_embeddings": True}])
def test_a_healthy_suite_has_no_findings(tmp_path: Path, how: dict[str, Any]) -> None:
    assert audited(suite(tmp_path, **how)) == ()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_healthy_checkpoints_have_no_findings(tmp_path: Path, count: int) -> None:
    assert audited(suite(tmp_path, range(count))) == ()


def test_random_models_have_no_findings(tiny_suite: TinySuite) -> None:
    assert audited(tiny_suite.folder) == ()


def test_a_really_trained_suite_has_no_findings(tmp_path: Path) -> None:
    grown = {"layers": 2, "hidden": 16, "heads": 2, "steps": 4, "batch": 4}
    grow(tmp_path / "suite", **grown, checkpoints=[0, 1, 2, 4])
    assert audited(tmp_path / "suite") == ()


# Faults of public suites


def test_final_weights_under_other_names(tmp_path: Path) -> None:
    """As in Pythia-2.8b: most early names hold the weights of the end of training."""
    whose = {0: 9, 1: 9, 2: 2, 3: 9, 4: 4, 5: 9}
    found = only(audited(suite(tmp_path, whose)))
    assert (found.kind, found.severity, found.checkpoints) == (
        "repeated",
        "error",
        steps(0, 1, 3, 5),
    )
    assert "those of the last checkpoint" in found.says


def test_two_late_states_that_share_their_embeddings(tmp_path: Path) -> None:
    """The two states under 86 names of Pythia-2.8b differ, but not in their embeddings."""
    suite(tmp_path, {0: 9, 1: 9, 2: 2, 3: 3, 4: 9})
    other = trained(8) | {name: trained(9)[name] for name in ("embed.weight", "head.weight")}
    save(tmp_path / "step5", other)
    save(tmp_path / "step6", other)
    first, second, third = audited(tmp_path)
    assert {first.kind, second.kind, third.kind} == {"repeated", "shared"}
    shared = next(one for one in (first, second, third) if one.kind == "shared")
    assert (shared.severity, shared.checkpoints) == ("error", steps(0, 1, 4, 5, 6))
    assert shared.tensors == ("embed.weight", "head.weight")


def test_the_first_file_of_the_final_model(tmp_path: Path) -> None:
    """As in Pythia-12b: steps 1 and 3 have the first file of the last one."""
    suite(tmp_path, sharded=True)
    name = "model-00001-of-00002.safetensors"
    for step in (1, 3):
        shutil.copy(tmp_path / f"step{LAST}" / name, tmp_path / f"step{step}" / name)
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == ("shared", "error", steps(1, 3, LAST))
    assert set(found.tensors) == {
        name
        for name in shards(trained(LAST))[0]
        if not name.endswith(("inv_freq", "attention.bias"))
    }
    assert f"layers 0 to 1, embed.weight), the whole of {name}" in found.says
    # The three alone: now it is in all that there are.
    for step in (0, 2, 4):
        shutil.rmtree(tmp_path / f"step{step}")
    found = only(audited(tmp_path))
    assert (found.kind, found.severity) == ("untrained", "warning")


def test_steps_0_1_and_2_share_their_weights(tmp_path: Path) -> None:
    found = only(audited(suite(tmp_path, {0: 0, 1: 0, 2: 0, 4: 4, 8: 8})))
    assert (found.kind, found.severity, found.checkpoints) == (
        "repeated",
        "warning",
        steps(0, 1, 2),
    )
    assert "last" not in found.says


@pytest.mark.parametrize(
    ("same", "severity"),
    [
        ((1, 2, 3), "error"),
        ((1, 3, 5), "error"),
        ((1, 2), "warning"),
        ((4, 5), "warning"),
        ((3, 4, 5), "error"),
        ((0, 1), "warning"),
        (range(LAST + 1), "error"),
    ],
)
def test_identical_branches(tmp_path: Path, same: Sequence[int], severity: str) -> None:
    whose = {step: 7 if step in same else step for step in range(LAST + 1)}
    found = only(audited(suite(tmp_path, whose)))
    assert (found.kind, found.severity, found.checkpoints) == ("repeated", severity, steps(*same))


def test_both_checkpoints_of_two_are_the_same(tmp_path: Path) -> None:
    assert only(audited(suite(tmp_path, {0: 7, 1: 7}))).severity == "error"


def test_equal_weights_in_other_formats_are_seen(tmp_path: Path) -> None:
    half = {name: value.astype(np.float16) for name, value in trained(7).items()}
    suite(tmp_path, range(4))
    save(tmp_path / "step1", half)
    save(tmp_path / "step3", {name: value.astype(np.float32) for name, value in half.items()})
    repeated, formats = audited(tmp_path)
    assert (repeated.kind, repeated.checkpoints) == ("repeated", steps(1, 3))
    assert (formats.kind, formats.severity, formats.checkpoints) == ("dtype", "warning", steps(1))
    assert "saved in float16, the others in float32" in formats.says
    # So are those whose bfloat16 numpy cannot read.
    weights = load_torch(tmp_path / "step2" / "model.safetensors")
    rounded = {name: value.bfloat16() for name, value in weights.items()}
    save_torch(rounded, tmp_path / "step2" / "model.safetensors")
    save_torch(
        {name: value.float() for name, value in rounded.items()},
        tmp_path / "step0" / "model.safetensors",
    )
    assert {one.checkpoints for one in audited(tmp_path) if one.kind == "repeated"} == {
        steps(0, 2),
        steps(1, 3),
    }


def test_weights_are_missing(tmp_path: Path) -> None:
    """As in seeds of Pythia-410m: there is a name, a configuration, and nothing else."""
    suite(tmp_path)
    (tmp_path / "step2" / "model.safetensors").unlink()
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == ("missing", "error", steps(2))
    assert found.says == "step2: there are no weights."


def test_a_file_of_weights_is_missing(tmp_path: Path) -> None:
    suite(tmp_path, sharded=True)
    (tmp_path / "step2" / "model-00002-of-00002.safetensors").unlink()
    found = only(audited(tmp_path))
    assert (found.kind, found.severity) == ("missing", "error")
    assert "model-00002-of-00002.safetensors is not there" in found.says


def without(folder: Path, *names: str) -> None:
    file = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if name not in names}
    save_file(kept, file)


@pytest.mark.parametrize("where", [(2,), (0, 1), range(LAST + 1)])
@pytest.mark.parametrize("names", [("layers.1.mlp.weight",), ("layers.3.norm.weight",)])
def test_a_tensor_is_missing(tmp_path: Path, where: Sequence[int], names: tuple[str]) -> None:
    suite(tmp_path)
    for step in where:
        without(tmp_path / f"step{step}", *names)
    found = only(audited(tmp_path))
    assert (found.kind, found.severity) == ("missing", "error")
    assert (found.checkpoints, found.tensors) == (steps(*where), names)


def test_the_last_layer_is_missing_everywhere(tmp_path: Path) -> None:
    suite(tmp_path)
    lost = [name for name in trained(0) if name.startswith("layers.3.")]
    for step in range(LAST + 1):
        without(tmp_path / f"step{step}", *lost)
    found = only(audited(tmp_path))
    assert set(found.tensors) == {name for name in lost if not name.endswith("inv_freq")}


def test_buffers_may_come_and_go(tmp_path: Path) -> None:
    suite(tmp_path)
    for step in (2, 3):
        lost = [n for n in trained(0) if n.endswith(("attention.bias", "inv_freq"))]
        without(tmp_path / f"step{step}", *lost)
    assert audited(tmp_path) == ()


def test_layers_of_two_kinds_are_whole(tmp_path: Path) -> None:
    """The first layer is dense, every third one attends, as in mixtures and hybrids."""
    for step in range(3):
        rng = np.random.default_rng(step)
        names = ["layers.0.mlp.up", "layers.0.norm"]
        for layer in range(1, 7):
            kind = "attention" if layer % 3 == 0 else "mamba"
            names += [f"layers.{layer}.{kind}.weight", f"layers.{layer}.norm"]
        save(
            tmp_path / f"step{step}",
            {name: rng.normal(size=(3, 3)).astype(np.float32) for name in names},
            num_hidden_layers=7,
        )
    assert audited(tmp_path) == ()


def test_a_tied_head_may_be_saved_or_not(tmp_path: Path) -> None:
    for step in range(4):
        weights = trained(step, tied=True)
        if step in (1, 2):
            del weights["head.weight"]
        save(tmp_path / f"step{step}", weights, tie_word_embeddings=True)
    assert audited(tmp_path) == ()


def test_an_untied_head_may_not(tmp_path: Path) -> None:
    for step in range(4):
        weights = trained(step)
        if step == 1:
            del weights["head.weight"]
        save(tmp_path / f"step{step}", weights, tie_word_embeddings=True)
    found = only(audited(tmp_path))
    assert (found.kind, found.checkpoints, found.tensors) == ("missing", steps(1), ("head.weight",))


def test_weights_that_few_have(tmp_path: Path) -> None:
    suite(tmp_path)
    save(tmp_path / "step3", trained(3) | {"extra.weight": trained(99)["embed.weight"]})
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == ("unexpected", "warning", steps(3))
    assert found.tensors == ("extra.weight",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float, dtype: Any) -> None:
    for step in range(3):
        weights = {name: array.astype(dtype) for name, array in trained(step).items()}
        if step == 1:
            weights["layers.2.mlp.weight"][1:3, 4] = value
        save(tmp_path / f"step{step}", weights)
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == ("not-finite", "error", steps(1))
    assert "2 weights in 1 tensors" in found.says


def test_a_shape_that_changes(tmp_path: Path) -> None:
    suite(tmp_path)
    save(tmp_path / "step0", trained(0) | {"embed.weight": np.ones((12, 6), np.float32) + 0.5})
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == ("shape", "error", steps(0))
    assert "embed.weight (11, 6) -> (12, 6)" in found.says


def test_tensors_that_are_never_trained(tmp_path: Path) -> None:
    for step in range(4):
        frozen = {"positions.weight": trained(77)["embed.weight"]}
        save(tmp_path / f"step{step}", trained(step) | frozen)
    found = only(audited(tmp_path))
    assert (found.kind, found.severity) == ("untrained", "warning")
    assert found.tensors == ("positions.weight",)


def test_vectors_that_a_coarse_format_leaves_alone(tmp_path: Path) -> None:
    suite(tmp_path)
    name = "layers.2.norm.weight"
    save(tmp_path / "step4", trained(4) | {name: trained(3)[name]})
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == ("shared", "note", steps(3, 4))


# Configuration and tokenizer


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ({"hidden_act": "relu"}, "error", 'hidden_act "gelu" -> "relu"'),
        ({"transformers_version": "4.9"}, "note", 'transformers_version nothing -> "4.9"'),
        ({"rope_theta": 5}, "warning", "rope_theta nothing -> 5"),
        ({"rope_theta": 5, "hidden_act": "relu"}, "error", "hidden_act"),
    ],
)
def test_a_config_that_changes(
    tmp_path: Path, change: dict[str, Any], severity: str, says: str
) -> None:
    suite(tmp_path)
    for step in (2, 3):
        edit(tmp_path / f"step{step}" / "config.json", lambda content: content.update(change))
    found = only(audited(tmp_path))
    assert (found.kind, found.severity, found.checkpoints) == ("config", severity, steps(2, 3))
    assert says in found.says


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        (lambda content: content["model"]["vocab"].update(c=2), "error"),
        (lambda content: content["added_tokens"].append({"id": 2, "content": "c"}), "error"),
        (lambda content: content.update(normalizer={"type": "Lowercase"}), "warning"),
        (lambda content: content.update(truncation={"max_length": 5}), None),
    ],
)
def test_a_tokenizer_that_changes(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], severity: str | None
) -> None:
    suite(tmp_path)
    edit(tmp_path / "step2" / "tokenizer.json", change)
    found = audited(tmp_path)
    if severity is None:
        assert found == ()
    else:
        assert only(found).kind == "tokenizer"
        assert (only(found).severity, only(found).checkpoints) == (severity, steps(2))


def test_a_tokenizer_that_only_some_have(tmp_path: Path) -> None:
    suite(tmp_path)
    (tmp_path / "step2" / "tokenizer.json").unlink()
    assert (only(audited(tmp_path)).kind, only(audited(tmp_path)).severity) == (
        "tokenizer",
        "error",
    )
    (tmp_path / "step2" / "vocab.json").write_text("{}")
    assert only(audited(tmp_path)).severity == "warning"
    for step in range(LAST + 1):
        (tmp_path / f"step{step}" / "tokenizer.json").unlink(missing_ok=True)
        (tmp_path / f"step{step}" / "vocab.json").unlink(missing_ok=True)
    assert audited(tmp_path) == ()
