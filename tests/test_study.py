"""Studies: what is read, what it becomes, and what is said of files that are wrong."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import time
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kntrace.errors import StudyError
from kntrace.study import AnswerForm, Study, Word, bundled_studies, load_study

PAPER_WORDS = {
    "Animals": "Cat Dog Fox Ant Bat Rat Hen Wolf",
    "Colours": "Blue Red Green Black White Brown Gray",
    "Countries": "Canada Germany Brazil France England India China Mexico Russia Iran Japan Israel "
    "Australia Spain",
    "Languages": "English Spanish French Chinese Japanese German Russian Italian Portuguese",
}

STUDY = """\
name: pets
template: "Q. {question} A. "
answer_form: space
groups:
  Animals:
    Cat: [Who purrs?, Who mews?]
    Dog:
      main:
        - Who barks?
      neutral: [What barks?, What growls?, What digs?]
    Fox: {answer: fox, prompts: [Who is sly?]}
  Colours:
    Red:
      answer: " red"
      prompts: {neutral: [What is blood?], main: [How is a rose?, How is a cherry?]}
"""


def write(folder: Path, text: str | bytes, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: str | Path, **options: Any) -> str:
    with pytest.raises(StudyError) as caught:
        load_study(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# What is read


def test_every_form_of_a_word(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, STUDY))
    assert study.name == "pets"
    assert study.answer_form == "space"
    assert study.groups == {"Animals": ("Cat", "Dog", "Fox"), "Colours": ("Red",)}
    assert [word.answer for word in study.words] == ["Cat", "Dog", "fox", " red"]
    assert study.wordings == ("main", "neutral")
    assert study.slots == (
        ("main", 0),
        ("main", 1),
        ("neutral", 0),
        ("neutral", 1),
        ("neutral", 2),
    )
    cat, dog, _, red = (study.rendered(word) for word in study.words)
    assert cat == ("Q. Who purrs? A. ", "Q. Who mews? A. ", None, None, None)
    assert dog[1] is None
    assert dog[2:] == ("Q. What barks? A. ", "Q. What growls? A. ", "Q. What digs? A. ")
    assert red == (
        "Q. How is a rose? A. ",
        "Q. How is a cherry? A. ",
        "Q. What is blood? A. ",
        None,
        None,
    )
    assert study.rendered("Dog") == dog
    with pytest.raises(StudyError, match="no word 'Cow'"):
        study.rendered("Cow")


def test_only_groups_are_needed(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, "groups:\n  A:\n    Cat: [Who mews?]\n", "my pets.yaml"))
    assert (study.name, study.template, study.answer_form) == ("my pets", None, "as_follows")
    assert study.wordings == ("main",)
    assert study.rendered("Cat") == ("Who mews?",)


def test_words_that_older_yaml_reads_as_truth_values_or_dates(tmp_path: Path) -> None:
    text = "groups:\n  A:\n" + "".join(
        f"    {word}: [{word}]\n" for word in ("no", "yes", "on", "off", "y", "2001-01-01", "12:30")
    )
    study = load_study(write(tmp_path, text))
    assert [word.text for word in study.words] == [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "2001-01-01",
        "12:30",
    ]
    assert study.words[5].prompts == {"main": ("2001-01-01",)}


def test_braces_are_only_braces(tmp_path: Path) -> None:
    text = """\
template: "{x} {0} {{question} {} %s"
groups:
  A:
    Cat: ["Who {mews} {question} {}?"]
"""
    study = load_study(write(tmp_path, text))
    assert study.rendered("Cat") == ("{x} {0} {Who {mews} {question} {}? {} %s",)


def test_strange_words_are_harmless(tmp_path: Path) -> None:
    words = ["a/b", "../..", "C:\\x", "日本", "*", "[x]", "a:b", "%s", "<b>", "NaN"]
    content = {"groups": {"A/B": {word: [f"{word}?"] for word in words}}}
    study = load_study(write(tmp_path, json.dumps(content), "study.json"))
    assert study.groups == {"A/B": tuple(words)}
    assert load_study(write(tmp_path, study.to_yaml())).words == study.words


def test_an_answer_may_stand_in_its_own_question(tmp_path: Path) -> None:
    text = "groups:\n  A:\n    Cat: [Is a Cat a Cat?]\n"
    assert load_study(write(tmp_path, text)).rendered("Cat") == ("Is a Cat a Cat?",)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"\xef\xbb\xbf" + STUDY.encode(), "study.yaml"),
        (STUDY.replace("\n", "\r\n"), "study.yaml"),
        ("%YAML 1.2\n---\n" + STUDY + "...\n", "study.yml"),
        (STUDY, "study"),
        (STUDY, "study.txt"),
        (STUDY.replace("name: pets\n", "") + "name: pets\n", "study.yaml"),
        (STUDY.replace("name: pets\n", "name: others\n"), "study.yaml"),
    ],
    ids=["byte-order mark", "line ends", "markers", "no suffix", "suffix", "key order", "name"],
)
def test_digest_is_of_the_content_alone(tmp_path: Path, text: str | bytes, name: str) -> None:
    plain = load_study(write(tmp_path, STUDY, "plain.yaml"))
    assert load_study(write(tmp_path, text, name)).digest == plain.digest


@pytest.mark.parametrize("name", ["study.json", "study.yaml", "study", "study.txt"])
@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_as_yaml_is(tmp_path: Path, name: str, indent: int | str | None) -> None:
    plain = load_study(write(tmp_path, STUDY, "plain.yaml"))
    content = {
        "answer_form": plain.answer_form,
        "template": plain.template,
        "name": "pets",
        "groups": {
            group: {
                word.text: {"answer": word.answer, "prompts": word.prompts}
                for word in plain.words
                if word.group == group
            }
            for group in plain.groups
        },
    }
    study = load_study(write(tmp_path, json.dumps(content, indent=indent), name))
    assert study == plain
    assert study.digest == plain.digest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A. ", "A."),
        ("answer_form: space", "answer_form: no_space"),
        ("Who purrs?, Who mews?", "Who mews?, Who purrs?"),
        ("Who purrs?", "Who purrs ?"),
        ("answer: fox", "answer: Fox"),
        ("Colours:", "Colors:"),
        ("    Cat:", "    Kitty:"),
        ("      main:\n", "      principal:\n"),
    ],
)
def test_digest_sees_every_change(tmp_path: Path, before: str, after: str) -> None:
    assert before in STUDY
    changed = STUDY.replace(before, after)
    if "principal" in after:  # the first wording is every word's
        changed = changed.replace("main:", "principal:").replace(
            "[Who purrs?, Who mews?]", "{principal: [Who purrs?, Who mews?]}"
        )
        changed = changed.replace("[Who is sly?]", "{principal: [Who is sly?]}")
    one = load_study(write(tmp_path, STUDY))
    assert load_study(write(tmp_path, changed, "other.yaml")).digest != one.digest


def test_digest_sees_the_order_of_words(tmp_path: Path) -> None:
    texts = [
        f"groups:\n  A:\n    {a}: [q of {a}?]\n    {b}: [q of {b}?]\n"
        for a, b in (("Cat", "Dog"), ("Dog", "Cat"))
    ]
    one, two = (load_study(write(tmp_path, text)) for text in texts)
    assert one.digest != two.digest


def test_aliases_are_read(tmp_path: Path) -> None:
    text = """\
groups:
  A:
    Cat: &questions [Who mews?, &who Who?]
    Kitty: *questions
    Puss: [*who]
"""
    study = load_study(write(tmp_path, text))
    assert study.rendered("Kitty") == study.rendered("Cat") == ("Who mews?", "Who?")
    assert study.rendered("Puss") == ("Who?", None)


def test_two_thousand_words_take_a_second(tmp_path: Path) -> None:
    groups: dict[str, dict[str, list[str]]] = {"A": {}, "B": {}}
    for number in range(2000):
        groups["AB"[number // 1000]][f"word{number}"] = [
            f"Which thing of all the things there are has the number {number}.{place}?"
            for place in range(4)
        ]
    made = load_study(write(tmp_path, json.dumps({"groups": groups}), "study.json"))
    path = write(tmp_path, made.to_yaml())
    start = time.process_time()
    study = load_study(path)
    taken = time.process_time() - start
    assert study == made
    assert taken < 5  # about one second; the rest is for slow machines


def test_a_study_survives_pickling_and_cannot_be_changed(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, STUDY))
    digest = study.digest
    again = pickle.loads(pickle.dumps(study))
    assert again == study
    assert again.digest == digest
    with pytest.raises(ValueError, match="frozen"):
        study.name = "other"


# Round trip

_CONTROL = {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
_ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=_CONTROL), max_size=20)
_TRICKY = st.sampled_from(
    "no yes 12 1e3 null ~ a:␣b -␣a #x x␣#y {question} { } ' \" &a *a !t | > % @ ` 2001-01-01 << = "
    "true --- ... ?␣a ␣a␣ ⏎a a⏎ a⏎⏎␣b⏎ a⇥b ⇥a a\u2028b \ufeffa a/b answer prompts main café 日本 😀"
    " , [ ]".replace("⏎", "\n")
    .replace("⇥", "\t")
    .split(" ")
).map(lambda text: text.replace("␣", " "))
_TEXTS = st.one_of(_ANY, _TRICKY, st.just("a " * 300)).filter(str.strip)
_NAMES = _TEXTS.map(lambda text: " ".join(text.split()))
_QUESTIONS = st.lists(_TEXTS, min_size=1, max_size=3, unique=True).map(tuple)
_PROMPTS = st.one_of(
    _QUESTIONS.map(lambda questions: {"main": questions}),
    st.dictionaries(_NAMES, _QUESTIONS, max_size=2).map(lambda more: {"main": ("q",), **more}),
)
_TEMPLATES = st.tuples(_TEXTS, _TEXTS).map("{question}".join)


@st.composite
def studies(draw: st.DrawFn) -> Study:
    texts = draw(st.lists(_NAMES, min_size=1, max_size=4, unique=True))
    groups = sorted(draw(st.lists(_NAMES, min_size=len(texts), max_size=len(texts))))
    template = draw(st.none() | _TEMPLATES.filter(lambda text: text.count("{question}") == 1))
    words = tuple(
        Word(text=text, group=group, answer=draw(_TEXTS), prompts=draw(_PROMPTS))
        for text, group in zip(texts, groups, strict=True)
    )
    wordings = {wording for word in words for wording in word.prompts}
    for one in wordings:  # wordings that look like slips of one another are refused
        assume(not get_close_matches(one.lower(), [two.lower() for two in wordings - {one}]))
    forms: list[AnswerForm] = ["as_follows", "space", "no_space"]
    return Study(
        name=draw(_NAMES), template=template, answer_form=draw(st.sampled_from(forms)), words=words
    )


@settings(deadline=None, max_examples=150)
@given(study=studies())
def test_yaml_round_trip(study: Study, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "round trip.yaml"
    path.write_text(study.to_yaml(), encoding="utf-8")
    again = load_study(path)
    assert again == study
    assert again.digest == study.digest
    assert again.slots == study.slots
    assert [again.rendered(word) for word in again.words] == [
        study.rendered(word) for word in study.words
    ]


# The plain form of the public code

PLAIN = '{"Red": ["How is a rose?"],\n "Cat": ["Who purrs?", "Who mews?"],\n "Dog": ["Who barks?"]}'
GROUPS = {"Animals": ["Cat", "Dog"], "Colours": ["Red"]}


@pytest.mark.parametrize("kind", ["dict", "json", "yaml"])
def test_the_plain_form_with_groups(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, PLAIN, "questions.json")
    groups: Any = {
        "dict": GROUPS,
        "json": tmp_path / "groups.json",
        "yaml": str(tmp_path / "groups.yaml"),
    }[kind]
    write(tmp_path, json.dumps(GROUPS), "groups.json")
    write(tmp_path, "Animals: [Cat, Dog]\nColours:\n  - Red\n", "groups.yaml")
    study = load_study(path, groups=groups)
    assert study.name == "questions"
    assert study.template is None
    assert study.groups == {"Animals": ("Cat", "Dog"), "Colours": ("Red",)}
    assert study.rendered("Cat") == ("Who purrs?", "Who mews?")


def test_the_plain_form_without_groups(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, PLAIN, "questions.json"))
    assert "questions.json:1: the file has the plain form" in message
    assert "groups=" in message


@pytest.mark.parametrize(
    ("groups", "parts"),
    [
        ({"Animals": ["Cat", "Dog"]}, ["questions.json:1", "'Red' is in no group"]),
        (
            {"Animals": ["Cat", "Dog", "Cow"], "Colours": ["Red"]},
            ["'Cow' of group 'Animals' has no questions"],
        ),
        (
            {"Animals": ["Cat", "Dgo"], "Colours": ["Red"]},
            ["groups['Animals']", "'Dgo'", "Did you mean 'Dog'?"],
        ),
        ({"Animals": ["Cat", "Dog"], "Colours": ["Red", "Cat"]}, ["'Cat' stands in group"]),
        ({"Animals": ["Cat", "Dog", "Cat"], "Colours": ["Red"]}, ["'Cat' stands in group"]),
        ({"Animals": ["Cat", "Dog", "Red"], "Colours": []}, ["the group 'Colours' is empty"]),
        ({}, ["the list of groups is empty"]),
        ({"Animals": "Cat"}, ["the group 'Animals' is the text 'Cat'", "a list of words"]),
        ({"Animals": ["Cat", 12]}, ["word 2 of group 'Animals' is the number 12"]),
        ({1: ["Cat"]}, ["the number 1"]),
        ({" ": ["Cat", "Dog", "Red"]}, ["the group ' ' is empty"]),
    ],
)
def test_groups_that_do_not_fit(
    tmp_path: Path, groups: dict[str, list[str]], parts: list[str]
) -> None:
    message = refusal(write(tmp_path, PLAIN, "questions.json"), groups=groups)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Animals: [Cat, Dog]\nColours:\n  - Red\n  - Cat\n", [":4", "'Cat' stands in group"]),
        ("Animals: [Cat, Dog]\nColours: [Red]\nMore:\n", [":3", "the group 'More' is empty"]),
        ("Animals: [Cat, Dog]\nColours: [Red]\nColours: [Red]\n", [":3", "a second time"]),
        ("Animals: [Cat, Dog]\nColours:\n - Red\n - no\n", [":4", "'no' of group 'Colours'"]),
        ("Animals: [Cat, Dog, 1]\nColours: [Red]\n", [":1", '"1"']),
        ("groups:\n  Animals: [Cat, Dog]\n", [":1", "the group 'groups' is a set of entries"]),
        ("", ["is empty"]),
    ],
)
def test_groups_files_that_do_not_fit(tmp_path: Path, text: str, parts: list[str]) -> None:
    questions = write(tmp_path, PLAIN, "questions.json")
    message = refusal(questions, groups=write(tmp_path, text, "groups.yaml"))
    for part in ["groups.yaml", *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("plain", "parts"),
    [
        ('{"Red": [],\n"Cat": ["a"], "Dog": ["b"]}', [":1", "the list of prompts of 'Red'"]),
        ('{"Red": ["a"],\n"Cat": ["a",\n"a"], "Dog": ["b"]}', [":3", "prompt 2 of 'Cat' is"]),
        ('{"Red": ["a"],\n"Cat": "a", "Dog": ["b"]}', [":2", "'Cat' is the text 'a'"]),
        ('{"Red": ["a"],\n"Cat": [3], "Dog": ["b"]}', [":2", "prompt 1 of 'Cat' is the number 3"]),
        ('{"Red": ["a"],\n"Cat": null, "Dog": ["b"]}', [":2", "'Cat' is empty"]),
        ('{"Red": ["a"],\n"Cat": ["a"],\n"Red": ["b"]}', [":3", "'Red' stands here a second time"]),
        ("{}", ["'Cat' of group 'Animals' has no questions"]),
        ("[]", [":1", "not a set of named entries"]),
    ],
)  # fmt: skip
def test_plain_files_that_are_wrong(tmp_path: Path, plain: str, parts: list[str]) -> None:
    message = refusal(write(tmp_path, plain, "questions.json"), groups=GROUPS)
    for part in ["questions.json", *parts]:
        assert part in message


def test_groups_of_a_study_that_has_its_own(tmp_path: Path) -> None:
    assert "groups of its own" in refusal(write(tmp_path, STUDY), groups=GROUPS)


# Files that are wrong: (text, parts of the message; `:n` is the line)

G = "groups:\n  A:\n    Cat: [Who purrs?, Who mews?]\n"
WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "misspelt key": ("nmae: x\n" + G, [":1: unknown key 'nmae'", "Did you mean 'name'?"]),
    "misspelt groups": ("name: x\ngruops:\n  A:\n    Cat: [q]\n", [":2", "mean 'groups'?"]),
    "key that is like none": ("xyzzy: {}\n" + G, [":1: unknown key 'xyzzy'", "one of name, "]),
    "misspelt key of a word": (
        G + "    Dog:\n      answer: dog\n      promts: [q]\n",
        [":6: unknown key 'promts'", "Did you mean 'prompts'?"],
    ),
    "misspelt answer": (
        G + "    Dog:\n      anwser: dog\n      prompts: [q]\n",
        [":5: unknown key 'anwser'", "Did you mean 'answer'?"],
    ),
    "both keys misspelt": (
        G + "    Dog:\n      anwser: dog\n      promts: [q]\n",
        [":5: unknown key 'anwser'", "Did you mean 'answer'?"],
    ),
    "prompts misspelt, alone": (
        G + "    Dog:\n      promts: [q]\n",
        [":4: the word 'Dog'", "Did you mean 'prompts'?"],
    ),
    "misspelt wording": (
        "groups:\n  A:\n"
        + "".join(f"    {w}: {{main: [q], neutral: [r]}}\n" for w in ("Cat", "Dog"))
        + "    Fox: {main: [q], netural: [r]}\n",
        [":5: the word 'Fox'", "only 1 of 3", "Did you mean 'neutral'?"],
    ),
    "word without the first wording": (
        "groups:\n  A:\n    Cat: {grouped: [a], neutral: [b]}\n    Dog: [q]\n",
        [":4: the word 'Dog' has no prompts in the wording 'grouped', only in main"],
    ),
    "tab": ("groups:\n\tA:\n\t\tCat: [q]\n", [":2: the line is indented with a tab", "spaces"]),
    "tab after a value": ("name: x\n\tfoo: 1\n" + G, [":2: the line is indented with a tab"]),
    "tab before a list": ("groups:\n  A:\n    Cat:\n\t- x\n", [":4", "indented with a tab"]),
    "spaces, then a tab": (
        "groups:\n  A:\n    Cat:\n      - x\n  \t  - y\n",
        [":5", "indented with a tab"],
    ),
    "no prompts": ("groups:\n  A:\n    Cat: []\n", [":3", "the list of prompts of 'Cat' is empty"]),
    "prompts left out": ("groups:\n  A:\n    Cat:\n    Dog: [q]\n", [":3", "'Cat' is empty"]),
    "no prompts of a wording": (
        "groups:\n  A:\n    Cat: {main: [q],\n      neutral: []}\n",
        [":4", "the list of prompts of 'Cat' in the wording 'neutral' is empty"],
    ),
    "an answer and no prompts": (
        "groups:\n  A:\n    Cat: {answer: x}\n",
        [":3", "the list of prompts of 'Cat' is missing"],
    ),
    "prompts that are one text": (
        "groups:\n  A:\n    Cat: Who mews?\n",
        [":3", "is the text 'Who mews?'", "a list of questions"],
    ),
    "empty prompt": ("groups:\n  A:\n    Cat: [q, '']\n", [":3: prompt 2 of 'Cat' is empty"]),
    "blank prompt": ("groups:\n  A:\n    Cat:\n    - ' '\n", [":4: prompt 1 of 'Cat' is empty"]),
    "prompt left out": ("groups:\n  A:\n    Cat:\n    - q\n    -\n", [":5: prompt 2 of 'Cat'"]),
    "prompt that is a mapping": (
        "groups:\n  A:\n    Cat:\n    - q\n    - Q: who?\n",
        [":5: prompt 2 of 'Cat' is a set of entries"],
    ),
    "number as prompt": (
        "groups:\n  A:\n    Cat:\n    - q\n    - 012\n",
        [":5: prompt 2 of 'Cat' is the number 012", 'Put it in quotes: "012".'],
    ),
    "truth value as prompt": (
        "groups:\n  A:\n    Cat: [q, True]\n",
        [":3: prompt 2 of 'Cat' is the truth value True", 'quotes: "True"'],
    ),
    "empty word": ("groups:\n  A:\n    '': [q]\n", [":3: the word '' is empty"]),
    "blank word": ("groups:\n  A:\n    ' ': [q]\n", [":3: the word ' ' is empty"]),
    "word with a blank before it": (
        "groups:\n  A:\n    ' Cat': [q]\n",
        [":3: the word ' Cat' has blanks before or after it"],
    ),
    "number as word": ("groups:\n  A:\n    12: [q]\n", [":3: the key 12", 'quotes: "12"']),
    "truth value as word": ("groups:\n  A:\n    true: [q]\n", [":3: the key true", '"true"']),
    "nothing as word": ("groups:\n  A:\n    ~: [q]\n", [":3: the key ~"]),
    "list as word": ("groups:\n  A:\n    ? [a]\n    : [q]\n", [":3", "a key is itself a list"]),
    "empty answer": ("groups:\n  A:\n    Cat: {answer: '', prompts: [q]}\n", [":3: the answer of"]),
    "number as answer": (
        "groups:\n  A:\n    Cat: {answer: 7, prompts: [q]}\n",
        [":3: the answer of 'Cat' is the number 7", '"7"'],
    ),
    "word twice in a group": (
        G + "    Dog: [q]\n    Cat: [q]\n",
        [":5: 'Cat' stands here a second time, after line 3"],
    ),
    "word in two groups": (
        G + "  B:\n    Cat: [q]\n",
        [":5: the word 'Cat' stands a second time, after the one in group 'A'"],
    ),
    "group twice": (G + "  A:\n    Dog: [q]\n", [":4: 'A' stands here a second time"]),
    "prompt twice": (
        "groups:\n  A:\n    Cat:\n    - q\n    - r\n    - q\n",
        [":6: prompt 3 of 'Cat' is the same as prompt 1"],
    ),
    "empty group": (G + "  B:\n", [":4: the group 'B' is empty"]),
    "empty group in braces": (G + "  B: {}\n", [":4: the group 'B' is empty"]),
    "group that is a list": ("groups:\n  A: [Cat, Dog]\n", [":2: the group 'A' is a list"]),
    "group without a name": ("groups:\n  '':\n    Cat: [q]\n", [":2: the group '' is empty"]),
    "no groups": ("name: x\n", [":1: `groups` is missing"]),
    "groups left out": ("name: x\ngroups:\n", [":2: `groups` is empty"]),
    "groups empty": ("name: x\ngroups: {}\n", [":2: `groups` is empty"]),
    "no place in the template": ("template: Q.\n" + G, [":1: the template holds no {question}"]),
    "two places in the template": (
        "template: '{question} {question}'\n" + G,
        [":1: the template holds {question} twice", "exactly once"],
    ),
    "three places in the template": (
        "template: '{question}{question}{question}'\n" + G,
        [":1: the template holds {question} 3 times"],
    ),
    "number as template": ("template: 3\n" + G, [":1: the template is the number 3"]),
    "unknown form of answer": (
        "name: x\nanswer_form: spaec\n" + G,
        [":2: the answer_form is the text 'spaec'", "Did you mean 'space'?"],
    ),
    "no form of answer": ("answer_form:\n" + G, [":1: the answer_form is empty", "'no_space'"]),
    "number as name": ("name: 12\n" + G, [":1: the name is the number 12", '"12"']),
    "number of many digits": ("name: " + "9" * 5000 + "\n" + G, [":1: the name is the number 999"]),
    "empty file": ("", [":1: the file is empty"]),
    "only comments": ("# x\n\n# y\n", [":1: the file is empty"]),
    "only a marker": ("---\n", [":1: the file is empty"]),
    "root is a list": ("- a: b\n- c\n", [":1: this is not a set of named entries"]),
    "root is a text": ("\n\nhello there\n", [":3: the file begins with 'hello there'"]),
    "two documents": (G + "---\n" + G, [":4: a second document begins"]),
    "colon in a question": (
        "groups:\n  A:\n    Cat:\n    - Which animal: the one: is it?\n",
        [":4", "must stand in quotes"],
    ),
    "special character": ("name: @home\n" + G, [":1", "must stand in quotes"]),
    "quote that never ends": ("name: x\ntemplate: 'Q\n" + G, [":2", "Close the quote"]),
    "tag": ("groups: !!python/object:os.system {}\n", [":1: the YAML tag '!!python/object"]),
    "tag of a text": ("name: !foo bar\n" + G, [":1: the YAML tag '!foo'"]),
    "alias to nothing": ("groups:\n  A: *nothing\n", [":2: *nothing refers to nothing"]),
    "alias to itself": ("groups:\n  A: &a\n    Cat: *a\n", [":3: *a refers to what it is a part"]),
    "NUL": ("name: x\ntemplate: a\0b\n" + G, [":2: the character U+0000"]),
    "NUL as an escape": ('groups:\n  A:\n    "a\\0b": [q]\n', [":3: the word", "U+0000"]),
    "escape character": ('groups:\n  A:\n    Cat: ["\\e[31m"]\n', [":3: prompt 1", "U+001B"]),
    "half a surrogate pair": ('name: "\\ud800"\n' + G, [":1: the name holds", "U+D800"]),
    "line break in a word": ('groups:\n  A:\n    "a\\nb": [q]\n', [":3: the word", "line break"]),
    "UTF-16": (STUDY.encode("utf-16"), ["UTF-16", "UTF-8"]),
    "Latin-1": ("name: x\n# caf\u00e9\n".encode("latin-1"), [":2: the byte 0xe9 is not UTF-8"]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_yaml(tmp_path: Path, kind: str) -> None:
    text, parts = WRONG[kind]
    message = refusal(write(tmp_path, text))
    assert message.startswith(str(tmp_path / "study.yaml"))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"groups": {"A": {"Cat": ["q"]},\n "B": {"Dog": ["r",]}}}', [":2: not valid JSON"]),
        ('{"groups": {"A": {"Cat": ["q"', [":1: not valid JSON"]),
        ("", [":1: not valid JSON"]),
        (G, [":1: not valid JSON", "suffix .yaml"]),
        ('{"name": "a\nb"}', [":1: not valid JSON: invalid control character"]),
        ("[1]", [":1: this is not a set of named entries"]),
        ('{"groups": {"A":\n{"Cat": ["q"],\n"Cat": ["r"]}}}', [":3: 'Cat' stands here a second"]),
        ('{"groups": {"A": {"Cat": ["q",\n12]}}}', [":2: prompt 2 of 'Cat' is the number 12"]),
        ('{"groups": {"A": {"Cat": ["q",\nnull]}}}', [":2: prompt 2 of 'Cat' is empty"]),
        ('{"groups": {"A": {"Cat": ["\\ud83d"]}}}', [":1: prompt 1 of 'Cat'", "U+D83D"]),
        ('{"groups": {"A": {"a\\u0000b": ["q"]}}}', [":1: the word", "U+0000"]),
        ('{"groups": {"A": {"C\\"at:": ["q",\n"q"]}}}', [":2: prompt 2 of 'C\"at:' is the same"]),
        ('{\n\n"gruops": {"A": {}}}', [":3: unknown key 'gruops'", "'groups'"]),
        ('{"name": NaN, "groups": {"A": {"Cat": ["q"]}}}', [":1: the name is the number NaN"]),
        ('{"name": ' + "9" * 9000 + ', "groups": {"A": {"Cat": ["q"]}}}', ["the name is the num"]),
    ],
)
def test_wrong_json(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = refusal(write(tmp_path, text, "study.json"))
    assert message.startswith(str(tmp_path / "study.json"))
    for part in parts:
        assert part in message


_MB = 2**20
BOMBS: dict[str, tuple[str, str]] = {
    "aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "aliases counted in full",
    ),
    "aliases in depth": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000)),
        "nested too deeply",
    ),
    "brackets": ("groups: " + "[" * 100_000, "nested too deeply"),
    "braces": ("groups: " + "{a: " * 50_000, "nested too deeply"),
    "indents": ("".join(f"{' ' * n}a:\n" for n in range(2000)), "nested too deeply"),
    "one line": ("a" * (10 * _MB), "the file begins with 'aaa"),
    "prose": ("lorem ipsum dolor sit amet\n" * 400_000, "the file begins with 'lorem"),
    "prose after a key": ("name: x\n" + "lorem ipsum dolor\n" * 400_000, "not valid YAML"),
    "binary": ("groups:\n" + "\0" * (10 * _MB), "U+0000"),
    "blank lines": ("\n" * (10 * _MB), "the file is empty"),
    "entries": ("groups:\n" + "- a\n" * 1_500_000, "more than 250,000 entries"),
    "much YAML": ("name: " + "a " * (5 * _MB), "YAML of more than 8 MB"),
    "JSON brackets": ("[" * 1_000_000, "nested too deeply"),
    "JSON braces": ('{"a":' * 400_000, "nested too deeply"),
    "JSON entries": ('{"a":[' + "1," * 5_000_000, "more than 1,000,000 entries"),
    "whole JSON": ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_junk_and_bombs_are_refused_quickly(tmp_path: Path, kind: str) -> None:
    text, part = BOMBS[kind]
    path = write(tmp_path, text, "study.json" if "JSON" in kind else "study.yaml")
    start = time.process_time()
    message = refusal(path)
    assert time.process_time() - start < 30  # at most about 5 seconds
    assert part in message


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte of nothing, which takes no room
    assert "larger than 64 MB" in refusal(path)


# Names of files and of bundled studies


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, STUDY, "pets.yaml")
    message = refusal(tmp_path / "pest.yaml")
    assert "there is no file" in message
    assert f"Did you mean {str(tmp_path / 'pets.yaml')!r}?" in message
    assert "there is no file" in refusal(tmp_path / "absent" / "pets.yaml")


def test_the_name_of_a_bundled_study_misspelt() -> None:
    assert "Did you mean 'similar-words'?" in refusal("similar_word")
    assert "Bundled: similar-words" in refusal("qqqq")


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "this is a folder" in refusal(tmp_path)
    assert "a\\x00b" in refusal("a\0b")
    assert "is empty" in refusal("")
    write(tmp_path, STUDY)
    assert "cannot be read" in refusal(tmp_path / "study.yaml" / "study.yaml")


def test_a_bundled_name_comes_before_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "similar-words").mkdir()
    assert len(load_study("similar-words").words) == 38
    assert "this is a folder" in refusal("./similar-words")


# The study as an object


def word(text: str = "Cat", group: str = "A", **prompts: tuple[str, ...]) -> Word:
    return Word(text=text, group=group, prompts=prompts or {"main": ("q",)})


def test_a_study_made_in_python() -> None:
    study = Study(name="x", words=(word("Cat"), word("Red", "B")))
    assert study.words[0].answer == "Cat"
    assert study.groups == {"A": ("Cat",), "B": ("Red",)}
    assert study.rendered("Red") == ("q",)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"words": ()}, "no words"),
        ({"words": (word(), word())}, "'Cat' stands a second time"),
        ({"words": (word(), word(group="B"))}, "'Cat' stands a second time"),
        ({"words": (word(), word("Red", "B"), word("Dog"))}, "apart from the other words"),
        ({"words": (word(), word("Dog", neutral=("q",)))}, "no prompts in the wording 'main'"),
        ({"words": (word(),), "template": "Q"}, "no {question}"),
        ({"words": (word(),), "name": ""}, "is empty"),
        ({"words": (word(),), "answer_form": "x"}, "answer_form"),
        ({"words": (word(),), "tempalte": "x"}, "Did you mean 'template'?"),
        ({}, "missing"),
    ],
)
def test_a_study_made_in_python_that_is_wrong(values: dict[str, object], part: str) -> None:
    with pytest.raises(StudyError, match=re.escape(part)):
        Study.model_validate({"name": "x", **values})


def test_a_word_made_in_python_that_is_wrong() -> None:
    with pytest.raises(StudyError, match="text is empty"):
        word(" ")
    with pytest.raises(StudyError, match=re.escape("prompts.main is empty")):
        word(main=())
    with pytest.raises(StudyError, match=re.escape("prompts.main.1 is the same as prompt 1")):
        word(main=("a", "a"))
    with pytest.raises(StudyError, match="answer is empty"):
        Word(text="Cat", group="A", answer=" ", prompts={"main": ("q",)})


# The bundled study


@pytest.fixture(scope="module")
def similar_words() -> Study:
    return load_study("similar-words")


def test_similar_words_has_the_words_of_the_paper(similar_words: Study) -> None:
    assert bundled_studies() == ("similar-words",)
    assert similar_words.groups == {
        group: tuple(words.split()) for group, words in PAPER_WORDS.items()
    }
    assert similar_words.slots == tuple(("main", place) for place in range(4))
    assert similar_words.answer_form == "as_follows"
    assert similar_words.template == "Answer the following question in one word: Q. {question} A. "


def test_similar_words_has_152_different_questions(similar_words: Study) -> None:
    questions = [question for word in similar_words.words for question in word.prompts["main"]]
    assert len(questions) == len({question.lower() for question in questions}) == 152
    for question in questions:
        assert re.fullmatch(r"[A-Z][^?]*[^ ?]\?", question)


# The name of a people, a land or its tongue gives the answer away.
_STEMS = {
    "Canad": ["Canada"],
    "German": ["Germany", "German"],
    "Brazil": ["Brazil"],
    "Franc": ["France", "French"],
    "French": ["France", "French"],
    "Engl": ["England", "English"],
    "Indi": ["India"],
    "Chin": ["China", "Chinese"],
    "Mexic": ["Mexico"],
    "Russia": ["Russia", "Russian"],
    "Iran": ["Iran"],
    "Japan": ["Japan", "Japanese"],
    "Israel": ["Israel"],
    "Austral": ["Australia"],
    "Spa": ["Spain", "Spanish"],
    "Ital": ["Italian"],
    "Portug": ["Portuguese"],
    "Wolv": ["Wolf"],
    "Grey": ["Gray"],
}


def test_similar_words_never_gives_the_answer_away(similar_words: Study) -> None:
    for entry in similar_words.words:
        stems = [stem for stem, words in _STEMS.items() if entry.text in words] + [entry.text]
        for question in entry.prompts["main"]:
            for stem in stems:
                assert re.search(rf"\b{stem}", question, re.IGNORECASE) is None, question


def test_reading_a_study_loads_nothing_heavy() -> None:
    code = (
        "import sys, kntrace.study\n"
        "kntrace.study.load_study('similar-words')\n"
        "print(sorted({'torch', 'transformers', 'zarr', 'xarray', 'numpy', 'matplotlib'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
