"""The grown worlds say what they claim, and growing is repeatable."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from kntrace.errors import SettingsError, SuiteError
from kntrace.grow import WORLDS, grow, make_world, schedule
from kntrace.grow.facts import FACTS
from kntrace.grow.tokenizer import word_tokenizer
from kntrace.study import load_study

TINY = {"layers": 1, "hidden": 16, "heads": 2, "steps": 6, "batch": 4, "checkpoints": 3}
seeds = st.integers(0, 10_000)
names = st.sampled_from(list(WORLDS))


def test_every_clue_belongs_to_one_word():
    clues = Counter(
        clue for group in FACTS.values() for word in group.clues.values() for clue in word
    )
    assert len(clues) == 38 * 4
    assert set(clues.values()) == {1}


@given(names, seeds)
@settings(max_examples=20, deadline=None)
def test_held_out_questions_never_stand_in_the_corpus(name, seed):
    world = make_world(name, seed)
    corpus = {f" {line} " for line in world.corpus(3000, np.random.default_rng(seed))}
    text = "\n".join(corpus)
    study = world.study()
    for word in study.words:
        for prompt in study.rendered(word):
            # Neither as a question nor, by its clause, as a statement.
            clause = prompt.split("Q. which ")[1].split(" ?")[0].split(" ", 1)[1]
            assert f" {clause} " not in text


@given(names, seeds)
@settings(max_examples=10, deadline=None)
def test_the_vocabulary_is_closed(name, seed):
    world = make_world(name, seed)
    known = set(world.vocabulary())
    for line in world.corpus(500, np.random.default_rng(seed)):
        assert set(line.split()) <= known
    for word in world.study().words:
        for prompt in world.study().rendered(word):
            assert set(prompt.split()) <= known


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_groups_share_contexts_only_where_the_plan_says_so(seed):
    for name, plan in WORLDS.items():
        words = make_world(name, seed).truth()["words"].values()
        by_group: dict[str, set[tuple[str, ...]]] = {}
        for word in words:
            by_group.setdefault(word["group"], set()).add(tuple(word["contexts"]))
        shared = [len(contexts) == 1 for contexts in by_group.values()]
        assert all(shared) if plan.contexts else not any(shared)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_frequency_follows_the_groups_only_where_the_plan_says_so(seed):
    def means(name):
        words = make_world(name, seed).truth()["words"].values()
        groups = dict.fromkeys(word["group"] for word in words)
        return [np.mean([w["frequency"] for w in words if w["group"] == group]) for group in groups]

    confounded, flat = means("confounded"), means("flat")
    assert confounded == sorted(confounded, reverse=True)
    assert confounded[0] > 1.5 * confounded[-1]
    assert max(flat) < 1.15 * min(flat)


def test_frequent_words_come_more_often():
    world = make_world("confounded")
    lines = world.corpus(20_000, np.random.default_rng(0))
    said = Counter(word for line in lines for word in line.split())
    truth = world.truth()["words"]
    for word, entry in truth.items():
        assert said[word] == pytest.approx(20_000 * entry["frequency"], rel=0.25)


def test_the_tokenizer_reads_a_prompt_as_it_was_trained():
    world = make_world("structured")
    tokenizer = word_tokenizer(world.vocabulary())
    prompt = world.study().rendered("Cat")[0]
    ids = tokenizer(prompt)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == prompt
    assert tokenizer("zebra")["input_ids"][1] == tokenizer.unk_token_id


@given(st.integers(1, 3000), st.integers(2, 60))
def test_schedules_begin_at_the_start_and_end_at_the_end(steps, checkpoints):
    if checkpoints > steps + 1:
        return
    kept = schedule(steps, checkpoints)
    assert len(kept) == checkpoints == len(set(kept))
    assert (kept[0], kept[-1]) == (0, steps)
    assert kept == sorted(kept)


def test_a_grown_suite_is_complete_and_repeatable(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    suite = grow(tmp_path / "a", **TINY)
    assert torch.equal(torch.rand(1), expected), "growing disturbed the caller's random numbers"
    grow(tmp_path / "b", **TINY)
    grow(tmp_path / "c", **{**TINY, "seed": 1})
    assert [checkpoint.step for checkpoint in suite] == [0, 3, 6]
    weights = [
        (tmp_path / name / "step6" / "model.safetensors").read_bytes() for name in ("a", "b", "c")
    ]
    assert weights[0] == weights[1] != weights[2]
    assert (tmp_path / "a" / "step0" / "model.safetensors").read_bytes() != weights[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "step6")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a" / "step6")
    study = load_study(tmp_path / "a" / "study.yaml")
    assert study.wordings == ("grouped", "neutral")
    assert sum(len(words) for words in study.groups.values()) == 38
    ids = tokenizer(study.rendered("Cat")[0], return_tensors="pt")["input_ids"]
    assert torch.isfinite(model(ids).logits).all()
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert len(record["loss"]) == 6
    assert record["loss"][-1] < record["loss"][0]
    assert [state["step"] for state in record["checkpoints"]] == [0, 3, 6]
    assert not list(tmp_path.glob("*/.*"))


def test_a_finished_suite_is_kept_and_another_recipe_refused(tmp_path):
    grow(tmp_path, **TINY)
    before = (tmp_path / "step6" / "model.safetensors").stat().st_mtime_ns
    grow(tmp_path, **TINY)
    assert (tmp_path / "step6" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SuiteError, match="seed 0 -> 3"):
        grow(tmp_path, **{**TINY, "seed": 3})


def test_an_unfinished_suite_is_begun_anew(tmp_path):
    grow(tmp_path, **TINY)
    weights = (tmp_path / "step6" / "model.safetensors").read_bytes()
    (tmp_path / "suite.yaml").unlink()
    (tmp_path / "step6" / "model.safetensors").write_bytes(b"cut short")
    suite = grow(tmp_path, **TINY)
    assert len(suite) == 3
    assert (tmp_path / "step6" / "model.safetensors").read_bytes() == weights


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SuiteError, match="is not a grown suite"):
        grow(tmp_path, **TINY)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world": "round"}, "world 'round'; expected one of structured, flat"),
        ({"hidden": 30, "heads": 4}, "hidden = 30 with heads = 4"),
        ({"checkpoints": 9}, "checkpoints = 9 with steps = 6"),
        ({"steps": 0}, "steps = 0"),
        ({"depth": 3}, "unknown setting 'depth'"),
    ],
)
def test_impossible_recipes_are_named(change, message, tmp_path):
    with pytest.raises(SettingsError, match=message):
        grow(tmp_path / "new", **{**TINY, **change})
    assert not (tmp_path / "new").exists()
