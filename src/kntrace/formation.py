"""From scores to knowledge neurons, and from these to formation processes.

The definitions are those of Ariyama et al. (NLP2025), section 3: the knowledge neurons of a
word are the k neurons with the largest mean score at the last checkpoint; the formation
process of a neuron is its mean score at every checkpoint.
"""

from __future__ import annotations

import numbers
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from kntrace.errors import AnalysisError
from kntrace.progress import Progress, silent
from kntrace.wording import Averaging, Wording, largest, read_wording

__all__ = ["checkpoint_position", "formation_processes", "knowledge_neurons", "prompt_mean"]

_STAGE = "formation"


def prompt_mean(scores: xr.Dataset, wording: str | None = None) -> xr.DataArray:
    """Mean score over each word's prompts.

    Parameters
    ----------
    scores
        As `Run.scores` gives them.
    wording
        The prompts to use; the study's first wording unless given. Prompts that a word does
        not have are left out of its mean.

    Returns
    -------
    xr.DataArray
        (checkpoint, word, layer, neuron) float64, in units of probability. It is held in
        memory whole: 0.6 GB for 20 checkpoints x 38 words x 98,304 neurons.

    Raises
    ------
    AnalysisError
        If there is no such wording, or if a score is not a finite number.
    """
    view = read_wording(scores, wording)
    shape = tuple(scores.sizes[dim] for dim in ("checkpoint", "word", "layer", "neuron"))
    values = np.empty(shape)
    for checkpoint, word in np.ndindex(shape[:2]):
        values[checkpoint, word] = view.mean(checkpoint, word)
    names = ("checkpoint", "step", "word", "group", "layer", "neuron")
    return xr.DataArray(
        values,
        dims=("checkpoint", "word", "layer", "neuron"),
        coords={name: scores[name] for name in names if name in scores.coords},
        name="score",
        attrs={"wording": view.name, "unit": "probability"},
    )


def knowledge_neurons(
    scores: xr.Dataset,
    k: int = 1000,
    *,
    wording: str | None = None,
    checkpoint: int | str = -1,
    averaging: Averaging = "every_prompt",
) -> xr.Dataset:
    """Find each word's k neurons with the largest mean score.

    Parameters
    ----------
    scores
        As `Run.scores` gives them.
    k
        Neurons per word. The paper takes 1,000 of 98,304.
    wording
        The prompts to average over; the study's first wording unless given.
    checkpoint
        Position or label of the checkpoint that decides; the last one unless given.
    averaging
        How a word's prompts make one score of a neuron; see `kntrace.wording.read_wording`.
        With `public_code` a neuron that is dropped at the checkpoint that decides has the score
        of the latest one before it at which it is not.

    Returns
    -------
    xr.Dataset
        Dimensions `word` and `rank`, the largest score first; variables `layer`, `neuron`
        (int64, counted from 0) and `score` (float64, in units of probability). Among equal
        scores the lower layer comes first, then the lower neuron. Attributes: `k`, `wording`,
        `averaging`, `checkpoint`, `layers`, `width`.

    Raises
    ------
    AnalysisError
        If k is below one or above the number of neurons, if there is no such wording,
        checkpoint or averaging, or if a score is not a finite number.

    Notes
    -----
    Reads one checkpoint, word by word.
    """
    view = read_wording(scores, wording, averaging)
    layers, width = scores.sizes["layer"], scores.sizes["neuron"]
    _check_k(k, layers * width)
    place = checkpoint_position(view, checkpoint)
    chosen = np.empty((len(view.words), k), dtype=np.int64)
    values = np.empty(chosen.shape)
    for word in range(len(view.words)):
        # Layers come first: so ties fall by layer, then by neuron.
        if averaging == "every_prompt":
            chosen[word], values[word] = view.strongest(place, word, k)
        else:
            flat = _deciding(view, place, word, k)
            chosen[word] = largest(flat, k)
            values[word] = flat[chosen[word]]
    dims = ("word", "rank")
    return xr.Dataset(
        {
            "layer": (dims, scores["layer"].values[chosen // width]),
            "neuron": (dims, scores["neuron"].values[chosen % width]),
            "score": (dims, values),
        },
        coords={
            "word": scores["word"],
            "group": scores["group"],
            "rank": np.arange(k, dtype=np.int64),
        },
        attrs={
            "k": int(k),
            "wording": view.name,
            "averaging": averaging,
            "checkpoint": view.checkpoints[place],
            "layers": layers,
            "width": width,
        },
    )


def formation_processes(
    scores: xr.Dataset, chosen: xr.Dataset, *, progress: Progress = silent
) -> xr.DataArray:
    """Follow each word's chosen neurons through all checkpoints.

    Parameters
    ----------
    scores
        As `Run.scores` gives them.
    chosen
        Neurons of some or all of the words, from `knowledge_neurons` or another selection; its
        wording and averaging are used.
    progress
        Told of the checkpoints read, in the stage `formation`.

    Returns
    -------
    xr.DataArray
        (word, rank, checkpoint) float64: the neurons' mean scores over the word's prompts, in
        units of probability. Coordinates `group`, `step`, `layer` and `neuron` (word, rank), and
        `probability` (word, checkpoint), the mean P(answer) over the same prompts. Where a word
        has no neuron of a rank (layer -1) it holds NaN.

    Raises
    ------
    AnalysisError
        If `chosen` has words that the scores have not, if a score is not a finite number, or if
        the averaging drops a chosen neuron at some checkpoint.

    Notes
    -----
    Reads the whole archive once, block by block.
    """
    averaging = chosen.attrs.get("averaging", "every_prompt")
    view = read_wording(scores, chosen.attrs.get("wording"), averaging)
    places = {word: place for place, word in enumerate(view.words)}
    words = [str(word) for word in chosen["word"].values]
    for word in words:
        if word not in places:
            raise AnalysisError(f"no word {word!r} among the scores", expected="words of this run")
    layer = chosen["layer"].transpose("word", "rank").values
    neuron = chosen["neuron"].transpose("word", "rank").values
    held = layer >= 0
    cells = _positions(scores, "layer", layer, held), _positions(scores, "neuron", neuron, held)
    rows = [places[word] for word in words]
    asked = replace(view, scores=view.scores.isel(word=rows), asked=view.asked[rows])
    probability = asked.probability().transpose("word", "checkpoint").values
    values = np.full((*layer.shape, len(view.checkpoints)), np.nan)
    for checkpoint, label in enumerate(view.checkpoints):
        progress(_STAGE, checkpoint, len(view.checkpoints), label)
        for row, word in enumerate(words):
            mean = view.known(checkpoint, places[word])
            some = held[row]
            found = mean[cells[0][row, some], cells[1][row, some]]
            _refuse_dropped(view, found, layer[row, some], neuron[row, some], word, label)
            values[row, some, checkpoint] = found
    progress(_STAGE, len(view.checkpoints), len(view.checkpoints))
    return xr.DataArray(
        values,
        dims=("word", "rank", "checkpoint"),
        coords={
            **{name: chosen[name] for name in ("word", "group", "rank")},
            **{name: scores[name] for name in ("checkpoint", "step")},
            "layer": (("word", "rank"), layer),
            "neuron": (("word", "rank"), neuron),
            "probability": (("word", "checkpoint"), probability),
        },
        name="formation",
        attrs={
            "k": layer.shape[1],
            "wording": view.name,
            "averaging": averaging,
            "unit": "probability",
        },
    )


def _deciding(view: Wording, place: int, word: int, k: int) -> npt.NDArray[np.float64]:
    """Score of every neuron by which they are chosen; -inf where the averaging leaves none."""
    flat = view.mean(place, word).ravel()
    for earlier in reversed(range(place)):
        dropped = np.isnan(flat)
        if not dropped.any():
            break
        flat[dropped] = view.mean(earlier, word).ravel()[dropped]
    kept = int((~np.isnan(flat)).sum())
    if kept < k:
        raise AnalysisError(
            f"k = {k} knowledge neurons, but the averaging {view.averaging!r} leaves {kept}",
            where=f"word {view.words[word]!r}",
            fix="Choose fewer, or average over every prompt.",
        )
    return np.where(np.isnan(flat), -np.inf, flat)


def _refuse_dropped(
    view: Wording,
    values: npt.NDArray[np.float64],
    layer: npt.NDArray[np.int64],
    neuron: npt.NDArray[np.int64],
    word: str,
    label: str,
) -> None:
    for rank in np.flatnonzero(np.isnan(values)):
        if view.top is not None:
            raise AnalysisError(
                f"neuron {neuron[rank]} of layer {layer[rank]} was not kept: it is not among the "
                f"{view.top:,} strongest at any checkpoint",
                where=f"word {word!r}",
                expected="neurons that were kept of the word",
                fix="Ask the run that this one was made from.",
            )
        raise AnalysisError(
            f"neuron {neuron[rank]} of layer {layer[rank]} has no score: it lies at or below -10 "
            "times the largest score in more than half of the prompts",
            where=f"word {word!r} at checkpoint {label!r}",
            expected="a score of every chosen neuron at every checkpoint; the public code stops "
            "here as well",
            fix="Choose fewer neurons, or average over every prompt.",
        )


def _positions(
    scores: xr.Dataset, dim: str, labels: npt.NDArray[np.int64], held: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    found = scores.indexes[dim].get_indexer(pd.Index(labels.ravel())).reshape(labels.shape)
    for label in labels[held & (found < 0)]:
        raise AnalysisError(f"no {dim} {label} among the scores", expected=f"{dim}s of this run")
    return found


def _check_k(k: object, neurons: int) -> None:
    whole = isinstance(k, numbers.Integral) and not isinstance(k, bool)
    if not whole or not 1 <= int(k) <= neurons:  # type: ignore[call-overload]
        raise AnalysisError(
            f"k = {k!r} knowledge neurons",
            expected=f"a whole number from 1 to {neurons:,}, the number of neurons",
        )


def checkpoint_position(view: Wording, checkpoint: int | str) -> int:
    """Turn a position, counted from either end, or a label into a position."""
    labels = view.checkpoints
    if isinstance(checkpoint, str):
        if checkpoint in labels:
            return labels.index(checkpoint)
        raise AnalysisError.unknown("checkpoint", checkpoint, labels)
    if not -len(labels) <= checkpoint < len(labels):
        raise AnalysisError(
            f"no checkpoint at position {checkpoint}",
            expected=f"a position below {len(labels)}, the number of checkpoints",
        )
    return int(checkpoint) % len(labels)
