"""Erase and edit: what is planted is found, what all share is not, and all of it is undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from drawn_figures import assert_readable
from kntrace.archive import Run
from kntrace.errors import AnalysisError, ModelError, SettingsError
from kntrace.figures import SIZES, render, sized
from kntrace.models.feedforward import find_stack
from kntrace.probes import Weights
from kntrace.probes.asking import Answers
from kntrace.probes.surgery import value_vectors
from kntrace.report.views import sections
from kntrace.testing import synthetic_scores
from kntrace.views import Asked, compute_views, find_views, read_view
from kntrace.views.erase import orders
from kntrace.views.sets import matched_in_order

GROUPS = {"A": ("a1", "a2", "a3", "a4"), "B": ("b1", "b2", "b3", "b4"), "C": ("c1", "c2", "c3")}
CODES = np.array([0] * 4 + [1] * 4 + [2] * 3)
WIDTH = 60


def opened_at(run: Run, place: int) -> Any:
    steps = [run.suite.checkpoints[place].step]
    return next(Weights(run, steps=steps, threads=1).opened("last"))[1]


def state(opened: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in opened.model.state_dict().items()}


def same(opened: Any, before: dict[str, torch.Tensor]) -> bool:
    now = opened.model.state_dict()
    return all(torch.equal(tensor, now[name]) for name, tensor in before.items())


# Orders


def test_orders_of_hand_made_sets() -> None:
    sets = np.zeros((4, 6))
    sets[:2, [0, 1]] = 1  # both of the group
    sets[2:, 0] = 1  # all the others too
    sets[0, 2] = 1  # one of the group
    sets[2, 5] = 1  # none of the group
    means = np.zeros((4, 6))
    means[:, 1] = 0.5
    frequency, specific = orders(sets, means, np.array([1, 1, 0, 0], dtype=bool))
    assert frequency.tolist() == [1, 0, 2]  # of equals the larger mean first
    assert specific.tolist() == [1, 2, 0]  # 1 - 0, .5 - 0, 1 - 1
    alone, _ = orders(sets, means, np.ones(4, dtype=bool))
    assert set(alone) == {0, 1, 2, 5}


def test_random_neurons_keep_their_layers_in_order() -> None:
    ranking = np.array([3, 11, 4, 12, 0])
    found = matched_in_order(ranking, 10, np.random.default_rng(0))
    assert (found // 10).tolist() == (ranking // 10).tolist()
    assert not set(found) & set(ranking)
    assert len(set(found)) == 5
    assert len(matched_in_order(np.arange(8), 10, np.random.default_rng(0))) == 2


# Weights


def test_erasing_is_the_same_as_neurons_that_are_always_zero(tiny_run: Run) -> None:
    opened = opened_at(tiny_run, 2)
    before = state(opened)
    prompts = [one for some in opened.prompts("main") for one in some]
    neurons = np.array([0, 7, 24 + 5])
    hooks = []
    for layer, block in enumerate(find_stack(opened.model)):

        def silence(_: Any, args: Any, layer: int = layer) -> Any:
            whole = args[0].clone()
            whole[..., neurons[neurons // 24 == layer] % 24] = 0
            return (whole,)

        hooks.append(block.down.register_forward_pre_hook(silence))
    silenced = opened.ask(prompts)
    for hook in hooks:
        hook.remove()
    with opened.erased(neurons):
        erased = opened.ask(prompts)
    np.testing.assert_allclose(erased.log_odds, silenced.log_odds, rtol=1e-5, atol=1e-6)
    assert same(opened, before)
    assert np.abs(erased.log_odds - opened.ask(prompts).log_odds).max() > 1e-3


def test_an_edit_moves_vectors_by_the_formula_and_is_undone(tiny_run: Run) -> None:
    opened = opened_at(tiny_run, 2)
    before = state(opened)
    assert not opened.tied
    neurons, signs = np.array([3, 24 + 1]), np.array([1.0, -1.0])
    heads = {
        "unembedding": opened.model.get_output_embeddings().weight,
        "embedding": opened.model.get_input_embeddings().weight,
    }
    for rows, table in heads.items():
        with opened.edited(neurons, signs, (4, 9), rows, (1.0, 8.0)):
            for neuron, sign in zip(neurons, signs, strict=True):
                stack = find_stack(opened.model)
                now = value_vectors(stack.layers[neuron // 24])[neuron % 24].detach().numpy()
                name = f"gpt_neox.layers.{neuron // 24}.mlp.dense_4h_to_h.weight"
                v = before[name][:, neuron % 24].numpy()
                old, new = table[4].detach().numpy(), table[9].detach().numpy()
                norm = np.linalg.norm
                moved = v + sign * norm(v) * (8 * new / norm(new) - old / norm(old))
                np.testing.assert_allclose(now, moved, rtol=1e-4, atol=1e-5)
        assert same(opened, before)
    with pytest.raises(KeyboardInterrupt), opened.edited(neurons, signs, (4, 9), rows, (1, 8)):
        raise KeyboardInterrupt
    assert same(opened, before)
    narrow = torch.nn.Linear(8, 20, bias=False)
    opened.model.get_output_embeddings = lambda: narrow
    with pytest.raises(ModelError, match="with 8 components"):
        opened.edited(neurons, signs, (4, 9), "unembedding", (1.0, 8.0))


# The view of erasing


class Said:
    """A network in which every word's log-odds fall by one for each of its neurons erased."""

    def __init__(self, needs: list[set[int]]) -> None:
        self.needs, self.gone = needs, set[int]()

    def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        assert otherwise == "ends"
        yield 1, self

    def prompts(self, wording: str) -> list[list[Any]]:
        return [[SimpleNamespace(word=word)] * 2 for word in range(len(self.needs))]

    def ask(self, prompts: list[Any]) -> Answers:
        odds = np.array([5.0 - len(self.needs[one.word] & self.gone) for one in prompts])
        return Answers(-np.log1p(np.exp(-odds)), odds, (odds < 0).astype(np.int64))

    @contextmanager
    def erased(self, neurons: Any) -> Iterator[None]:
        self.gone = set(neurons.tolist())
        yield
        self.gone = set()


def run_of(sets: list[set[int]]) -> Any:
    """Scores that choose these neurons, all with about one score."""
    data = synthetic_scores(groups=GROUPS, checkpoints=2, layers=2, width=WIDTH).load()
    data["score"].values[:] = 0.0
    flat = data["score"].values.reshape(2, len(sets), -1, 2 * WIDTH)
    rng = np.random.default_rng(4)
    for word, members in enumerate(sets):
        flat[:, word][:, :, sorted(members)] = 1 + 0.1 * rng.random(len(members))
    return data


def erased(needs: list[set[int]]) -> Any:
    view = find_views(["erase"], {"doses": "4,8"})[0]
    asked = Asked(run_of(needs), select="top:8", weights=Said(needs))
    found = view.compute(asked)
    render(view.draw(found), "svg")
    return found


def test_neurons_of_a_group_are_missed_by_its_words_alone() -> None:
    facts = erased([set(range(8 * code, 8 * code + 8)) for code in CODES]).facts
    for order in ("frequency", "specific"):
        one = facts[f"{order}_8"]
        assert one["own_log_odds"]["change"] == -8
        assert one["other_log_odds"]["change"] == 0
        assert (one["own_accuracy"]["after"], one["other_accuracy"]["after"]) == (0, 1)
        assert facts[f"{order}_4"]["own_log_odds"]["change"] == -4
        assert one["own_minus_other_log_odds"]["change"] == -8
        assert one["own_log_perplexity"]["after"] == pytest.approx(np.log1p(np.exp(3)))
    assert facts["random_8"]["own_log_odds"]["change"] == 0


def test_neurons_that_all_words_need_are_not_a_groups() -> None:
    """Frequency finds them, and they cost other words as much; the specific order avoids them."""
    needs = [{0, 1, 2, 3} | set(range(8 + 4 * code, 12 + 4 * code)) for code in CODES]
    facts = erased(needs).facts
    assert facts["frequency_4"]["own_log_odds"]["change"] == facts["frequency_8"][
        "own_log_odds"
    ]["change"] + 4  # fmt: skip
    assert facts["specific_4"]["own_minus_other_log_odds"]["change"] == -4
    assert facts["specific_4"]["other_log_odds"]["change"] == 0
    assert facts["frequency_8"]["other_log_odds"]["change"] == -4
    shared = erased([set(range(8))] * len(CODES)).facts
    assert shared["frequency_8"]["own_minus_other_log_odds"]["change"] == 0


def test_erase_refuses_doses_that_are_none(tiny_run: Run) -> None:
    for doses in ("many", "0,5", ","):
        with pytest.raises(SettingsError, match="whole numbers of neurons"):
            find_views(["erase"], {"doses": doses})
    view = find_views(["erase"], {"doses": "48"})[0]
    with pytest.raises(AnalysisError, match="fewer than all 48"):
        view.compute(Asked(tiny_run.scores, weights=Weights(tiny_run)))


# Both views on a run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("erase", {"doses": "2,5"}), ("edit", {"neurons": "4", "add": "8"})],
)
def test_a_run_is_changed_kept_drawn_shown_and_left_as_it_was(
    name: str, options: dict[str, str], tiny_run_copy: Run
) -> None:
    run = tiny_run_copy
    (view,) = find_views([name], options)
    weights = Weights(run, threads=1, steps="0,100")
    found = compute_views(run, [view], select="top:6", weights=weights, formats=("png",))[name]
    again = read_view(run, name)
    for part, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[part], table, check_dtype=False)
    assert render(view.draw(again), "svg") == render(view.draw(found), "svg")
    for size in SIZES:
        with sized(size) as room:
            assert_readable(view.draw(found), size, room)
    assert set(found.main["checkpoint"]) == {"step0", "step100"}
    (shown,) = sections(run, lambda one, kept: one.describe(kept))
    assert shown.name == name
    assert "nan" not in " ".join(shown.text)
    # The same again gives the same numbers: nothing was left changed on the disk.
    once_more = compute_views(run, [view], select="top:6", weights=weights, formats=())[name]
    pd.testing.assert_frame_equal(once_more.main, found.main)


def test_an_edit_along_the_unembedding_raises_the_new_answer_and_along_the_other_does_not(
    tiny_run: Run,
) -> None:
    view = find_views(["edit"], {"neurons": "8"})[0]
    asked = Asked(tiny_run.scores, select="top:8", weights=Weights(tiny_run, threads=1))
    found = view.compute(asked)
    facts = found.facts
    assert facts["rows"] == ["unembedding", "embedding"]
    unembedding, embedding = (facts[f"{rows}_own_log_odds"] for rows in facts["rows"])
    assert unembedding["value"] > 0.3
    assert unembedding["value"] > embedding["value"] + 0.3
    edits = found.tables["edits"]
    assert (edits["word"] != edits["target"]).all()
    groups = {word.text: word.group for word in tiny_run.study.words}
    assert [groups[one] for one in edits["target"]] == edits["group"].tolist()
    # Nothing is moved where nothing is asked for.
    still = find_views(["edit"], {"take": "0", "add": "0"})[0]
    same = still.compute(asked).tables["edits"]
    assert np.abs(same[["log_odds", "log_odds_old", "other_groups"]].to_numpy()).max() == 0


def test_wrong_lengths_of_an_edit() -> None:
    with pytest.raises(SettingsError, match="lengths of 0 or more"):
        find_views(["edit"], {"add": "-1"})
