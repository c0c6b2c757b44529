"""Several runs side by side: what agrees, what only seems to, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import chi2, spearmanr

import kntrace
from kntrace.analysis import analyse
from kntrace.archive import Run
from kntrace.comparison import Comparison, write_comparison
from kntrace.comparison.agreement import OVER, agreement, blockwise
from kntrace.comparison.compute import compare_members
from kntrace.comparison.members import Member, _labels, find_runs, load_members, share_words
from kntrace.comparison.pooled import pooled
from kntrace.errors import AnalysisError, RunError
from kntrace.figures import COMPARISON, draw_comparison
from kntrace.progress import silent
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"A": tuple(f"a{i}" for i in range(6)), "B": tuple(f"b{i}" for i in range(6))}
FEWER = {"A": ("a0", "a1", "a2", "a3"), "B": ("b0", "b1", "b2")}
WORDS = [word for members in GROUPS.values() for word in members]


def scores(seed: int = 0, **drawn: Any) -> xr.Dataset:
    shape: dict[str, Any] = {"groups": GROUPS, "checkpoints": 3, "prompts": 1, "layers": 1}
    return synthetic_scores(**(shape | {"structure": 0.8, "seed": seed} | drawn))


def another_training(data: xr.Dataset, seed: int) -> xr.Dataset:
    """The same world again, with noise of its own."""
    rng = np.random.default_rng(seed)
    noise = rng.lognormal(sigma=0.4, size=data["score"].shape).astype(np.float32)
    return data.assign(score=data["score"] * noise)


def shuffled(data: xr.Dataset, order: list[int]) -> xr.Dataset:
    """Every word's numbers under another word's name."""
    labels = {name: data[name] for name in ("word", "group")}
    return data.isel(word=order).assign_coords(labels)


def make(folder: Path, data: xr.Dataset) -> Run:
    run = synthetic_run(folder, data)
    analyse(run, k=4, distances=["identity"], permutations=9)
    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed: two trainings on one world, and the first with words shuffled in groups."""
    home = tmp_path_factory.mktemp("several")
    data = scores()
    make(home / "seed2", data)
    make(home / "seed10", another_training(data, 1))
    inside = [3, 0, 5, 1, 2, 4, 9, 11, 6, 10, 7, 8]
    make(home / "other" / "shuffled", shuffled(data, inside))
    return home


@pytest.fixture(scope="module")
def members(home: Path) -> list[Member]:
    return load_members(find_runs([home, home / "other"]))


@pytest.fixture(scope="module")
def found(members: list[Member]) -> Comparison:
    return compare_members(members, permutations=99)


def of(table: pd.DataFrame, **wanted: str) -> pd.Series[Any]:
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


class TestAgreement:
    def test_two_runs_of_one_world_agree_word_by_word(self, found: Comparison) -> None:
        for over in OVER:
            row = of(found.agreement, distance="identity", first="seed2", second="seed10",
                     over=over)  # fmt: skip
            assert row["rho"] > 0.6
            assert row["p"] <= 0.02
            assert abs(row["chance"]) < 0.3

    def test_a_shuffled_world_agrees_only_that_groups_differ(self, found: Comparison) -> None:
        rows = found.agreement[
            (found.agreement["first"] == "seed2") & (found.agreement["second"] == "shuffled")
        ]
        whole = of(rows, distance="identity", over="all")
        assert whole["rho"] > 0.3
        assert whole["p"] <= 0.02
        for over in OVER[1:]:
            row = of(rows, distance="identity", over=over)
            assert abs(row["rho"]) < 0.4
            assert row["p"] > 0.05

    def test_noise_is_taken_out_where_it_is_known(self, members: list[Member]) -> None:
        known = [
            replace(
                member,
                analysis=replace(
                    member.analysis,
                    reliability=pd.DataFrame({"distance": ["identity"], "reliability": [share]}),
                ),
            )
            for member, share in zip(members, (0.9, 0.4), strict=False)
        ]
        options: dict[str, Any] = {"permutations": 9, "seed": 0, "progress": silent}
        names = ["identity", "probability_curve"]
        table = agreement(known, share_words(known), names, **options)
        row = of(table, distance="identity", over="all")
        assert row["ceiling"] == pytest.approx(0.6)
        assert row["corrected"] == pytest.approx(row["rho"] / 0.6)
        without = table[(table["distance"] != "identity") | (table["over"] != "all")]
        assert without["corrected"].isna().all()

    def test_blocks_are_ranked_by_themselves(self) -> None:
        """Against scipy's correlation on each block, and permutations made one at a time."""
        rng = np.random.default_rng(3)
        codes = np.array([0, 0, 0, 1, 1, 1, 1])
        one, two = (np.round(table + table.T, 1) for table in rng.normal(size=(2, 7, 7)))
        ends = np.triu_indices(7, 1)
        same = codes[ends[0]] == codes[ends[1]]
        found = blockwise(one, two, codes, 500, 4)
        for over, block in ((OVER[1], same), (OVER[2], ~same)):
            pairs, rho, chance, p = found[over]
            assert pairs == block.sum()
            assert rho == pytest.approx(spearmanr(one[ends][block], two[ends][block]).statistic)
            null = []
            for _ in range(500):
                order = np.concatenate([rng.permutation(3), 3 + rng.permutation(4)])
                moved = two[np.ix_(order, order)][ends][block]
                null.append(spearmanr(one[ends][block], moved).statistic)
            assert chance == pytest.approx(np.mean(null), abs=0.1)
            assert p == pytest.approx(np.mean(np.array(null) >= rho - 1e-9), abs=0.08)
        both = (found[OVER[1]][1] * same.sum() + found[OVER[2]][1] * (~same).sum()) / 21
        assert found[OVER[3]][1] == pytest.approx(both)

    def test_p_is_uniform_where_nothing_agrees(self) -> None:
        rng = np.random.default_rng(5)
        codes = np.repeat([0, 1, 2], 5)
        p = []
        for seed in range(200):
            one, two = (table + table.T for table in rng.normal(size=(2, 15, 15)))
            p.append(blockwise(one, two, codes, 59, seed)[OVER[3]][3])
        assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09
        assert np.mean(p) == pytest.approx(0.5, abs=0.06)

    def test_groups_that_lie_apart_are_in_the_chance_level(self) -> None:
        """Whole groups near or far make other-group pairs agree: chance says how much."""
        rng = np.random.default_rng(6)
        codes = np.repeat([0, 1, 2, 3], 6)
        far = rng.permutation(16).reshape(4, 4) * 1.0
        tables = []
        for noise in rng.normal(size=(2, 24, 24)):
            values = (far + far.T)[np.ix_(codes, codes)] + noise + noise.T
            tables.append(values)
        _, rho, chance, p = blockwise(*tables, codes, 199, 0)[OVER[2]]
        assert rho > 0.8
        assert chance == pytest.approx(rho, abs=0.1)
        assert p > 0.05

    def test_one_group_of_two_words_has_no_order(self) -> None:
        rng = np.random.default_rng(0)
        one, two = (table + table.T for table in rng.normal(size=(2, 4, 4)))
        found = blockwise(one, two, np.array([0, 0, 1, 2]), 19, 0)
        assert math.isnan(found["same group"][1])
        assert found["within blocks"][1] == pytest.approx(found["other groups"][1])


class TestOverRuns:
    def test_after_dersimonian_and_laird(self) -> None:
        """The definition written out; runs that differ more than their errors, and less."""
        for spread, seed in ((0.1, 0), (0.001, 1)):
            rng = np.random.default_rng(seed)
            error = rng.uniform(0.02, 0.06, 7)
            effect = 0.7 + spread * rng.standard_normal(7)
            table = pd.DataFrame(
                {"distance": "d", "run": list("abcdefg"), "auc": effect, "se": error}
            )
            row = pooled(table)[0].iloc[0]
            weight = 1 / error**2
            fixed = (weight * effect).sum() / weight.sum()
            q = (weight * (effect - fixed) ** 2).sum()
            tau2 = max(0.0, (q - 6) / (weight.sum() - (weight**2).sum() / weight.sum()))
            star = 1 / (error**2 + tau2)
            assert (tau2 > 0) == (spread > 0.01)
            expected = {
                "auc": (star * effect).sum() / star.sum(),
                "se": star.sum() ** -0.5,
                "tau2": tau2,
                "q": q,
                "q_p": chi2.sf(q, 6),
                "i2": max(0.0, (q - 6) / q),
            }
            for name, value in expected.items():
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
            scale = (star * (effect - expected["auc"]) ** 2).sum() / 6
            half = 2.446911851 * expected["se"] * math.sqrt(max(1.0, scale))
            assert row["high"] - row["auc"] == pytest.approx(half)
            reach = 2.570581836 * math.sqrt(tau2 + expected["se"] ** 2)
            assert row["auc"] - row["next_low"] == pytest.approx(reach)
            assert not row["few"]

    def test_intervals_cover_the_mean_of_all_trainings(self) -> None:
        rng = np.random.default_rng(8)
        parts = []
        for name in range(300):
            error = rng.uniform(0.02, 0.05, 5)
            effect = 0.6 + rng.normal(0, 0.05, 5) + rng.normal(0, error)
            parts.append(pd.DataFrame({"distance": name, "run": 0, "auc": effect, "se": error}))
        table = pooled(pd.concat(parts))[0]
        assert 0.92 <= ((table["low"] < 0.6) & (table["high"] > 0.6)).mean() <= 1

    def test_one_estimate_is_none(self) -> None:
        table = pd.DataFrame(
            {"distance": "d", "run": ["x", "y"], "auc": [0.6, 1.0], "se": [0.1, 0.0]}
        )
        found, notes = pooled(table)
        assert math.isnan(found.loc[0, "auc"])
        assert "y" in notes[0]

    def test_the_estimates_are_the_runs_own(self, members: list[Member], found: Comparison) -> None:
        row = of(found.estimates, distance="identity | probability_curve", run="seed10")
        analysis = members[1].analysis
        macro = analysis.contrasts["identity | probability_curve"].macro
        assert (row["auc"], row["se"]) == (macro["auc"], macro["auc_se"])
        verdict = of(found.estimates, distance="verdict", run="seed10")
        assert verdict["auc"] == analysis.verdict.adjusted_auc
        assert found.pooled["few"].all()


class TestWhatIsSaid:
    def test_runs_are_named_by_what_tells_them_apart(self, found: Comparison) -> None:
        assert found.labels == ("seed2", "seed10", "shuffled")  # 2 before 10

    def test_folders_of_one_name_by_the_folder_above(self) -> None:
        paths = [Path("/seeds/one/run"), Path("/seeds/two/run"), Path("/seeds/two/rerun")]
        assert _labels(paths[:2]) == ["one", "two"]
        assert _labels(paths) == ["one/run", "two/run", "two/rerun"]

    def test_verdicts_are_put_side_by_side_and_never_outvoted(self, found: Comparison) -> None:
        answers = ["yes", "cannot tell", "yes"]
        split = found.verdicts[found.verdicts["wording"] == "all"].assign(answer=answers)
        said = Comparison(**{**found.__dict__, "verdicts": split}).said
        assert said.startswith("The runs do not agree: yes in 2 (seed2, shuffled), cannot tell")
        alike = Comparison(**{**found.__dict__, "verdicts": split.assign(answer="no")})
        assert alike.said == "All 3 runs say: no."

    def test_it_reads_in_a_terminal_of_80_columns(self, found: Comparison) -> None:
        text = str(found)
        assert found.said in " ".join(text.split("\n"))
        assert max(map(len, text.splitlines())) <= 80
        assert "few" in text
        assert repr(found).startswith("Comparison(3 runs, 12 words;")

    def test_files_and_json_are_the_tables(self, found: Comparison, tmp_path: Path) -> None:
        write_comparison(found, tmp_path / "out")
        names = {path.name for path in (tmp_path / "out").iterdir()}
        tables = {f"{n}.csv" for n in ("runs", "verdicts", "agreement", "estimates", "pooled")}
        assert names == {"comparison.json", *tables}
        again = json.loads((tmp_path / "out" / "comparison.json").read_text())
        assert again == json.loads(json.dumps(found.to_dict()))
        saved = pd.read_csv(tmp_path / "out" / "agreement.csv")
        pd.testing.assert_frame_equal(saved, found.agreement, check_dtype=False)

    def test_the_figure_shows_the_tables(self, found: Comparison, tmp_path: Path) -> None:
        table = COMPARISON.prepare(found)
        pair = {"distance": "identity", "first": "seed2", "second": "shuffled"}
        assert table["rho"].values[2, 0] == of(found.agreement, over="all", **pair)["rho"]
        assert table["rho"].values[0, 2] == of(found.agreement, over="within blocks", **pair)["rho"]
        over = of(found.pooled, distance="probability_curve")
        assert float(table.sel(kind="baseline")["pooled"]) == over["auc"]
        assert found.said in COMPARISON.describe(table)
        assert [path.name for path in draw_comparison(found, tmp_path)] == [
            "runs.png",
            "runs.pdf",
            "runs.txt",
        ]


class TestWords:
    def test_those_that_not_all_have_are_named_and_left_out(self, members: list[Member]) -> None:
        whole, second = members[:2]
        small = Member("small", second.run, replace(second.analysis, groups=FEWER))
        found = compare_members([whole, small], permutations=9)
        assert found.groups == FEWER
        assert found.left_out == {"seed2": ("a4", "a5", "b3", "b4", "b5"), "small": ()}
        assert any("a4, a5" in note for note in found.notes)
        # The AUC of the larger run is that of the common words.
        words = [word for group in FEWER.values() for word in group]
        matrix = whole.analysis.distances["identity"].sel(word=words, other_word=words)
        alone = kntrace.contrast(matrix, FEWER, permutations=9).macro
        row = of(found.estimates, distance="identity", run="seed2")
        assert (row["auc"], row["se"]) == (alone["auc"], alone["auc_se"])

    @pytest.mark.parametrize(
        ("groups", "said"),
        [
            ({"A": ("a0", "x1"), "C": ("y0", "y1")}, "1 words in common"),
            ({"A": WORDS[:5], "B": WORDS[5:]}, r"'a5' is in the group 'A'.* and in 'B'"),
        ],
    )
    def test_too_few_or_in_other_groups(
        self, members: list[Member], groups: dict[str, Any], said: str
    ) -> None:
        first, second = members[:2]
        other = replace(second, analysis=replace(second.analysis, groups=groups))
        with pytest.raises(AnalysisError, match=said):
            share_words([first, other])


def test_what_is_refused(home: Path, found: Comparison, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="1 run to compare"):
        kntrace.compare(home / "seed2")
    with pytest.raises(RunError, match="given twice"):
        kntrace.compare([home / "seed2", home])
    with pytest.raises(RunError, match="no run"):
        kntrace.compare(tmp_path)
    with pytest.raises(RunError, match="no such folder"):
        kntrace.compare([tmp_path / "nothing", home])
    with pytest.raises(AnalysisError, match="0 permutations"):
        kntrace.compare(home, permutations=0)
    with pytest.raises(RunError, match="a run folder"):
        write_comparison(found, home / "seed2")
    bare = synthetic_run(tmp_path / "bare", scores(checkpoints=1))
    with pytest.raises(AnalysisError, match="no finished analysis"):
        kntrace.compare([home / "seed2", bare])
