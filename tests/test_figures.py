"""Figures are tested by the data they draw, and by drawing what is awkward to draw."""

from __future__ import annotations

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import LogNorm

from kntrace.analysis import analyse_scores
from kntrace.errors import SettingsError
from kntrace.figures import FIGURES, contrast_map, draw_all, forest, formation, probability
from kntrace.figures import distances as heat_map
from kntrace.figures.style import PAGE, group_colours, new_figure, save, step_axis, styled
from kntrace.testing import synthetic_scores

SMALL = {"A": ("a1", "a2", "a3"), "B": ("b1", "b2", "b3", "b4"), "C": ("c1", "c2")}


@pytest.fixture(scope="module")
def analysis():
    return analyse_scores(synthetic_scores(groups=SMALL, structure=0.5, width=64), permutations=99)


def test_the_heat_map_shows_the_distances_and_masks_the_diagonal(analysis):
    table = heat_map.prepare(analysis)
    true = analysis.distances["emd"].values
    off = ~np.eye(len(true), dtype=bool)
    np.testing.assert_array_equal(table.values[off], true[off])
    assert np.isnan(np.diag(table.values)).all()
    with styled():
        axes = heat_map.draw(table).axes[0]
    image = axes.get_images()[0]
    assert isinstance(image.norm, LogNorm)
    assert image.get_array().mask.sum() == len(true)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        w for g in SMALL.values() for w in g
    ]


def test_a_distance_of_zero_has_no_colour(analysis):
    table = heat_map.prepare(analysis)
    twin = analysis.distances["emd"].copy(deep=True)
    twin[0, 1] = twin[1, 0] = 0
    changed = {**vars(analysis), "distances": {"emd": twin}}
    table = heat_map.prepare(type(analysis)(**changed))
    assert np.isnan(table.values[0, 1])
    with styled():
        heat_map.draw(table)


def test_the_contrast_map_is_the_ratio_to_the_rows_threshold(analysis):
    table = contrast_map.prepare(analysis)
    matrix = analysis.distances["emd"].values
    group = analysis.distances["emd"]["group"].values
    for row in range(len(matrix)):
        own = [matrix[row, j] for j in range(len(matrix)) if j != row and group[j] == group[row]]
        others = [matrix[row, j] for j in range(len(matrix)) if group[j] != group[row]]
        column = int(np.argmax(matrix[row]))
        ratio = np.log2(matrix[row, column] / np.mean(own))
        assert table["ratio"].values[row, column] == pytest.approx(ratio)
        share = np.mean(np.array(others) > np.mean(own))
        assert table["share_above"].values[row] == pytest.approx(share)


def test_the_forest_has_every_contrast_and_the_baseline_first(analysis):
    table = forest.prepare(analysis)
    assert table["kind"].iloc[0] == "baseline"
    assert set(table["distance"]) == set(analysis.contrasts)
    row = table.set_index("distance").loc["identity"]
    assert row["auc"] == analysis.contrasts["identity"].overall["auc"]


def test_probability_curves_keep_step_and_word(analysis):
    table = probability.prepare(analysis)
    curves = analysis.probability
    one = table[(table["word"] == "b3")].sort_values("step")
    np.testing.assert_allclose(one["probability"], curves.sel(word="b3").values)
    np.testing.assert_array_equal(one["step"], curves["step"].values)


def test_formation_is_sorted_by_half_rise(analysis):
    table = formation.prepare(analysis, "b2")
    scores = table["score"].values
    half = [(row >= row[-1] / 2).argmax() for row in scores]
    assert half == sorted(half)
    place = int(np.argmin(table["rank"].values))
    np.testing.assert_allclose(scores[place], analysis.formation.sel(word="b2", rank=0).values)


def test_every_figure_is_written_and_repeats_to_the_byte(analysis, tmp_path):
    first = draw_all(analysis, tmp_path / "a", formats=("png", "pdf", "svg"))
    second = draw_all(analysis, tmp_path / "b", formats=("png", "pdf", "svg"))
    assert len(first) == 3 * len(FIGURES)
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
        assert one.stat().st_size > 3000
    assert not list(tmp_path.rglob("*.partial*"))
    with pytest.raises(SettingsError, match="format 'gif'"):
        draw_all(analysis, tmp_path, formats=("gif",))


def test_fonts_are_embedded_in_pdf(analysis, tmp_path):
    draw_all(analysis, tmp_path, formats=("pdf",))
    assert b"/FontFile2" in (tmp_path / "forest.pdf").read_bytes()


@pytest.mark.filterwarnings("error")
def test_labels_of_any_script_and_length_are_drawn(tmp_path):
    words = {
        "$group$ of a very very long name indeed": ("$x_1^2$", "a_b", "{c}", "<script>"),
        "B": ("Größe", "naïve", "x" * 60),
        **{f"G{i}": (f"w{i}", f"v{i}") for i in range(10)},
    }
    found = analyse_scores(synthetic_scores(groups=words, width=40), permutations=19)
    assert len(draw_all(found, tmp_path, formats=("png",))) == len(FIGURES)


def test_many_words_are_labelled_thinly():
    names = {f"G{g}": tuple(f"word{g}x{i}" for i in range(50)) for g in range(4)}
    found = analyse_scores(
        synthetic_scores(groups=names, width=40, prompts=1, checkpoints=3),
        k=5,
        distances=("identity",),
        permutations=19,
    )
    with styled():
        figure = heat_map.draw(heat_map.prepare(found))
        figure.canvas.draw()
        labels = figure.axes[0].get_yticklabels()
        boxes = [label.get_window_extent() for label in labels]
    assert 40 < len(labels) <= 200
    assert all(a.y0 >= b.y1 - 1 for a, b in pairwise(boxes))


def test_the_step_axis_shows_steps_not_places():
    with styled():
        ax = new_figure(3, 2).add_subplot()
        step_axis(ax, np.array([0, 1, 512, 143000]))
        assert ax.get_xscale() == "symlog"
        assert ax.get_xlim() == (0, 143000)
        ax = new_figure(3, 2).add_subplot()
        step_axis(ax, np.array([0, 100, 200]))
        assert ax.get_xscale() == "linear"


def test_no_two_groups_look_the_same():
    looks = group_colours([f"g{i}" for i in range(28)])
    assert len(set(looks.values())) == 28


def test_style_leaves_the_readers_settings_alone(tmp_path):
    before = dict(mpl.rcParams)
    with styled():
        save(new_figure(PAGE, 1), tmp_path / "empty.png")
    assert dict(mpl.rcParams) == before
