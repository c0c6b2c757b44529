"""Figures are tested by the tables they draw, and by what of them can be read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from kntrace.analysis import Analysis, analyse, analyse_scores
from kntrace.contrasts import contrast
from kntrace.errors import AnalysisError, RunError, SettingsError
from kntrace.figures import FIGURES, DistanceMap, Formation, draw_all, find_figures, render
from kntrace.figures.fonts import families
from kntrace.figures.labels import fitted, number, spread, width_of, wrapped
from kntrace.figures.matrix import MASKED
from kntrace.figures.steps import StepAxis, step_name
from kntrace.figures.style import drawing, group_looks, new_figure
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"A": ("a1", "a2", "a3"), "B": ("b1", "b2", "b3", "b4"), "C": ("c1", "c2")}
HOSTILE = {
    "動物と<b>植物</b>": ("猫", "犬", "蟻 $x$", "きつね"),
    "ألوان": ("أزرق", "أحمر"),
    "A group with a name that goes on and on, for no good reason, to the end": (
        *("$\\frac{", "{{ 7*7 }}", "&amp;", "a\tb", "🦊", "𐎀"),
        "Donaudampfschifffahrtsgesellschaftskapitänsmütze",
    ),
}


def analysed(**drawn: Any) -> Analysis:
    shape: dict[str, Any] = {"groups": GROUPS, "width": 64, "structure": 0.5, "checkpoints": 5}
    return analyse_scores(synthetic_scores(**(shape | drawn)), permutations=49)


def numbered(words: int, groups: int) -> dict[str, tuple[str, ...]]:
    each = words // groups
    return {f"Group {g}": tuple(f"word{g}x{i}" for i in range(each)) for g in range(groups)}


def with_steps(analysis: Analysis, steps: list[int]) -> Analysis:
    coords = {"step": ("checkpoint", np.array(steps))}
    return replace(
        analysis,
        probability=analysis.probability.assign_coords(coords),
        formation=analysis.formation.assign_coords(coords),
    )


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


class TestTables:
    """What is drawn is what was found."""

    def test_distances_are_the_analysis_own(self, analysis: Analysis) -> None:
        table = FIGURES["distances"].prepare(analysis)
        found = analysis.distances["emd"].values
        off = ~np.eye(len(found), dtype=bool)
        np.testing.assert_array_equal(table.values[off], found[off])
        assert np.isnan(np.diag(table.values)).all()
        assert not np.isnan(np.diag(found)).any()  # the analysis was not touched

    def test_words_come_group_by_group(self) -> None:
        scores = synthetic_scores(groups=GROUPS, width=32, checkpoints=3)
        mixed = scores.isel(word=[3, 0, 7, 1, 4, 8, 2, 5, 6])
        table = FIGURES["distances"].prepare(analyse_scores(mixed, GROUPS, permutations=9))
        assert list(table["word"].values) == [w for words in GROUPS.values() for w in words]
        straight = FIGURES["distances"].prepare(analyse_scores(scores, GROUPS, permutations=9))
        np.testing.assert_allclose(table.values, straight.values)

    def test_contrast_map_is_the_ratio_to_the_rows_threshold(self, analysis: Analysis) -> None:
        table = FIGURES["contrast_map"].prepare(analysis)
        matrix = analysis.distances["emd"]
        group = matrix["group"].values
        for row in range(len(matrix)):
            same = (group == group[row]) & (np.arange(len(group)) != row)
            threshold = matrix.values[row, same].mean()
            other = matrix.values[row, group != group[row]]
            expected = np.log2(other / threshold)
            np.testing.assert_allclose(table["ratio"].values[row, group != group[row]], expected)
            assert table["share_above"].values[row] == pytest.approx((other > threshold).mean())
        shares = analysis.contrasts["emd"].groups.set_index("group")
        for name in GROUPS:
            at = table.sel(of_group=name)
            assert float(at["share"]) == shares.loc[name, "share_above"]
            assert float(at["chance"]) == shares.loc[name, "chance"]

    def test_contrast_map_leaves_out_a_word_alone(self) -> None:
        found = analysed(groups={"A": ("a",), "B": ("b", "c", "d")})
        table = FIGURES["contrast_map"].prepare(found)
        assert np.isnan(table["ratio"].values[0]).all()
        assert np.isnan(float(table["share"].sel(of_group="A")))
        assert np.isfinite(table["ratio"].values[1, [0, 2, 3]]).all()

    def test_overlap_counts_and_row_means(self, analysis: Analysis) -> None:
        table = FIGURES["neuron_overlap"].prepare(analysis)
        sets = [
            set(zip(layer, neuron, strict=True))
            for layer, neuron in zip(
                analysis.neurons["layer"].values, analysis.neurons["neuron"].values, strict=True
            )
        ]
        assert table["common"].values[0, 4] == len(sets[0] & sets[4])
        mates = [len(sets[0] & sets[j]) for j in (1, 2)]
        assert float(table["mean_same"][0]) == pytest.approx(np.mean(mates))
        others = [len(sets[0] & sets[j]) for j in range(3, 9)]
        assert float(table["mean_other"][0]) == pytest.approx(np.mean(others))
        assert table.attrs["expected"] == analysis.overlap.expected

    def test_probability_has_every_wording_of_a_run(self, of_run: Analysis) -> None:
        table = FIGURES["probability"].prepare(of_run)
        assert list(table["wording"].values) == ["grouped", "neutral"]
        np.testing.assert_array_equal(table.values[0], of_run.probability.values)
        assert of_run.run is not None
        scores = of_run.run.scores["probability"]
        neutral = scores.isel(prompt=np.flatnonzero(scores["wording"].values == "neutral"))
        np.testing.assert_allclose(table.values[1], neutral.mean("prompt").values, rtol=1e-6)

    def test_formation_is_sorted_by_the_time_of_formation(self, analysis: Analysis) -> None:
        table = Formation(word="b2", neurons=4).prepare(analysis)
        assert sorted(table["rank"].values) == [0, 1, 2, 3]
        assert (np.diff(table["formed"].values) >= 0).all()
        for place, rank in enumerate(table["rank"].values):
            mine = analysis.formation.sel(word="b2").isel(rank=int(rank))
            np.testing.assert_array_equal(table["score"].values[place], mine.values)
            assert int(table["layer"][place]) == int(mine["layer"])

    @pytest.mark.parametrize(
        ("score", "formed"),
        [
            ([0.0, 0.0, 4.0, 4.0], 1.5),  # half of 4 is passed half-way
            ([0.0, 9.0, 0.0, 4.0], 2.5),  # it fell back, so what counts is the last rise
            ([4.0, 4.0, 4.0, 4.0], 0.0),
            ([1.0, 1.0, 1.0, -1.0], 3.0),  # nothing has formed
        ],
    )
    def test_formed_is_when_half_of_the_last_score_is_passed_for_good(
        self, analysis: Analysis, score: list[float], formed: float
    ) -> None:
        rows = analysis.formation.isel(checkpoint=slice(0, 4)).copy(deep=True)
        rows.loc[{"word": "a1", "rank": 0}] = score
        table = Formation(word="a1", neurons=1).prepare(replace(analysis, formation=rows))
        assert float(table["formed"][0]) == pytest.approx(formed)

    def test_formation_takes_the_best_known_word_unless_told(self, analysis: Analysis) -> None:
        last = analysis.probability.isel(checkpoint=-1)
        best = str(last["word"].values[last.values.argmax()])
        assert Formation().prepare(analysis).attrs["word"] == best
        with pytest.raises(AnalysisError, match="no word 'nobody'"):
            Formation(word="nobody").prepare(analysis)

    def test_forest_has_the_contrasts_and_where_chance_puts_them(self, analysis: Analysis) -> None:
        table = FIGURES["forest"].prepare(analysis)
        assert table["kind"].iloc[0] == "baseline"
        assert set(table["kind"]) == {"baseline", "plain", "corrected", "verdict"}
        for row in table[table["kind"] != "verdict"].to_dict("records"):
            name = row["distance"]
            name += " | probability_curve" if row["kind"] == "corrected" else ""
            overall = analysis.contrasts[name].overall
            assert row["auc"] == pytest.approx(overall["auc"], abs=1e-12)
            assert row["p"] == overall["p"]
            assert row["low"] < overall["auc_chance"] < row["high"]
        verdict = table[table["kind"] == "verdict"].iloc[0]
        assert (verdict["auc"], verdict["low"]) == (
            analysis.verdict.adjusted_auc,
            analysis.verdict.low,
        )

    def test_the_confound_shows(self) -> None:
        words = {f"G{g}": tuple(f"w{g}{i}" for i in range(6)) for g in range(4)}
        found = analysed(groups=words, structure=0.0, learning_time="by_group", checkpoints=8)
        table = FIGURES["forest"].prepare(found).set_index(["distance", "kind"])
        baseline = table.loc[("probability_curve", "baseline")]
        assert baseline["auc"] > baseline["high"]
        assert table.loc[("emd", "plain")]["auc"] > table.loc[("emd", "corrected")]["auc"]


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
@pytest.mark.parametrize("case", CASES)
def test_all_text_is_whole_and_apart_and_large_enough(case: str) -> None:
    found = CASES[case]()
    for name, figure in FIGURES.items():
        if not figure.applies(found):
            continue
        drawn = figure.draw(figure.prepare(found))
        with drawing():
            drawn.draw_without_rendering()
            for text in shown(drawn):
                box = text.get_window_extent()
                assert inside(box, drawn.bbox), (name, text.get_text())
                assert float(text.get_fontsize()) >= 6, (name, text.get_text())
            for axis in (axis for ax in drawn.axes for axis in (ax.xaxis, ax.yaxis)):
                boxes = [tick.get_window_extent() for tick in tick_labels(axis)]
                for one, other in combinations(boxes, 2):
                    assert not overlap(one, other), name


def shown(figure: Figure) -> Iterator[Text]:
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            labels = {id(label) for label in tick_labels(axis)}
            hidden |= {id(tick.label1) for tick in axis.get_major_ticks()} - labels
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            yield text


def tick_labels(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    return [
        tick.label1
        for tick in axis.get_major_ticks()
        if low - slack <= tick.get_loc() <= high + slack and tick.label1.get_text().strip()
    ]


def inside(box: Bbox, around: Any) -> bool:
    return bool(
        around.x0 - 1 <= box.x0
        and around.y0 - 1 <= box.y0
        and box.x1 <= around.x1 + 1
        and box.y1 <= around.y1 + 1
    )


def overlap(one: Bbox, other: Bbox) -> bool:
    return bool(
        min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    )


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


class TestStepAxis:
    def of(self, steps: list[int]) -> StepAxis:
        names = [f"c{place}" for place in range(len(steps))]
        coords = {"checkpoint": names, "step": ("checkpoint", steps)}
        return StepAxis.of(xr.DataArray(np.zeros(len(steps)), dims="checkpoint", coords=coords))

    def applied(self, steps: list[int], *, cells: bool = False) -> Any:
        with drawing():
            ax = new_figure(85, 40).add_subplot()
            self.of(steps).apply(ax, 70.0, cells=cells)
        return ax

    @pytest.mark.parametrize("steps", [[0, 1, 2, 512, 143000], [0, 100, 200], [5, 6], [7], [0]])
    def test_checkpoints_lie_at_their_steps(self, steps: list[int]) -> None:
        axis, ax = self.of(steps), self.applied(steps)
        assert list(axis.places) == steps
        low, high = ax.get_xlim()
        assert low < min(steps)
        assert high > max(steps)
        assert set(ax.get_xticks()) >= {steps[0]}
        edges = axis.edges
        assert (np.diff(edges) > 0).all()
        assert ((edges[:-1] < axis.places) & (axis.places < edges[1:])).all()

    def test_early_steps_have_more_room(self) -> None:
        ax = self.applied([0, 100, 200, 300])
        drawn = ax.transData.transform([(step, 0) for step in (0, 100, 200, 300)])[:, 0]
        assert np.diff(drawn)[0] > np.diff(drawn)[1] > np.diff(drawn)[2] > 0

    def test_scale_is_named(self) -> None:
        assert "square-root" in self.applied([0, 512, 143000]).get_xlabel()
        assert "log" in self.applied([0, 1, 143000]).get_xlabel()

    def test_without_steps_checkpoints_stand_in_a_row(self) -> None:
        ax = self.applied([-1, -1, -1])
        assert list(self.of([-1, -1, -1]).places) == [0, 1, 2]
        assert ax.get_xlabel() == "checkpoint"
        assert [text.get_text() for text in ax.get_xticklabels()] == ["c0", "c1", "c2"]

    @pytest.mark.parametrize(
        ("step", "name"), [(0, "0"), (512, "512"), (1000, "1k"), (143000, "143k"), (2.5e6, "2.5M")]
    )
    def test_names_of_steps(self, step: float, name: str) -> None:
        assert step_name(step) == name


class TestText:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0, "0"),
            (0.5, "0.5"),
            (12345.678, "12346"),
            (123.456, "123"),
            (-0.25, "−0.25"),
            (0.00123, "0.00123"),
            (2.11e-5, "2.11×10⁻⁵"),
            (1e-7, "10⁻⁷"),
            (1e12, "10¹²"),
            (0.99999, "1"),
        ],
    )
    def test_numbers(self, value: float, text: str) -> None:
        assert number(value) == text

    @given(st.lists(st.floats(0, 1000), min_size=1, max_size=60), st.floats(0.5, 50))
    def test_spread_keeps_the_gap(self, places: list[float], gap: float) -> None:
        places.sort()
        chosen = spread(places, gap)
        assert chosen[0] == 0
        assert all(places[b] - places[a] >= gap - 1e-6 for a, b in pairwise(chosen))

    def test_even_places_are_thinned_evenly(self) -> None:
        assert spread([0, 1, 2, 3, 4, 5, 6], 2.5) == [0, 3, 6]

    def test_fitted_text_fits(self) -> None:
        with drawing():
            for room in (5.0, 12.0, 40.0):
                short = fitted("Donaudampfschifffahrtsgesellschaft", room)
                assert width_of(short) <= room + 0.02
            assert fitted("cat", width_of("cat")) == "cat"
            lines = wrapped("a group of words with a long name", 20.0, 2)
            assert len(lines) == 2
            assert all(width_of(line) <= 20.02 for line in lines)
            assert lines[0].startswith("a group")

    def test_fonts_for_other_scripts(self) -> None:
        assert families(["Größe, Ωμέγα, привет"]) == ["DejaVu Sans"]
        assert families(["猫"])[0] == "DejaVu Sans"
        assert len(families(["猫"])) > 1

    def test_no_two_groups_look_the_same(self) -> None:
        looks = group_looks(f"g{place}" for place in range(24))
        assert len({(look.colour, str(look.dashes)) for look in looks.values()}) == 24


def test_no_window_system_is_touched() -> None:
    code = (
        "import sys, kntrace.figures as f; from kntrace.testing import synthetic_scores as s;"
        "from kntrace.analysis import analyse_scores as a;"
        "x = a(s(groups={'A': 'ab', 'B': 'cd'}, width=8), permutations=9);"
        "[f.render(d.draw(d.prepare(x)), 'png') for d in f.FIGURES.values() if d.applies(x)];"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_tables_are_of_the_kinds_that_are_promised(analysis: Analysis) -> None:
    for figure in (figure for figure in FIGURES.values() if figure.applies(analysis)):
        assert isinstance(figure.prepare(analysis), pd.DataFrame | xr.DataArray | xr.Dataset)
