"""Which neurons are a word's own: hand-made scores whose sets are known."""

from __future__ import annotations

import numpy as np
import pytest

from kntrace.analysis import analyse, analyse_scores, load_analysis
from kntrace.errors import AnalysisError
from kntrace.formation import formation_processes, knowledge_neurons
from kntrace.selection import Threshold, TopK, read_selection
from kntrace.testing import synthetic_run, synthetic_scores

GROUPS = {"A": ("a1", "a2", "a3"), "B": ("b1", "b2", "b3")}


def scored(values, probability=None):
    """Scores of a run in which every word has these, (prompt, neuron), in one layer."""
    values = np.asarray(values, dtype=np.float32)
    made = synthetic_scores(
        groups=GROUPS, checkpoints=2, prompts=len(values), layers=1, width=values.shape[1]
    )
    made["score"].values[:] = values[:, None, :]
    if probability is not None:
        made["probability"].values[:] = probability
    return made


def neurons(chosen, word=0):
    found = chosen["neuron"].values[word]
    return list(found[found >= 0])


FOUR = [
    [1.0, 0.2, 0.19, 0.0, -5.0],
    [0.1, 0.5, 0.02, 0.0, 0.0],
    [0.4, 0.1, 0.30, 0.0, 0.4],
    [2.0, 0.5, 0.10, 0.0, 0.3],
]


def test_coarse_then_refined_by_hand():
    # coarse at .2: {0, 1}, {0, 1}, {0, 1, 2, 4}, {0, 1}: a tie at exactly t x maximum is in
    scores = scored(FOUR)
    assert neurons(Threshold(0.2, 4).choose(scores)) == [0, 1]
    assert neurons(Threshold(0.2, 1).choose(scores)) == [0, 1, 2, 4]  # by their mean score
    assert neurons(Threshold(1.0, 1).choose(scores)) == [0, 1, 4]
    assert neurons(Threshold(1.0, 2).choose(scores)) == [0]
    # three of four is .75 of the prompts, whatever a sum of floating-point steps says
    assert neurons(Threshold(0.5, 3).choose(scores)) == [0]


def test_a_prompt_without_a_positive_score_gives_nothing():
    assert neurons(Threshold(0.2, 1).choose(scored([[-1.0, -2.0, 0.0]] * 2))) == []


def test_the_floor_leaves_prompts_out_that_the_model_cannot_answer():
    known = np.array([0.9, 0.001, 0.9, 0.05])
    scores = scored(FOUR, known)
    assert neurons(Threshold(0.2, 4, 0.1).choose(scores)) == []
    assert neurons(Threshold(0.2, 2, 0.1).choose(scores)) == [0, 1]
    assert neurons(Threshold(0.2, 3, 0.05 - 1e-6).choose(scores)) == [0, 1]


def test_renaming_neurons_renames_the_sets():
    order = [3, 1, 4, 0, 2]
    plain = neurons(Threshold(0.2, 1).choose(scored(FOUR)))
    mixed = neurons(Threshold(0.2, 1).choose(scored(np.array(FOUR)[:, order])))
    assert [order[i] for i in mixed] == plain


def test_words_with_unequal_sets_are_padded():
    scores = synthetic_scores(groups=GROUPS, layers=3, width=20, prompts=3)
    chosen = Threshold(0.3, 2).choose(scores, checkpoint="step300")
    assert chosen.attrs["checkpoint"] == "step300"
    held = chosen["layer"].values >= 0
    assert len(set(held.sum(axis=1))) > 1
    assert np.isnan(chosen["score"].values[~held]).all()
    assert (chosen["neuron"].values[~held] == -1).all()
    for word in range(6):
        cell = scores.isel(checkpoint=3, word=word)["score"].values.reshape(3, -1)
        counts = (cell >= np.float32(0.3) * cell.max(1, keepdims=True)).sum(0)
        flat = chosen["layer"].values[word] * 20 + chosen["neuron"].values[word]
        assert set(flat[held[word]]) == set(np.flatnonzero(counts >= 2))
        mean = cell.mean(0, dtype=np.float64)
        np.testing.assert_allclose(chosen["score"].values[word][held[word]], mean[flat[held[word]]])
    paths = formation_processes(scores, chosen)
    assert np.isfinite(paths.values[held]).all()
    assert np.isnan(paths.values[~held]).all()


def test_the_k_strongest_are_the_knowledge_neurons():
    scores = synthetic_scores(groups=GROUPS)
    chosen = read_selection("top:7").choose(scores)
    assert chosen.drop_attrs().identical(knowledge_neurons(scores, 7).drop_attrs())


@pytest.mark.parametrize(
    "spec",
    ["top:7", "threshold:0.2:3", "threshold:0.25:1:0.5", "rare:0.2:1:20", "rare:0.2:3:7:0.5"],
)
def test_specs_read_back(spec):
    assert read_selection(spec).spec == spec


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("top", "threshold:T:MIN"),
        ("top:0", "k = 0"),
        ("top:x", "top:K"),
        ("threshold:0.2", "threshold:T:MIN"),
        ("threshold:0:2", "above 0, at most 1"),
        ("threshold:1.2:2", "above 0, at most 1"),
        ("threshold:nan:2", "above 0, at most 1"),
        ("threshold:0.2:0.7", "not a share"),
        ("threshold:0.2:0", "1 or more"),
        ("threshold:0.2:2:7", "a probability"),
        ("rare:0.2:1", "rare:T:MIN:K"),
        ("rare:0.2:1:0", "k = 0 knowledge neurons"),
        ("best:3", "top:K"),
    ],
)
def test_wrong_specs_say_what_is_right(spec, said):
    with pytest.raises(AnalysisError, match=said):
        read_selection(spec)


@pytest.mark.parametrize("count", [0.7, 2.0, True, -1])
def test_the_number_of_prompts_is_a_whole_number(count):
    with pytest.raises(AnalysisError, match="whole number of prompts"):
        Threshold(0.2, count)


def test_more_prompts_than_a_word_has():
    with pytest.raises(AnalysisError, match=r"word 'a1': 4 prompts.*min_prompts = 5"):
        Threshold(0.2, 5).choose(scored(FOUR))


def test_an_analysis_by_threshold_is_kept_and_read_back(tmp_path):
    run = synthetic_run(tmp_path / "r", groups=GROUPS, structure=0.5)
    found = analyse(run, select="threshold:0.2:2", permutations=9)
    assert found.selection == "threshold:0.2:2"
    again = load_analysis(run)
    assert again.selection == found.selection
    np.testing.assert_array_equal(again.neurons["layer"], found.neurons["layer"])
    assert TopK(3) == read_selection(analyse_scores(run.scores, k=3, permutations=9).selection)


def test_an_analysis_needs_neurons_of_every_word():
    with pytest.raises(AnalysisError, match="no neuron of 'a1'"):
        analyse_scores(scored([[-1.0, -2.0, 0.0]] * 2), select="threshold:0.2:1")


def test_k_and_a_selection_are_not_both_given():
    with pytest.raises(AnalysisError, match="k = 5 beside"):
        analyse_scores(synthetic_scores(groups=GROUPS), k=5, select="top:7")


def test_neurons_that_few_words_have_by_hand():
    """All six words share neurons 0 and 1; group A also 2; each word has one of its own."""
    width = 12
    made = synthetic_scores(groups=GROUPS, checkpoints=2, prompts=2, layers=1, width=width)
    values = np.zeros(made["score"].shape, dtype=np.float32)
    for word in range(6):
        values[:, word, :, 0, :2] = 1.0
        values[:, word, :, 0, 2] = 0.9 * (word < 3)
        values[:, word, :, 0, 4 + word] = 0.5
    values[:, 0, :, 0, 3] = 0.4
    made["score"].values[:] = values
    chosen = read_selection("rare:0.2:1:2").choose(made)
    # Of neuron 2 three of six words have log(6 / 4) * .9 = .36, less than log(6 / 2) * .5 = .55;
    # and it is one of more than int(.3 * 6) = 1 words, so it is left out of what was taken.
    assert neurons(chosen, 0) == [4, 3]
    assert neurons(chosen, 1) == [5]
    assert [neurons(chosen, word) for word in (3, 4, 5)] == [[7], [8], [9]]
    assert chosen["score"].values[0].tolist() == pytest.approx([0.5, 0.4])
    assert np.isnan(chosen["score"].values[1, 1])
    wide = read_selection("rare:0.2:1:9").choose(made)
    assert not any({0, 1, 2} & set(neurons(wide, word)) for word in range(6))
