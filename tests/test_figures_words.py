"""The figures of clusters, of the plane of words, of layers, prompts and checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from skbio.stats.ordination import pcoa

from kntrace.analysis import Analysis, analyse_scores
from kntrace.archive import write_print
from kntrace.audit import CheckpointPrint, TensorPrint
from kntrace.distance import pairwise_distances
from kntrace.errors import AnalysisError
from kntrace.figures import (
    AuditStrip,
    ClusterMap,
    Embedding,
    Formation,
    FormationByLayer,
    LayerMap,
    PromptBands,
)
from kntrace.figures.embedding import principal_coordinates
from kntrace.testing import synthetic_run, synthetic_scores
from kntrace.wording import read_wording

GROUPS = {"A": tuple("abcdef"), "B": tuple("ghijkl"), "C": tuple("mn")}


def analysed(**drawn: Any) -> Analysis:
    shape: dict[str, Any] = {"groups": GROUPS, "width": 64, "structure": 0.6, "checkpoints": 4}
    return analyse_scores(synthetic_scores(**(shape | drawn)), permutations=9)


def with_distances(analysis: Analysis, values: np.ndarray) -> Analysis:
    """The same analysis with other distances by neuron identity."""
    matrix = analysis.distances["identity"].copy(data=values)
    return replace(analysis, distances={**analysis.distances, "identity": matrix})


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analysed()


@pytest.fixture(scope="module")
def of_run(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """As much of the analysis of a run as these figures need: nothing is computed anew."""
    folder = tmp_path_factory.mktemp("run") / "r"
    run = synthetic_run(folder, groups=GROUPS, checkpoints=4, prompts=5, wordings=("main", "other"))
    return replace(analysis, run=run, probability=read_wording(run.scores).probability())


class TestClusters:
    def test_cells_are_the_distances_in_another_order(self, analysis: Analysis) -> None:
        table = ClusterMap().prepare(analysis)
        words = [str(word) for word in table["word"].values]
        assert sorted(words) == sorted(w for members in GROUPS.values() for w in members)
        found = analysis.distances["identity"]
        place = [list(found["word"].values).index(word) for word in words]
        expected = found.values[np.ix_(place, place)].copy()
        np.fill_diagonal(expected, np.nan)
        np.testing.assert_array_equal(table["distance"].values, expected)
        assert [str(g) for g in table["group"].values] == [
            str(found["group"].values[at]) for at in place
        ]

    def test_each_join_is_at_the_mean_distance_of_its_two_parts(self, analysis: Analysis) -> None:
        table = ClusterMap().prepare(analysis)
        matrix, words = table["distance"].values, table.sizes["word"]
        members = [{place} for place in range(words)]
        free = set(range(words))
        for (one, other), height in zip(
            table["joined"].values, table["height"].values, strict=True
        ):
            mean = np.mean([matrix[i, j] for i in members[one] for j in members[other]])
            assert height == pytest.approx(mean, rel=1e-9)
            # Nothing that could have been joined was nearer.
            nearest = min(
                np.mean([matrix[i, j] for i in members[a] for j in members[b]])
                for a in free
                for b in free
                if a < b
            )
            assert height == pytest.approx(nearest, rel=1e-9)
            free -= {one, other}
            free.add(len(members))
            members.append(members[one] | members[other])
            # A branch is a run of rows, or lines of the tree would cross.
            assert max(members[-1]) - min(members[-1]) == len(members[-1]) - 1

    def test_groups_that_form_alike_lie_together_and_others_do_not(
        self, analysis: Analysis
    ) -> None:
        groups = {f"G{g}": tuple(f"w{g}{i}" for i in range(8)) for g in range(4)}
        found = {}
        for structure in (0.9, 0.0):
            scores = synthetic_scores(groups=groups, width=64, checkpoints=3, structure=structure)
            matrix = pairwise_distances(scores, "identity")
            of_these = replace(analysis, groups=groups, distances={"identity": matrix})
            found[structure] = ClusterMap().prepare(of_these).attrs
        alike, flat = found.values()
        assert alike["neighbours"] > 0.85
        assert flat["neighbours"] < 0.5
        assert alike["neighbours_chance"] == pytest.approx(7 / 31)

    def test_distances_that_are_a_tree_are_kept_to(self, analysis: Analysis) -> None:
        inside = np.repeat([0, 1, 2], [6, 6, 2])
        tree = np.where(inside[:, None] == inside[None], 1.0, 2.0)
        np.fill_diagonal(tree, 0)
        assert ClusterMap().prepare(with_distances(analysis, tree)).attrs[
            "cophenetic"
        ] == pytest.approx(1)
        same = ClusterMap().prepare(with_distances(analysis, np.ones_like(tree) - np.eye(14)))
        assert np.isnan(same.attrs["cophenetic"])


class TestEmbedding:
    @pytest.mark.parametrize("unit", [1.0, 1e-6, 1e5])
    def test_points_on_a_plane_are_found_again(self, unit: float) -> None:
        points = np.random.default_rng(3).normal(size=(12, 2)) * [3, 1] * unit
        place, values = principal_coordinates(squareform(pdist(points)))
        np.testing.assert_allclose(pdist(place), pdist(points), rtol=1e-6)
        assert values[:2].sum() == pytest.approx(np.abs(values).sum(), rel=1e-6)

    def test_shares_and_places_are_those_of_scikit_bio(self, analysis: Analysis) -> None:
        table = Embedding().prepare(analysis)
        matrix = analysis.distances["identity"].values
        found = pcoa(matrix, dimensions=len(matrix), warn_neg_eigval=False)
        np.testing.assert_allclose(table["explained"], found.proportion_explained[:2], rtol=1e-9)
        np.testing.assert_allclose(
            np.abs(table["place"]), np.abs(found.samples.to_numpy()[:, :2]), rtol=1e-6, atol=1e-9
        )
        assert 0 <= table.attrs["negative"] < 0.5

    def test_distances_that_no_points_have_are_said_to_be_so(self, analysis: Analysis) -> None:
        matrix = np.ones((14, 14)) - np.eye(14)
        matrix[0, 1] = matrix[1, 0] = 9.0
        assert Embedding().prepare(with_distances(analysis, matrix)).attrs["negative"] > 0.2

    def test_an_ellipse_is_that_of_the_centre_and_not_of_the_words(
        self, analysis: Analysis
    ) -> None:
        table = Embedding().prepare(analysis)
        mine = table["place"].values[table["group"].values == "A"]
        long, short, angle = table["ellipse"].sel(of_group="A").values
        values, axes = np.linalg.eigh(np.cov(mine, rowvar=False, ddof=0) / len(mine))
        assert [short, long] == pytest.approx(np.sqrt(values * 5.991), rel=0.12)
        turned = np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) - angle
        assert abs((turned + 90) % 180 - 90) < 15
        np.testing.assert_allclose(table["centre"].sel(of_group="A"), mine.mean(axis=0))

    def test_two_words_have_no_ellipse(self, analysis: Analysis) -> None:
        assert np.isnan(Embedding().prepare(analysis)["ellipse"].sel(of_group="C")).all()

    def test_all_distances_zero(self, analysis: Analysis) -> None:
        figure = Embedding()
        table = figure.prepare(with_distances(analysis, np.zeros((14, 14))))
        assert (table["place"].values == 0).all()
        figure.draw(table)


class TestLayers:
    def test_shares_are_of_the_sizes_of_scores(self, analysis: Analysis) -> None:
        table = LayerMap(word="b").prepare(analysis)
        mine = analysis.formation.sel(word="b")
        for layer in range(3):
            here = np.abs(mine.values[mine["layer"].values == layer]).sum(axis=0)
            expected = here / np.abs(mine.values).sum(axis=0)
            np.testing.assert_allclose(table.values[0, layer], expected)
        assert table.attrs["equal"] == pytest.approx(1 / 3)

    def test_groups_are_means_of_words(self, analysis: Analysis) -> None:
        table = LayerMap().prepare(analysis)
        assert list(table["of"].values) == ["all words", "A", "B", "C"]
        words = [LayerMap(word=word).prepare(analysis).values[0] for word in GROUPS["C"]]
        np.testing.assert_allclose(table.sel(of="C"), np.mean(words, axis=0))
        np.testing.assert_allclose(table.sum("layer"), 1.0)

    def test_a_word_without_attribution_counts_for_nothing(self, analysis: Analysis) -> None:
        formation = analysis.formation.copy(deep=True)
        formation.loc[{"word": "m"}] = 0.0
        table = LayerMap().prepare(replace(analysis, formation=formation))
        alone = LayerMap(word="n").prepare(analysis)
        np.testing.assert_allclose(table.sel(of="C"), alone.values[0])
        formation.loc[{"word": "n"}] = 0.0
        table = LayerMap().prepare(replace(analysis, formation=formation))
        assert np.isnan(table.sel(of="C")).all()
        LayerMap().draw(table)
        assert "C: none, at the end none" in LayerMap().describe(table)

    def test_a_word_that_is_not_there(self, analysis: Analysis) -> None:
        with pytest.raises(AnalysisError, match="no word 'nobody'"):
            LayerMap(word="nobody").prepare(analysis)


def test_neurons_of_a_layer_come_together_as_they_form(analysis: Analysis) -> None:
    table = FormationByLayer(word="b", neurons=12).prepare(analysis)
    order = list(zip(-table["layer"].values, table["formed"].values, strict=True))
    assert order == sorted(order)
    before = Formation(word="b", neurons=12).prepare(analysis)
    assert sorted(table["rank"].values) == sorted(before["rank"].values)
    for place, rank in enumerate(table["rank"].values):
        mine = analysis.formation.sel(word="b").isel(rank=int(rank))
        np.testing.assert_array_equal(table["score"].values[place], mine.values)


class TestPrompts:
    def test_the_mean_is_that_of_words(self, of_run: Analysis) -> None:
        table = PromptBands().prepare(of_run)
        for name, members in GROUPS.items():
            expected = of_run.probability.sel(word=list(members)).mean("word")
            np.testing.assert_allclose(table["mean"].sel(of_group=name), expected, rtol=1e-6)
        assert table["prompts"].values.tolist() == [30, 30, 10]
        inside = (table["low"] <= table["mean"]) & (table["mean"] <= table["high"])
        assert inside.all()

    def test_the_band_is_as_wide_as_a_mean_of_prompts_is_uncertain(self, of_run: Analysis) -> None:
        table = PromptBands().prepare(of_run)
        assert of_run.run is not None
        values = of_run.run.scores["probability"].isel(prompt=slice(0, 5)).sel(word=["m", "n"])
        error = np.sqrt((values.var("prompt") / 5).sum("word").values) / 2
        found = (table["high"] - table["low"]).sel(of_group="C").values
        middle = slice(1, 3)
        np.testing.assert_allclose(found[middle], 2 * 1.96 * error[middle], rtol=0.25)

    def test_scores_without_a_folder_have_no_prompts(self, analysis: Analysis) -> None:
        assert not PromptBands().applies(analysis)
        assert not AuditStrip().applies(analysis)


class TestAudit:
    def test_a_row_for_every_kind_of_finding(self, analysis: Analysis, tmp_path: Path) -> None:
        scores = synthetic_scores(groups=GROUPS, checkpoints=4, width=16)
        scores["fingerprint"].values[2] = scores["fingerprint"].values[1]
        found = replace(analysis, run=synthetic_run(tmp_path / "r", scores))
        table = AuditStrip().prepare(found)
        read = table[table["row"] == "weights read"]
        assert list(read["checkpoint"]) == ["step0", "step100", "step200", "step300"]
        assert set(read["mark"]) == {"only whether equal"}
        repeated = table[table["row"] == "repeated"]
        assert set(repeated["checkpoint"]) == {"step100", "step200"}
        assert set(repeated["mark"]) == {"warning"}
        assert "the same weights: step100, step200" in AuditStrip().describe(table)
        AuditStrip().draw(table)

    def test_nothing_wrong(self, of_run: Analysis, tmp_path: Path) -> None:
        table = AuditStrip().prepare(of_run)
        assert set(table["row"]) == {"weights read"}
        assert "Nothing wrong was found" in AuditStrip().describe(table)

    def test_what_was_read_of_every_tensor(self, analysis: Analysis, tmp_path: Path) -> None:
        run = synthetic_run(tmp_path / "r", groups=GROUPS, checkpoints=2, width=16)
        found = replace(analysis, run=run)
        label, whole = next(iter(run.suite)).label, run.fingerprint(0)
        write_print(run, CheckpointPrint(label, 0, whole=whole, tensors={"w": tensor()}))
        marks = AuditStrip().prepare(found)["mark"].tolist()
        assert marks == ["every tensor", "only whether equal"]


def tensor() -> Any:
    return TensorPrint(hash="0" * 64, shape=(2, 2), dtype="float32", varied=True)
