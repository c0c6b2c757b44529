"""Endings of prompts that give the group away."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from kntrace.lint import check_study, endings
from kntrace.lint.views import StudyView
from linted import DEALT_OUT, GIVEN_AWAY, GOOD, codes, ending, study


def by_pairs(given):
    """Share of alike endings within and between groups, pair by pair of prompts."""
    ends = {
        word.text: [prompt.split()[-1].strip("?").lower() for prompt in given.rendered(word)]
        for word in given.words
    }
    shares = {True: [], False: []}
    for one, other in combinations(given.words, 2):
        alike = [a == b for a in ends[one.text] for b in ends[other.text]]
        shares[one.group == other.group].append(np.mean(alike))
    return np.mean(shares[True]), np.mean(shares[False])


@pytest.mark.parametrize("given", [GIVEN_AWAY, DEALT_OUT])
def test_endings_are_counted_over_pairs_of_words(given):
    asked = StudyView(given).asked
    found = endings._Alike.of(asked)
    np.testing.assert_allclose((found.within, found.between), by_pairs(given), atol=1e-12)
    assert (found.p <= 0.01) == (given is GIVEN_AWAY)


def test_endings_tell_which_group_and_how_often():
    (found,) = [one for one in check_study(GIVEN_AWAY).findings if one.code == "K113"]
    assert "'of', the end of 8 of the 8 prompts of 'Hues'" in found.says
    assert found.severity == "warning"


def test_a_template_ends_all_prompts_alike():
    """The model reads the template last, whatever the questions end in."""
    asked = GIVEN_AWAY.model_copy(update={"template": "Q. {question} A."})
    assert "K113" not in codes(check_study(asked))
    open_end = GIVEN_AWAY.model_copy(update={"template": "Say it: {question}"})
    assert "K113" in codes(check_study(open_end))


def test_labels_dealt_out_anew_seldom_look_given_away():
    """Thirty studies whose endings mean nothing: a warning at most where chance allows one."""
    rng = np.random.default_rng(0)
    ends = np.array(["of", "his", "the", "unto", "a"])
    warned = sum(
        any(endings.endings_tell_groups(StudyView(ending(lambda *_: rng.choice(ends, 2)))))
        for _ in range(30)
    )
    assert warned <= 2


def test_the_bundled_studies_and_their_endings():
    assert "K113" not in codes(check_study("similar-words"))
    kjv = Path(__file__).parents[1] / "examples" / "kjv" / "study.yaml"
    assert "K113" in codes(check_study(kjv))


def test_without_spaces_the_last_letter_is_the_ending():
    groups = {
        "動物": {word: [f"{word}一は", f"{word}二は"] for word in ("犬", "猫", "狐", "鶏")},
        "色": {word: [f"{word}一の", f"{word}二の"] for word in ("赤", "青", "緑", "灰")},
    }
    assert "K113" in codes(check_study(study({**groups, "光": GOOD["Lights"]}, template=None)))
