"""The page in a real Chromium without a network: it works, is quiet, and asks for nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from kntrace.analysis import Analysis, analyse
from kntrace.archive import Run
from kntrace.contrasts import contrast
from kntrace.distance import pairwise_distances
from kntrace.emergence import formation_times
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.report import write_report
from kntrace.report.explore import explorer
from kntrace.testing import WORDS, synthetic_run, synthetic_scores
from kntrace.wording import read_wording
from opened_page import SCRIPT, Opened, browser_path, value


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        # As root, as in a container, Chromium has no sandbox.
        driven = playwright.chromium.launch(
            executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield driven
        driven.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    groups = dict(WORDS) | {"Animals": (SCRIPT, *WORDS["Animals"][1:])}
    run = synthetic_run(
        tmp_path_factory.mktemp("run") / "r", groups=groups, checkpoints=4, prompts=2, structure=0.6
    )
    found = analyse(run, distances=["identity", "emd"], permutations=19, k=5)
    return write_report(run, found), found


@pytest.fixture
def opened(browser: Any, made: tuple[Path, Analysis]) -> Iterator[Opened]:
    page = Opened(browser, made[0])
    yield page
    page.quiet()
    page.context.close()


def test_hovering_a_cell_names_both_words_their_distance_and_its_rank(
    opened: Opened, made: tuple[Path, Analysis]
) -> None:
    matrix = made[1].distances["identity"].values
    opened.over_cell(3, 20, 38)
    told = opened.text("#map-tip")
    assert told.startswith("Ant (Animals) – India (Countries)")
    assert f"identity {matrix[3, 20]:.3g}" in told
    pairs = np.sort(matrix[np.triu_indices(38, 1)])
    rank = int((pairs < matrix[3, 20]).sum()) + 1
    assert f"rank {rank} of 703 pairs" in told
    nearer = int((np.delete(matrix[3], 3) < matrix[3, 20]).sum())
    assert f"from Ant: rank {nearer + 1} of 37" in told
    own = matrix[3, [0, 1, 2, 4, 5, 6, 7]].mean()
    assert f"{matrix[3, 20] / own:.3g} times the mean distance of Ant" in told
    opened.page.mouse.move(2, 2)
    assert not opened.page.locator("#map-tip").is_visible()


def test_the_map_can_be_read_by_keyboard(opened: Opened) -> None:
    opened.page.locator("#map-cursor").focus()
    for key in ("ArrowDown", "ArrowDown", "End"):
        opened.page.keyboard.press(key)
    assert opened.text("#map-status").startswith("Fox (Animals) – Portuguese (Languages). identity")
    opened.page.keyboard.press("Enter")
    assert opened.text("#word-name") == "Fox"
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#map-tip").is_visible()


def test_typing_a_word_shows_its_neurons_and_its_nearest_words(
    opened: Opened, made: tuple[Path, Analysis]
) -> None:
    found = made[1]
    opened.page.fill("#word", "japan")
    assert opened.text("#word-name") == "Japan"
    assert "Group Countries." in opened.text("#word-says")
    place = [str(word) for word in found.neurons["word"].values].index("Japan")
    row = found.neurons.isel(word=place)
    names = [
        f"{layer}.{neuron}"
        for layer, neuron in zip(row["layer"].values, row["neuron"].values, strict=True)
    ]
    assert opened.cells("#neurons-table", 1) == names
    scores = [float(text) for text in opened.cells("#neurons-table", 2)]
    assert scores == pytest.approx(row["score"].values.tolist(), rel=6e-3)
    distances = found.distances["identity"].values[place]
    order = [i for i in np.argsort(distances, kind="stable") if i != place][:10]
    words = [str(found.distances["identity"]["word"].values[i]) for i in order]
    assert opened.cells("#nearest-table", 1) == words
    opened.page.locator("#nearest-table button.plain").first.click()
    assert opened.text("#word-name") == words[0]
    assert opened.page.input_value("#word") == words[0]


def test_a_word_that_is_not_there(opened: Opened) -> None:
    opened.page.fill("#word", "spa")
    opened.page.keyboard.press("Enter")
    told = opened.text("#word-status")
    assert told.startswith("No word “spa” in this study.")
    assert "Spain, Spanish" in told
    opened.page.fill("#word", "")
    opened.page.keyboard.press("Enter")
    assert opened.text("#word-status") == "No word “” in this study."


def test_a_script_among_the_words_shows_as_text(opened: Opened) -> None:
    opened.page.fill("#word", SCRIPT)
    assert opened.text("#word-name") == SCRIPT
    opened.over_cell(0, 1, 38)
    assert opened.text("#map-tip").startswith(f"{SCRIPT} (Animals) – Dog (Animals)")
    opened.page.fill("#word", "Dog")
    opened.page.select_option("#map-order", "near")
    assert opened.page.evaluate("document.querySelectorAll('script').length") == 2


def test_a_strangers_script_would_not_run(
    browser: Any, made: tuple[Path, Analysis], tmp_path: Path
) -> None:
    # Even if text came through as HTML, the policy lets no script run but the page's own.
    source = made[0].read_text(encoding="utf-8")
    path = tmp_path / "attacked.html"
    attack = f"<main>{SCRIPT}<img src=x onerror='alert(2)'><img src='http://192.0.2.1/a.png'>"
    path.write_text(source.replace("<main>", attack), encoding="utf-8")
    page = Opened(browser, path)
    assert page.dialogs == []
    assert "Content Security Policy" in " ".join(page.complaints)
    page.context.close()


def test_the_checkpoint_can_be_moved(opened: Opened, made: tuple[Path, Analysis]) -> None:
    opened.page.fill("#word", "Dog")
    opened.page.locator("#checkpoint").focus()
    opened.page.keyboard.press("Home")
    assert opened.text("#checkpoint-name") == "step0"
    assert opened.page.get_attribute("#checkpoint", "aria-valuetext") == "step0"
    formation = made[1].formation
    place = [str(word) for word in formation["word"].values].index("Dog")
    first = formation.isel(word=place, checkpoint=0).values
    shown = [value(text) for text in opened.cells("#neurons-table", 3)]
    scale = np.abs(formation.isel(word=place).values).max()
    assert shown == pytest.approx(first.tolist(), rel=6e-2, abs=scale / 32767)
    label = opened.page.get_attribute("#word-layers svg", "aria-label") or ""
    layers = np.bincount(formation["layer"].values[place], weights=first, minlength=3)
    told = [value(text) for text in re.findall(r"layer \d ([^,]+)", label)]
    assert told == pytest.approx(layers.tolist(), rel=6e-2, abs=layers.max() / 1000)


def test_groups_can_be_left_out(opened: Opened) -> None:
    opened.page.uncheck("#groups input[value='0']")
    assert "Cat" not in opened.text("#all-words")
    assert len(opened.cells("#all-words", 1)) == 30
    opened.over_cell(0, 1, 30)
    assert opened.text("#map-tip").startswith("Blue (Colours) – Red (Colours)")
    opened.page.click("#groups-all")
    assert len(opened.cells("#all-words", 1)) == 38
    opened.page.click("#groups-all")
    assert opened.cells("#all-words", 1) == []
    assert opened.cells("#nearest-table", 1) == []


def test_the_contrast_is_that_of_the_figure(opened: Opened) -> None:
    opened.page.locator("[data-map='emd'][data-view='contrast']").click()
    assert opened.page.input_value("#map-view") == "contrast"
    assert opened.text("#scale-name").startswith("emd: distance ÷ the row's mean")
    assert "nearer" in opened.text("#scale-low")


def test_tables_sort(opened: Opened) -> None:
    heading = opened.page.locator("#all-words thead th").nth(2)
    before = opened.cells("#all-words", 3)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in opened.cells("#all-words", 3)] == sorted(map(float, before))
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in opened.cells("#all-words", 3)] == sorted(
        map(float, before), reverse=True
    )
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") is None
    assert opened.cells("#all-words", 3) == before


def test_colours_can_be_chosen(opened: Opened) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = opened.page.evaluate(colour)
    opened.page.click("#scheme")
    assert opened.page.evaluate(colour) != light
    assert opened.text("#scheme") == "Light"


def test_paper_is_white_and_has_no_controls(opened: Opened) -> None:
    opened.page.evaluate("document.documentElement.dataset.scheme = 'dark'")
    opened.page.emulate_media(media="print")
    heading = "getComputedStyle(document.querySelector('.question')).color"
    assert opened.page.evaluate(heading) == "rgb(68, 68, 68)"
    assert opened.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert not opened.page.locator("section.explore").is_visible()
    assert opened.page.locator("button:not(.sort):visible").count() == 0
    assert opened.page.locator("#bibtex").is_visible()


def test_every_control_has_a_name_and_can_be_reached(opened: Opened) -> None:
    nameless = opened.page.evaluate(
        """() => Array.from(document.querySelectorAll(
            'button, select, input, svg, canvas:not([aria-hidden])'))
          .filter((node) => !node.closest('[hidden]'))
          .filter((node) => !(node.getAttribute('aria-label') || node.textContent.trim()
            || node.labels && node.labels.length))
          .map((node) => node.outerHTML)"""
    )
    assert nameless == []


def test_nothing_is_wider_than_a_telephone(browser: Any, made: tuple[Path, Analysis]) -> None:
    page = Opened(browser, made[0], viewport={"width": 400, "height": 800})
    wide = page.page.evaluate("document.documentElement.scrollWidth")
    page.quiet()
    page.context.close()
    assert wide <= 400


def test_without_a_script_the_page_can_be_read(browser: Any, made: tuple[Path, Analysis]) -> None:
    page = Opened(browser, made[0], java_script_enabled=False)
    assert page.page.locator("h1").is_visible()
    assert not page.page.locator("section.explore").is_visible()
    assert page.page.locator("button:visible").count() == 0
    page.context.close()
    assert page.complaints == []


@pytest.fixture(scope="module")
def large(made: tuple[Path, Analysis], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same page with the findings of 500 words, which need no whole analysis."""
    groups = {name: tuple(f"{name} {i}" for i in range(125)) for name in WORDS}
    scores = synthetic_scores(groups=groups, checkpoints=3, prompts=1, width=24, structure=0.6)
    chosen = knowledge_neurons(scores, k=30)
    formation = formation_processes(scores, chosen)
    probability = read_wording(scores).probability()
    matrix = pairwise_distances(scores, "identity")
    analysis = SimpleNamespace(
        groups=groups,
        wording="main",
        k=30,
        probability=probability,
        formation=formation,
        distances={"identity": matrix, "twice": 2 * matrix},
        corrected={},
        contrasts={"identity": contrast(matrix, groups, permutations=9)},
        times=formation_times(formation, probability, permutations=9),
    )
    run = SimpleNamespace(scores=scores, layers=scores.sizes["layer"])
    findings = json.dumps(explorer(cast("Run", run), cast("Analysis", analysis)), allow_nan=False)
    source = made[0].read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("large") / "report.html"
    start = source.index(">", source.index('<script type="application/json"')) + 1
    path.write_text(source[:start] + findings + source[source.index("</script>", start) :])
    assert len(findings) < 2_000_000
    return path


@pytest.mark.slow
def test_500_words_can_be_looked_up(browser: Any, large: Path) -> None:
    opened = Opened(browser, large)
    opened.over_cell(130, 400, 500)
    told = opened.text("#map-tip")
    assert told.startswith("Colours 5 (Colours) – Languages 25 (Languages)")
    assert "of 124,750 pairs" in told
    opened.page.fill("#word", "languages 124")
    assert opened.text("#word-name") == "Languages 124"
    assert len(opened.cells("#nearest-table", 1)) == 10
    assert len(opened.cells("#neurons-table", 1)) == 30
    # A distance that was not tested has no contrast to show.
    opened.page.select_option("#map-view", "contrast")
    opened.page.select_option("#map-name", "1")
    assert opened.page.input_value("#map-view") == "distance"
    assert opened.page.locator("#map-view option[value=contrast]").is_disabled()
    for group in (0, 1, 2):
        opened.page.uncheck(f"#groups input[value='{group}']")
    opened.over_cell(0, 124, 125)
    assert opened.text("#map-tip").startswith("Languages 0 (Languages) – Languages 124")
    opened.quiet()
    opened.context.close()


def test_corrected_distances_can_be_looked_up(opened: Opened, made: tuple[Path, Analysis]) -> None:
    name = "identity | probability_curve"
    opened.page.select_option("#map-name", label=name)
    opened.over_cell(3, 20, 38)
    matrix = made[1].corrected[name].values
    told = opened.text("#map-tip")
    shown = re.search(r"probability_curve (\S+) ranks", told)
    assert shown is not None
    assert value(shown[1]) == float(
        f"{matrix[3, 20]:.3g}" if abs(matrix[3, 20]) < 100 else f"{matrix[3, 20]:.0f}"
    )
    rank = int((matrix[np.triu_indices(38, 1)] < matrix[3, 20]).sum()) + 1
    assert f"rank {rank} of 703 pairs" in told
    # Ranks that can be negative have no ratio to a mean.
    assert opened.page.locator("#map-view option[value=contrast]").is_disabled()
    assert "without what these explain" in opened.text("#map-what")


def test_on_a_narrow_screen_the_map_has_its_names_and_scrolls(
    browser: Any, made: tuple[Path, Analysis]
) -> None:
    narrow = Opened(browser, made[0], viewport={"width": 400, "height": 800})
    wide = "document.getElementById('map-cells').clientWidth"
    seen = "document.getElementById('map-scroll').clientWidth"
    assert narrow.page.evaluate(wide) > 84 + 38 * 9
    assert narrow.page.evaluate(seen) < 400
    narrow.page.locator("#map-cursor").focus()
    narrow.page.keyboard.press("End")
    left = narrow.page.evaluate("document.getElementById('map-scroll').scrollLeft")
    assert left > 0
    tip = narrow.page.locator("#map-tip").bounding_box()
    assert tip is not None
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= 400
    narrow.quiet()
    narrow.context.close()


def test_a_long_table_comes_when_it_is_opened(
    browser: Any, made: tuple[Path, Analysis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made[1].run
    assert run is not None
    monkeypatch.setattr("kntrace.report.page._LONG", 50)
    monkeypatch.setattr("kntrace.report.page._FIRST", 10)
    monkeypatch.setattr("kntrace.report.page.FIGURES", {})
    opened = Opened(browser, write_report(run, made[1], tmp_path / "long.html"))
    rows = opened.page.locator("#prompts-table tbody tr")
    assert rows.count() == 10
    assert "first 10 of 76" in (opened.page.text_content("#prompts-table caption") or "")
    opened.page.get_by_text("The 76 prompts").click()
    rows.nth(75).wait_for()
    assert rows.count() == 76
    # A stranger's word, still text.
    assert rows.nth(0).locator("th").inner_text() == SCRIPT
    heading = opened.page.locator("#prompts-table thead th").nth(0).locator("button")
    heading.click()
    words = rows.locator("th").all_inner_texts()
    assert words == sorted(words, key=str.lower)
    opened.quiet()
    opened.context.close()
