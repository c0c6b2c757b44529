"""Controls of all views: intervals over prompts, linked words, and what a kill leaves of a view."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from kntrace.archive import Run, open_run
from kntrace.cli import main
from kntrace.effects.statistics import jackknife
from kntrace.errors import StudyError
from kntrace.figures import render
from kntrace.models.tokens import Encoded
from kntrace.probes import Weights, opened
from kntrace.probes.asking import Answers
from kntrace.selection import TopK
from kntrace.study import load_study
from kntrace.testing import synthetic_scores
from kntrace.views import VIEWS, WEIGHT_VIEWS, Asked, compute_views, find_views
from kntrace.views.lines import value_at
from kntrace.views.parts import Parts
from kntrace.views.sets import incidence, jaccard

GROUPS = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3", "b4"), "C": ("c1", "c2", "c3")}
WORDS = [word for members in GROUPS.values() for word in members]
CODES = np.array([0] * 4 + [1] * 4 + [2] * 3)


def scores(**drawn: Any) -> xr.Dataset:
    given: dict[str, Any] = {"groups": GROUPS, "checkpoints": 3, "layers": 2, "width": 40}
    return synthetic_scores(**(given | drawn)).load()


# Intervals over prompts


def test_one_prompt_of_every_word_is_left_out_at_a_time() -> None:
    data = scores(prompts=4, wordings=("main", "other"))
    data["rank"].values[:, 2, 1] = -1  # a word without its second prompt
    asked = Asked(data)
    assert asked.left_out == 4
    assert asked.turns[2].tolist() == [0, -1, 1, 2]
    for turn, less in enumerate(asked.less_prompts()):
        for word in range(11):
            kept = [at for at in range(4) if asked.turns[word, at] not in (turn, -1)]
            assert np.flatnonzero(less.view.asked[word]).tolist() == kept
        # The other wording keeps its prompts.
        assert Asked(less.scores, wording="other").view.asked.all()
    assert Asked(scores(prompts=2)).left_out == 0
    assert Asked(data, select="threshold:0.2:3").left_out == 0
    assert Asked(scores(prompts=4), select="threshold:0.2:3").left_out == 4


def test_the_interval_of_turnover_is_that_of_prompts_left_out_by_hand() -> None:
    data = scores(prompts=3)
    found = VIEWS["turnover"].compute(Asked(data, select="top:6")).main
    values = []
    for out in (None, 0, 1, 2):
        some = data if out is None else data.isel(prompt=[at for at in range(3) if at != out])
        sets = [incidence(TopK(6).choose(some, checkpoint=at)) for at in (1, -1)]
        values.append(float(np.diag(jaccard(*sets)).mean()))
    row = value_at(found, "jaccard", "own", "step100")
    expected = jackknife(values[0], values[1:])
    assert row["value"] == pytest.approx(values[0])
    assert (row["prompts_low"], row["prompts_high"]) == pytest.approx((expected.low, expected.high))


def test_intervals_over_prompts_cover_what_they_should() -> None:
    """Words are fixed, their prompts drawn: the mean over words of what many prompts give."""
    rng = np.random.default_rng(0)
    truth, inside, draws = 0.3, 0, 400
    for _ in range(draws):
        prompts = truth + rng.standard_normal((11, 4))
        rest = [np.delete(prompts, out, axis=1).mean() for out in range(4)]
        found = jackknife(float(prompts.mean()), rest)
        inside += found.low < truth < found.high
    assert inside / draws == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("name", ["turnover", "threshold_sets", "agreement", "predictivity"])
def test_views_of_the_arrays_have_an_interval_over_prompts_where_there_are_enough(
    name: str,
) -> None:
    """Equal prompts leave none; of unequal ones it has a width; two prompts are too few."""
    lines = {"threshold_sets": "same_group"}
    line = lines.get(name, "own")
    panel = {
        "turnover": "jaccard",
        "threshold_sets": "shared",
        "agreement": "agreement",
        "predictivity": "by_words",
    }[name]
    view: Any = VIEWS[name]
    view = replace(view, null=1) if name == "predictivity" else view

    def width(data: xr.Dataset) -> float:
        found = value_at(view.compute(Asked(data, floor=0.0)).main, panel, line, "step100")
        return found["prompts_high"] - found["prompts_low"]

    assert width(scores()) > 1e-3
    equal = scores()
    for variable in ("score", "activation", "probability"):
        equal[variable].values[:] = equal[variable].values[:, :, :1]
    assert width(equal) == pytest.approx(0, abs=1e-6)
    assert np.isnan(width(scores(prompts=2)))


# Linked words and other wordings


LINKED = """\
name: linked
groups:
  A:
    cat: [q1, q2, q3]
    dog: [q4, q5, q6]
    fox: [q16, q17, q18]
    ant: [q19, q20, q21]
    hen: [q22, q23, q24]
  B:
    feline: {synonym_of: cat, prompts: [q7, q8, q9]}
    meow: {inverse_of: cat, prompts: [q10, q11, q12]}
    stone: [q13, q14, q15]
    sand: [q25, q26, q27]
    clay: [q28, q29, q30]
"""


def linked_study(tmp_path: Path) -> Any:
    path = tmp_path / "linked.yaml"
    path.write_text(LINKED)
    return load_study(path)


def test_links_are_read_written_and_checked(tmp_path: Path) -> None:
    study = linked_study(tmp_path)
    again = tmp_path / "again.yaml"
    again.write_text(study.to_yaml())
    assert load_study(again) == study
    plain = tmp_path / "plain.yaml"
    plain.write_text(LINKED.replace("synonym_of: cat, ", "").replace("inverse_of: cat, ", ""))
    assert load_study(plain).links == {}
    assert load_study(plain).digest != study.digest
    wrong = tmp_path / "wrong.yaml"
    for other, said in (("cta", "no word of the study"), ("feline", "the word itself")):
        wrong.write_text(LINKED.replace("synonym_of: cat", f"synonym_of: {other}"))
        with pytest.raises(StudyError, match=rf"'feline' has synonym_of: {other}, which is {said}"):
            load_study(wrong)
    wrong.write_text(LINKED.replace("synonym_of: cat", "synonymof: cat"))
    with pytest.raises(StudyError, match="synonym_of"):
        load_study(wrong)


def planted_links(strength: float) -> xr.Dataset:
    """Noise; the synonym and the inverse of `cat` also hold its neurons, as strongly as said."""
    groups = {
        "A": ("cat", "dog", "fox", "ant", "hen"),
        "B": ("feline", "meow", "stone", "sand", "clay"),
    }
    data = scores(groups=groups)
    rng = np.random.default_rng(3)
    value = 0.3 * rng.standard_normal(data["score"].shape)
    own = rng.standard_normal((10, *data["score"].shape[3:]))
    value += own[None, :, None]
    for word in (5, 6):
        value[:, word] += strength * own[0]
    data["score"].values[:] = value.astype(np.float32)
    return data


@pytest.mark.parametrize(("strength", "found"), [(3.0, True), (0.0, False)])
def test_synonyms_and_inverses_find_the_words_neurons_where_they_were_planted(
    strength: float, found: bool, tmp_path: Path
) -> None:
    study = linked_study(tmp_path)
    assert study.links == {"synonym": (("feline", "cat"),), "inverse": (("meow", "cat"),)}
    view = VIEWS["agreement"]
    seen = view.compute(Asked(planted_links(strength), links=study.links))
    for kind in ("synonym", "inverse"):
        value = value_at(seen.main, "linked", f"{kind}_minus_other", "step200")["value"]
        assert (value > 0.5) == found
    assert abs(value_at(seen.main, "linked", "matched", "step200")["value"]) < 0.3
    assert "its synonym" in view.describe(seen)
    render(view.draw(seen), "svg")
    # Without links there is no such panel.
    plain = view.compute(Asked(planted_links(strength)))
    assert "linked" not in set(plain.main["panel"])


@pytest.mark.parametrize("of_word", [3.0, 0.0])
def test_other_wordings_find_the_words_neurons_where_they_were_planted(of_word: float) -> None:
    data = scores(wordings=("main", "reworded"))
    rng = np.random.default_rng(4)
    value = rng.standard_normal(data["score"].shape)
    value += of_word * rng.standard_normal((1, 11, 1, *value.shape[3:]))
    data["score"].values[:] = value.astype(np.float32)
    view = VIEWS["agreement"]
    found = view.compute(Asked(data))
    own = value_at(found.main, "other_wording", "own", "step200")
    difference = value_at(found.main, "other_wording", "own_minus_other", "step200")
    assert (own["value"] > 0.8) == (of_word > 0)
    assert (difference["low"] > 0.3) == (of_word > 0)
    assert abs(value_at(found.main, "other_wording", "matched", "step200")["value"]) < 0.2
    # By numpy's own cosine.
    means = data["score"].values[2].reshape(11, 2, 4, -1).mean(axis=2)
    means = means - means.mean(axis=0)
    one, two = means[0, 0].ravel(), means[0, 1].ravel()
    assert len(one) == 80
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    alone = [
        means[w, 0] @ means[w, 1] / np.linalg.norm(means[w, 0]) / np.linalg.norm(means[w, 1])
        for w in range(11)
    ]
    assert alone[0] == pytest.approx(cosine)
    assert own["value"] == pytest.approx(np.mean(alone), abs=1e-4)
    render(view.draw(found), "svg")


# Edits, by a network that is made up


class Moved:
    """Log-odds of a word's new answer rise by one for each of its planted neurons moved."""

    tied = True

    def __init__(self, needs: list[set[int]], noise: float = 0.0) -> None:
        self.needs, self.noise, self.now = needs, noise, set[int]()

    def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        assert otherwise == "ends"
        yield 2, self

    def prompts(self, wording: str) -> list[list[Encoded]]:
        return [[Encoded((word, 50 + at), (word,)) for at in range(4)] for word in range(11)]

    def ask(self, prompts: list[Encoded]) -> Answers:
        odds = []
        for one in prompts:
            word, new = one.ids[0], one.answer[0] != one.ids[0]
            rises = len(self.needs[word] & self.now) * (1 if new else -1)
            drawn = np.random.default_rng((*one.ids, *sorted(self.now))).standard_normal()
            odds.append((-4.0 if new else 4.0) + rises + self.noise * drawn * bool(self.now))
        values = np.array(odds)
        return Answers(-np.log1p(np.exp(-values)), values, (values < 0).astype(np.int64))

    @contextmanager
    def edited(self, neurons: Any, *how: Any) -> Iterator[None]:
        self.now = set(neurons.tolist())
        yield
        self.now = set()


def edits_of(needs: list[set[int]], sets: list[set[int]], noise: float = 0.0) -> Any:
    data = scores(prompts=4)
    data["score"].values[:] = 0.0
    flat = data["score"].values.reshape(3, 11, 4, 80)
    for word, members in enumerate(sets):
        flat[:, word][:, :, sorted(members)] = 1.0
    view = find_views(["edit"], {"neurons": "6"})[0]
    found = view.compute(Asked(data, select="top:6", weights=Moved(needs, noise)))
    render(view.draw(found), "svg")
    return found


def test_edits_of_planted_neurons_work_and_those_of_others_do_not() -> None:
    sets = [set(range(6 * word, 6 * word + 6)) for word in range(11)]
    found = edits_of(sets, sets)
    facts = found.facts
    assert facts["unembedding_own_log_odds"]["value"] == 6
    assert facts["unembedding_own_success"]["value"] == 1
    for other in ("other", "random", "anywhere"):
        assert facts[f"unembedding_{other}_log_odds"]["value"] == 0
        assert facts[f"unembedding_{other}_success"]["value"] == 0
        assert facts[f"unembedding_own_minus_{other}_log_odds"]["low"] > 5
    own = facts["unembedding_own_log_odds"]
    assert own["prompts_low"] == own["prompts_high"] == 6
    assert facts["known"] == {"step200": 11}


def test_edits_of_noise_are_no_better_with_own_neurons() -> None:
    """Neurons that no word needs, and answers that move by chance whichever are moved."""
    rng = np.random.default_rng(5)
    sets = [set(rng.permutation(80)[:6].tolist()) for _ in WORDS]
    facts = edits_of([set()] * 11, sets, noise=0.5).facts
    outside = 0
    for other in ("other", "random", "anywhere"):
        difference = facts[f"unembedding_own_minus_{other}_log_odds"]
        outside += not difference["low"] < 0 < difference["high"]
        assert abs(difference["value"]) < 0.5
    assert outside <= 1
    own = facts["unembedding_own_log_odds"]
    assert own["prompts_low"] < own["value"] < own["prompts_high"]


# Runs without activations


@pytest.mark.slow
def test_a_run_without_activations_goes_all_the_way(
    tiny_suite: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = str(tmp_path / "run")

    def said(*options: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["kntrace", *options])
        with pytest.raises(SystemExit) as left:
            main()
        caught = capsys.readouterr()
        assert left.value.code == code, caught.err
        return caught.err if code else caught.out

    study, suite = str(tiny_suite.study_file), str(tiny_suite.folder)
    said("run", study, suite, "--out", run, "--no-activations", "--quiet", "--threads", "1")
    assert "activation" not in open_run(run).scores
    listed = said("view", run)
    for name, view in (VIEWS | WEIGHT_VIEWS).items():
        (line,) = (one for one in listed.splitlines() if one.startswith(f"{name} "))
        assert ("kept no activation" in line) == ("activation" in view.needs)
    text = said("view", run, "all", "super_weights", "--no-figures", "--quiet", "--threads", "1")
    assert "Left out: predictivity (this run kept no activation)." in text
    assert "There is no super weight" in text
    for name in ("predictivity", "read_out", "edit"):
        told = said("view", run, "all", name, "--no-figures", "--quiet", code=2)
        assert f"the view '{name}' needs activation" in told
        assert "--no-activations" in told
    assert "P(answer)" in said("ablate", run, "--quiet", "--doses", "2", "--singles", "0",
                               "--draws", "1", "--methods", "zero")  # fmt: skip


# What a kill leaves


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("read_out", {"neurons": "5"}),
        ("super_weights", {}),
        ("erase", {"doses": "3"}),
        pytest.param("edit", {"neurons": "3"}, marks=pytest.mark.slow),
    ],
)
def test_a_view_that_is_stopped_loses_the_checkpoint_in_hand(
    name: str,
    options: dict[str, str],
    tiny_run_copy: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    views = find_views([name], options)
    whole = open_run(shutil.copytree(tiny_run_copy.path.parent, tmp_path / "whole") / "run")
    loads: list[int] = []
    load, stop = opened.load_scored, 2

    def counted(run: Run, place: int, *rest: Any, **how: Any) -> Any:
        loads.append(place)
        if len(loads) == stop:
            raise KeyboardInterrupt
        return load(run, place, *rest, **how)

    def compute(run: Run) -> None:
        weights = Weights(run, steps="0,10,100", threads=1)
        compute_views(run, views, select="top:6", weights=weights, formats=())

    monkeypatch.setattr(opened, "load_scored", counted)
    with pytest.raises(KeyboardInterrupt, match="1 checkpoint done and kept"):
        compute(tiny_run_copy)
    done = loads[0]
    assert done not in loads[1:]
    stop = -1
    loads.clear()
    compute(tiny_run_copy)
    assert sorted([*loads, done]) == [0, 1, 2]
    loads.clear()
    compute(tiny_run_copy)  # nothing is left to load
    assert loads == []
    compute(whole)
    kept, straight = (run.path / "analysis" / "views" for run in (tiny_run_copy, whole))
    for file in straight.glob("*.csv"):
        assert (kept / file.name).read_bytes() == file.read_bytes()
    # Other options are measured anew, and what was kept for the former ones goes.
    views = [replace(views[0], **{"draws": 2} if name == "super_weights" else {})]
    loads.clear()
    weights = Weights(tiny_run_copy, steps="0,100", threads=1)
    compute_views(tiny_run_copy, views, select="top:5", weights=weights, formats=())
    assert len(loads) == 2
    assert len([*(kept / "parts" / name).iterdir()]) == 1


def test_a_damaged_part_is_measured_again(tmp_path: Path) -> None:
    view = WEIGHT_VIEWS["erase"]
    parts = Parts(tmp_path, "run", {"seed": 0})
    table = pd.DataFrame({"a": [1, 2], "b": ["NA", ""], "c": [np.nan, 0.1]})
    parts.write(view, 3, {"one": table, "none": table.iloc[:0]})
    again = parts.read(view, 3)
    assert again is not None
    pd.testing.assert_frame_equal(again["one"], table)
    assert list(again["none"]) == ["a", "b", "c"]
    assert parts.read(view, 4) is None
    assert parts.read(view, 3, of="another text") is None
    assert Parts(tmp_path, "other weights", {"seed": 0}).read(view, 3) is None
    (file,) = tmp_path.rglob("*.zip")
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    assert parts.read(view, 3) is None
    file.write_bytes(bytes(content[:100]))
    assert parts.read(view, 3) is None


def test_firing_is_kept_by_the_text_it_was_measured_on(tmp_path: Path) -> None:
    asked_of: list[int] = []

    class Said:
        def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
            for place in range(2):
                yield place, SimpleNamespace(firing=lambda *how, at=place: self.read(at))

        def read(self, place: int) -> Any:
            asked_of.append(place)
            one = SimpleNamespace(
                frequency=np.array([0.0, 0.5]), token=np.array([False, True]),
                trigram=np.zeros(2, bool), positional=np.zeros(2, bool), cover=np.array([0, 3]),
            )  # fmt: skip
            layer = SimpleNamespace(
                text=one, less=[one] * 5, chance=one, shuffled=np.zeros(2, bool)
            )
            return SimpleNamespace(rows=120, types=59, never_negative=False, layers=[layer] * 2)

    text = tmp_path / "text.txt"
    text.write_text("some words")
    (view,) = find_views(["firing"], {"corpus": str(text)})
    asked = Asked(scores(), weights=Said(), parts=Parts(tmp_path / "parts", "run", {}))
    first = view.compute(asked)
    assert asked_of == [0, 0, 1]  # the rule is found first
    again = view.compute(asked)
    assert asked_of == [0, 0, 1]
    assert again.facts == first.facts
    text.write_text("some other words")
    view.compute(asked)
    assert len(asked_of) == 6
