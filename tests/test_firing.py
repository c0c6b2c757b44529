"""Firing: planted neurons are called what they are, noise is nothing, narrow text is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from drawn_figures import assert_readable
from families import make
from kntrace.errors import AnalysisError, SettingsError
from kntrace.figures import SIZES, render, sized
from kntrace.models.feedforward import find_stack
from kntrace.probes.firing import (
    Corpus,
    corpus_of,
    firing,
    judge,
    judge_less,
    position_information,
    read_corpus,
)
from kntrace.probes.opened import OpenedCheckpoint
from kntrace.testing import synthetic_run, synthetic_scores
from kntrace.views import Asked, compute_views, find_views, read_view

LENGTH, ROWS = 16, 120


def random_corpus(seed: int = 0, types: int = 60) -> Corpus:
    return Corpus(np.random.default_rng(seed).integers(1, types, (ROWS, LENGTH)))


def planted(corpus: Corpus, seed: int = 1) -> np.ndarray:
    """Dead; at two tokens; at a sequence of three; early in a row; by chance; always."""
    tokens, rng = corpus.tokens, np.random.default_rng(seed)
    before, last = np.roll(tokens, 2), np.roll(tokens, 1)
    place = np.arange(len(tokens)) % LENGTH
    return np.stack(
        [
            np.zeros(len(tokens), dtype=bool),
            np.isin(tokens, [3, 7]),
            (before == 5) & (last == 6) & (tokens == 8) & (place >= 2),
            place < LENGTH // 2,
            rng.random(len(tokens)) < 0.2,
            np.ones(len(tokens), dtype=bool),
        ],
        axis=1,
    )


def with_sequences() -> Corpus:
    """A random text in which one sequence of three comes again and again, anywhere in a row."""
    corpus = random_corpus()
    for row in corpus.rows[:40]:
        start = int(row[0]) % (LENGTH - 3)
        row[start : start + 3] = [5, 6, 8]
    return corpus


def test_planted_neurons_are_called_what_they_are() -> None:
    corpus = with_sequences()
    found = judge(planted(corpus), corpus)
    assert found.token.tolist() == [False, True, False, False, False, False]
    assert found.trigram.tolist() == [False, False, True, False, False, False]
    assert found.positional.tolist() == [False, False, False, True, False, False]
    assert (found.frequency == 0).tolist() == [True, False, False, False, False, False]
    assert found.cover.tolist()[:3] == [0, 2, 1]
    assert found.cover[4] > 40
    # Half of the places tell all there is to tell: log 2, less what chance adds.
    chance = (LENGTH - 1) / (2 * ROWS * LENGTH)
    assert found.position[3] == pytest.approx(np.log(2) - chance)


def test_each_fifth_of_the_text_is_left_out_in_turn() -> None:
    corpus = random_corpus()
    tokens, fifth = corpus.tokens, ROWS * LENGTH // 5
    early = np.arange(len(tokens)) < fifth
    chance = np.random.default_rng(8).random(len(tokens)) < 0.5
    # Detects a token; does so but for the text's first fifth; never does.
    fires = np.stack([tokens == 3, np.where(early, chance, tokens == 3), chance], axis=1)
    found = judge_less(fires, corpus)
    assert [one.token.tolist() for one in found] == [
        [True, place == 0, False] for place in range(5)
    ]
    # Against the same without the second fifth, written out.
    kept = np.r_[:fifth, 2 * fifth : len(tokens)]
    alone = judge(fires[kept], Corpus(tokens[kept].reshape(-1, LENGTH)))
    for name in ("frequency", "cover", "token", "trigram", "position"):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(alone, name))


def test_firing_dealt_anew_is_nothing() -> None:
    corpus = with_sequences()
    fires = planted(corpus)
    found = judge(fires[np.random.default_rng(3).permutation(len(fires))], corpus)
    assert not found.token.any()
    assert not found.trigram.any()
    assert not found.positional.any()


def test_position_information_is_divergence_less_its_bias() -> None:
    rng = np.random.default_rng(4)
    fires = rng.random((ROWS * LENGTH, 3)) < [0.1, 0.5, 0.9]
    found = position_information(fires, LENGTH)
    for neuron in range(3):
        at = [fires[place::LENGTH, neuron].mean() for place in range(LENGTH)]
        mean = np.mean(at)
        terms = [
            sum(p * np.log(p / q) for p, q in ((one, mean), (1 - one, 1 - mean)) if p > 0)
            for one in at
        ]
        bias = (LENGTH - 1) / (2 * ROWS * LENGTH)
        assert found[neuron] == pytest.approx(np.mean(terms) - bias, abs=1e-12)
    # Over many neurons of noise the mean is nothing.
    noise = rng.random((ROWS * LENGTH, 400)) < 0.3
    assert abs(position_information(noise, LENGTH).mean()) < 2e-4


@pytest.mark.parametrize(("kind", "share"), [("opt_pre", 0.0), ("gpt_neox_parallel", 0.25)])
def test_when_neurons_fire_is_read_off_the_first_map(kind: str, share: float) -> None:
    """Against the up-projection and the nonlinearity, run by hand on every row."""
    model = make(kind).eval()
    stack = find_stack(model)
    corpus = Corpus(np.random.default_rng(5).integers(1, 90, (20, 8)))
    seen: dict[int, list[torch.Tensor]] = {}
    hooks = [
        block.up.register_forward_hook(
            lambda _, __, left, layer=layer: seen.setdefault(layer, []).append(left.detach())
        )
        for layer, block in enumerate(stack)
    ]
    with torch.no_grad():
        for row in corpus.rows:
            model(input_ids=torch.as_tensor(row[None]))
    for hook in hooks:
        hook.remove()
    act = torch.relu if kind == "opt_pre" else torch.nn.functional.gelu
    for layer, fires in enumerate(firing(model, stack, corpus, share)):
        values = act(torch.cat([one.reshape(-1, one.shape[-1]) for one in seen[layer]])).numpy()
        level = share * values.max(axis=0)
        near = np.abs(values - level) < 1e-5
        assert (fires == (values > level))[~near].all()
        assert near.mean() < 0.6 if share == 0 else near.mean() < 0.01


def test_a_neuron_that_cannot_fire_is_dead_and_one_that_must_is_not() -> None:
    model = make("opt_pre").eval()
    stack = find_stack(model)
    with torch.no_grad():
        stack.layers[1].up.bias[3] = -1e4
        stack.layers[1].up.bias[4] = 1e4
    found = read_corpus(model, stack, random_corpus(), 0.0, 0)
    assert found.never_negative
    assert found.layers[1].text.frequency[3] == 0
    assert found.layers[1].text.frequency[4] == 1
    assert not found.layers[1].text.positional[[3, 4]].any()
    smooth = make("gpt_neox_parallel").eval()
    assert not read_corpus(smooth, find_stack(smooth), random_corpus(), None, 0).never_negative


def test_text_that_is_too_narrow_is_refused(word_tokenizer: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    text = " ".join(f"w{one}" for one in rng.integers(1, 90, 2000))
    assert corpus_of(word_tokenizer, text, 16, 1800).rows.shape == (112, 16)
    with pytest.raises(AnalysisError, match=r"makes 62 rows of 16.*100 rows or more"):
        corpus_of(word_tokenizer, text, 16, 1000)
    few = " ".join(f"w{one}" for one in rng.integers(1, 30, 2000))
    with pytest.raises(AnalysisError, match="29 different tokens"):
        corpus_of(word_tokenizer, few, 16, 2000)
    # A template of 16 words, most of them always the same.
    rows = [
        [*(f"w{60 + place}" for place in range(14)), *(f"w{one}" for one in rng.integers(1, 59, 2))]
        for _ in range(120)
    ]
    template = " ".join(word for row in rows for word in row)
    with pytest.raises(AnalysisError, match=r"the place in a row tells \d+%.*Give running text"):
        corpus_of(word_tokenizer, template, 16, 2000)
    file = tmp_path / "text.txt"
    file.write_text(text)
    loaded = SimpleNamespace(model=make("opt_pre").eval(), tokenizer=word_tokenizer)
    opened = OpenedCheckpoint(SimpleNamespace(), loaded)  # type: ignore[arg-type]
    read = opened.firing(str(file), 16, 1800, 0.0, 0)
    assert (read.rows, len(read.layers)) == (112, 3)
    with pytest.raises(AnalysisError, match=r"there is no file.*expected a text file"):
        opened.firing(str(tmp_path / "none.txt"), 16, 1800, 0.0, 0)


class Said:
    """Checkpoints whose neurons fire by chance at first, and as planted at the end."""

    def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        assert otherwise == "all"
        corpus = with_sequences()
        fires, rng = planted(corpus), np.random.default_rng(7)
        for place in range(2):

            def read(*asked: Any, place: int = place) -> Any:
                here = fires if place else fires[rng.permutation(len(fires))]
                dealt = judge(fires[rng.permutation(len(fires))], corpus)
                layer = SimpleNamespace(
                    text=judge(here, corpus),
                    less=judge_less(here, corpus),
                    chance=dealt,
                    shuffled=dealt.positional,
                )
                return SimpleNamespace(rows=120, types=59, never_negative=True, layers=[layer] * 2)

            yield place, SimpleNamespace(firing=read)


def test_the_view_shows_what_comes_with_training(tmp_path: Path) -> None:
    run = synthetic_run(
        tmp_path / "run",
        synthetic_scores(groups={"A": ("a", "b", "c")}, checkpoints=2, layers=2, width=6),
    )
    text = tmp_path / "text.txt"
    text.write_text("any text: the checkpoints are made up")
    (view,) = find_views(["firing"], {"corpus": str(text)})
    found = compute_views(run, [view], weights=Said(), formats=("png",))["firing"]
    layers = found.main.set_index(["checkpoint", "layer"])
    for kind in ("dead", "token", "trigram", "positional"):
        assert layers.loc[("step100", 1), kind] == pytest.approx(1 / 6), kind
    for kind in ("token", "trigram", "positional"):
        assert layers.loc[("step0", 0), kind] == 0
        assert layers.loc[("step100", 0), f"{kind}_chance"] == 0
    # Every fifth of the text says the same of planted neurons at the end.
    whole = found.tables["whole"].set_index("checkpoint")
    last = [whole.loc["step100", f"token{end}"] for end in ("", "_low", "_high")]
    assert last == pytest.approx([1 / 6] * 3)
    assert found.facts["token_low_last"] == pytest.approx(1 / 6)
    assert "16.7% [16.7%, 16.7%] fire at 1 to 5 tokens (by chance 0.0%)" in view.describe(found)
    assert found.facts["share"] == 0
    assert "above zero" in view.describe(found)
    assert "Over 120 rows of 64 tokens, 59 different ones" in view.describe(found)
    again = read_view(run, "firing")
    assert render(view.draw(again), "svg") == render(view.draw(found), "svg")
    for size in SIZES:
        with sized(size) as room:
            assert_readable(view.draw(found), size, room)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "often"}, "expected auto, sign or relative"),
        ({"share": "1"}, "above 0 and below 1"),
        ({"length": "2"}, "rows of 4 tokens or more"),
    ],
)
def test_wrong_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find_views(["firing"], options)


def test_a_text_is_needed() -> None:
    (view,) = find_views(["firing"])
    with pytest.raises(AnalysisError, match=r"no text to read.*corpus=TEXT\.txt"):
        view.compute(Asked(synthetic_scores(), weights=Said()))
