"""The sweep: right numbers, once each, and nothing lost whenever it is stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import kntrace
from conftest import STEPS, TinySuite
from kntrace.archive import (
    Run,
    audit_run,
    convergence,
    open_run,
    read_prints,
    status,
)
from kntrace.archive.chunks import chunk_name
from kntrace.archive.rounding import with_bits
from kntrace.archive.variables import BLOCK_VARIABLES
from kntrace.errors import ModelError, RunError, SettingsError
from kntrace.formation import prompt_mean
from kntrace.settings import Settings
from kntrace.sweep import run as sweep
from sweeps import (  # noqa: F401
    TOTAL,
    finish,
    fixture_done,
    fixture_loads,
    fixture_master,
    fixture_mine,
    fixture_one_thread,
    remove,
    times,
    tree,
)

# Right numbers


def test_scores_are_those_of_attribute(master: Path, tiny_suite: TinySuite) -> None:
    run, study = open_run(master), tiny_suite.study
    scores = run.scores.load()
    for place, checkpoint in enumerate(run.suite):
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.source)
        for word, column in np.ndindex(len(study.words), len(study.slots)):
            asked = study.words[word]
            prompt = study.rendered(asked)[column]
            cell = scores.isel(checkpoint=place, prompt=column).sel(word=asked.text)
            if prompt is None:
                assert bool(np.isnan(cell["score"]).all() & np.isnan(cell["gap"]).all())
                assert np.isnan(cell["probability"])
                assert int(cell["rank"]) == -1
                assert cell["nodes"].values.tolist() == [0, 0]
                assert cell["converged"].values.tolist() == [-1, -1]
                continue
            alone = kntrace.attribute(model, tokenizer, prompt, asked.answer)
            np.testing.assert_allclose(cell["score"], alone.score, rtol=1e-4, atol=1e-9)
            np.testing.assert_allclose(cell["activation"], alone.activation, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(cell["gap"], alone.gap, rtol=0.05, atol=1e-7)
            np.testing.assert_allclose(cell["probability"], alone.probability, rtol=1e-5)
            assert int(cell["rank"]) == alone.rank
    # So a prompt that is not there was looked at.
    assert sum(prompt is None for word in study.words for prompt in study.rendered(word)) == 1


def test_a_coarse_rule_is_told_of(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    coarse, fine = (
        finish(tiny_suite, tmp_path / str(nodes), settings=Settings.of(rule=rule, nodes=nodes))
        for rule, nodes in (("gauss_legendre", 2), ("gauss_legendre", 40))
    )
    adaptive, scores, exact = (run.scores.load() for run in (open_run(master), coarse, fine))
    asked = adaptive["rank"].values >= 0
    assert bool((adaptive["converged"].values[asked] == 1).all())
    assert bool((adaptive["nodes"].values[asked] > 2).all())
    assert bool((scores["nodes"].values[asked] == 2).all())
    missed = scores["converged"].values[asked] == 0
    assert 0 < missed.sum() < missed.size
    # What the flag says is so, on the safe side: it is set by an estimate of the error.
    off = np.linalg.norm((scores["score"] - exact["score"]).values, axis=-1)
    off = (off / np.linalg.norm(exact["score"].values, axis=-1))[asked]
    assert off[~missed].max() < 1e-3
    assert np.median(off[missed]) > 2 * np.median(off[~missed])
    found = convergence(coarse)
    assert (found.total, found.missed) == (missed.size, missed.sum())
    assert (found.mean_nodes(), found.mean_nodes(0)) == (2, 2)
    label, layer, worst, paths = found.worst or ("", 0, 0, 0)
    cell = scores["converged"].sel(checkpoint=label, layer=layer).values
    assert ((cell == 0).sum(), (cell >= 0).sum()) == (worst, paths)
    each = (scores["converged"] == 0).sum(["word", "prompt"])
    assert worst == int(each.max())
    assert convergence(open_run(master)).missed == 0


def test_settings_reach_the_scores(tiny_suite: TinySuite, master: Path, tmp_path: Path) -> None:
    settings = Settings.of(rule="public_code", nodes=5, site="pre_activation", dtype="float64")
    run = finish(tiny_suite, tmp_path / "run", settings=settings)
    assert open_run(run.path).settings == settings
    checkpoint = run.suite.checkpoints[1]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint.source, dtype=torch.float64
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.source)
    word = tiny_suite.study.words[2]
    prompt = tiny_suite.study.rendered(word)[1]
    assert prompt is not None
    alone = kntrace.attribute(
        model, tokenizer, prompt, word.answer, "public_code", 5, "pre_activation"
    )
    found = run.scores["score"].isel(checkpoint=1, word=2, prompt=1).values
    np.testing.assert_allclose(found, alone.score, rtol=1e-6)
    assert not np.allclose(found, open_run(master).scores["score"].isel(checkpoint=1, word=2)[1])


def test_the_same_again_gives_the_same_bytes(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    assert tree(finish(tiny_suite, tmp_path / "run")) == tree(master)


def test_checkpoints_are_told_apart(master: Path) -> None:
    run = open_run(master)
    prints = run.scores["fingerprint"].values.tolist()
    assert len({*prints}) == len(STEPS)
    assert all(len(bytes.fromhex(text)) == 32 for text in prints)
    seen = run.provenance["checkpoints"]
    assert [seen[item.label]["fingerprint"] for item in run.suite] == prints
    assert {seen[item.label]["source"] for item in run.suite} == {c.source for c in run.suite}
    assert all(taken.tensors and taken.tokenizer for taken in read_prints(run))
    assert audit_run(run) == ()
    assert "audit" not in str(status(run))


def test_the_record(master: Path) -> None:
    record = open_run(master).provenance
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["kntrace"] == kntrace.__version__
    assert (record["device"], record["dtype"], record["threads"]) == ("cpu", "float32", 1)
    (session,) = record["sessions"]
    assert session["blocks"] == TOTAL
    assert record["seconds"] == session["seconds"] > 0


def test_the_record_holds_the_answers_tokens(master: Path) -> None:
    run = open_run(master)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.suite.checkpoints[0].source)
    expected = {word.text: [tokenizer.vocab[word.answer]] for word in run.study.words}
    assert run.provenance["answers"] == expected


# Once each


def test_each_checkpoint_is_loaded_once(
    tiny_suite: TinySuite, tmp_path: Path, loads: list[str]
) -> None:
    calls: list[tuple[str, int, int, str]] = []
    finish(
        tiny_suite,
        tmp_path / "run",
        progress=lambda stage, done, total, detail="": calls.append((stage, done, total, detail)),
    )
    assert loads == ["step0", "step10", "step100"]
    assert {(stage, total) for stage, _, total, _ in calls} == {("sweep", TOTAL)}
    counts = [done for _, done, _, _ in calls]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, TOTAL)
    assert ("sweep", 6, TOTAL, "step10 · red") in calls


def test_activations_are_what_enters_the_second_linear_layer(
    master: Path, tiny_suite: TinySuite
) -> None:
    """Read by a hook in the model's own forward pass."""
    run, study = open_run(master), tiny_suite.study
    model = transformers.AutoModelForCausalLM.from_pretrained(run.suite.checkpoints[1].source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.suite.checkpoints[1].source)
    seen: list[torch.Tensor] = []

    def look(_: Any, entering: tuple[torch.Tensor, ...]) -> None:
        seen.append(entering[0][0, -1])

    for layer in model.gpt_neox.layers:
        layer.mlp.dense_4h_to_h.register_forward_pre_hook(look)
    for asked in study.words:
        for column, prompt in enumerate(study.rendered(asked)):
            kept = run.scores["activation"].isel(checkpoint=1, prompt=column).sel(word=asked.text)
            if prompt is None:
                assert bool(np.isnan(kept).all())
                continue
            seen.clear()
            with torch.inference_mode():
                model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False))
            assert kept.dtype == np.float32
            found = torch.stack(seen).numpy()
            np.testing.assert_allclose(kept, found, rtol=1e-4, atol=1e-6)


def test_without_activations_all_else_is_the_same(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(activations=False))
    assert "activation" not in run.scores
    without = {
        name: data
        for name, data in tree(master).items()
        if not name.startswith("activation") and name != "zarr.json"
    }
    assert {name: data for name, data in tree(run).items() if name != "zarr.json"} == without


def test_fewer_bits_are_a_smaller_archive_of_nearly_the_same_numbers(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(keepbits=7))
    whole = kntrace.open_run(master)
    for name in ("score", "activation"):
        mine, true = run.scores[name].values, whole.scores[name].values
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(true))
        there = np.isfinite(true)
        assert (np.abs(mine - true)[there] <= np.abs(true)[there] * 2.0**-8).all()
        assert not (mine.view(np.uint32)[there] & 0xFFFF).any()
    for name in ("gap", "probability", "nodes"):
        np.testing.assert_array_equal(run.scores[name], whole.scores[name])
    sizes = [sum(map(len, tree(one).values())) for one in (run, master)]
    assert sizes[0] < sizes[1]
    # It is part of what the run is.
    with pytest.raises(RunError, match="keepbits: 7 -> None"):
        finish(tiny_suite, run.path)
    assert Settings(keepbits=7).digest != Settings().digest
    with pytest.raises(SettingsError, match="keepbits = 23"):
        Settings.of(keepbits=23)


def test_means_are_kept_of_what_every_prompt_gave(
    tiny_suite: TinySuite, master: Path, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(keep="means"))
    whole = kntrace.open_run(master)
    for wording in run.scores["mean_over"].values:
        mine, true = (prompt_mean(one.scores, str(wording)) for one in (run, whole))
        np.testing.assert_allclose(mine, true, rtol=2**-23, atol=0)
    sizes = [sum(map(len, tree(one).values())) for one in (run, master)]
    assert sizes[0] < sizes[1]
    remove(run, 1, 2, "mean_score")
    before = run.scores["mean_score"].values
    assert np.isnan(before[1, 2]).all()
    again = finish(tiny_suite, run.path, settings=Settings(keep="means"))
    assert again.missing() == []
    kept = again.scores["mean_score"].values[1, 2]
    np.testing.assert_array_equal(np.isnan(kept), np.isnan(before[0, 2]))


def test_rounding_leaves_what_is_no_number() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, 3.4e38, 1.0], dtype=np.float32)
    kept = with_bits(odd.reshape(2, 3), 3)
    np.testing.assert_array_equal(kept, odd.reshape(2, 3))


def test_a_run_from_before_there_were_activations_goes_on(
    tiny_suite: TinySuite, tmp_path: Path
) -> None:
    run = finish(tiny_suite, tmp_path / "run", settings=Settings(activations=False))
    before = tree(run)
    text = (run.path / "settings.yaml").read_text()
    (run.path / "settings.yaml").write_text(text.replace("activations: false\n", ""))
    remove(run, 1, 2)
    with pytest.raises(RunError, match=r"activations: False -> True.*Go on with --no-activations"):
        finish(tiny_suite, run.path)
    again = finish(tiny_suite, run.path, settings=Settings(activations=False))
    assert (again.missing(), again.damaged()) == ([], [])
    assert tree(again) == before


def test_a_finished_run_is_left_alone(tiny_suite: TinySuite, done: Run, loads: list[str]) -> None:
    before, record, written = tree(done), done.provenance, times(done)
    finish(tiny_suite, done.path)
    assert loads == []
    assert (tree(done), done.provenance, times(done)) == (before, record, written)
    assert not (done.path / ".lock").exists()


@pytest.mark.parametrize("variable", BLOCK_VARIABLES)
def test_only_what_lacks_is_done(
    tiny_suite: TinySuite, done: Run, loads: list[str], variable: str
) -> None:
    before, written = tree(done), times(done)
    remove(done, 1, 0, variable)
    damaged = done.path / "scores.zarr" / variable / chunk_name(variable, 1, 3)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    calls: list[tuple[str, int, int]] = []
    finish(
        tiny_suite,
        done.path,
        progress=lambda stage, done, total, detail="": calls.append((stage, done, total)),
    )
    assert loads == ["step10"]
    assert tree(done) == before
    kept = {pair: time for pair, time in written.items() if pair not in {(1, 0), (1, 3)}}
    assert kept.items() <= times(done).items()
    assert ("verify", TOTAL - 1, TOTAL - 1) in calls
    assert next(count for stage, count, _ in calls if stage == "sweep") == TOTAL - 2
    sessions = done.provenance["sessions"]
    assert [session["blocks"] for session in sessions] == [TOTAL, 2]
    assert sessions[1]["damaged"] == ["step10 · blue"]
    assert done.provenance["seconds"] == pytest.approx(sum(s["seconds"] for s in sessions))


def test_without_verifying_only_missing_blocks_are_done(tiny_suite: TinySuite, done: Run) -> None:
    (done.path / "scores.zarr" / "gap" / chunk_name("gap", 0, 0)).write_bytes(b"")
    remove(done, 2, 1)
    finish(tiny_suite, done.path, verify=False)
    assert (done.missing(), done.damaged()) == ([], [(0, 0)])
    # A fingerprint that is lost takes its blocks with it, looked for or not.
    (done.path / "scores.zarr" / "fingerprint" / chunk_name("fingerprint", 0)).unlink()
    finish(tiny_suite, done.path, verify=False)
    assert (done.missing(), done.damaged()) == ([], [])


# Words and numbers that do not fit


def test_words_that_do_not_fit_are_found_first(mine: TinySuite, tmp_path: Path) -> None:
    text = mine.study_file.read_text()
    text = text.replace("which pet says meow", "which pet says moo")
    mine.study_file.write_text(text.replace("    red:", "    red woof:"))
    with pytest.raises(ModelError) as caught:
        finish(mine, tmp_path / "run")
    message = str(caught.value)
    assert "checkpoint step0: 2 of 4 words do not fit its tokenizer" in message
    assert "cat: the prompt holds a word that is unknown" in message
    assert "red woof: the answer 'red woof' has 2 tokens" in message
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_named(mine: TinySuite, tmp_path: Path) -> None:
    file = mine.folder / "step10" / "model.safetensors"
    weights = load_file(file)
    weights["embed_out.weight"].fill_(3e38)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"step10 · cat: prompt .*not finite.*layer") as caught:
        finish(mine, tmp_path / "run")
    assert "which pet says meow" in str(caught.value)
    assert status(tmp_path / "run").done == 4


def test_threads(tiny_suite: TinySuite, done: Run, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run = finish(tiny_suite, tmp_path / "other", threads=before + 1)
    assert torch.get_num_threads() == before
    assert run.provenance["threads"] == before + 1
    np.testing.assert_allclose(
        run.scores["score"].values, done.scores["score"].values, rtol=1e-4, atol=1e-8
    )
    with pytest.raises(SettingsError, match="threads = 0"):
        finish(tiny_suite, tmp_path / "third", threads=0)


def test_bars_are_the_default(
    tiny_suite: TinySuite, done: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(done, 0, 0)
    sweep(tiny_suite.study, tiny_suite.suite, done.path)
    shown = capsys.readouterr().err
    assert "sweep" in shown
    assert f"{TOTAL}/{TOTAL}" in shown


def test_asking_for_the_status_does_not_load_torch(master: Path) -> None:
    code = (
        "import sys, kntrace.sweep as sweep\n"
        f"assert sweep.status({str(master)!r}).complete\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
