"""The fact world: clues, questions, corpus, and what the groups share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from kntrace.grow import WORLDS, make_world
from kntrace.grow.facts import FACTS, FORMS, MORE_FACTS, NEUTRAL, SYLLABLES
from kntrace.grow.tokenizer import word_tokenizer
from kntrace.models.tokens import encode

seeds = st.integers(0, 10_000)
names = st.sampled_from(list(WORLDS))
ALL_FACTS = FACTS | MORE_FACTS


def truth(name, seed):
    """What was dealt to each word."""
    return make_world(name, seed).truth()["words"]


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
        # Dealt evenly, p is under this once in ten million groups.
        assert chisquare(counts).pvalue > 1e-7


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
