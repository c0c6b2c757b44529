"""Growing on a text: what is read, what is learnt from, and that a kill changes nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from grown_texts import MARKS, SMALL, fixture_corpus, fixture_grown, prose  # noqa: F401
from kntrace.cli import main
from kntrace.errors import ModelError, SettingsError
from kntrace.grow import grow_text
from kntrace.grow.corpus import Windows, id_type, write_tokens
from kntrace.grow.learner import token_loss
from kntrace.grow.recipe import marks_of
from kntrace.grow.text import Text
from kntrace.grow.tokenizer import train_tokenizer
from kntrace.models.tokens import encode
from kntrace.progress import silent
from kntrace.suite import load_suite


def curve(folder):
    with (folder / "loss.csv").open() as file:
        return list(csv.DictReader(file))


# What is read


@given(st.text(alphabet="aé \n.𝔊\r", min_size=1, max_size=300), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_pieces_are_the_whole_text(tmp_path_factory, text, size):
    file = tmp_path_factory.mktemp("pieces") / "a.txt"
    file.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kntrace.grow.text._BYTES", size)
        read = Text.of([file])
        assert "".join(piece for _, piece in read.pieces()) == text
        (facts,) = read.survey(silent)
    assert (facts.bytes, facts.characters) == (len(text.encode()), len(text))


def test_cutting_a_text_changes_no_token(tmp_path, monkeypatch):
    one, two = tmp_path / "1.txt", tmp_path / "2.txt"
    one.write_text(prose(80).replace(".\nAnd", ".\n\n  And"))
    two.write_text(prose(80, seed=1).replace("\n", " "))
    tokenizer = train_tokenizer([one.read_text(), two.read_text()], 400)
    whole = [tokenizer(file.read_text())["input_ids"] for file in (one, two)]
    monkeypatch.setattr("kntrace.grow.text._BYTES", 100)
    text = Text.of([tmp_path])
    assert len(list(text.pieces())) > 20
    write_tokens(text, tokenizer, tmp_path / "tokens", silent)
    found = np.fromfile(tmp_path / "tokens", id_type(tokenizer)).tolist()
    assert found == [*whole[0], tokenizer.eos_token_id, *whole[1]]
    assert not list(tmp_path.glob(".*"))


def test_a_long_text_is_never_held_whole(tmp_path):
    file = tmp_path / "long.txt"
    block = prose(1000).encode() * 4
    with file.open("wb") as out:
        for _ in range(200):
            out.write(block)
    text = Text.of([file])
    tracemalloc.start()
    text.survey(silent)
    read = sum(len(piece) for _, piece in text.pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == 200 * len(block.decode())
    assert peak < 6e6 < file.stat().st_size / 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"caf\xe9 au lait", r"bad\.txt: is not UTF-8 \(at byte 3\)"),
        ("né".encode() * 40 + b"\xff", r"not UTF-8 \(at byte 120\)"),
        (b"n" * 99 + "é".encode()[:1], r"not UTF-8 \(at byte 99\)"),
        ("é\0".encode(), r"holds a zero byte, as no text does \(at byte 2\)"),
        ("text".encode("utf-16"), "is not UTF-8"),
        (b"", "there is no text"),
    ],
)
@pytest.mark.parametrize("size", [7, 2**15])
def test_what_is_no_text_is_named_with_its_place(content, says, size, tmp_path, monkeypatch):
    monkeypatch.setattr("kntrace.grow.text._BYTES", size)
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(SettingsError, match=says):
        grow_text(tmp_path / "out", tmp_path / "bad.txt", **SMALL)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_read_in_order_without_what_is_hidden(tmp_path):
    for name in ("b.txt", "a/2.txt", "a/10.txt", ".git/config", "a/.cache", "c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = [str(file.relative_to(tmp_path)) for file in Text.of([tmp_path]).files]
    assert found == ["a/10.txt", "a/2.txt", "b.txt", "c.md"]
    assert len(Text.of([tmp_path / "c.md", tmp_path / "a"]).files) == 3
    with pytest.raises(SettingsError, match=r"d\.txt: is not there"):
        Text.of([tmp_path / "d.txt"])


def test_a_mark_of_byte_order_is_no_text(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffAnd so".encode())
    assert "".join(piece for _, piece in Text.of([tmp_path]).pieces()) == "And so"


# The tokenizer


def test_the_tokenizer_is_repeatable_and_reads_every_text(corpus):
    text = corpus.read_text()
    first, second = (train_tokenizer([text[:5000], text[5000:]], 300) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) == 300
    strange = "\x01 Ж 𝔊\r\n\t  two  spaces"
    assert first.decode(first(strange)["input_ids"]) == strange
    known = encode(first, "And the naïve", "ant")
    assert first.decode(known.ids) == "And the naïve"
    assert first.decode(known.answer) == " ant"


# What is learnt from


@given(st.integers(30, 400), st.integers(1, 9), st.floats(0.01, 0.5), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_each_window_comes_once_a_round_and_the_held_out_ones_never(
    tmp_path_factory, tokens, size, held_out, seed
):
    file = tmp_path_factory.mktemp("ids") / "ids"
    np.arange(tokens, dtype=np.uint16).tofile(file)
    windows = Windows(file, np.dtype(np.uint16), 4, held_out=held_out, seed=seed)
    assert windows.taught + windows.held_out == tokens // 5
    kept = torch.cat(list(windows.held_out_batches(size)))
    rounds = windows.taught * size
    seen = torch.cat([windows.batch(step, size) for step in range(windows.taught)])
    assert seen.shape == (rounds, 5)
    assert (seen[:, 1:] - seen[:, :-1] == 1).all()
    firsts = seen[:, 0].reshape(size, windows.taught)
    for turn in firsts:
        assert sorted([*turn.tolist(), *kept[:, 0].tolist()]) == list(range(0, tokens // 5 * 5, 5))
    # A step's windows do not depend on which steps were asked for before.
    anew = Windows(file, np.dtype(np.uint16), 4, held_out=held_out, seed=seed)
    last = windows.taught - 1
    assert torch.equal(anew.batch(last, size), windows.batch(last, size))
    assert torch.equal(anew.batch(0, size), windows.batch(0, size))


@pytest.mark.parametrize(
    ("asked", "steps", "kept"),
    [
        ("log:5", 24, MARKS),
        ("log:20", 19, tuple(range(20))),
        ("linear:3", 9, (0, 4, 9)),
        ("every:4", 10, (0, 4, 8, 10)),
        ("all", 3, (0, 1, 2, 3)),
        ("0,7,2", 9, (0, 2, 7)),
        ([3, 5], 9, (3, 5)),
        (3, 6, (0, 3, 6)),
    ],
)
def test_schedules_of_checkpoints(asked, steps, kept):
    assert marks_of(asked, steps) == kept


@given(st.sampled_from(["log", "linear"]), st.integers(1, 5000), st.integers(2, 60))
def test_a_schedule_keeps_as_many_as_it_says(kind, steps, count):
    if count > steps + 1:
        return
    kept = marks_of(f"{kind}:{count}", steps)
    assert len(set(kept)) == len(kept) == count
    assert (kept[0], kept[-1]) == (0, steps)


@pytest.mark.parametrize("asked", ["log:30", "log:1", "0,99", "some", "paper", [3], "log:x"])
def test_impossible_schedules_are_named(asked):
    with pytest.raises(SettingsError, match="checkpoints"):
        marks_of(asked, 20)


# What is grown


def test_a_suite_grown_on_a_text_is_complete(grown):
    folder, suite, told = grown
    assert suite == load_suite(folder)
    assert suite.name == "tale"
    assert [checkpoint.step for checkpoint in suite] == list(MARKS)
    assert [checkpoint.tokens for checkpoint in suite] == [step * 4 * 16 for step in MARKS]
    assert {path.name for path in folder.iterdir()} == {
        *(f"step{step}" for step in MARKS),
        *("loss.csv", "recipe.json", "suite.yaml", "training.json"),
    }
    done = [what[1] for what in told if what[0] == "grow"]
    assert done == list(range(25))
    assert "loss" in told[-1][3]
    assert "held out" in told[-1][3]


def test_the_losses_are_those_of_the_checkpoints(grown, corpus, tmp_path):
    folder, _, _ = grown
    rows = curve(folder)
    assert [int(row["step"]) for row in rows] == list(range(25))
    assert float(rows[24]["held_out_loss"]) < float(rows[0]["held_out_loss"]) - 1
    record = json.loads((folder / "training.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "step24")
    ids = tokenizer(corpus.read_text())["input_ids"]
    assert record["text"]["tokens"] == len(ids)
    np.array(ids, np.uint16).tofile(tmp_path / "ids")
    windows = Windows(tmp_path / "ids", np.dtype(np.uint16), 16, held_out=0.1, seed=0)
    assert record["text"]["windows"] == {"learnt": windows.taught, "held_out": windows.held_out}
    kept = torch.cat(list(windows.held_out_batches(4)))
    for state in record["checkpoints"]:
        step = state["step"]
        row = rows[step]
        assert int(row["tokens"]) == state["tokens"]
        assert float(row["held_out_loss"]) == state["held_out_loss"]
        model = AutoModelForCausalLM.from_pretrained(folder / f"step{step}").eval()
        with torch.no_grad():
            assert float(token_loss(model, kept)) == pytest.approx(state["held_out_loss"], rel=1e-5)
            if step < 24:
                now = float(token_loss(model, windows.batch(step, 4)))
                assert now == pytest.approx(float(row["loss"]), rel=1e-5)


def test_the_record_says_what_was_read_and_by_what(grown, corpus):
    folder, _, _ = grown
    record = json.loads((folder / "training.json").read_text())
    (file,) = record["text"]["files"]
    raw = corpus.read_bytes()
    assert file == {
        "name": "tale.txt",
        "bytes": len(raw),
        "characters": len(raw.decode()),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    assert record["recipe"] == json.loads((folder / "recipe.json").read_text())
    assert record["recipe"]["checkpoints"] == list(MARKS)
    assert record["versions"]["torch"] == torch.__version__
    (session,) = record["sessions"]
    assert (session["from_step"], session["to_step"], session["threads"]) == (0, 24, 1)
    model = AutoModelForCausalLM.from_pretrained(folder / "step0")
    assert record["parameters"] == sum(tensor.numel() for tensor in model.parameters())


# Choices


def test_a_tokenizer_that_is_there_and_another_architecture(grown, corpus, tmp_path):
    folder, _, _ = grown
    values = {**SMALL, "vocabulary": None, "tokenizer": str(folder / "step0")}
    suite = grow_text(tmp_path / "llama", corpus, **values, architecture="llama")
    place = tmp_path / "llama" / "step24"
    model = AutoModelForCausalLM.from_pretrained(place)
    assert model.config.model_type == "llama"
    assert model.config.vocab_size == 300
    assert (place / "tokenizer.json").read_bytes() == (
        folder / "step0" / "tokenizer.json"
    ).read_bytes()
    assert len(suite) == 5
    rows = curve(tmp_path / "llama")
    assert float(rows[24]["held_out_loss"]) < float(rows[0]["held_out_loss"]) - 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocabulary": 256}, "vocabulary = 256"),
        ({"tokenizer": "x"}, "both of tokenizer and vocabulary"),
        ({"architecture": "gpt5"}, "architecture 'gpt5'; expected one of gpt_neox, llama"),
        ({"hidden": 15}, "hidden = 15 with heads = 2"),
        ({"held_out": 0.0}, r"held_out = 0\.0"),
        ({"context": 0}, "context = 0"),
        ({"context": 5000}, "the text has .* tokens; expected at least two windows of 5001"),
        ({"checkpoints": "log:90"}, "checkpoints = 90 with steps = 24"),
        ({"steps": 0}, "steps = 0"),
        ({"threads": 0}, "threads = 0"),
        ({"save_every": -1}, "save_every = -1"),
        ({"learning_rate": 0.0}, r"learning_rate = 0\.0"),
    ],
)
def test_impossible_recipes_are_named(change, says, corpus, tmp_path):
    with pytest.raises(SettingsError, match=says):
        grow_text(tmp_path / "new", corpus, **{**SMALL, **change})


def test_a_tokenizer_that_is_not_there_is_named(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    values = {**SMALL, "vocabulary": None, "tokenizer": str(tmp_path / "empty")}
    with pytest.raises(ModelError, match="empty: no tokenizer can be loaded"):
        grow_text(tmp_path / "new", corpus, **values)


def test_the_suite_does_not_lie_in_its_own_text(corpus):
    with pytest.raises(SettingsError, match="lies in the text's folder"):
        grow_text(corpus.parent / "suite", corpus.parent, **SMALL)


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["kntrace", "grow", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    return left.value.code, said.out + said.err


def test_the_command_refuses_options_of_the_other_kind(corpus, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x"
    code, said = command(monkeypatch, capsys, out, "--vocab", 300)
    assert code == 2
    assert "--vocab has a meaning only with --corpus" in said
    code, said = command(monkeypatch, capsys, out, "--corpus", corpus, "--world", "flat")
    assert code == 2
    assert "--world has a meaning only without --corpus" in said
    assert not out.exists()


def test_the_command_keeps_a_world_by_a_schedule(tmp_path, monkeypatch, capsys):
    words = "--layers 1 --hidden 16 --heads 2 --steps 6 --batch 4 --checkpoints 0,1,6"
    code, said = command(monkeypatch, capsys, tmp_path / "w", *words.split())
    assert not code, said
    assert [item.step for item in load_suite(tmp_path / "w")] == [0, 1, 6]
