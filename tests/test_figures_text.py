"""The axis of training steps, and text that fits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.ttLib import TTFont
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager

from kntrace.figures.fonts import families
from kntrace.figures.labels import fitted, number, spread, width_of, wrapped
from kntrace.figures.steps import StepAxis, step_name
from kntrace.figures.style import drawing, group_looks, new_figure
from kntrace.figures.truetype import has_postscript_outlines, truetype_family


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


def test_outlines_of_another_kind_are_turned_into_truetype(tmp_path: Path) -> None:
    """Matplotlib would put a font with PostScript's outlines into a pdf under a wrong name."""
    file = tmp_path / "square.otf"
    builder = FontBuilder(1000, isTTF=False)
    builder.setupGlyphOrder([".notdef", "cat", "dog"])
    builder.setupCharacterMap({ord("猫"): "cat", ord("犬"): "dog"})
    drawn = {}
    for name, side in ((".notdef", 100), ("cat", 600), ("dog", 300)):
        pen = T2CharStringPen(1000, None)
        pen.moveTo((0, 0))
        pen.curveTo((side / 2, side), (side / 2, side), (side, 0))
        pen.closePath()
        drawn[name] = pen.getCharString()
    builder.setupCFF("Square", {"FullName": "Square"}, drawn, {})
    builder.setupHorizontalMetrics(dict.fromkeys(drawn, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular", "psName": "Square"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)
    assert has_postscript_outlines(str(file))
    family = truetype_family("Square", str(file), frozenset("猫"))
    assert family.startswith("Square ")
    made = font_manager.findfont(family, fallback_to_default=False)
    assert not has_postscript_outlines(made)
    font = TTFont(made)
    assert set(font.getBestCmap()) == {ord("猫")}
    glyph = font["glyf"][font.getBestCmap()[ord("猫")]]
    assert (glyph.xMin, glyph.xMax, glyph.yMin) == (0, 600, 0)
    assert glyph.yMax == pytest.approx(450, abs=2)
    assert truetype_family("Square", str(file), frozenset("猫")) == family
