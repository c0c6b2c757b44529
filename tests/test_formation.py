"""Knowledge neurons and formation processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from kntrace.errors import AnalysisError
from kntrace.formation import formation_processes, knowledge_neurons, prompt_mean
from kntrace.testing import synthetic_scores

GROUPS = {"A": ("ant", "bat", "cat"), "B": ("blue", "red")}


def scores(**changes: Any) -> xr.Dataset:
    return synthetic_scores(groups=GROUPS, checkpoints=3, layers=2, width=5, **changes)


NOTHING = {
    **dict.fromkeys(("score", "gap", "probability"), np.nan),
    **{"nodes": 0, "converged": -1, "rank": -1},
}


def without(data: xr.Dataset, **place: Any) -> xr.Dataset:
    """The scores of a run in which nothing was measured at this place."""
    data = data.copy(deep=True)
    for name, nothing in NOTHING.items():
        data[name].loc[place] = nothing
    return data


def test_prompt_mean_is_the_mean_over_one_wording() -> None:
    data = scores(wordings=("main", "neutral"))
    for wording, columns in (("main", slice(0, 4)), ("neutral", slice(4, 8))):
        found = prompt_mean(data, wording)
        expected = data["score"].values[:, :, columns].astype(np.float64).mean(axis=2)
        assert found.dims == ("checkpoint", "word", "layer", "neuron")
        np.testing.assert_allclose(found.values, expected, rtol=1e-12)
    assert prompt_mean(data).equals(prompt_mean(data, "main"))


def test_missing_prompts_are_left_out_of_the_mean() -> None:
    data = without(scores(), word="bat", prompt=[1, 3])
    expected = data["score"].sel(word="bat", prompt=[0, 2]).astype(np.float64).mean("prompt")
    np.testing.assert_allclose(prompt_mean(data).sel(word="bat"), expected, rtol=1e-12)


def test_knowledge_neurons_are_the_largest_means_at_the_last_checkpoint() -> None:
    data = scores()
    chosen = knowledge_neurons(data, 4)
    mean = prompt_mean(data).isel(checkpoint=-1)
    for word in data["word"].values:
        flat = sorted(
            (-float(mean.sel(word=word, layer=layer, neuron=neuron)), layer, neuron)
            for layer, neuron in np.ndindex(2, 5)
        )[:4]
        row = chosen.sel(word=word)
        assert list(zip(row["layer"].values, row["neuron"].values, strict=True)) == [
            (layer, neuron) for _, layer, neuron in flat
        ]
        np.testing.assert_array_equal(row["score"].values, [-value for value, _, _ in flat])
    assert chosen.attrs["k"] == 4
    assert chosen.attrs["checkpoint"] == "step200"


@given(st.lists(st.integers(0, 2), min_size=10, max_size=10), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_ties_fall_by_layer_then_neuron(values: list[int], k: int) -> None:
    data = scores()
    tied = np.array(values, dtype=np.float32).reshape(2, 5)
    data["score"] = data["score"] * 0 + xr.DataArray(tied, dims=("layer", "neuron"))
    chosen = knowledge_neurons(data, k)
    expected = sorted(range(10), key=lambda place: (-values[place], place))[:k]
    for word in range(5):
        row = chosen.isel(word=word)
        np.testing.assert_array_equal(row["layer"].values * 5 + row["neuron"].values, expected)


def test_another_checkpoint_can_decide() -> None:
    data = scores()
    by_label = knowledge_neurons(data, 3, checkpoint="step100")
    assert by_label.equals(knowledge_neurons(data, 3, checkpoint=1))
    assert by_label.equals(knowledge_neurons(data, 3, checkpoint=-2))
    only = knowledge_neurons(data.isel(checkpoint=slice(0, 2)), 3)
    assert by_label.drop_attrs().equals(only.drop_attrs())


@pytest.mark.parametrize("k", [0, -1, 11, 2.0, True, "3"])
def test_impossible_k_is_refused(k: Any) -> None:
    with pytest.raises(AnalysisError, match="from 1 to 10"):
        knowledge_neurons(scores(), k)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [("step10", "step100"), (3, "below 3"), (-4, "below 3"), ("x", "step0")],
)
def test_unknown_checkpoint_is_refused(checkpoint: int | str, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        knowledge_neurons(scores(), 3, checkpoint=checkpoint)


def test_unfinished_run_is_refused_by_word_and_checkpoint() -> None:
    data = without(scores(), word="cat", checkpoint="step100")
    chosen = knowledge_neurons(data, 3)  # the last checkpoint is all there
    for compute in (
        lambda: formation_processes(data, chosen),
        lambda: prompt_mean(data),
        lambda: knowledge_neurons(data, 3, checkpoint="step100"),
    ):
        with pytest.raises(AnalysisError, match="'cat' at checkpoint 'step100'"):
            compute()


def test_a_word_never_measured_is_refused_by_name() -> None:
    data = without(scores(wordings=("main", "neutral")), word="red", prompt=[4, 5, 6, 7])
    knowledge_neurons(data, 3)
    with pytest.raises(AnalysisError, match="word 'red', wording 'neutral'"):
        knowledge_neurons(data, 3, wording="neutral")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_broken_score_is_refused(value: float) -> None:
    data = scores()
    place = {"word": "blue", "checkpoint": "step200", "prompt": 2, "layer": 1, "neuron": 4}
    data["score"].loc[place] = value
    with pytest.raises(AnalysisError, match="'blue' at checkpoint 'step200'"):
        knowledge_neurons(data, 3)


def test_unknown_wording_and_foreign_data_are_refused() -> None:
    with pytest.raises(AnalysisError, match="main"):
        knowledge_neurons(scores(), 3, wording="other")
    with pytest.raises(AnalysisError, match="'rank'"):
        knowledge_neurons(scores().drop_vars("rank"), 3)


def test_formation_processes_follow_the_chosen_neurons() -> None:
    data = scores()
    chosen = knowledge_neurons(data, 4)
    paths = formation_processes(data, chosen)
    mean = prompt_mean(data)
    assert paths.dims == ("word", "rank", "checkpoint")
    assert paths.dtype == np.float64
    for word, rank in np.ndindex(5, 4):
        layer, neuron = (int(chosen[name][word, rank]) for name in ("layer", "neuron"))
        np.testing.assert_array_equal(paths[word, rank].values, mean[:, word, layer, neuron].values)
    np.testing.assert_array_equal(paths.isel(checkpoint=-1), chosen["score"])
    np.testing.assert_array_equal(paths["step"], data["step"])


def test_formation_uses_the_wording_the_neurons_were_chosen_in() -> None:
    data = scores(wordings=("main", "neutral"))
    chosen = knowledge_neurons(data, 4, wording="neutral")
    paths = formation_processes(data, chosen)
    assert paths.attrs["wording"] == "neutral"
    np.testing.assert_array_equal(paths.isel(checkpoint=-1), chosen["score"])


def test_formation_of_some_words_or_layers() -> None:
    data = scores()
    chosen = knowledge_neurons(data, 4)
    some = formation_processes(data, chosen.sel(word=["red", "ant"]))
    assert some.equals(formation_processes(data, chosen).sel(word=["red", "ant"]))
    upper = data.sel(layer=[1])
    chosen = knowledge_neurons(upper, 2)
    assert (chosen["layer"] == 1).all()
    np.testing.assert_array_equal(
        formation_processes(upper, chosen).isel(checkpoint=-1), chosen["score"]
    )
    with pytest.raises(AnalysisError, match="no layer 0"):
        formation_processes(upper, knowledge_neurons(data, 8))
    with pytest.raises(AnalysisError, match="'cat'"):
        formation_processes(data.sel(word=["ant", "bat"]), knowledge_neurons(data, 2))


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[Any, ...]] = []
    data = scores()
    formation_processes(data, knowledge_neurons(data, 2), progress=lambda *call: calls.append(call))
    assert calls[0][:3] == ("formation", 0, 3)
    assert calls[-1][:3] == ("formation", 3, 3)
