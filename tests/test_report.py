"""The page holds everything, asks for nothing, and shows a study's text as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from kntrace.analysis import analyse
from kntrace.figures import FIGURES
from kntrace.report import write_report
from kntrace.testing import synthetic_run

EVIL = "<script>alert(1)</script>"
WORDS = {"A & B": ("Cat", EVIL, "Dog"), '"quoted"': ("x'y", "Red", "Blue"), "C": ("p", "q", "r")}


class Reader(HTMLParser):
    """Collects tags with their attributes and the visible text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.depth = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.depth.append(tag)

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = synthetic_run(tmp_path_factory.mktemp("run") / "r", groups=WORDS, width=48)
    found = analyse(run, permutations=99)
    path = write_report(run, found)
    assert path == run.path / "report.html"
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert not reader.depth
    return run, found, path, reader


def test_the_verdict_comes_first(page):
    _, found, _, reader = page
    headings = [place for place, (tag, _) in enumerate(reader.tags) if tag in ("h1", "h2", "table")]
    assert reader.tags[headings[0]][0] == "h1"
    text = " ".join(" ".join(reader.text).split())
    assert {"yes": "Yes:", "no": "No:", "cannot tell": "It cannot be told"}[
        found.verdict.answer
    ] in text
    assert "no proof of absence" in text


def test_nothing_is_asked_of_the_network(page):
    _, _, path, reader = page
    for tag, attributes in reader.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("#", "data:")), (tag, value[:60])
    assert not re.search(r"@import|url\(\s*['\"]?http", path.read_text(encoding="utf-8"))
    assert not any(tag in ("script", "iframe", "link") for tag, _ in reader.tags)


def test_a_word_that_is_html_shows_as_text(page):
    _, _, path, reader = page
    assert EVIL not in path.read_text(encoding="utf-8")
    assert EVIL in "".join(reader.text)


def test_every_figure_is_there_with_a_description(page):
    _, _, path, reader = page
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == len(FIGURES)
    assert all(len(image["alt"]) > 40 for image in images)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert path.stat().st_size < 3_000_000


def test_tables_are_labelled_for_readers_who_do_not_see_them(page):
    *_, reader = page
    tables = sum(tag == "table" for tag, _ in reader.tags)
    assert tables >= 4
    assert sum(tag == "caption" for tag, _ in reader.tags) == tables
    assert all(
        attributes.get("scope") in ("row", "col") for tag, attributes in reader.tags if tag == "th"
    )
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.tags:
        if tag == "a":
            assert attributes["href"].removeprefix("#") in ids


def test_numbers_are_those_of_the_analysis(page):
    _, found, _, reader = page
    text = " ".join(" ".join(reader.text).split())
    overall = found.contrasts["emd"].overall
    assert f"{overall['auc']:.3f}" in text
    assert f"{overall['share_above_with_self']:.1%}" in text
    assert f"{found.verdict.adjusted_auc:.3f}" in text


def test_words_that_are_not_known_are_pointed_out(tmp_path):
    run = synthetic_run(tmp_path / "r", groups=WORDS, width=48, learning_time="by_group")
    found = analyse(run, permutations=99)
    curves = found.probability.copy(deep=True)
    curves[-1, 0] = 0.02
    path = write_report(run, type(found)(**{**vars(found), "probability": curves}))
    assert "can hardly be said to know them: Cat (2%)" in path.read_text(encoding="utf-8")
