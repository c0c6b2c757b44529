"""Effects summed up: intervals that cover, answers where there is something and where not."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.legend import Legend
from scipy import stats

from kntrace.effects import Ablation, AblationSettings, read_method
from kntrace.effects.statistics import mean_over_sources, over_words, ratio_over_words
from kntrace.errors import SettingsError
from kntrace.figures import DOSE, draw_ablation, sized

GROUPS = {g: tuple(f"{g}{i}" for i in range(5)) for g in ("A", "B", "C")}
WORDS = [word for members in GROUPS.values() for word in members]


def made(
    own=-1.0, same=-0.5, other=-0.3, matched=-0.1, *, seed=0, noise=0.3, before=3.0, **changes
):
    """An ablation whose mean effects in log-odds are these, twice as large at twice the dose."""
    rng = np.random.default_rng(seed)
    settings = AblationSettings.of(
        **{"select": "top:20", "doses": (10, 20), "wording": "main", "methods": ("zero", "x2")}
        | changes
    )
    rows = []
    of_word = noise * rng.standard_normal(len(WORDS))
    for place, word in enumerate(WORDS):
        mine = [w for w in WORDS if w[0] == word[0] and w != word]
        theirs = [w for w in WORDS if w[0] != word[0]][:4]
        sources = [("own", word, 0, own), *(("same_group", w, 0, same) for w in mine)]
        sources += [("other_group", w, 0, other) for w in theirs]
        sources += [("matched", "", draw, matched) for draw in range(2)]
        for prompt in range(2):
            for source, of, draw, effect in sources:
                for method in settings.methods:
                    for dose in settings.doses:
                        sign = 1 if method == "zero" else -0.1
                        size = sign * effect * dose / 10 + of_word[place]
                        odds = before + size + 0.1 * rng.standard_normal()
                        rows.append((word, prompt, source, of, draw, method, dose, odds))
    columns = ["word", "prompt", "source", "of", "draw", "method", "dose", "log_odds"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.assign(
        checkpoint="step9", step=9, neurons=table["dose"], shared=0, size=0.5, rank=0,
        rank_before=0, log_odds_before=before, probability=1 / (1 + np.exp(-table["log_odds"])),
        probability_before=1 / (1 + np.exp(-before)), same_group=0.02, same_group_before=0.01,
        other_groups=0.01, other_groups_before=0.01,
    )  # fmt: skip
    singles = pd.DataFrame(
        {"checkpoint": "step9", "step": 9, "word": np.repeat(WORDS, 6), "kind": "own",
         "layer": 0, "neuron": 0, "score": rng.random(90)}
    )  # fmt: skip
    singles["probability_lost"] = singles["score"] ** 3
    singles["log_odds_lost"] = -singles["score"]
    return Ablation(Path("nowhere"), settings, GROUPS, table, singles)


class TestStatistics:
    def test_without_partners_it_is_students_interval(self) -> None:
        values = np.random.default_rng(0).standard_normal(12)
        found = over_words(mean_over_sources(values[:, None]))
        low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
        assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))

    def test_a_word_is_left_out_in_both_of_its_parts(self) -> None:
        rng = np.random.default_rng(1)
        matrix = rng.standard_normal((6, 6))
        matrix[rng.random((6, 6)) < 0.3] = np.nan
        matrix[2] = np.nan
        found = mean_over_sources(matrix)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            np.testing.assert_allclose(found[0], np.nanmean(matrix, 1))
            for word in range(6):
                rest = np.delete(matrix, word, axis=1)
                expected = np.nanmean(rest, 1)
                expected[word] = np.nan
                np.testing.assert_allclose(found[1 + word], expected, atol=1e-14)

    def test_a_ratio_is_that_of_the_sums(self) -> None:
        rng = np.random.default_rng(2)
        above, below = rng.random(9), rng.random(9)
        parts = [mean_over_sources(part[:, None]) for part in (above, below)]
        found = ratio_over_words(*parts)
        left = [np.delete(above, w).sum() / np.delete(below, w).sum() for w in range(9)]
        error = np.sqrt(8 / 9 * ((left - np.mean(left)) ** 2).sum())
        assert found.value == pytest.approx(above.sum() / below.sum())
        assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 8) * error)

    def test_intervals_cover_what_they_should(self) -> None:
        """Effects that belong to the word asked for and to the one whose neurons are changed."""
        hits = 0
        for seed in range(400):
            rng = np.random.default_rng(seed)
            asked, changed = rng.standard_normal(20), rng.standard_normal(20)
            matrix = asked[:, None] + changed[None, :] + rng.standard_normal((20, 20))
            matrix[rng.random((20, 20)) < 0.75] = np.nan
            np.fill_diagonal(matrix, np.nan)
            found = over_words(mean_over_sources(matrix))
            hits += found.low <= 0 <= found.high
        assert 0.91 <= hits / 400 <= 0.99

    def test_two_words_have_no_interval(self) -> None:
        found = over_words(mean_over_sources(np.array([[1.0], [2.0]])))
        assert found.value == 1.5
        assert np.isnan(found.low)

    def test_nothing_measured_is_nan(self) -> None:
        assert np.isnan(over_words(mean_over_sources(np.full((4, 4), np.nan))).value)


class TestAnswers:
    def test_where_there_is_an_effect(self) -> None:
        found = made()
        assert found.answer == "yes"
        assert found.verdict.startswith("Yes")
        own = found.at(found.summary, **found.main, source="own").iloc[0]
        assert own["log_odds"] == pytest.approx(-2.0, abs=0.25)  # 20 is the main dose
        assert own["log_odds_low"] < own["log_odds"] < own["log_odds_high"]
        pairs = found.at(found.contrasts, **found.main).set_index(["of", "against"])
        assert pairs.loc[("own", "same_group"), "log_odds"] == pytest.approx(-1.0, abs=0.1)
        assert pairs.loc[("same_group", "other_group"), "log_odds"] == pytest.approx(-0.4, abs=0.1)

    def test_where_there_is_none_it_is_seldom_yes(self) -> None:
        answers = [
            made(-0.3, -0.3, -0.3, -0.3, seed=seed, noise=0.5, doses=(10,)).answer
            for seed in range(12)
        ]
        assert answers.count("yes") <= 1
        assert answers.count("cannot tell") >= 10

    def test_other_neurons_that_matter_more_are_a_no(self) -> None:
        assert made(own=-0.1, other=-0.8).answer == "no"
        assert made(own=-0.1, matched=-0.8).answer == "no"

    def test_more_than_random_but_not_more_than_other_words_is_no_yes(self) -> None:
        assert made(own=-0.6, other=-0.6, noise=0.0).answer != "yes"

    def test_amplifying_should_raise(self) -> None:
        assert made(methods=("x2",)).answer == "yes"  # up by a tenth of what silencing takes
        assert made(own=0.5, other=0.1, matched=0.0, methods=("x2",)).answer == "no"

    def test_without_controls_nothing_can_be_told(self) -> None:
        found = made()
        alone = replace(found, table=found.table[found.table["source"] == "own"])
        assert alone.answer == "cannot tell"
        assert "own" in str(alone)

    def test_what_the_model_does_not_know_is_said(self) -> None:
        assert "hardly knows" in made(before=-3.0).text
        assert "hardly knows" not in made().text

    def test_the_text_has_the_numbers(self) -> None:
        found = made()
        own = found.at(found.summary, **found.main, source="own").iloc[0]
        assert f"to {own['probability']:.3f} ({own['percent']:+.1f} %" in found.text
        assert "+0.010" in found.text  # what the other words of the group take
        assert len(repr(found)) < 120
        assert all(len(line) <= 80 for line in str(found).splitlines())

    def test_correlations_of_single_neurons(self) -> None:
        row = made().correlations.iloc[0]
        assert row["probability"] == pytest.approx(1.0)
        assert row["log_odds"] == pytest.approx(-1.0)

    def test_leaks_are_by_the_word_whose_neurons_are_changed(self) -> None:
        found = made(noise=0.0)
        rows = found.at(found.leaks, method="zero", dose=10).set_index("of")
        assert rows.loc["A0", "own_log_odds"] == pytest.approx(-1.0, abs=0.2)
        assert rows.loc["A0", "same_group_log_odds"] == pytest.approx(-0.5, abs=0.15)
        assert rows.loc["A0", "same_group_words"] == 4
        assert np.isnan(rows.loc["C4", "other_group_words"])  # nobody's partner in this table

    def test_as_labelled_arrays(self) -> None:
        data = made().dataset
        assert dict(data.sizes) == {
            "checkpoint": 1, "intervention": 2, "dose": 2, "source": 4, "word": 15,
        }  # fmt: skip
        assert list(data["word"].values) == WORDS
        assert list(data["group"].values[:5]) == ["A"] * 5
        assert float(data["log_odds"].sel(source="own", dose=20, intervention="zero").mean()) < -1.5


class TestSettings:
    @pytest.mark.parametrize(
        ("text", "name", "factor"),
        [("zero", "zero", 0.0), ("x0", "zero", 0.0), ("X2", "x2", 2.0), ("0.5", "x0.5", 0.5),
         ("x-1", "x-1", -1.0), ("mean", "mean", None), (" resample", "resample", None)],
    )  # fmt: skip
    def test_methods(self, text: str, name: str, factor: float | None) -> None:
        assert read_method(text) == (name, factor)

    @pytest.mark.parametrize("text", ["x1", "double", "xnan", "xinf", "", "x"])
    def test_what_is_no_method(self, text: str) -> None:
        with pytest.raises(SettingsError, match="the method"):
            read_method(text)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [({"doses": (-1,)}, "a dose of -1"), ({"doses": ()}, "doses"),
         ({"partners": -1}, "partners"), ({"positions": "first"}, "positions"),
         ({"methods": ()}, "no methods"),
         ({"chosen_at": "never"}, "chosen_at"), ({"colour": 1}, "colour")],
    )  # fmt: skip
    def test_what_is_out_of_range(self, changes: dict[str, object], said: str) -> None:
        given = {"select": "top:5", "doses": (1,), "wording": "main"} | changes
        with pytest.raises(SettingsError, match=said):
            AblationSettings.of(**given)

    def test_all_come_last_and_the_main_dose_is_about_fifty(self) -> None:
        settings = AblationSettings.of(select="top:99", doses=(0, 99, 7, 20, 7), wording="main")
        assert settings.doses == (7, 20, 99, 0)
        assert settings.main_dose == 20
        assert AblationSettings.of(select="top:9", doses=(0,), wording="m").main_dose == 0


class TestFigure:
    def test_what_is_drawn_is_what_was_found(self) -> None:
        found = made()
        table = DOSE.prepare(found)
        assert list(dict.fromkeys(table["panel"])) == ["dose", "factor"]
        row = table[(table["panel"] == "dose") & (table["source"] == "own")].iloc[-1]
        own = found.at(found.summary, **found.main, source="own").iloc[0]
        for name in ("log_odds", "log_odds_low", "log_odds_high", "probability"):
            assert row[name] == pytest.approx(own[name])
        assert row["probability_high"] - row["probability"] == pytest.approx(
            own["change_high"] - own["change"]
        )
        one = table[(table["panel"] == "factor") & (table["x"] == 1.0)]
        assert (one["log_odds"] == 0).all()
        assert f"{own['probability']:.3f}" in DOSE.describe(table)

    def test_checkpoints_have_a_panel_of_their_own(self, tmp_path: Path) -> None:
        found = made()
        early = made(own=0.0, same=0.0, other=0.0, matched=0.0, before=-4.0).table
        both = pd.concat([early.assign(checkpoint="step1", step=1), found.table])
        several = replace(found, table=both.reset_index(drop=True))
        assert several.checkpoints == ("step1", "step9")
        table = DOSE.prepare(several)
        assert "step" in set(table["panel"])
        assert table.attrs["checkpoint"] == "step9"
        path, beside = draw_ablation(several, tmp_path, formats=["png"])
        assert DOSE.describe(table) in beside.read_text(encoding="utf-8")
        assert path.read_bytes() == draw_ablation(several, tmp_path, formats="png")[0].read_bytes()

    @pytest.mark.parametrize("size", ["column", "slide"])
    def test_all_of_it_is_within_a_column_and_a_slide(self, size: str) -> None:
        found = made()
        early = found.table.assign(checkpoint="step1", step=1)
        both = replace(found, table=pd.concat([early, found.table], ignore_index=True))
        with sized(size) as room:
            figure = DOSE.draw(DOSE.prepare(both))
        assert figure.get_figwidth() * 25.4 == pytest.approx(room.wide)
        assert figure.get_figheight() * 25.4 <= room.tallest + 0.01
        figure.draw_without_rendering()
        texts = [*figure.findobj(Legend), *(ax.title for ax in figure.axes)]
        texts += [ax._left_title for ax in figure.axes]  # type: ignore[attr-defined]
        for box in (text.get_window_extent() for text in texts):
            assert figure.bbox.x0 - 1 <= box.x0
            assert box.x1 <= figure.bbox.x1 + 1
            assert box.y1 <= figure.bbox.y1 + 1

    def test_a_whole_set_lies_at_its_mean_size(self) -> None:
        table = DOSE.prepare(made(doses=(0,), select="threshold:0.2:2", methods=("zero",)))
        assert set(table["label"]) == {"all"}
        DOSE.draw(table)

    def test_a_single_dose_has_no_panel_beside_others(self) -> None:
        found = made(doses=(10,))
        table = DOSE.prepare(found)
        assert set(table["panel"]) == {"factor"}
        own = found.at(found.summary, **found.main, source="own").iloc[0]
        assert DOSE.describe(table).count(f"{own['probability']:.3f}") == 1
