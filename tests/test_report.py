"""The page holds everything, asks for nothing, and shows a stranger's text as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from kntrace.analysis import Analysis, analyse
from kntrace.archive import Run, write_print
from kntrace.audit import CheckpointPrint, TensorPrint
from kntrace.errors import AnalysisError, RunError
from kntrace.figures import FIGURES
from kntrace.report import write_report
from kntrace.report.cautions import cautions
from kntrace.report.script import script
from kntrace.testing import synthetic_run, synthetic_scores
from kntrace.verdict import LIMITS, MEASURED, VALIDATED

SCRIPT = "<script>alert(1)</script>"
GROUPS = {
    "A & B": ("Cat", SCRIPT, "Dog", "Fox"),
    '"><img src=x onerror=alert(2)>': ("x'y", "{{ 7*7 }}", "{% raw %}", "Blue"),
    "動物": ("猫", "犬", "</td></table>"),
}
VOID = {"meta", "img", "br", "link", "hr", "input"}
LOADING = ("src", "srcset", "data", "action", "poster", "background", "href")


class Page(HTMLParser):
    """Collects tags, the text between them, and the text of each heading and cell."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append((self.open[-1], data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(data for _, data in self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def within(self, tag: str) -> list[str]:
        return [data for name, data in self.texts if name == tag]


def made(path: Path, **drawn: Any) -> tuple[Run, Analysis]:
    shape: dict[str, Any] = {"groups": GROUPS, "width": 48, "structure": 0.6}
    run = synthetic_run(path, **(shape | drawn))
    return run, analyse(run, permutations=49)


@pytest.fixture(scope="module")
def run_and_analysis(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Analysis]:
    return made(tmp_path_factory.mktemp("run") / "r", wordings=("grouped", "neutral"))


@pytest.fixture(scope="module")
def analysis(run_and_analysis: tuple[Run, Analysis]) -> Analysis:
    return run_and_analysis[1]


@pytest.fixture(scope="module")
def page(run_and_analysis: tuple[Run, Analysis]) -> Page:
    path = write_report(*run_and_analysis)
    assert path == run_and_analysis[0].path / "report.html"
    return Page(path)


def test_the_verdict_is_the_first_heading_with_its_reason(page: Page, analysis: Analysis) -> None:
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3", "table", "figure")]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    says = {"yes": "Yes:", "no": "No:", "cannot tell": "It cannot be told"}
    assert page.within("h1")[0].startswith(says[analysis.verdict.answer])
    reason = analysis.verdict.reason
    assert plain(reason[:1].upper() + reason[1:]) in plain(page.text)


def test_the_limits_and_error_rates_of_the_rule_are_there(page: Page) -> None:
    for limit in LIMITS:
        assert plain(limit) in plain(page.text)
    for row in (*MEASURED, *VALIDATED):
        assert row.world in page.text


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in LOADING:
            value = attributes.get(name) or ""
            allowed = "#" if tag == "a" else "data:image/"
            assert not value or value.startswith(allowed), (tag, value[:60])
        assert not any(name.startswith("on") for name in attributes)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base"}
    style = re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in (policy["content"] or "").split("; "))
    assert rules.pop("style-src") == "'unsafe-inline'"
    assert rules.pop("img-src") == "data:"
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert rules.pop("script-src") == f"'sha256-{digest}'"
    assert set(rules.values()) == {"'none'"}


def test_the_script_is_ours_alone_and_sets_text_as_text(page: Page) -> None:
    assert [attributes.get("type") for attributes in page.all("script")] == [
        "application/json",
        None,
    ]
    assert json.loads(page.scripts[0])["words"] == [w for m in GROUPS.values() for w in m]
    assert page.scripts[1] == script()
    for loose in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert loose not in script()
    for reaching in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "import(", "https:"):
        assert reaching not in script()
    assert "</" not in script()


def test_a_strangers_text_shows_as_text(page: Page) -> None:
    assert SCRIPT not in page.source
    for members in GROUPS.values():
        for word in members:
            assert word in page.within("th")
    for group in GROUPS:
        assert group in page.within("th")
    assert "49" not in page.within("th")


def test_every_figure_is_inside_and_described(page: Page, analysis: Analysis) -> None:
    images = page.all("img")
    assert len(images) == len(FIGURES)
    for image in images:
        kind, data = (image["src"] or "").split(",", 1)
        if kind == "data:image/svg+xml":
            ElementTree.fromstring(unquote(data))
        else:
            assert kind == "data:image/png;base64"
            assert base64.b64decode(data).startswith(b"\x89PNG")
        assert len(image["alt"] or "") > 60
        assert int(image["width"] or 0) > 100
    alts = {image["alt"] for image in images}
    for name, figure in FIGURES.items():
        assert f"figure-{name}" in {attributes.get("id") for attributes in page.all("figure")}
        assert figure.describe(figure.prepare(analysis)) in alts
        assert plain(figure.how_to_read) in plain(page.text)


def test_tables_can_be_read_aloud(page: Page) -> None:
    tables = len(page.all("table"))
    assert tables >= 8
    assert len(page.all("caption")) == tables
    assert {th.get("scope") for th in page.all("th")} == {"row", "col"}


def test_links_lead_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert (link["href"] or "").removeprefix("#") in ids
    for _, attributes in page.tags:
        assert attributes.get("aria-labelledby") in {*ids, None}


def test_numbers_are_those_of_the_analysis(page: Page, analysis: Analysis) -> None:
    cells = page.within("td")
    for row in [analysis.contrasts["emd"].overall, *records(analysis)]:
        for share in ("share_above", "share_above_with_self", "chance"):
            assert f"{100 * row[share]:.1f} %" in cells
        assert f"{row['auc']:.3f}" in cells
    for found in analysis.verdicts.values():
        assert f"{found.low:.3f} to {found.high:.3f}" in cells
    assert f"{analysis.overlap.within:.1f}" in cells
    for row in analysis.tests.dropna().to_dict("records"):
        assert f"{row['statistic']:.2f}".replace("-", "−") + f" ({row['p']:.3f})" in cells
    for row in analysis.early.checkpoints.to_dict("records"):
        assert f"{100 * row['own'] / analysis.k:.1f} %" in cells
    for row in analysis.reliability.to_dict("records"):
        assert f"{row['reliability']:.2f}" in cells
    overall = analysis.contrasts["emd"].overall
    assert f"{overall['auc']:.3f} ± {overall['auc_se']:.3f}" in cells
    assert f"{analysis.times.order:.2f}".replace("-", "−") in page.text
    assert f"share {analysis.overlap.expected:.1f}" in page.text


def test_what_was_run_is_told(page: Page, run_and_analysis: tuple[Run, Analysis]) -> None:
    run, _ = run_and_analysis
    for checkpoint in run.suite:
        assert checkpoint.label in page.within("th")
    assert run.study.digest[:16] in page.text
    assert (run.fingerprint(0) or "?")[:16] in page.text
    assert f"rule {run.settings.rule}" in page.text
    for prompt in run.study.rendered(run.study.words[0]):
        assert prompt in page.within("td")


def test_the_page_is_small_and_repeats_to_the_byte(
    page: Page, run_and_analysis: tuple[Run, Analysis], tmp_path: Path
) -> None:
    again = write_report(*run_and_analysis, out=tmp_path / "deep" / "page.html")
    assert again.read_text(encoding="utf-8") == page.source
    assert again.stat().st_size < 3_000_000
    assert [path.name for path in again.parent.iterdir()] == ["page.html"]


def test_both_colour_schemes_and_paper_are_provided_for(page: Page) -> None:
    for media in ("color-scheme: light dark", "print", "max-width"):
        assert media in page.source


@pytest.mark.slow
def test_only_some_distances(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "r", groups=GROUPS, width=48)
    found = analyse(run, distances=["identity"], permutations=19)
    text = Page(write_report(run, found)).text
    assert "was not among those asked for" in text
    assert "Distances between words by neuron identity" in text


def test_an_analysis_of_something_else_is_refused(
    run_and_analysis: tuple[Run, Analysis], tmp_path: Path
) -> None:
    other, _ = made(tmp_path / "other", groups={"A": ("a", "b"), "B": ("c", "d")}, width=8)
    with pytest.raises(AnalysisError, match="other words or groups"):
        write_report(other, run_and_analysis[1])


def test_a_place_that_cannot_be_written(
    run_and_analysis: tuple[Run, Analysis], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        write_report(*run_and_analysis, out=tmp_path / "file" / "report.html")


class TestCautions:
    def titles(self, run: Run, analysis: Analysis) -> str:
        return " ".join(caution.title for caution in cautions(run, analysis))

    def test_a_sound_run_has_none(self, run_and_analysis: tuple[Run, Analysis]) -> None:
        run, found = run_and_analysis
        overall = {**found.contrasts["emd"].overall, "p": 0.01}
        sound = replace(found.contrasts["emd"], overall=overall)
        flat = replace(
            found.contrasts["probability_curve"],
            overall={**found.contrasts["probability_curve"].overall, "p": 0.5},
        )
        contrasts = {**found.contrasts, "emd": sound, "probability_curve": flat}
        assert cautions(run, replace(found, contrasts=contrasts)) == []

    @pytest.mark.slow
    def test_learning_time(self, tmp_path: Path) -> None:
        words = {f"G{g}": tuple(f"w{g}{i}" for i in range(6)) for g in range(4)}
        run, found = made(
            tmp_path / "r", groups=words, structure=0.0, learning_time="by_group", width=16
        )
        assert "Learning time alone" in self.titles(run, found)
        assert "Only one wording" in self.titles(run, found)
        page = Page(write_report(run, found))
        assert "Learning time alone tells the groups apart." in page.within("strong")

    def test_words_that_are_not_known(self, tmp_path: Path) -> None:
        scores = synthetic_scores(groups=GROUPS, width=48, structure=0.6).load()
        scores["rank"].values[-1, 1, :3] = 7
        run = synthetic_run(tmp_path / "r", scores)
        found = analyse(run, permutations=19)
        caution = next(c for c in cautions(run, found) if "does not know 1 of 11" in c.title)
        assert SCRIPT in caution.text
        assert SCRIPT not in Page(write_report(run, found)).source

    def test_gaps_and_equal_weights_and_a_word_alone(self, tmp_path: Path) -> None:
        scores = synthetic_scores(groups=GROUPS | {"lone": ("one",)}, width=48).load()
        scores["gap"].values[-1, :3] = 0.2
        scores["fingerprint"].values[2] = scores["fingerprint"].values[1]
        scores["step"].values[:] = -1
        run = synthetic_run(tmp_path / "r", scores)
        text = " ".join(c.title + c.text for c in cautions(run, analyse(run, permutations=19)))
        assert "The integral is not exact" in text
        assert "at most by 0.20" in text
        assert "step100 and step200 both hold equal weights" in text
        assert "steps are not known" in text
        assert "group 'lone' has one word" in text

    @pytest.mark.slow
    def test_what_an_audit_found_is_told_as_text(self, tmp_path: Path) -> None:
        run = synthetic_run(tmp_path / "r", synthetic_scores(groups=GROUPS, width=48))
        for place, item in enumerate(run.suite):
            head = "<b>head</b>"
            tensors = {
                "embed.w": TensorPrint(f"{place}", (2, 2), "float32", True),
                head: TensorPrint(f"{place % 3}", (2, 2), "float32", True),
            }
            config = {"hidden_act": "gelu" if place else SCRIPT}
            write_print(
                run,
                CheckpointPrint(
                    item.label, place, tensors, whole=run.fingerprint(place), config=config
                ),
            )
        found = analyse(run, permutations=19)
        told = {caution.title: caution.text for caution in cautions(run, found)}
        assert "hold weights of another one" in str([*told])
        assert SCRIPT in told["The configuration changes along the series."]
        page = Page(write_report(run, found))
        assert SCRIPT not in page.source
        assert "<b>head</b>" not in page.source
        assert "<b>head</b>" in page.text

    def test_integrals_that_did_not_converge(self, tmp_path: Path) -> None:
        scores = synthetic_scores(groups=GROUPS, width=48).load()
        places = {"checkpoint": [2, 5], "word": [1, 2], "prompt": 0, "layer": 2}
        scores["converged"][places] = 0
        scores["converged"][{"checkpoint": 5, "word": 4, "prompt": 3, "layer": 0}] = 0
        size = np.abs(scores["score"][places]).sum("neuron")
        scores["gap"][places] = np.array([[0.02, 0.02], [0.02, -0.3]]) * size
        scores["nodes"][{"layer": 0}] = 64
        run = synthetic_run(tmp_path / "r", scores)
        found = analyse(run, permutations=19)
        caution = next(c for c in cautions(run, found) if "did not converge" in c.title)
        assert caution.title.startswith("5 of 792 integrals did not converge (0.6 %)")
        assert "layer 2 (4), 0 (1); at step500 (3), step200 (2);" in caution.text
        words = [str(scores["word"].values[place]) for place in (1, 2, 4)]
        assert f"of the words {words[0]} (2), {words[1]} (2), {words[2]} (1)" in caution.text
        assert "by 2.0 % of the sum of their sizes in the median, 30.0 % at most" in caution.text
        assert "--tolerance" in caution.text
        page = Page(write_report(run, found))
        assert SCRIPT not in page.source
        assert "24.7 gradients per layer and prompt in the mean, 64.0 in the first" in page.text

    def test_the_papers_distance_finding_nothing(
        self, run_and_analysis: tuple[Run, Analysis]
    ) -> None:
        run, found = run_and_analysis
        worse = replace(
            found.contrasts["emd"], overall={**found.contrasts["emd"].overall, "p": 0.4}
        )
        found = replace(found, contrasts={**found.contrasts, "emd": worse})
        assert "The paper's distance does not tell" in self.titles(run, found)


def plain(text: str) -> str:
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())


def records(analysis: Analysis) -> list[dict[Any, Any]]:
    rows = analysis.contrasts["emd"].groups.to_dict("records")
    return [row for row in rows if np.isfinite(row["auc"])]
