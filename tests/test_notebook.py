"""Results as the last line of a cell: short, as a table, and whatever they hold as text."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import tqdm.auto
from PIL import Image

import kntrace
from kntrace.analysis import analyse
from kntrace.attribution import Attribution
from kntrace.audit import Audit, Finding
from kntrace.figures import FIGURES
from kntrace.lint import check_study
from kntrace.notebook import Card, Shown
from kntrace.progress import Bars
from kntrace.study import load_study
from kntrace.sweep import status
from kntrace.sweep.estimate import Estimate, Kind, Trial
from kntrace.views import compute_views, find_views

EVIL = "<script>alert('x')</script>&"


class Page(HTMLParser):
    """Which tags a text has, and what a reader sees."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.seen, self.styles = [], set(), [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)
        self.styles += [value for name, value in attrs if name == "style"]
        assert {name for name, _ in attrs} <= {"style"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.seen.append(data)


@pytest.fixture(scope="module")
def results(tiny_suite, tmp_path_factory):
    """One of everything, of a study whose words, groups and names are what a stranger wrote."""
    text = tiny_suite.study_file.read_text()
    text = text.replace("name: tiny", f'name: "{EVIL}"').replace("  Pets:", f'  "{EVIL}":')
    dog = "    dog: [which pet says woof]"
    evil = f'    "{EVIL} dog": {{answer: dog, prompts: [which pet says woof]}}'
    text = text.replace(dog, evil)
    home = tmp_path_factory.mktemp("notebook")
    (home / "study.yaml").write_text(text)
    study, suite = load_study(home / "study.yaml"), tiny_suite.suite
    run = kntrace.run(study, suite, home / "run")
    found = analyse(run, permutations=19)
    view = compute_views(run, find_views(["acquisition"]), formats=())["acquisition"]
    effects = kntrace.ablate(run, doses=[2], methods=["zero"], partners=1, draws=1, singles=3)
    trial = Trial("step0", EVIL, 1, 1, "cpu", 1, 1.0, 2.0, 3, 4, 5.0)
    kinds = (Kind(EVIL, 1, 2.5, 10**9, "measured"),)
    finding = Finding("repeated", "error", ("step0",), f"the weights of {EVIL}")
    return {
        "study": study, "suite": replace(suite, name=EVIL), "run": run, "analysis": found,
        "contrast": found.contrasts["identity"], "verdict": replace(found.verdict, reason=EVIL),
        "overlap": found.overlap, "early": found.early, "times": found.times,
        "noise": found.prompt_noise, "view": view, "effects": effects, "status": status(run),
        "checked": check_study(study), "audit": Audit(1, 2, 3, 4.0, False, (finding,)),
        "estimate": Estimate(3, 4, 7, 12, 12, 10**6, 0, trial, kinds),
    }  # fmt: skip


NAMES = (
    *("study", "suite", "run", "analysis", "contrast", "verdict", "overlap", "early", "times"),
    *("noise", "view", "effects", "status", "checked", "audit", "estimate"),
)


@pytest.mark.parametrize("name", NAMES)
def test_results_show_themselves(name, results):
    result = results[name]
    short = repr(result)
    assert short.startswith(f"{type(result).__name__}(")
    assert short.count("\n") == 0
    assert 20 < len(short) < 260
    page = Page(result._repr_html_())
    assert page.tags <= {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert not any("color" in style or "background" in style for style in page.styles)


def test_what_a_stranger_wrote_is_text(results):
    """Not as a tag, and yet there to be read."""
    shown = {name: results[name]._repr_html_() for name in NAMES}
    assert not any("<script" in text for text in shown.values())
    for name in (
        "study",
        "suite",
        "run",
        "contrast",
        "verdict",
        "overlap",
        "times",
        "audit",
        "estimate",
    ):
        assert EVIL in "".join(Page(shown[name]).seen), name


def test_an_attribution_shows_its_strongest_neurons():
    score = np.zeros((2, 3))
    score[1, 2], score[0, 1] = -0.5, 0.25
    found = Attribution(
        score, np.array([1e-5, -2e-3]), 0.5, 0, score + 1, np.array([3, 3]), np.array([True, True])
    )
    rows = found._card().rows
    assert [(row["layer"], row["neuron"]) for row in rows[:2]] == [(1, 2), (0, 1)]
    assert [row["score"] for row in rows[:2]] == [-0.5, 0.25]
    assert "-0.002" not in found._repr_html_()
    assert "0.002" in found._repr_html_()
    assert "largest completeness gap 2.0e-03" in repr(found)


def test_a_figure_is_a_picture(results):
    drawing = FIGURES["forest"]
    picture = drawing.draw(drawing.prepare(results["analysis"]))._repr_png_()
    assert Image.open(io.BytesIO(picture)).width > 500


def test_numbers_long_texts_and_long_tables():
    card = Card(
        "t" * 500,
        {"none": None, "nan": math.nan, "yes": True, "many": 12345, "p": 0.0125, "tiny": 1e-7},
        [{"row": np.int64(n), "x": np.float32(n)} for n in range(40)],
        ["a note"],
    )
    seen = Page(card.html).seen
    assert len(seen[0]) == 200
    assert seen[1:13] == ["none", "–", "nan", "–", "yes", "yes", "many", "12,345", "p", "0.013",
                          "tiny", "1e-07"]  # fmt: skip
    assert seen[-2:] == ["and 28 more", "a note"]
    assert len(card.line) <= 200
    with pytest.raises(NotImplementedError):
        repr(Shown())


class TestBars:
    def test_they_are_those_of_the_place(self, monkeypatch):
        """In a notebook `tqdm.auto` gives widgets; whatever it gives is drawn and closed."""
        made = []

        class Widget:
            def __init__(self, total, desc, initial):
                self.total, self.desc, self.n, self.closed = total, desc, initial, False
                made.append(self)

            def set_postfix_str(self, detail, refresh):
                self.detail = detail

            def update(self, count):
                self.n += count

            def close(self):
                self.closed = True

        monkeypatch.setattr(tqdm.auto, "tqdm", Widget)

        def work():
            with Bars() as report:
                report("verify", 0, 2)
                report("verify", 2, 2)
                report("sweep", 3, 9, "step0 · cat")
                report("sweep", 4, 9, "step0 · dog")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            work()
        assert [(bar.desc, bar.n, bar.total, bar.closed) for bar in made] == [
            ("verify", 2, 2, True),
            ("sweep", 4, 9, True),
        ]
        assert made[1].detail == "step0 · dog"

    def test_without_a_terminal_they_are_plain_text(self, monkeypatch):
        out = io.StringIO()
        monkeypatch.setattr("sys.stderr", out)
        with Bars() as report:
            report("sweep", 0, 2, "step0 · cat")
            report("sweep", 2, 2, "step0 · cat")
        assert "2/2" in out.getvalue()
        assert "\x1b" not in out.getvalue()
