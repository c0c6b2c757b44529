"""Views: right numbers beside their controls; each finds what was planted, and nothing else."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from drawn_figures import assert_readable
from kntrace.archive import Run, open_run
from kntrace.cli import main
from kntrace.errors import AnalysisError, SettingsError
from kntrace.figures import FIGURES, SIZES, render, sized
from kntrace.selection import Threshold, TopK
from kntrace.testing import synthetic_run, synthetic_scores
from kntrace.views import VIEWS, Asked, all_views, compute_views, find_views, lacking, read_view
from kntrace.views.acquisition import acquisition, half_gain
from kntrace.views.lines import by_role, log_odds
from kntrace.views.sets import expected_jaccard, incidence, jaccard
from kntrace.views.turnover import turnover

GROUPS = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3", "NA"), "C": ("c1", "c2", "c3")}
SMALL: dict[str, Any] = {"groups": GROUPS, "checkpoints": 5, "layers": 2, "width": 40}


def scores(**drawn: Any) -> xr.Dataset:
    return synthetic_scores(**(SMALL | drawn))


def planted(sets: np.ndarray, width: int = 40, prompts: int = 4) -> xr.Dataset:
    """Scores that are 1 for the neurons of `sets` (checkpoint, word, neuron), noise elsewhere."""
    data = scores(checkpoints=sets.shape[0], prompts=prompts).load()
    rng = np.random.default_rng(5)
    value = 0.01 * rng.random(data["score"].shape).astype(np.float32)
    flat = value.reshape(*value.shape[:3], -1)
    for checkpoint, word in np.ndindex(sets.shape[:2]):
        flat[checkpoint, word][:, sets[checkpoint, word]] += 1
    data["score"].values[:] = value
    return data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("views") / "run"
    return synthetic_run(folder, **(SMALL | {"structure": 0.6, "wordings": ("main", "neutral")}))


# What every view must do


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_is_kept_drawn_and_described(name: str, run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    found = compute_views(copy, [VIEWS[name]], formats=("png",))[name]
    again = read_view(copy, name)
    assert list(again.tables) == list(found.tables)
    for part, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[part], table, check_dtype=False)
    assert json.loads(json.dumps(again.facts)) == again.facts
    assert tuple(again.text) == tuple(found.text)
    assert render(VIEWS[name].draw(again), "svg") == render(VIEWS[name].draw(found), "svg")
    assert (copy.path / "figures" / f"{name}.png").stat().st_size > 5_000
    assert VIEWS[name].describe(again)
    with Image.open(copy.path / "figures" / f"{name}.png") as image:
        assert image.info["Description"] == VIEWS[name].describe(again)
    beside = (copy.path / "figures" / f"{name}.txt").read_text(encoding="utf-8")
    assert VIEWS[name].describe(again) in beside
    assert VIEWS[name].how_to_read in beside
    assert not [*copy.path.rglob("*.partial")]
    # The same again gives the same bytes.
    file = copy.path / "analysis" / "views" / f"{name}.csv"
    before = file.read_bytes()
    compute_views(copy, [VIEWS[name]], formats=())
    assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_can_be_read_at_every_size(name: str) -> None:
    groups = {
        "A group with a long name": ("猫", "a word that goes on and on, for no good reason"),
        **{f"G{place}": (f"w{place}a", f"w{place}b", f"w{place}c") for place in range(9)},
    }
    asked = scores(groups=groups, checkpoints=12, wordings=("main", "neutral"))
    found = VIEWS[name].compute(Asked(asked, floor=0.3))
    for size in SIZES:
        with sized(size) as room:
            assert_readable(VIEWS[name].draw(found), f"{name}, {size}", room)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(
    "shape",
    [
        {"checkpoints": 1},
        {"prompts": 1},
        {"groups": {"A": ("a1", "a2", "a3")}},
        {"groups": {"A": ("a1",), "B": ("b1",)}},
        {"groups": {"<b>&": ("$x$", "猫"), "Q": ("nan", "1e5")}},
    ],
    ids=["one checkpoint", "one prompt", "one group", "two words", "odd names"],
)
def test_every_view_copes_with_little(name: str, shape: dict[str, Any]) -> None:
    view = VIEWS[name]
    found = view.compute(Asked(scores(**shape), floor=0.3))
    render(view.draw(view.prepare(found)), "svg")
    assert view.describe(found)


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_refuses_what_is_not_finished(name: str) -> None:
    data = scores().load()
    for variable in ("score", "activation", "probability"):
        data[variable].values[-1, 2] = np.nan
    with pytest.raises(AnalysisError, match=r"finite numbers.*finished run"):
        VIEWS[name].compute(Asked(data))


def test_no_view_has_the_name_of_a_figure() -> None:
    assert not VIEWS.keys() & FIGURES.keys()
    assert all(name == view.name and view.how_to_read for name, view in VIEWS.items())
    assert all(dataclasses.is_dataclass(view) for view in VIEWS.values())


def test_a_run_without_activations_is_said_to_have_none(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "run", scores().drop_vars("activation"))
    assert "activation" not in run.scores
    assert run.settings.activations is False
    made = compute_views(run, formats=())
    assert set(made) == {name for name, view in VIEWS.items() if "activation" not in view.needs}
    for view in VIEWS.values():
        if lacking(run, view):
            with pytest.raises(AnalysisError, match=r"needs activation.*--no-activations"):
                compute_views(run, [view])


def test_what_was_changed_is_not_read(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    compute_views(copy, [VIEWS["turnover"]], formats=())
    table = copy.path / "analysis" / "views" / "turnover.neurons.csv"
    table.write_text(table.read_text().replace("a1", "a2", 1))
    with pytest.raises(AnalysisError, match=r"neurons\.csv: missing, or changed.*kntrace view"):
        read_view(copy, "turnover")
    compute_views(copy, [VIEWS["turnover"]], formats=())
    read_view(copy, "turnover")
    head = copy.path / "analysis" / "views" / "turnover.json"
    head.write_text(head.read_text().replace('"run": "', '"run": "0'))
    with pytest.raises(AnalysisError, match="of another run"):
        read_view(copy, "turnover")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["turnovr"], {}, "no view 'turnovr'; expected one of acquisition, turnover"),
        (
            ["turnover"],
            {"level": "1"},
            "no option 'level' of turnover; expected one of pivot, word",
        ),
        (["acquisition"], {"level": "high"}, "level = 'high'; expected a number"),
        (["acquisition"], {"level": "1.5"}, "level = '1.5': a level of 1.5; expected a probabil"),
    ],
)
def test_wrong_names_and_options(names: list[str], options: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find_views(names, options)


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run.path, tmp_path / "run")

    def said(*options: str, code: int = 0) -> str:
        sys.argv[:] = ["kntrace", "view", str(tmp_path / "run"), *options]
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == code
        caught = capsys.readouterr()
        return caught.err if code else caught.out

    before = sys.argv.copy()
    try:
        assert "turnover" in said()
        assert "(computed)" not in said()
        text = said("turnover", "--set", "pivot=step100", "--select", "top:5", "--no-figures")
        assert "step100" in text
        assert "(computed)" in said()
        assert not (tmp_path / "run" / "figures" / "turnover.png").exists()
        facts = json.loads(said("turnover", "--json", "--no-figures"))["turnover"]["facts"]
        assert facts["pivot"] == "step400"
        listed = json.loads(said("--json"))["views"]
        assert [one["name"] for one in listed] == list(all_views())
        said("turnover", "--size", "slide", "--formats", "svg")
        names = {path.name for path in (tmp_path / "run" / "figures-slide").iterdir()}
        assert names == {"turnover.svg", "turnover.txt"}
        assert "no size 'huge'" in said("turnover", "--size", "huge", code=2)
        assert "no checkpoint 'step101'" in said("turnover", "--set", "pivot=step101", code=2)
        assert "NAME=VALUE" in said("turnover", "--set", "pivot", code=2)
        assert "a floor of 7" in said("turnover", "--floor", "7", code=2)
        assert "no wording 'x'" in said("turnover", "--wording", "x", code=2)
    finally:
        sys.argv[:] = before


# Lines


def test_roles_are_those_of_the_groups() -> None:
    codes = np.array([0, 0, 0, 1, 1])
    rng = np.random.default_rng(0)
    matrix = rng.random((5, 5))
    found = by_role(matrix, codes)
    own = np.mean([matrix[i, i] for i in range(5)])
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    same = [
        np.mean([matrix[i, j] for a, j in pairs if a == i and codes[i] == codes[j]])
        for i in range(5)
    ]
    other = [
        np.mean([matrix[i, j] for a, j in pairs if a == i and codes[i] != codes[j]])
        for i in range(5)
    ]
    assert np.nanmean(found["own"][0]) == pytest.approx(own)
    assert np.nanmean(found["same_group"][0]) == pytest.approx(np.mean(same))
    assert np.nanmean(found["other_group"][0]) == pytest.approx(np.mean(other))
    # A word left out plays no part in either role.
    changed = matrix.copy()
    changed[2], changed[:, 2] = 99, 99
    for role, replicates in by_role(changed, codes).items():
        np.testing.assert_allclose(replicates[3], found[role][3], err_msg=role)


def test_log_odds_end_where_float32_does() -> None:
    assert log_odds(0.5) == 0
    assert log_odds([0.25, 0.75]).tolist() == pytest.approx([-np.log(3), np.log(3)])
    assert np.isfinite(log_odds([0.0, 1.0])).all()


# Turnover


@pytest.mark.parametrize(("some", "others", "neurons"), [((3,), (4,), 9), ((2, 1), (1, 3), 6)])
def test_chance_is_the_mean_over_all_sets(
    some: tuple[int, ...], others: tuple[int, ...], neurons: int
) -> None:
    """Against writing out every set that could be drawn."""
    fixed = {(layer, n) for layer, count in enumerate(others) for n in range(count)}
    each = [itertools.combinations(range(neurons), count) for count in some]
    found = []
    for draw in itertools.product(*each):
        drawn = {(layer, n) for layer, part in enumerate(draw) for n in part}
        found.append(len(drawn & fixed) / len(drawn | fixed))
    assert expected_jaccard(some, others, neurons) == pytest.approx(np.mean(found))


def test_turnover_of_planted_sets() -> None:
    """Every word's neurons change once, at a checkpoint of its own."""
    rng = np.random.default_rng(1)
    words, k, switch = 11, 6, np.arange(11) % 4 + 1
    sets = np.empty((5, words, k), dtype=np.int64)
    for word in range(words):
        drawn = rng.permutation(80)[: 2 * k]
        for checkpoint in range(5):
            sets[checkpoint, word] = drawn[k:] if checkpoint >= switch[word] else drawn[:k]
    found = turnover(planted(sets), TopK(k))
    own = np.stack([np.diag(one) for one in found.to_pivot])
    np.testing.assert_array_equal(own, np.arange(5)[:, None] >= switch)
    steps = [f"step{100 * at}" for at in range(5)]
    for word, text in enumerate(w for group in GROUPS.values() for w in group):
        rows = found.neurons[found.neurons["word"] == text]
        late = rows[rows["first"] != "step0"]
        assert (len(rows), len(late)) == (2 * k, k)
        assert set(late["first"]) == set(late["settled"]) == {steps[switch[word]]}
        early = rows[rows["first"] == "step0"]
        assert set(early["last"]) == {steps[switch[word] - 1]}
        assert set(early["settled"]) == {""}
        column = early["layer"] * 40 + early["neuron"]
        assert set(column) == set(sets[0, word])
    # Another way to count: python sets.
    for checkpoint, word, other in [(0, 0, 1), (2, 3, 7), (4, 5, 5)]:
        a, b = set(sets[checkpoint, word].tolist()), set(sets[-1, other].tolist())
        assert found.to_pivot[checkpoint, word, other] == pytest.approx(len(a & b) / len(a | b))


def test_turnover_of_noise_is_chance() -> None:
    """Neurons that are drawn anew at every checkpoint: nothing is to be found."""
    rng = np.random.default_rng(2)
    sets = np.stack([[rng.permutation(80)[:8] for _ in range(11)] for _ in range(40)])
    found = turnover(planted(sets, prompts=1), TopK(8))
    own = np.array([np.diag(one) for one in found.to_pivot])[:-1]
    error = own.mean(axis=1).std(ddof=1) / np.sqrt(39)
    assert abs(own.mean() - found.chance.mean()) < 4 * error
    assert abs(own.mean() - found.matched[:-1].mean()) < 4 * error
    facts = VIEWS["turnover"].compute(Asked(planted(sets[:5]), select="top:8")).facts
    assert facts["own_minus_other"]["low"] < 0 < facts["own_minus_other"]["high"]


def test_turnover_tells_what_all_words_share() -> None:
    """All words have the same lasting neurons: stable, and no more so than another word's."""
    sets = np.tile(np.arange(8), (5, 11, 1))
    facts = VIEWS["turnover"].compute(Asked(planted(sets), select="top:8")).facts
    assert facts["own"]["value"] == facts["other_group"]["value"] == 1
    assert facts["own_minus_other"]["value"] == 0
    assert facts["matched"]["value"] < 0.2


def test_turnover_of_threshold_sets_that_may_be_empty() -> None:
    data = scores()
    found = turnover(data, Threshold(0.2, 3, floor=0.3))
    assert np.isnan(found.to_previous[0]).all()
    sizes = incidence(Threshold(0.2, 3, floor=0.3).choose(data, checkpoint=0)).sum(axis=1)
    assert (sizes == 0).any()
    empty = np.flatnonzero(sizes == 0)
    assert np.isnan(jaccard(incidence(Threshold(0.2, 3, floor=0.3).choose(data, checkpoint=0)),
                            incidence(Threshold(0.2, 3, floor=0.3).choose(data, checkpoint=0))
                            )[empty, empty]).all()  # fmt: skip


def test_a_label_that_looks_like_a_position() -> None:
    data = scores().assign_coords(checkpoint=["10", "20", "30", "40", "4"])
    view = find_views(["turnover"], {"pivot": "4"})[0]
    assert view.compute(Asked(data)).facts["pivot"] == "4"
    view = find_views(["turnover"], {"pivot": "20"})[0]
    assert view.compute(Asked(data)).facts["pivot"] == "20"
    view = find_views(["turnover"], {"pivot": "0"})[0]
    assert view.compute(Asked(data)).facts["pivot"] == "10"


# Acquisition


def test_half_gain_of_known_curves() -> None:
    curves = np.array(
        [
            [0.0, 0.0, 1.0, 1.0, 1.0],  # half-way between two checkpoints
            [0.0, 0.25, 0.5, 0.75, 1.0],
            [0.0, 1.0, 0.0, 0.0, 0.0],  # of the best it ever was, not of the last
            [1.0, 0.5, 0.2, 0.1, 0.0],  # never rises
            [-4.0, -2.0, -2.0, -1.0, -3.0],
        ]
    )
    np.testing.assert_allclose(half_gain(curves), [1.5, 2.0, 0.5, np.nan, 0.75])


def test_acquisition_of_a_sigmoid() -> None:
    """Its log-odds are a straight line: the half of their gain is in the middle, all is kept."""
    at = np.linspace(-6, 6, 13)
    p = 1 / (1 + np.exp(-at))
    table, halves = acquisition(np.tile(p, (4, 1)))
    rows = table.set_index("scale")
    assert rows.loc["log_odds", "half"] == pytest.approx(6)
    assert rows.loc["log_odds", "gain"] == pytest.approx(12)
    assert (rows["kept"] == 1).all()
    assert (rows["drop"] == 0).all()
    assert (rows["held"] == 6).all()
    assert rows.loc["log_odds", "half_low"] == rows.loc["log_odds", "half_high"] == halves[0]


def test_acquisition_sees_forgetting() -> None:
    table, _ = acquisition([[0.1, 0.9, 0.5, 0.3]])
    row = table.set_index("scale").loc["probability"]
    assert row["kept"] == pytest.approx(0.25)
    assert row["drop"] == pytest.approx(0.6)
    assert np.isnan(row["held"])
    assert np.isnan(row["half_low"])
    never, _ = acquisition([[0.4, 0.3], [0.4, 0.2]])
    assert never[["half", "kept"]].isna().all(axis=None)


def test_groups_explain_learning_times_only_where_they_do() -> None:
    groups = {g: tuple(f"{g}{i}" for i in range(8)) for g in "ABCD"}
    drawn = {"groups": groups, "checkpoints": 12, "layers": 1, "width": 4}
    view = VIEWS["acquisition"]
    ordered = view.compute(Asked(synthetic_scores(learning_time="by_group", **drawn))).facts
    assert ordered["p"] == 0.001
    assert ordered["groups_explain"] > 0.5
    found = [view.compute(Asked(synthetic_scores(seed=seed, **drawn))).facts for seed in range(12)]
    assert sum(one["p"] <= 0.05 for one in found) <= 3
    by_chance = np.mean([one["groups_explain_by_chance"] for one in found])
    assert by_chance == pytest.approx(3 / 31, abs=0.02)  # (groups - 1) / (words - 1)
    assert np.mean([one["groups_explain"] for one in found]) == pytest.approx(3 / 31, abs=0.08)
    # What is drawn: prompts of a word agree about when it is learnt.
    assert min(one["prompts_agree"] for one in found) > 0.8


def test_prompts_that_know_nothing_of_their_word_do_not_agree() -> None:
    data = synthetic_scores(
        groups={"A": tuple(f"a{i}" for i in range(30)), "B": ("b1", "b2")},
        checkpoints=12, layers=1, width=4,
    ).load()  # fmt: skip
    rng = np.random.default_rng(3)
    p = data["probability"].values
    for prompt in range(p.shape[2]):
        p[:, :, prompt] = p[:, rng.permutation(p.shape[1]), prompt]
    assert abs(VIEWS["acquisition"].compute(Asked(data)).facts["prompts_agree"]) < 0.5
