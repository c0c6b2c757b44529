"""The public code's preset against what its definition gives, computed slowly and apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
import xarray as xr

import kntrace
import public_code as slow
from kntrace.analysis import analyse, analyse_scores, load_analysis
from kntrace.attribution import Engine
from kntrace.errors import AnalysisError, ModelError, SettingsError
from kntrace.models.tokens import Encoded
from kntrace.progress import silent
from kntrace.testing import synthetic_run, synthetic_scores
from test_cli import kn

K = 8

STUDY = """\
name: bare
template: "Answer this. Q. {question} A. "
groups:
  Pets:
    Cat: [what says meow, who hunts mice, what has nine lives, who purrs]
    Dog: [what says woof, who fetches sticks, what barks, who guards the door]
  Hues:
    Red: [what hue has blood, what hue stops cars, what is a ripe apple, what is rust]
    Gray: [what hue is ash, what is a dull sky, what hue has lead, what is an elephant]
"""

# In some layers of some checkpoints one neuron is so strong that the threshold matters.
CHECKPOINTS = {0: (3, 3.0), 10: (0, 6.0), 20: (3, 6.0)}


def save_tokenizer(folder: Path, texts: list[str]) -> None:
    """Byte pairs, few of them, so that words are several tokens and joints may melt."""
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|endoftext|>"
    ).save_pretrained(folder)


def save_model(folder: Path, seed: int, strong: float) -> None:
    config = transformers.GPTNeoXConfig(
        vocab_size=330,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=160,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.GPTNeoXForCausalLM(config)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        with torch.no_grad():
            model.gpt_neox.layers[1].mlp.dense_h_to_4h.bias[0] = strong
        model.save_pretrained(folder)


@dataclass(frozen=True)
class Slowly:
    """Everything by the slow way: the scores, and what comes of them."""

    scores: dict  # (step, word) -> one array (layer, neuron) a prompt
    rows: dict  # word -> {(layer, neuron): process}
    chosen: dict
    distances: dict
    percentages: dict

    @classmethod
    def of(cls, folder: Path, study) -> Slowly:
        scores = {}
        for step in CHECKPOINTS:
            place = folder / f"step{step}"
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
            model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
            for word in study.words:
                scores[step, word.text] = [
                    slow.scores_of(model.eval(), tokenizer, question, word.text)
                    for question in word.prompts["main"]
                ]
        words = [word.text for word in study.words]
        rows = {
            word: slow.processes([slow.kept_scores(scores[step, word]) for step in CHECKPOINTS])
            for word in words
        }
        chosen = {word: slow.largest(rows[word], K) for word in words}
        sets = {word: [rows[word][place] for place in chosen[word]] for word in words}
        distances = {
            (one, other): slow.distance(sets[one], sets[other])
            for one in words
            for other in words
            if one != other
        }
        shares = slow.percentages(distances, study.groups)
        return cls(scores, rows, chosen, distances, shares)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A suite of three checkpoints and a study; the study's file, and the folder."""
    home = tmp_path_factory.mktemp("bare")
    file = home / "study.yaml"
    file.write_text(STUDY)
    study = kntrace.load_study(file)
    texts = [text for word in study.words for text in word.prompts["main"]] + ["Red"] * 40
    for step, (seed, strong) in CHECKPOINTS.items():
        save_tokenizer(home / "suite" / f"step{step}", texts)
        save_model(home / "suite" / f"step{step}", seed, strong)
    return file, home / "suite"


@pytest.fixture(scope="module")
def truth(bare):
    return Slowly.of(bare[1], kntrace.load_study(bare[0]))


@pytest.fixture(scope="module")
def run(bare, tmp_path_factory):
    preset = kntrace.find_preset("public-code")
    return kntrace.run(
        preset.study(kntrace.load_study(bare[0])),
        kntrace.load_suite(bare[1]),
        tmp_path_factory.mktemp("out") / "run",
        settings=preset.settings(),
        progress=silent,
    )


@pytest.fixture(scope="module")
def analysis(run):
    return analyse(run, **kntrace.find_preset("public-code").analysis(run, k=K, permutations=9))


def test_the_material_has_every_trap(bare, truth):
    """Answers of one token and of several, and neurons that count in some of 4 prompts."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(bare[1] / "step0")
    lengths = {len(tokenizer.encode(word)) for word in truth.rows}
    assert 1 in lengths
    assert max(lengths) > 2
    counts = set()
    for per_prompt in truth.scores.values():
        counting = np.sum([one > -10 * one.max() for one in per_prompt], axis=0)
        counts |= set(counting.ravel().tolist())
    assert counts >= {0, 1, 2, 4}


def test_scores(run, truth):
    for (step, word), per_prompt in truth.scores.items():
        mine = run.scores["score"].sel(word=word, checkpoint=f"step{step}").values
        for found, true in zip(mine, per_prompt, strict=True):
            assert np.linalg.norm(found - true) < 2e-5 * np.linalg.norm(true)


def test_chosen_neurons_and_their_formation(analysis, truth):
    for word, places in truth.chosen.items():
        mine = analysis.neurons.sel(word=word)
        found = list(zip(mine["layer"].values, mine["neuron"].values, strict=True))
        assert found == places
        rows = np.array([truth.rows[word][place] for place in places])
        np.testing.assert_allclose(
            analysis.formation.sel(word=word).values * 1e6, rows, rtol=1e-3, atol=1e-6 * rows.max()
        )


def test_distances_and_percentages(analysis, truth):
    mine = analysis.distances["emd_public_code"]
    for (one, other), true in truth.distances.items():
        assert mine.sel(word=one, other_word=other).item() == pytest.approx(float(true), rel=1e-4)
    np.testing.assert_array_equal(mine.values, mine.values.astype(np.float32))
    groups = analysis.contrasts["emd_public_code"].groups.set_index("group")
    for group, share in truth.percentages.items():
        assert groups.loc[group, "share_above_with_self"] == pytest.approx(share)


GROUPS = {"One": ("a", "b", "c"), "Two": ("d", "e", "f")}


def thresholded(*, prompts: int) -> xr.Dataset:
    """Synthetic scores in which each word's best neurons are far below zero in some prompts."""
    drawn = synthetic_scores(groups=GROUPS, checkpoints=3, layers=2, width=20, seed=5)
    score = drawn["score"].values
    best = score.mean(axis=2).reshape(3, 6, 40).argsort(axis=-1)
    rng = np.random.default_rng(0)
    for word in range(6):
        for checkpoint in range(3):
            low = -11 * score[checkpoint, word].max()
            for place in best[-1, word, -6:-2]:
                where = rng.choice(4, size=prompts, replace=False)
                score[checkpoint, word, where, place // 20, place % 20] = low
        # One that is chosen by no one is dropped altogether.
        worst = best[-1, word, 0]
        score[:, word, :3, worst // 20, worst % 20] = low
    return drawn


def slowly(scores: xr.Dataset) -> dict:
    return {
        str(word): slow.processes(
            [slow.kept_scores(list(part.values)) for part in scores["score"].sel(word=word)]
        )
        for word in scores["word"].values
    }


@pytest.mark.parametrize("prompts", [1, 2])
def test_prompts_in_which_a_chosen_neuron_lies_low_do_not_count(prompts):
    scores = thresholded(prompts=prompts)
    found = analyse_scores(
        scores, k=K, averaging="public_code", distances="emd_public_code", permutations=9
    )
    rows = slowly(scores)
    chosen = {word: slow.largest(rows[word], K) for word in rows}
    for word, places in chosen.items():
        mine = found.neurons.sel(word=word)
        assert list(zip(mine["layer"].values, mine["neuron"].values, strict=True)) == places
        true = [rows[word][place] for place in places]
        np.testing.assert_allclose(found.formation.sel(word=word) * 1e6, true, rtol=1e-12)
    true = {
        (one, other): slow.distance(
            [rows[one][place] for place in chosen[one]],
            [rows[other][place] for place in chosen[other]],
        )
        for one in rows
        for other in rows
        if one != other
    }
    for (one, other), distance in true.items():
        mine = found.distances["emd_public_code"].sel(word=one, other_word=other).item()
        assert mine == pytest.approx(float(distance), rel=1e-6)
    groups = found.contrasts["emd_public_code"].groups.set_index("group")
    for group, share in slow.percentages(true, GROUPS).items():
        assert groups.loc[group, "share_above_with_self"] == pytest.approx(share)
    plain = kntrace.formation_processes(scores, kntrace.knowledge_neurons(scores, K))
    assert not np.allclose(plain, found.formation, rtol=0.1)


def test_a_chosen_neuron_that_is_dropped_somewhere_is_refused():
    """The public code then compares lists of unequal length, and stops."""
    scores = thresholded(prompts=1)
    best = np.unravel_index(scores["score"].values[-1, 2].mean(axis=0).argmax(), (2, 20))
    scores["score"].values[1, 2, :3, best[0], best[1]] = -1000
    with pytest.raises(
        AnalysisError, match=f"'c' at .*step100.*neuron {best[1]} of layer {best[0]} "
    ):
        analyse_scores(scores, k=K, averaging="public_code", permutations=9)
    assert {len(row) for row in slowly(scores)["c"].values()} == {2, 3}
    # Dropped at the last checkpoint, it is chosen by the value before that, as in the public code.
    scores["score"].values[-1, 2, :3, best[0], best[1]] = -1000
    scores["score"].values[1, 2, :, best[0], best[1]] = 1000
    chosen = kntrace.knowledge_neurons(scores, K, averaging="public_code").sel(word="c")
    places = list(zip(chosen["layer"].values, chosen["neuron"].values, strict=True))
    assert places == slow.largest(slowly(scores)["c"], K)
    assert places[0] == best
    with pytest.raises(AnalysisError, match="step200"):
        kntrace.formation_processes(scores, chosen.expand_dims("word"))


def test_more_neurons_than_are_kept_are_refused():
    scores = thresholded(prompts=1)
    scores["score"].values[:, 0, :, 0, :] = -1000
    with pytest.raises(AnalysisError, match=r"'a': k = 20 .*leaves 19"):
        kntrace.knowledge_neurons(scores, 20, averaging="public_code")
    assert kntrace.knowledge_neurons(scores, 19, averaging="public_code").sizes["rank"] == 19


def test_an_unknown_averaging_is_refused():
    with pytest.raises(AnalysisError, match="every_prompt, public_code"):
        kntrace.knowledge_neurons(thresholded(prompts=1), 3, averaging="median")


def test_every_option_is_written_down(run, analysis, bare):
    assert run.settings.model_dump() == {
        "rule": "public_code",
        "nodes": 20,
        "tolerance": 1e-3,
        "site": "pre_activation",
        "objective": "probability",
        "baseline": "zero",
        "answer_tokens": "greedy",
        "longest_prompt": 128,
        "dtype": "float32",
        "activations": True,
        "keepbits": None,
        "keep": "prompts",
        "top": None,
    }
    assert (run.study.template, run.study.answer_form) == (None, "no_space")
    written = (run.path / "settings.yaml").read_text()
    assert "answer_tokens: greedy" in written
    assert kntrace.Settings.from_yaml(written) == run.settings
    head = json.loads((run.path / "analysis" / "analysis.json").read_text())
    assert head["neurons"]["averaging"] == "public_code"
    assert head["distances"]["emd_public_code"]["unit"] == "(10⁻⁶ probability)²"
    assert load_analysis(run).formation.attrs["averaging"] == "public_code"


def test_a_limit_that_is_not_set_leaves_the_digest_as_it_was():
    """Runs made before there was that setting go on."""
    before = {
        "rule": "adaptive", "nodes": 8, "tolerance": 0.001, "site": "post_activation",
        "objective": "probability", "baseline": "zero", "answer_tokens": "error",
        "dtype": "float32",
    }  # fmt: skip
    written = hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()
    assert kntrace.Settings(activations=False).digest == written
    assert kntrace.Settings(activations=False, longest_prompt=128).digest != written
    assert kntrace.Settings().digest != written


def test_a_prompt_of_more_than_128_tokens_is_refused():
    model = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=96, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=200,
        )
    )  # fmt: skip
    words = {"<unk>": 0, **{f"w{place}": place for place in range(1, 96)}}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    settings = kntrace.find_preset("public-code").settings()
    with Engine(model, tokenizer, settings) as engine:
        engine.encode("w1 " * 128, "w2", "no_space")
        with pytest.raises(ModelError, match=r"129 tokens.*at most the 128 .*longest_prompt"):
            engine.encode("w1 " * 129, "w2", "no_space")


@pytest.mark.parametrize("own", [{"rule": "adaptive"}, {"nodes": 8}, {"baseline": "mine.npy"}])
def test_an_option_that_contradicts_the_preset_is_refused(own):
    preset = kntrace.find_preset("public_code")
    (name,) = own
    with pytest.raises(SettingsError, match=f"{name} = .*but the preset 'public-code' has"):
        preset.settings(**own)


def test_options_that_agree_or_that_it_leaves_open_are_taken():
    preset = kntrace.find_preset("public-code")
    assert preset.settings(rule="public-code", nodes=20) == preset.settings()
    assert preset.settings(tolerance=0.01).tolerance == 0.01


def test_an_analysis_of_another_run_is_no_analysis_of_the_preset(tmp_path):
    other = synthetic_run(tmp_path / "run", groups=GROUPS, checkpoints=2)
    with pytest.raises(SettingsError, match=r"other options.*site 'post_activation', not 'pre_act"):
        kntrace.find_preset("public-code").analysis(other)


def test_a_study_is_asked_anew_and_so_has_another_digest(bare):
    study = kntrace.load_study(bare[0])
    before, _ = study.digest, study.slots
    asked = kntrace.find_preset("public-code").study(study)
    assert asked.digest != before
    assert asked.digest == kntrace.find_preset("public-code").study(asked).digest
    assert asked.rendered("Cat")[0] == "what says meow"
    assert (study.digest, asked.words) == (before, study.words)


def test_the_model_cannot_write_on_after_token_ids():
    model = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=96, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=2,
        )
    )  # fmt: skip
    settings = kntrace.find_preset("public-code").settings()
    with Engine(model, None, settings) as engine:
        assert engine.attribute_many([Encoded((1, 2), (3,))])
        with pytest.raises(ModelError, match=r"Engine\.encode"):
            engine.attribute_many([Encoded((1, 2), (3, 4))])


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'public-code'"):
        kntrace.find_preset("public")


def test_on_the_command_line(bare, run, tmp_path):
    out = tmp_path / "run"
    done = kn("run", *bare, "--out", out, "--preset", "public-code")
    assert "template none, answer_form no_space" in done.stderr
    made = kntrace.open_run(out)
    assert made.settings == run.settings
    np.testing.assert_array_equal(made.scores["score"].values, run.scores["score"].values)
    options = ["--k", K, "--distance", "emd_euclidean", "--permutations", 9, "--no-figures", "-q"]
    done = kn("analyse", out, "--preset", "public-code", *options)
    assert done.stdout.startswith("emd_public_code: same group")
    assert "emd_euclidean" in load_analysis(made).distances


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--preset", "public-code", "--site", "post-activation"], "site = 'post_activation'"),
        (["--preset", "public-code", "--baseline", "mean"], "baseline = 'mean'"),
        (["--preset", "public-code", "--baseline", "b.npy"], "baseline = 'b.npy'"),
        (["--preset", "papers-code"], "no preset 'papers-code'"),
    ],
)
def test_contradictions_on_the_command_line(bare, tmp_path, options, told):
    done = kn("run", *bare, "--out", tmp_path / "run", *options, expect=2)
    assert told in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_analysis_refuses_another_averaging(run):
    options = ["--preset", "public-code", "--averaging", "every-prompt"]
    done = kn("analyse", run.path, *options, expect=2)
    assert "averaging = 'every_prompt'" in done.stderr


def test_the_averaging_alone(tmp_path):
    other = synthetic_run(tmp_path / "run", scores=thresholded(prompts=1))
    options = ["--averaging", "public-code", "--k", K, "--permutations", 9, "--no-figures", "-q"]
    kn("analyse", other.path, *options)
    assert load_analysis(other).neurons.attrs["averaging"] == "public_code"
