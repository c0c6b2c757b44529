"""`kntrace.ablate` from end to end: against hooks written out by hand, resumed, refused."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import kntrace
from kntrace.analysis import analyse
from kntrace.causal import work
from kntrace.causal.sets import Rankings
from kntrace.effects import AblationSettings, load_ablation
from kntrace.errors import AnalysisError, KntraceError, ModelError, RunError, SettingsError
from kntrace.progress import silent
from kntrace.report import write_report

LITTLE = {"doses": (1, 4), "partners": 2, "draws": 2, "singles": 3, "progress": silent}
LAYERS, WIDTH = 2, 24


@pytest.fixture(scope="module")
def made(tiny_suite, tmp_path_factory):
    """A finished run of its own, with an ablation of its last checkpoint."""
    home = tmp_path_factory.mktemp("causal")
    suite = kntrace.load_suite(shutil.copytree(tiny_suite.folder, home / "suite"))
    run = kntrace.run(tiny_suite.study, suite, home / "run", threads=1, progress=silent)
    return run, kntrace.ablate(run, **LITTLE)


@pytest.fixture
def copied(made, tmp_path):
    """A copy of that run to spoil, weights included."""
    home = shutil.copytree(made[0].path.parent, tmp_path / "home")
    return kntrace.open_run(home / "run")


def by_hand(run, label, prompt, answer, change):
    """P, log-odds of the answer; `change(layer, values)` alters the last position's neurons."""
    folder = Path(next(item.source for item in run.suite if item.label == label))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    hooks = []
    for layer, block in enumerate(model.gpt_neox.layers):

        def put(_, args, layer=layer):
            whole = args[0].clone()
            whole[0, -1] = change(layer, whole[0, -1])
            return (whole,)

        hooks.append(block.mlp.dense_4h_to_h.register_forward_pre_hook(put))
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
    for hook in hooks:
        hook.remove()
    p = float(logits.softmax(-1)[tokenizer(answer)["input_ids"][0]])
    return p, float(np.log(p) - np.log1p(-p))


def activation(run, label, prompt):
    seen = torch.zeros(LAYERS, WIDTH, dtype=torch.float64)

    def note(layer, values):
        seen[layer] = values
        return values

    by_hand(run, label, prompt, "cat", note)
    return seen.numpy()


def test_rows_are_what_hooks_by_hand_give(made):
    """Own neurons and another word's, every method, from the archive's scores alone."""
    run, found = made
    scores = run.scores["score"].values  # (checkpoint, word, prompt, layer, neuron)
    words = [word.text for word in run.study.words]
    asked = {
        (word.text, column): text
        for word in run.study.words
        for column, text in enumerate(run.study.rendered(word))
        if text is not None
    }
    mean = np.mean([activation(run, "step100", text) for text in asked.values()], axis=0)
    some = found.table[(found.table["dose"] == 4) & (found.table["draw"] == 0)]
    some = some[some["source"].isin(["own", "same_group", "other_group"])]
    checked = 0
    for row in some.sample(30, random_state=1).to_dict("records"):
        place = words.index(row["of"])
        used = ~np.isnan(scores[-1, place]).any((1, 2))
        flat = scores[-1, place][used].mean(0, dtype=np.float64).ravel()
        chosen = np.argsort(-flat, kind="stable")[:4]

        def change(layer, values, row=row, chosen=chosen):
            mine = chosen[chosen // WIDTH == layer] % WIDTH
            new = values.clone()
            factor = {"zero": 0, "mean": 0}.get(row["method"]) if row["method"] in (
                "zero", "mean") else float(row["method"][1:])  # fmt: skip
            new[mine] = factor * values[mine]
            if row["method"] == "mean":
                new[mine] = torch.tensor(mean[layer, mine])
            return new

        if row["method"] == "resample":
            continue
        p, odds = by_hand(run, "step100", asked[row["word"], row["prompt"]], row["word"], change)
        assert row["probability"] == pytest.approx(p, rel=1e-4)
        assert row["log_odds"] == pytest.approx(odds, rel=1e-4, abs=1e-5)
        checked += 1
    assert checked > 15


def test_resampled_values_are_those_of_one_prompt_of_another_word(made):
    run, found = made
    texts = {
        word.text: [text for text in run.study.rendered(word) if text] for word in run.study.words
    }
    rows = found.table[
        (found.table["source"] == "own") & (found.table["method"] == "resample")
        & (found.table["dose"] == 4) & (found.table["word"] == "cat")
    ]  # fmt: skip
    scores = run.scores["score"].isel(checkpoint=-1, word=0).values
    chosen = np.argsort(-scores[~np.isnan(scores).any((1, 2))].mean(0).ravel())[:4]
    for row in rows.to_dict("records"):
        possible = []
        for word, prompts in texts.items():
            for donor in prompts if word != "cat" else ():
                values = activation(run, "step100", donor).ravel()

                def change(layer, old, values=values):
                    new = old.clone()
                    mine = chosen[chosen // WIDTH == layer]
                    new[mine % WIDTH] = torch.tensor(values[mine])
                    return new

                text = run.study.rendered("cat")[row["prompt"]]
                possible.append(by_hand(run, "step100", text, "cat", change)[0])
        assert min(abs(row["probability"] - p) for p in possible) < 1e-6


def test_the_answer_as_it_is_is_the_runs(made):
    run, found = made
    then = run.scores["probability"].isel(checkpoint=-1).to_series()
    now = found.table.groupby(["word", "prompt"], observed=True)["probability_before"].first()
    np.testing.assert_allclose(now, then.loc[now.index], rtol=1e-5)


def test_singles_are_the_engines_ablation(made):
    run, found = made
    model = AutoModelForCausalLM.from_pretrained(run.suite.checkpoints[-1].source)
    tokenizer = AutoTokenizer.from_pretrained(run.suite.checkpoints[-1].source)
    mine = found.singles[(found.singles["word"] == "dog") & (found.singles["kind"] == "own")]
    with kntrace.attribution.Engine(model, tokenizer) as engine:
        (prompt,) = [text for text in run.study.rendered("dog") if text]
        pairs = list(zip(mine["layer"], mine["neuron"], strict=True))
        lost = engine.ablate(engine.encode(prompt, "dog"), pairs)
    np.testing.assert_allclose(mine["probability_lost"], lost, rtol=1e-4, atol=1e-8)
    assert (np.diff(mine["score"]) <= 0).all()


def test_what_the_table_says_of_its_rows(made):
    _, found = made
    table = found.table
    assert set(table["source"]) == {"own", "same_group", "other_group", "matched", "random"}
    own = table[table["source"] == "own"]
    assert (own["shared"] == own["neurons"]).all()
    for kind in ("matched", "random"):
        assert (table.loc[table["source"] == kind, "shared"] == 0).all()
    assert (table["neurons"] == table["dose"]).all()
    same = table[table["source"] == "same_group"]
    assert (same["word"].astype(str) != same["of"].astype(str)).all()
    assert "Ablation(1 checkpoints, 4 words" in repr(found)


def rankings(width=40, layers=3, own=6, words=6):
    rng = np.random.default_rng(0)
    chosen = tuple(rng.permutation(width * layers)[:own] for _ in range(words))
    names = tuple(f"w{i}" for i in range(words))
    return Rankings(names, tuple("AB"[i % 2] for i in range(words)), chosen, layers, width)


def settings(**changes):
    return AblationSettings.of(**{"select": "top:6", "doses": (2, 6), "wording": "main"} | changes)


def test_matched_neurons_lie_in_the_same_layers_and_are_about_as_active():
    size = np.abs(np.random.default_rng(1).standard_normal(120))
    made = rankings()
    for one in made.sources(0, size, settings(draws=20)):
        assert len(np.unique(one.neurons)) == 6
        if one.source == "matched":
            np.testing.assert_array_equal(one.neurons // 40, made.own[0] // 40)
            assert np.abs(size[one.neurons] - size[made.own[0]]).max() < 0.5
        if one.source in ("matched", "random"):
            assert not set(one.neurons) & set(made.own[0])
    plain = [one.neurons for one in made.sources(0, size, settings(draws=20))
             if one.source == "random"]  # fmt: skip
    assert np.mean([np.abs(size[n] - size[made.own[0]]).mean() for n in plain]) > 0.3


def test_what_is_drawn_hangs_on_the_seed_and_the_word_alone():
    size = np.ones(120)
    one, two = (rankings().sources(3, size, settings(seed=5)) for _ in range(2))
    other = rankings().sources(3, size, settings(seed=6))
    same = [np.array_equal(a.neurons, b.neurons) for a, b in zip(one, two, strict=True)]
    differ = [a.neurons.tolist() != b.neurons.tolist() for a, b in zip(one, other, strict=True)]
    assert all(same)
    assert any(differ)
    assert list(one[0].dose(2)) == list(rankings().own[3][:2])
    assert all(set(ranking.dose(2)) < set(ranking.dose(0)) for ranking in one)


def test_a_layer_without_enough_others_is_named():
    made = Rankings(("a", "b"), ("A", "A"), (np.arange(6), np.arange(6)), 1, 10)
    with pytest.raises(SettingsError, match="6 of the neurons of 'a' lie in layer 0, which has 10"):
        made.sources(0, np.ones(10), settings())


@pytest.mark.slow
def test_a_second_call_computes_nothing_and_a_further_step_only_that(copied, monkeypatch):
    loaded = []
    plain = work.load_scored

    def counted(run, place, checkpoint, **how):
        loaded.append(checkpoint.label)
        return plain(run, place, checkpoint, **how)

    monkeypatch.setattr(work, "load_scored", counted)
    first = kntrace.ablate(copied, **LITTLE)
    assert loaded == []
    both = kntrace.ablate(copied, steps="0,100", **LITTLE)
    assert loaded == ["step0"]
    assert both.checkpoints == ("step0", "step100")
    np.testing.assert_array_equal(
        both.table.loc[both.table["step"] == 100, "probability"], first.table["probability"]
    )
    assert (copied.path / "causal" / "summary.csv").is_file()
    # of a checkpoint whose table is gone or changed nothing is believed
    (copied.path / "causal" / "effects-0000.parquet").write_bytes(b"")
    assert load_ablation(copied).checkpoints == ("step100",)
    assert kntrace.ablate(copied, steps=[0], **LITTLE).checkpoints == ("step0", "step100")
    assert loaded == ["step0", "step0"]


@pytest.mark.slow
def test_a_call_that_is_stopped_loses_the_checkpoint_in_hand(copied):
    def stop(stage, done, total, detail=""):
        if "step100" in detail and done >= 6:
            raise KeyboardInterrupt

    how = LITTLE | {"progress": stop, "anew": True}
    with pytest.raises(KeyboardInterrupt, match="1 of 2 checkpoints done"):
        kntrace.ablate(copied, steps="10,100", **how)
    assert load_ablation(copied).checkpoints == ("step10",)
    whole = kntrace.ablate(copied, steps="10,100", **LITTLE)
    straight = kntrace.ablate(copied, steps="10,100", **(LITTLE | {"anew": True}))
    np.testing.assert_allclose(whole.table["log_odds"], straight.table["log_odds"], rtol=1e-6)


def test_other_settings_are_refused_unless_begun_anew(copied):
    other = LITTLE | {"doses": (1, 3)}
    with pytest.raises(RunError, match=r"doses: \(1, 4\) -> \(1, 3\)"):
        kntrace.ablate(copied, **other)
    assert load_ablation(copied).settings.doses == (1, 4)
    assert kntrace.ablate(copied, anew=True, **other).settings.doses == (1, 3)


def test_other_weights_are_refused(copied):
    folder = Path(copied.suite.checkpoints[0].source)
    shutil.copytree(copied.suite.checkpoints[1].source, folder, dirs_exist_ok=True)
    with pytest.raises(RunError, match="weights of 'step0' are not those that were scored"):
        kntrace.ablate(copied, steps=[0], **LITTLE)


def test_another_configuration_is_refused(copied):
    file = Path(copied.suite.checkpoints[0].source) / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(ModelError, match=r"P\(answer\) is .* when the scores were computed"):
        kntrace.ablate(copied, steps=[0], **LITTLE)


def test_moved_checkpoints_are_found_by_suite(copied, tmp_path):
    moved = copied.path.parent / "suite"
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(KntraceError, match="have no config"):
        kntrace.ablate(copied, steps=[0], **LITTLE)
    suite = kntrace.load_suite(tmp_path / "elsewhere")
    assert "step0" in kntrace.ablate(copied, steps=[0], suite=suite, **LITTLE).checkpoints
    with pytest.raises(RunError, match="another suite"):
        kntrace.ablate(
            copied,
            steps=[10],
            suite=kntrace.load_suite(tmp_path / "elsewhere", steps=[10]),
            **LITTLE,
        )


def test_by_threshold_with_all_neurons_and_each_checkpoints_own(copied):
    how = {"select": "threshold:0.5:1", "chosen_at": "each", "progress": silent, "anew": True}
    found = kntrace.ablate(copied, steps="0,100", methods=("zero",), partners=1, draws=1, **how)
    assert found.settings.doses == (0,)
    own = found.table[found.table["source"] == "own"]
    scores = copied.scores["score"].values
    for place, label in ((0, "step0"), (2, "step100")):
        cell = scores[place, 0][~np.isnan(scores[place, 0]).any((1, 2))].reshape(-1, 48)
        size = ((cell >= 0.5 * cell.max(1, keepdims=True)).any(0)).sum()
        mine = own[(own["checkpoint"] == label) & (own["word"] == "cat")]
        assert set(mine["neurons"]) == {size}


def test_everywhere_is_more_than_at_the_last_token(copied, made):
    found = kntrace.ablate(copied, anew=True, positions="all", **LITTLE)
    mine, last = found.table, made[1].table
    np.testing.assert_allclose(mine["log_odds_before"], last["log_odds_before"], rtol=1e-4)
    zero = (mine["method"] == "zero").to_numpy()
    assert np.abs(mine["log_odds"] - last["log_odds"])[zero].max() > 0.01


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"steps": [5]}, "no checkpoint at step 5"),
        ({"doses": (0,)}, "without a selection"),
        ({"doses": (9,), "select": "top:4"}, "a dose of 9 neurons, but --select top:4"),
        ({"doses": (49,)}, "at most the model's 48"),
        ({"select": "top:999"}, "k = 999"),
        ({"select": "best"}, "top:K"),
        ({"methods": ("half",)}, "the method 'half'"),
        ({"wording": "other"}, "no wording 'other'"),
        ({"positions": "first"}, "positions"),
        ({"device": "warp"}, "device 'warp'"),
        ({"threads": 0}, "threads = 0"),
    ],
)
def test_wrong_arguments_change_nothing(made, how, said):
    run, before = made
    with pytest.raises(KntraceError, match=said):
        kntrace.ablate(run, **{"progress": silent, "anew": True} | how)
    assert load_ablation(run).settings == before.settings


@pytest.mark.slow
def test_the_report_has_a_section(copied):
    page = write_report(copied, analyse(copied, permutations=9)).read_text(encoding="utf-8")
    found = load_ablation(copied)
    assert '<h2 id="causes">' in page
    assert html.escape(found.verdict, quote=True).replace("&#x27;", "&#39;") in page
    assert 'id="figure-dose"' in page
    shutil.rmtree(copied.path / "causal")
    assert 'id="causes"' not in write_report(copied, analyse(copied, permutations=9)).read_text()


def test_an_ablation_of_another_run_is_said_not_shown(copied):
    file = copied.path / "causal" / "ablation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"run": "another"}))
    page = write_report(copied, analyse(copied, permutations=9)).read_text(encoding="utf-8")
    assert "is not shown" in page
    assert 'id="figure-dose"' not in page


def test_nothing_there_says_what_to_do(tiny_suite, tmp_path):
    run = kntrace.run(
        tiny_suite.study, tiny_suite.suite, tmp_path / "run", threads=1, progress=silent
    )
    with pytest.raises(AnalysisError, match="kntrace ablate"):
        load_ablation(run)
