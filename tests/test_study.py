"""Studies: what is read, what it becomes, and what is said of files that are wrong."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from counting import at_most, excess
from kntrace.errors import StudyError
from kntrace.study import AnswerForm, Study, Word, load_study
from studies import STUDY, write

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


def test_twice_as_many_words_take_twice_the_work(tmp_path: Path) -> None:
    def work(words: int) -> Callable[[], object]:
        groups: dict[str, dict[str, list[str]]] = {"A": {}, "B": {}}
        for number in range(words):
            groups["AB"[2 * number // words]][f"word{number}"] = [
                f"Which thing of all the things there are has the number {number}.{place}?"
                for place in range(4)
            ]
        made = load_study(write(tmp_path, json.dumps({"groups": groups}), "study.json"))
        path = write(tmp_path, made.to_yaml())
        assert load_study(path) == made
        return lambda: load_study(path)

    assert excess(work, 50) < 0.02
    sixty = work(60)
    with at_most(500_000):  # 4,600 calls a word, most of them of the YAML reader
        sixty()


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


def test_reading_a_study_loads_nothing_heavy() -> None:
    code = (
        "import sys, kntrace.study\n"
        "kntrace.study.load_study('similar-words')\n"
        "print(sorted({'torch', 'transformers', 'zarr', 'xarray', 'numpy', 'matplotlib'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
