"""What every figure must do, whatever it is drawn of; its file, and the map of distances."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from drawn_figures import GROUPS, analysed, assert_readable, numbered, shown, with_steps
from kntrace.analysis import Analysis, analyse, analyse_scores
from kntrace.contrasts import contrast
from kntrace.errors import RunError, SettingsError
from kntrace.figures import FIGURES, DistanceMap, draw_all, find_figures, render
from kntrace.figures.matrix import MASKED
from kntrace.testing import synthetic_run, synthetic_scores

HOSTILE = {
    "動物と<b>植物</b>": ("猫", "犬", "蟻 $x$", "きつね"),
    "ألوان": ("أزرق", "أحمر"),
    "A group with a name that goes on and on, for no good reason, to the end": (
        *("$\\frac{", "{{ 7*7 }}", "&amp;", "a\tb", "🦊", "𐎀"),
        "Donaudampfschifffahrtsgesellschaftskapitänsmütze",
    ),
}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analysed()


@pytest.fixture(scope="module")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    run = synthetic_run(
        tmp_path_factory.mktemp("run") / "r", groups=GROUPS, wordings=("grouped", "neutral")
    )
    return analyse(run, permutations=19)


@pytest.fixture(scope="module")
def drawn(
    of_run: Analysis, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Path], Path, list[Any]]:
    """All figures of a run: what was written, into which folder, and what was told meanwhile."""
    told: list[Any] = []
    folder = tmp_path_factory.mktemp("drawn") / "new" / "figures"
    written = draw_all(of_run, folder, progress=lambda *said: told.append(said))
    return written, folder, told


class TestEveryFigure:
    """What each figure of the registry must do."""

    @pytest.fixture
    def analysis(self, of_run: Analysis) -> Analysis:
        """Of a run folder, which some figures need."""
        return of_run

    @pytest.fixture(params=FIGURES)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_says_what_it_is(self, name: str, analysis: Analysis) -> None:
        figure = FIGURES[name]
        assert figure.name == name
        assert figure.applies(analysis)
        assert len(figure.title) > 10
        assert len(figure.how_to_read) > 100
        assert 60 < len(figure.describe(figure.prepare(analysis))) < 1500

    def test_its_table_is_not_changed_and_it_fits_a_column_or_a_page(
        self, name: str, analysis: Analysis
    ) -> None:
        table = FIGURES[name].prepare(analysis)
        before = table.copy(deep=True)
        figure = FIGURES[name].draw(table)
        assert isinstance(figure, Figure)
        same = table.equals(before)
        assert same
        width, height = figure.get_size_inches() * 25.4
        assert 30 < width <= 170.01
        assert height < 240

    def test_repeats_to_the_byte(self, name: str, analysis: Analysis) -> None:
        once, again = (FIGURES[name].draw(FIGURES[name].prepare(analysis)) for _ in range(2))
        for form in ("svg", "pdf"):
            assert render(once, form) == render(again, form), form

    def test_uses_no_settings_of_the_reader_and_changes_none(
        self, name: str, analysis: Analysis
    ) -> None:
        table = FIGURES[name].prepare(analysis)
        plain = render(FIGURES[name].draw(table), "png")
        theirs = {
            "font.size": 30,
            "axes.facecolor": "black",
            "lines.linewidth": 9,
            "savefig.dpi": 9,
        }
        with mpl.rc_context(cast("Any", theirs)):
            before = dict(mpl.rcParams)
            assert render(FIGURES[name].draw(table), "png") == plain
            assert dict(mpl.rcParams) == before


CASES: dict[str, Any] = {
    "paper": lambda: analysed(groups=None, width=32),
    "hostile": lambda: analysed(groups=HOSTILE),
    "tiny": lambda: analysed(groups={"A": ("a", "b"), "B": ("c",)}),
    "many words": lambda: analysed(groups=numbered(150, 3), width=16, layers=2, checkpoints=3),
    "many groups": lambda: analysed(groups=numbered(52, 26), width=16, layers=2, checkpoints=3),
    "one checkpoint": lambda: analysed(checkpoints=1),
    "pythia": lambda: with_steps(analysed(checkpoints=6), [0, 1, 64, 512, 10000, 143000]),
    "no steps": lambda: with_steps(analysed(checkpoints=6), [-1] * 6),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * case.startswith("many")) for case in CASES],
)
def test_all_text_is_whole_and_apart_and_large_enough(case: str) -> None:
    found = CASES[case]()
    for name, figure in FIGURES.items():
        if figure.applies(found):
            assert_readable(figure.draw(figure.prepare(found)), name)


class TestDistanceMap:
    def colours(self, table: xr.DataArray) -> tuple[Figure, Any]:
        """The figure, and the colour of every cell."""
        figure = FIGURES["distances"].draw(table)
        image = figure.axes[0].images[0]
        assert isinstance(image.norm, LogNorm)
        return figure, image.cmap(image.norm(np.ma.asarray(image.get_array())))

    def test_log_scale_masks_the_diagonal(self, analysis: Analysis) -> None:
        _, colours = self.colours(FIGURES["distances"].prepare(analysis))
        masked = (colours == mpl.colors.to_rgba(MASKED)).all(axis=-1)
        np.testing.assert_array_equal(masked, np.eye(9, dtype=bool))

    def test_a_distance_of_zero_is_black_and_said(self, analysis: Analysis) -> None:
        table = FIGURES["distances"].prepare(analysis)
        table[0, 3] = table[3, 0] = 0.0
        figure, colours = self.colours(table)
        black = (colours == (0, 0, 0, 1)).all(axis=-1)
        assert np.argwhere(black).tolist() == [[0, 3], [3, 0]]
        said = [" ".join(text.get_text().split()) for text in shown(figure)]
        assert any("black: exactly 0 (1 pair)" in text for text in said)

    def test_all_distances_zero(self, analysis: Analysis) -> None:
        zero = analysis.distances["emd"] * 0
        zero.attrs = analysis.distances["emd"].attrs
        flat = contrast(zero, GROUPS, permutations=9)
        found = replace(
            analysis,
            distances={**analysis.distances, "emd": zero},
            contrasts={**analysis.contrasts, "emd": flat},
        )
        for name in ("distances", "contrast_map"):
            render(FIGURES[name].draw(FIGURES[name].prepare(found)), "png")

    def test_needs_its_distance(self, analysis: Analysis) -> None:
        assert not DistanceMap(distance="mine").applies(analysis)


class TestFiles:
    @pytest.fixture
    def analysis(self, of_run: Analysis) -> Analysis:
        return of_run

    def test_one_for_each_figure_and_format(
        self, drawn: tuple[list[Path], Path, list[Any]]
    ) -> None:
        written, folder, told = drawn
        assert {path.name for path in written} == {
            f"{n}.{f}" for n in FIGURES for f in ("png", "pdf", "txt")
        }
        assert {path.name for path in written} == {p.name for p in folder.iterdir()}
        assert told[-1][:3] == ("figures", len(FIGURES), len(FIGURES))
        begin = {".png": b"\x89PNG", ".pdf": b"%PDF"}
        for path in written:
            title = FIGURES[path.stem].title.encode()
            assert path.read_bytes().startswith(begin.get(path.suffix, title))

    def test_fonts_are_embedded_as_truetype(
        self, drawn: tuple[list[Path], Path, list[Any]]
    ) -> None:
        for path in drawn[1].glob("*.pdf"):
            data = path.read_bytes()
            assert b"/CIDFontType2" in data
            assert b"/Type3" not in data
            assert b"CreationDate" not in data

    def test_what_no_longer_applies_is_removed(self, analysis: Analysis, tmp_path: Path) -> None:
        chosen = find_figures(["distances", "distances_identity"])
        draw_all(analysis, tmp_path, formats=["png"], figures=chosen)
        assert (tmp_path / "distances.txt").exists()
        (tmp_path / "mine.png").write_bytes(b"")
        scores = synthetic_scores(groups=GROUPS, width=32)
        less = analyse_scores(scores, distances=["identity"], permutations=9)
        written = draw_all(less, tmp_path, formats=["png"], figures=chosen)
        assert not list(tmp_path.glob("distances.*"))
        assert tmp_path / "distances_identity.png" in written
        assert (tmp_path / "mine.png").exists()

    def test_unknown_format(self, analysis: Analysis, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"format 'gif'; expected one of png, pdf, svg"):
            draw_all(analysis, tmp_path, formats=["png", "gif"])
        assert not list(tmp_path.iterdir())

    def test_a_place_that_cannot_be_written(self, analysis: Analysis, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match="file"):
            draw_all(analysis, tmp_path / "file" / "figures")


def test_no_window_system_is_touched() -> None:
    code = (
        "import sys, kntrace.figures as f; from kntrace.testing import synthetic_scores as s;"
        "from kntrace.analysis import analyse_scores as a;"
        "x = a(s(groups={'A': 'ab', 'B': 'cd'}, width=8), permutations=9);"
        "[f.render(d.draw(d.prepare(x)), 'png') for d in f.FIGURES.values() if d.applies(x)];"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
