"""Figures for a column, a page and a slide; what their files say; and a few as they look."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from drawn_figures import assert_readable
from kntrace.analysis import Analysis, analyse, analyse_scores, load_analysis
from kntrace.archive import Run
from kntrace.cli import main
from kntrace.errors import SettingsError
from kntrace.figures import FIGURES, SIZES, DistanceMap, draw_all, find_figures, render, sized
from kntrace.testing import synthetic_run, synthetic_scores

GOLDEN = Path(__file__).parent / "golden"
# Make them anew with this set, and look at them.
MAKE = "KNTRACE_GOLDEN"
# Other scripts, and what would break a file of text.
SCRIPTS = {
    "動物": ("猫", "犬", "きつね"),
    "ألوان": ("أزرق", "أحمر", "أخضر"),
    "A\x01": ("a\x00b", "</desc>"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = synthetic_run(
        tmp_path_factory.mktemp("run") / "r", checkpoints=4, prompts=2, width=24, structure=0.5
    )
    analyse(made, permutations=9, k=12)
    return made


@pytest.fixture(scope="module")
def analysis(run: Run) -> Analysis:
    return load_analysis(run)


class TestSizes:
    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("size", ["column", "slide"])
    def test_every_figure_fits_and_its_text_is_whole(self, size: str, analysis: Analysis) -> None:
        """With the 38 words of the paper."""
        for name, figure in FIGURES.items():
            with sized(size) as room:
                drawn = figure.draw(figure.prepare(analysis))
            assert_readable(drawn, name, room)

    def test_a_slide_is_twice_as_large_in_every_format(self, analysis: Analysis) -> None:
        figure = FIGURES["forest"]
        with sized("slide"):
            drawn = figure.draw(figure.prepare(analysis))
        width, height = drawn.get_size_inches() * 2
        with Image.open(io.BytesIO(render(drawn, "png"))) as image:
            assert image.size == pytest.approx((width * 200, height * 200), abs=2)
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        pdf = render(drawn, "pdf")
        box = re.search(rb"/MediaBox \[ 0 0 ([0-9.]+) ([0-9.]+) \]", pdf)
        assert box is not None
        assert [float(side) for side in box.groups()] == pytest.approx([width * 72, height * 72])
        # All that is drawn on the page is enlarged, once.
        assert page_stream(pdf).count(b"2 0 0 2 0 0 cm") == 1
        assert b"/Type3" not in pdf
        svg = render(drawn, "svg")
        head = re.search(rb'<svg [^>]*?width="([0-9.]+)pt" height="([0-9.]+)pt"', svg)
        assert head is not None
        assert [float(side) for side in head.groups()] == pytest.approx([width * 72, height * 72])
        assert render(drawn, "pdf") == pdf

    def test_outside_of_sized_a_figure_is_for_paper(self, analysis: Analysis) -> None:
        figure, table = FIGURES["forest"], FIGURES["forest"].prepare(analysis)
        with pytest.raises(RuntimeError), sized("slide"):
            raise RuntimeError
        assert figure.draw(table).get_figwidth() * 25.4 == pytest.approx(SIZES["paper"].narrow)
        with pytest.raises(SettingsError, match="no size 'huge'; expected one of paper, column"):
            sized("huge").__enter__()


def page_stream(pdf: bytes) -> bytes:
    """The first stream of a pdf file: what is drawn on its page."""
    start = pdf.index(b"stream\n") + len(b"stream\n")
    return zlib.decompressobj().decompress(pdf[start:])


@pytest.fixture(scope="module")
def strange() -> Analysis:
    return analyse_scores(synthetic_scores(groups=SCRIPTS, width=16), permutations=9)


class TestWords:
    def test_pictures_say_what_they_show(self, analysis: Analysis, tmp_path: Path) -> None:
        chosen = find_figures(["embedding"])
        draw_all(analysis, tmp_path, formats=["png", "svg", "pdf"], figures=chosen)
        alt = chosen["embedding"].describe(chosen["embedding"].prepare(analysis))
        with Image.open(tmp_path / "embedding.png") as image:
            assert image.info["Description"] == alt
            assert image.info["Title"] == chosen["embedding"].title
        assert alt in (tmp_path / "embedding.svg").read_text(encoding="utf-8")
        assert b"/Subject" in (tmp_path / "embedding.pdf").read_bytes()
        said = (tmp_path / "embedding.txt").read_text(encoding="utf-8")
        assert said.startswith(chosen["embedding"].title)
        assert alt in said

    def test_control_characters_in_a_word_break_no_file(self, strange: Analysis) -> None:
        figure = FIGURES["layers"]
        alt = figure.describe(figure.prepare(strange)) + "\x01\ud800 </desc>"
        data = render(figure.draw(figure.prepare(strange)), "svg", title="\x02", alt=alt)
        ElementTree.fromstring(data)
        text = data.decode()
        assert "\x01" not in text
        assert "&lt;/desc&gt;" in text

    def test_words_in_other_scripts_are_drawn_with_their_glyphs(self, strange: Analysis) -> None:
        """Where a font of this machine has them; matplotlib would warn of each it has not."""
        for name in ("clusters", "embedding", "layers", "distances"):
            figure = FIGURES[name].draw(FIGURES[name].prepare(strange))
            texts = {text.get_text() for text in figure.findobj(Text)}  # type: ignore[attr-defined]
            assert "ألوان" in texts, name
            families = {
                family
                for text in figure.findobj(Text)
                if isinstance(text, Text) and text.get_text() == "猫"
                for family in text.get_fontfamily()
            }
            assert not families or families != {"DejaVu Sans"}, name

    def test_every_font_in_a_pdf_is_of_the_kind_it_says(self, strange: Analysis) -> None:
        data = render(FIGURES["embedding"].draw(FIGURES["embedding"].prepare(strange)), "pdf")
        streams = [
            zlib.decompressobj().decompress(data[found.end() :])
            for found in re.finditer(rb"/FlateDecode[^>]*>>\s*stream\n", data)
        ]
        assert sum(stream.startswith(b"\0\1\0\0") for stream in streams) >= 1
        assert not any(stream.startswith(b"OTTO") for stream in streams)


class TestCommand:
    def kn(self, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["kntrace", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    def test_figures_for_slides(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ("figures", run.path, "formation", "forest", "--size", "slide", "--word", "Dog")
        assert self.kn(monkeypatch, *asked, "--formats", "svg") == 0
        names = {path.name for path in (run.path / "figures-slide").iterdir()}
        assert names == {"formation.svg", "formation.txt", "forest.svg", "forest.txt"}
        assert "word Dog" in (run.path / "figures-slide" / "formation.txt").read_text()
        assert str(run.path / "figures-slide" / "forest.svg") in capsys.readouterr().out
        assert self.kn(monkeypatch, *asked, "--formats", "svg", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["figures"]["forest"]["svg"] == str(run.path / "figures-slide" / "forest.svg")

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["cluster"], "no figure 'cluster'; expected one of forest"),
            (["cluster"], "Did you mean 'clusters'?"),
            (["--size", "a4"], "no size 'a4'"),
            (["--formats", "gif"], "no format 'gif'"),
            (["forest", "--word", "Dog"], "a figure that shows one word"),
        ],
    )
    def test_wrong_input(
        self,
        words: list[str],
        says: str,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert self.kn(monkeypatch, "figures", run.path, *words) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", ["distances_identity", "forest", "layers"])
def test_looks_as_it_did(name: str, analysis: Analysis) -> None:
    """Beside a picture that somebody looked at; letters may differ with the library of fonts."""
    figure = FIGURES[name]
    made = small(render(figure.draw(figure.prepare(analysis)), "png"))
    file = GOLDEN / f"{name}.png"
    if os.environ.get(MAKE):
        Image.fromarray(made).save(file, optimize=True)
    with Image.open(file) as image:
        kept = np.asarray(image.convert("RGB"))
    assert made.shape == kept.shape, f"matplotlib {mpl.__version__}"
    assert difference(made, kept) < 2.0
    # What is drawn in other colours, or moved, is told apart.
    assert difference(255 - made, kept) > 20
    assert difference(np.roll(made, 4, axis=0), kept) > 4


def small(png: bytes) -> np.ndarray:
    """A third of its size, so that the edges of letters count for little."""
    with Image.open(io.BytesIO(png)) as image:
        size = (image.width // 3, image.height // 3)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one.astype(float) - other.astype(float)) ** 2)))


def test_the_map_of_any_distance_can_be_drawn(analysis: Analysis) -> None:
    other = DistanceMap(distance="probability_curve")
    assert other.prepare(analysis).attrs["distance"] == "probability_curve"
    values: Any = other.draw(other.prepare(analysis)).axes[0].images[0].get_array()
    assert np.ma.count(values) == 38 * 37
