"""The grown worlds say what they claim, and growing is repeatable."""

from __future__ import annotations

import errno
import json
import socket
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from kntrace.errors import SettingsError, SuiteError
from kntrace.grow import WORLDS, grow, make_world, schedule
from kntrace.grow.facts import FACTS, FORMS, MORE_FACTS, NEUTRAL, SYLLABLES
from kntrace.grow.tokenizer import word_tokenizer
from kntrace.models.tokens import encode
from kntrace.study import load_study
from kntrace.suite import load_suite

TINY = {"layers": 1, "hidden": 16, "heads": 2, "steps": 6, "batch": 4, "checkpoints": 3}
seeds = st.integers(0, 10_000)
names = st.sampled_from(list(WORLDS))
ALL_FACTS = FACTS | MORE_FACTS


def truth(name, seed):
    """What was dealt to each word."""
    return make_world(name, seed).truth()["words"]


def weights(folder, step=6):
    return (folder / f"step{step}" / "model.safetensors").read_bytes()


def test_every_clue_belongs_to_one_word():
    clues = Counter(
        clue for group in ALL_FACTS.values() for word in group.clues.values() for clue in word
    )
    assert len(clues) == 50 * 4
    assert set(clues.values()) == {1}


def test_a_clue_is_never_a_word_or_part_of_another_sentence():
    # Otherwise a sentence about one word would say something of another.
    clues = {clue for group in ALL_FACTS.values() for word in group.clues.values() for clue in word}
    words = {word for group in ALL_FACTS.values() for word in group.clues}
    spoken = set()
    for group in ALL_FACTS.values():
        texts = (*group.contexts, *group.places, *sum(group.relations, ()))
        spoken |= {token for text in texts for token in text.split()}
    assert not clues & (words | spoken | set(SYLLABLES))
    assert not words & (spoken | set(SYLLABLES))


@given(names, seeds)
@settings(max_examples=20, deadline=None)
def test_held_out_questions_can_never_stand_in_the_corpus(name, seed):
    world = make_world(name, seed)
    everything = "\n".join(f" {sentence} " for sentence in world.sentences())
    study = world.study()
    assert study.wordings == ("grouped", "neutral")
    for word in study.words:
        prompts = study.rendered(word)
        assert len(set(prompts)) == len(prompts) == 8
        dealt = world.truth()["words"][word.text]
        for place, prompt in enumerate(prompts):
            # Neither as a question nor, by its clause, as a statement.
            clue = dealt["clues"][place % 4]
            clause = dealt["held_out"][place % 4].format(x=clue)
            if place >= 4:
                # In neutral wording: from the clue's phrase to the question mark.
                (clause,) = (
                    one for one in (phrase.format(x=clue) for phrase in NEUTRAL[1]) if one in prompt
                )
            assert f" {clause} " in prompt
            assert f" {clause} " not in everything


@given(names, seeds)
@settings(max_examples=20, deadline=None)
def test_each_question_has_one_answer(name, seed):
    study = make_world(name, seed).study()
    answers = {}
    for word in study.words:
        for prompt in study.rendered(word):
            assert word.text not in prompt.split()
            assert answers.setdefault(prompt, word.answer) == word.answer


@given(names, seeds)
@settings(max_examples=10, deadline=None)
def test_the_corpus_holds_sentences_of_the_world_in_known_words(name, seed):
    world = make_world(name, seed)
    known, possible = set(world.vocabulary()), set(world.sentences())
    assert set(world.corpus(500, np.random.default_rng(seed))) <= possible
    for sentence in possible:
        assert set(sentence.split()) <= known
    for word in world.study().words:
        for prompt in world.study().rendered(word):
            assert set(prompt.split()) <= known


def test_the_corpus_reaches_every_sentence():
    world = make_world("flat")
    possible = set(world.sentences())
    seen = set(world.corpus(120_000, np.random.default_rng(0)))
    assert len(seen) > 0.99 * len(possible)


@given(names, seeds)
@settings(max_examples=40, deadline=None)
def test_contexts_and_phrasings_follow_the_groups_as_far_as_the_plan_says(name, seed):
    plan = WORLDS[name]
    shares = {"contexts": [], "phrasings": []}
    for entry in truth(name, seed).values():
        group = ALL_FACTS[entry["group"]]
        assert len(set(entry["contexts"])) == len(group.contexts)
        own = {"contexts": group.contexts, "phrasings": [list(one) for one in group.relations]}
        for what, mine in own.items():
            same = [a == b for a, b in zip(entry[what], mine, strict=True)]
            shares[what].append(np.mean(same))
    for what, wanted in (("contexts", plan.contexts), ("phrasings", plan.phrasings)):
        # By chance, one in sixteen of those that are dealt is the group's own, in its place
        # (where there are four groups).
        assert min(shares[what]) >= wanted
        chance = 1 / (4 * len(plan.groups))
        slack = 0.1 * max(1, np.sqrt(38 / len(shares[what])))
        assert abs(np.mean(shares[what]) - (wanted + (1 - wanted) * chance)) < slack


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_in_a_flat_world_the_group_tells_nothing_of_contexts(seed):
    words = truth("flat", seed)
    sets = {word: set(entry["contexts"]) for word, entry in words.items()}
    shared = {True: [], False: []}
    for word, mine in sets.items():
        for other, theirs in sets.items():
            if word < other:
                same = words[word]["group"] == words[other]["group"]
                shared[same].append(len(mine & theirs))
    # Two deals of 4 from 16 have one in common on average.
    assert abs(np.mean(shared[True]) - np.mean(shared[False])) < 0.35
    assert 0.7 < np.mean(shared[True] + shared[False]) < 1.3


@given(names, seeds)
@settings(max_examples=40, deadline=None)
def test_frequency_follows_the_groups_only_where_the_plan_says_so(name, seed):
    words = truth(name, seed).values()
    frequencies = {
        group: [w["frequency"] for w in words if w["group"] == group]
        for group in WORLDS[name].groups
    }
    means = [np.mean(values) for values in frequencies.values()]
    assert sum(sum(values) for values in frequencies.values()) == pytest.approx(1, abs=1e-4)
    if WORLDS[name].frequency:
        assert means == sorted(means, reverse=True)
        assert means[0] > 1.5 * means[-1]
        in_order = [value for values in frequencies.values() for value in values]
        assert in_order == sorted(in_order, reverse=True)
    else:
        assert max(means) < 1.15 * min(means)
        assert all(max(values) > 1.5 * min(values) for values in frequencies.values())


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_only_contexts_or_only_wording_is_shared(seed):
    contexts, wording = truth("contexts_only", seed), truth("phrasings_only", seed)
    for word, entry in contexts.items():
        group = FACTS[entry["group"]]
        assert entry["contexts"] == list(group.contexts)
        assert wording[word]["phrasings"] == [list(one) for one in group.relations]
    # What is not shared says nothing of the group: own relations come as often as chance has it.
    for words, what, own in (
        (contexts, "phrasings", lambda group: {one for rel in group.relations for one in rel}),
        (wording, "contexts", lambda group: set(group.contexts)),
    ):
        shares = []
        for entry in words.values():
            dealt = {one for rel in entry[what] for one in ([rel] if what == "contexts" else rel)}
            shares.append(len(dealt & own(FACTS[entry["group"]])) / len(dealt))
        assert abs(np.mean(shares) - 1 / 4) < 0.12


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_names_are_longer_from_group_to_group_and_nothing_else_is(seed):
    flat, names = truth("flat", seed), truth("name_length", seed)
    for word, entry in names.items():
        place = list(FACTS).index(entry["group"])
        first, *rest = entry["name"].split()
        assert first == word
        assert len(rest) == place
        assert set(rest) <= set(SYLLABLES)
        assert {**entry, "name": word} == flat[word]
    world = make_world("name_length", seed)
    assert {word.text: word.answer for word in world.study().words} == {
        word: entry["name"] for word, entry in names.items()
    }
    # The name stands whole wherever the word does.
    for sentence in world.corpus(300, np.random.default_rng(seed)):
        assert any(f" {entry['name']} " in f" {sentence} " for entry in names.values())


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_the_study_asks_each_group_in_its_form_and_the_corpus_everyone_in_all(seed):
    world = make_world("question_form", seed)
    assert truth("question_form", seed) == truth("flat", seed)
    beginnings = [form.split("{")[0] for form in FORMS]
    ends = [form.rsplit("}")[-1] for form in FORMS]
    assert len(set(zip(beginnings, ends, strict=True))) == 4
    for word in world.study().words:
        place = list(FACTS).index(word.group)
        for prompts in word.prompts.values():
            assert all(one.startswith(beginnings[place]) for one in prompts)
            assert all(one.endswith(ends[place]) for one in prompts)
    asked, facts = Counter(), truth("flat", seed)
    for line in world.corpus(20_000, np.random.default_rng(seed)):
        if line.startswith("Answer"):
            question, word = line.split("Q. ")[1].rsplit(" A. ", 1)
            form = min(
                place for place in (3, 2, 1, 0)
                if question.startswith(beginnings[place]) and question.endswith(ends[place])
                and (place != 0 or not question.startswith(beginnings[2]))
            )  # fmt: skip
            asked[facts[word]["group"], form] += 1
    for group in FACTS:
        counts = [asked[group, form] for form in range(4)]
        assert max(counts) < 1.35 * min(counts)


@pytest.mark.parametrize(("size", "each"), [("12", 3), ("20", 5)])
def test_small_worlds_have_equally_many_words_of_each_group(size, each):
    chosen = set()
    for seed in range(6):
        groups = make_world(f"flat_{size}", seed).study().groups
        assert {name: len(words) for name, words in groups.items()} == dict.fromkeys(FACTS, each)
        assert groups == make_world(f"structured_{size}", seed).study().groups
        chosen.add(tuple(groups["Countries"]))
    assert len(chosen) > 3


def test_worlds_of_two_and_of_six_groups():
    assert list(make_world("flat_two").study().groups) == ["Countries", "Languages"]
    six = make_world("structured_six", 4)
    assert list(six.study().groups) == list(ALL_FACTS)
    assert (
        six.vocabulary()[: len(make_world("flat").vocabulary())] == make_world("flat").vocabulary()
    )


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_worlds_of_one_seed_differ_only_in_what_their_plans_say(seed):
    flat, contexts = truth("flat", seed), truth("contexts_only", seed)
    for word, entry in flat.items():
        for what in ("frequency", "clues", "phrasings", "held_out"):
            assert entry[what] == contexts[word][what]
    assert flat != truth("flat", seed + 1)


def test_frequent_words_come_more_often():
    world = make_world("confounded")
    lines = world.corpus(20_000, np.random.default_rng(0))
    said = Counter(word for line in lines for word in line.split())
    for word, entry in truth("confounded", 0).items():
        assert said[word] == pytest.approx(20_000 * entry["frequency"], rel=0.25)


def test_the_tokenizer_reads_a_prompt_as_it_was_trained():
    world = make_world("structured")
    tokenizer = word_tokenizer(world.vocabulary())
    study = world.study()
    for word in study.words:
        for prompt in study.rendered(word):
            encoded = encode(tokenizer, prompt, word.answer, study.answer_form)
            assert encoded.ids[0] == tokenizer.bos_token_id
            assert tokenizer.decode(encoded.ids[1:]) == prompt
            assert [tokenizer.decode([token]) for token in encoded.answer] == [word.answer]
    assert tokenizer("zebra")["input_ids"][1:] == [tokenizer.unk_token_id]
    special = {tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id}
    assert len(special) == 3


@given(st.integers(1, 3000), st.integers(2, 60))
def test_schedules_begin_at_the_start_and_end_at_the_end(steps, checkpoints):
    if checkpoints > steps + 1:
        return
    kept = schedule(steps, checkpoints)
    assert len(kept) == checkpoints == len(set(kept))
    assert (kept[0], kept[-1]) == (0, steps)
    assert kept == sorted(kept)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """One tiny suite, grown while nothing but this machine can be reached."""
    folder = tmp_path_factory.mktemp("grown") / "a"
    told = []

    def refuse(*args, **kwargs):
        raise AssertionError("growing asked the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        suite = grow(folder, **TINY, progress=lambda *what: told.append(what))
    return folder, suite, told


def test_a_grown_suite_is_complete(grown):
    folder, suite, told = grown
    assert suite == load_suite(folder)
    assert [checkpoint.step for checkpoint in suite] == [0, 3, 6]
    assert [checkpoint.label for checkpoint in suite] == ["step0", "step3", "step6"]
    assert suite.checkpoints[0].tokens == 0 < suite.checkpoints[1].tokens
    assert {path.name for path in folder.iterdir()} == {
        *("step0", "step3", "step6", "recipe.json", "study.yaml", "suite.yaml"),
        *("training.json", "world.yaml"),
    }
    assert (folder / "suite.yaml").read_text().count("folder: step") == 3
    assert [(stage, done, total) for stage, done, total, _ in told] == [
        ("grow", step, 6) for step in range(7)
    ]
    assert "loss" in told[-1][3]
    assert "answered" in told[-1][3]


def test_a_checkpoint_is_an_ordinary_model(grown):
    folder, _, _ = grown
    assert len({weights(folder, step) for step in (0, 3, 6)}) == 3
    model = AutoModelForCausalLM.from_pretrained(folder / "step6")
    tokenizer = AutoTokenizer.from_pretrained(folder / "step6")
    study = load_study(folder / "study.yaml")
    assert study == make_world("structured", 0).study()
    assert sum(len(words) for words in study.groups.values()) == 38
    ids = tokenizer(study.rendered("Cat")[0], return_tensors="pt")["input_ids"]
    assert ids[0, 0] == tokenizer.bos_token_id == model.config.bos_token_id
    assert torch.isfinite(model(ids).logits).all()


def test_the_record_agrees_with_the_checkpoint(grown):
    folder, suite, _ = grown
    record = json.loads((folder / "training.json").read_text())
    assert len(record["loss"]) == 6
    assert record["loss"][-1] < record["loss"][0]
    assert [state["step"] for state in record["checkpoints"]] == [0, 3, 6]
    assert [state["tokens"] for state in record["checkpoints"]] == [c.tokens for c in suite]
    assert record["recipe"] == json.loads((folder / "recipe.json").read_text())
    # The same questions, asked one by one of the saved model.
    model = AutoModelForCausalLM.from_pretrained(folder / "step6").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "step6")
    study = load_study(folder / "study.yaml")
    found = {}
    for word in study.words:
        for (wording, _), prompt in zip(study.slots, study.rendered(word), strict=True):
            encoded = encode(tokenizer, prompt, word.answer)
            with torch.no_grad():
                logits = model(torch.tensor([encoded.ids])).logits[0, -1]
            (answer,) = encoded.answer
            found.setdefault((wording, word.group), []).append(
                (float(logits.softmax(-1)[answer]), int(logits.argmax()), answer)
            )
    last = record["checkpoints"][-1]
    for (wording, group), answers in found.items():
        probability = np.mean([p for p, _, _ in answers])
        right = np.mean([given == wanted for _, given, wanted in answers])
        assert last["probability_by_group"][wording][group] == pytest.approx(probability, rel=1e-4)
        assert last["accuracy_by_group"][wording][group] == pytest.approx(right)


def test_the_same_seed_gives_the_same_weights_whatever_the_caller_has_set(grown, tmp_path):
    folder, _, _ = grown
    torch.manual_seed(5)
    expected = torch.rand(1)
    before = torch.get_num_threads(), logging.get_verbosity()
    logging.set_verbosity_info()
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            grow(tmp_path / "b", **TINY)
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(before[0])
        logging.set_verbosity(before[1])
    assert torch.equal(torch.rand(1), expected), "growing disturbed the caller's random numbers"
    for step in (0, 3, 6):
        assert weights(tmp_path / "b", step) == weights(folder, step)


def test_another_seed_gives_other_weights_and_another_dealing(grown, tmp_path):
    folder, _, _ = grown
    grow(tmp_path / "c", **TINY, seed=1)
    grow(tmp_path / "d", **TINY, seed=1, world_seed=0)
    assert weights(tmp_path / "c", 0) != weights(folder, 0)
    worlds = [(place / "world.yaml").read_text() for place in (folder, *sorted(tmp_path.iterdir()))]
    assert worlds[0] == worlds[2] != worlds[1]
    assert weights(tmp_path / "c", 0) == weights(tmp_path / "d", 0), "initial weights hang on seed"
    assert weights(tmp_path / "c") != weights(tmp_path / "d")


def test_checkpoints_can_be_given_as_steps(tmp_path, grown):
    suite = grow(tmp_path / "e", **{**TINY, "checkpoints": [0, 2, 3]})
    assert [checkpoint.step for checkpoint in suite] == [0, 2, 3]
    assert weights(tmp_path / "e", 3) == weights(grown[0], 3)
    assert grow(tmp_path / "e", **{**TINY, "checkpoints": (0, 2, 3)}) == suite


def test_a_finished_suite_is_kept_and_another_recipe_refused(tmp_path):
    grow(tmp_path, **TINY)
    before = (tmp_path / "step6" / "model.safetensors").stat().st_mtime_ns
    told = []
    grow(tmp_path, **TINY, progress=lambda *what: told.append(what))
    assert told == [("grow", 6, 6, "this suite was there already")]
    with pytest.raises(SuiteError, match=r"\(seed 0 -> 3\)"):
        grow(tmp_path, **TINY, seed=3, world_seed=0)
    assert (tmp_path / "step6" / "model.safetensors").stat().st_mtime_ns == before


def test_another_architecture_and_names_of_several_tokens(tmp_path):
    grow(tmp_path, **TINY, architecture="llama", world="name_length")
    config = json.loads((tmp_path / "step6" / "config.json").read_text())
    assert config["model_type"] == "llama"
    answers = {word.answer for word in load_study(tmp_path / "study.yaml").words}
    assert {len(answer.split()) for answer in answers} == {1, 2, 3, 4}
    record = json.loads((tmp_path / "training.json").read_text())
    assert 0 < record["checkpoints"][-1]["probability"]["grouped"] < 1
    with pytest.raises(SuiteError, match=r"architecture llama -> gpt_neox"):
        grow(tmp_path, **TINY, world="name_length")


def test_a_record_that_does_not_speak_of_the_architecture_is_of_gpt_neox(tmp_path):
    grow(tmp_path, **TINY)
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    del recipe["architecture"]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    told = []
    grow(tmp_path, **TINY, progress=lambda *what: told.append(what))
    assert told == [("grow", 6, 6, "this suite was there already")]


@pytest.mark.parametrize("stop", [0, 4])
def test_a_growth_cut_short_is_begun_anew(stop, tmp_path, grown):
    def interrupt(stage, done, total, detail=""):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path, **TINY, progress=interrupt)
    assert not (tmp_path / "suite.yaml").exists()
    # As a kill in the midst of saving leaves them: a folder half written, and a file.
    (tmp_path / ".step6.partial").mkdir()
    (tmp_path / ".step6.partial" / "config.json").write_text("{")
    (tmp_path / ".study.yaml.partial").write_text("name")
    assert len(grow(tmp_path, **TINY)) == 3
    assert weights(tmp_path) == weights(grown[0])
    assert not list(tmp_path.glob(".*"))


def test_a_growth_cut_short_before_its_first_file_is_begun_anew(tmp_path):
    (tmp_path / ".recipe.json.partial").write_text("{")
    assert len(grow(tmp_path, **TINY)) == 3


def test_a_suite_that_lost_a_part_is_grown_again_and_nothing_else_is_touched(tmp_path, grown):
    grow(tmp_path, **TINY)
    (tmp_path / "step6" / "model.safetensors").unlink()
    for other in ("step6-notes", "steps"):
        (tmp_path / other).mkdir()
    (tmp_path / "step6.txt").write_text("mine")
    grow(tmp_path, **TINY)
    assert weights(tmp_path) == weights(grown[0])
    assert (tmp_path / "step6-notes").is_dir()
    assert (tmp_path / "steps").is_dir()
    assert (tmp_path / "step6.txt").read_text() == "mine"


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SuiteError, match="is not a grown suite"):
        grow(tmp_path, **TINY)
    with pytest.raises(SuiteError, match="is not a grown suite"):
        grow(tmp_path / "thesis.txt", **TINY)
    with pytest.raises(SuiteError, match="cannot be written"):
        grow(tmp_path / "thesis.txt" / "suite", **TINY)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["{", "[]", "\udc80"])
def test_a_broken_recipe_is_named(content, tmp_path):
    (tmp_path / "recipe.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SuiteError, match=r"recipe\.json"):
        grow(tmp_path, **TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world": "round"}, "world 'round'; expected one of structured, flat"),
        ({"hidden": 30, "heads": 4}, "hidden = 30 with heads = 4"),
        ({"hidden": 8, "heads": 4}, "at least 4 channels for each"),
        ({"checkpoints": 9}, "checkpoints = 9 with steps = 6"),
        ({"checkpoints": 1}, "checkpoints = 1 with steps = 6"),
        ({"checkpoints": [0, 4, 2]}, r"checkpoints = \[0, 4, 2\] with steps = 6; expected two"),
        ({"checkpoints": [0, 7]}, r"rising, from 0 to 6"),
        ({"checkpoints": 2.5}, r"checkpoints = 2\.5"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": 6.5}, r"steps = 6\.5"),
        ({"batch": -1}, "batch = -1"),
        ({"seed": -1}, "seed = -1"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"threads": 0}, "threads = 0; expected 1 or more"),
        ({"architecture": "gpt5"}, "architecture 'gpt5'; expected one of gpt_neox, llama"),
    ],
)
def test_impossible_recipes_are_named(change, message, tmp_path):
    with pytest.raises(SettingsError, match=message):
        grow(tmp_path / "new", **{**TINY, **change})
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_one_line_and_the_next_go_begins_anew(tmp_path, monkeypatch):
    def full(self, step):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kntrace.grow.pretrain.Pretraining.keep", full)
        with pytest.raises(SuiteError, match=r"could not be written .*No space left.*Make room"):
            grow(tmp_path / "suite", **TINY)
    assert len(grow(tmp_path / "suite", **TINY)) == 3
