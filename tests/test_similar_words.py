"""The bundled study."""

from __future__ import annotations

import re

import pytest

from kntrace.study import Study, bundled_studies, load_study

PAPER_WORDS = {
    "Animals": "Cat Dog Fox Ant Bat Rat Hen Wolf",
    "Colours": "Blue Red Green Black White Brown Gray",
    "Countries": "Canada Germany Brazil France England India China Mexico Russia Iran Japan Israel "
    "Australia Spain",
    "Languages": "English Spanish French Chinese Japanese German Russian Italian Portuguese",
}


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
