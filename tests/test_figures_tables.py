"""Figures are tested by the tables they draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from drawn_figures import GROUPS, analysed, assert_readable
from kntrace.analysis import Analysis, analyse, analyse_scores
from kntrace.distance import WordCovariate
from kntrace.errors import AnalysisError
from kntrace.figures import FIGURES, Formation
from kntrace.testing import synthetic_run, synthetic_scores


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analysed()


@pytest.fixture(scope="module")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    run = synthetic_run(
        tmp_path_factory.mktemp("run") / "r", groups=GROUPS, wordings=("grouped", "neutral")
    )
    return analyse(run, permutations=19)


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

    def test_forest_has_every_contrast_and_where_chance_puts_it(self) -> None:
        words = [word for members in GROUPS.values() for word in members]
        frequency = WordCovariate("frequency", {w: float(7 * at % 5) for at, w in enumerate(words)})
        found = analysed(covariates=[frequency])
        table = FIGURES["forest"].prepare(found)
        assert table["kind"].iloc[0] == "baseline"
        assert set(table["kind"]) == {"baseline", "plain", "corrected", "verdict"}
        both = "probability_curve, frequency"
        assert set(table["given"]) == {"", "probability_curve", "hub", "frequency", both}
        rows = table[table["kind"] != "verdict"].to_dict("records")
        names = [" | ".join(filter(None, (row["distance"], row["given"]))) for row in rows]
        assert sorted(names) == sorted(found.contrasts)
        for name, row in zip(names, rows, strict=True):
            overall = found.contrasts[name].overall
            assert row["auc"] == pytest.approx(overall["auc"], abs=1e-12)
            assert (row["low"], row["high"]) == (overall["auc_low"], overall["auc_high"])
            assert row["p"] == overall["p"]
            assert row["chance_low"] < overall["auc_chance"] < row["chance_high"]
        verdict = table[table["kind"] == "verdict"].iloc[0]
        assert (verdict["auc"], verdict["low"]) == (found.verdict.adjusted_auc, found.verdict.low)
        said = FIGURES["forest"].describe(table)
        assert "emd without word effects" in said
        assert "emd without the curves, frequency" in said
        assert_readable(FIGURES["forest"].draw(table))

    def test_the_confound_shows(self) -> None:
        words = {f"G{g}": tuple(f"w{g}{i}" for i in range(6)) for g in range(4)}
        found = analysed(groups=words, structure=0.0, learning_time="by_group", checkpoints=8)
        table = FIGURES["forest"].prepare(found).set_index(["distance", "given"])
        baseline = table.loc[("probability_curve", "")]
        assert baseline["auc"] > baseline["chance_high"]
        corrected = table.loc[("emd", "probability_curve")]
        assert table.loc[("emd", "")]["auc"] > corrected["auc"]


def test_tables_are_of_the_kinds_that_are_promised(analysis: Analysis) -> None:
    for figure in (figure for figure in FIGURES.values() if figure.applies(analysis)):
        assert isinstance(figure.prepare(analysis), pd.DataFrame | xr.DataArray | xr.Dataset)
