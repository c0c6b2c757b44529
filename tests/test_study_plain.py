"""The plain form of the public code, and studies made in Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kntrace.errors import StudyError
from kntrace.study import Study, Word, load_study
from studies import STUDY, refusal, word, write

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
