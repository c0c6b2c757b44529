"""Data with a known answer, for tests of kntrace and of what is built on it.

Nothing here is measured on a model: every number is drawn from a seeded generator, so that a
test knows what the analysis must find, and what it must not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.archive import Block, Run, create_run
from kntrace.archive.variables import BLOCK_VARIABLES, kept
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint, Suite

__all__ = ["WORDS", "synthetic_run", "synthetic_scores"]

# The words of the paper, whose group sizes (8, 7, 14, 9) its percentages depend on.
WORDS: dict[str, tuple[str, ...]] = {
    "Animals": ("Cat", "Dog", "Fox", "Ant", "Bat", "Rat", "Hen", "Wolf"),
    "Colours": ("Blue", "Red", "Green", "Black", "White", "Brown", "Gray"),
    "Countries": (
        *("Canada", "Germany", "Brazil", "France", "England", "India", "China"),
        *("Mexico", "Russia", "Iran", "Japan", "Israel", "Australia", "Spain"),
    ),
    "Languages": (
        *("English", "Spanish", "French", "Chinese", "Japanese"),
        *("German", "Russian", "Italian", "Portuguese"),
    ),
}

_FLOOR, _CEILING, _SLOPE = 0.01, 0.96, 0.06
_BASELINE = 0.004
_STEP = 100
_NODES = 5

_Floats = npt.NDArray[np.float64]


def synthetic_scores(
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    checkpoints: int = 6,
    prompts: int = 4,
    layers: int = 3,
    width: int = 32,
    structure: float = 0.0,
    learning_time: Literal["random", "by_group"] = "random",
    wordings: Sequence[str] = ("main",),
    seed: int = 0,
) -> xr.Dataset:
    """Draw the scores of a run that never was, in the form of `Run.scores`.

    A word's answer rises along a logistic curve from 0.01 to about 0.96, its half-rise being
    the word's *learning time*. In each layer the scores of a prompt share out what the layer
    contributes, P(answer) minus P at the baseline, over the layer's neurons. The shares are
    heavy-tailed, a part of them negative, and come from three sources: what all words have in
    common, what the words of a group have in common, and the word alone.

    Parameters
    ----------
    groups
        Words of every group; the paper's 38 words in 4 groups unless given.
    checkpoints, layers, width
        Sizes of the dimensions of those names (`width` for `neuron`).
    prompts
        Prompts per word and wording.
    structure
        How strongly the words of a group share neurons, from 0 (not at all: groups mean
        nothing) to 1 (a word has nothing of its own).
    learning_time
        `random`: a word's learning time has nothing to do with its group. `by_group`: groups
        are learnt one after the other, whatever neurons they use; then every measure that
        answers to learning time sees groups even with `structure` 0.
    wordings
        Names of the wordings; all of them have the same structure.
    seed
        Equal seeds give equal scores.

    Returns
    -------
    xr.Dataset
        Dimensions, coordinates and variables as documented in `kntrace.archive.VARIABLES`;
        `score` in units of probability, `gap` within rounding of zero, every path converged
        after 5 nodes, and the baseline zero. `activation` comes from the same three sources as
        the scores, drawn anew, so that it knows nothing of them.
    """
    groups = WORDS if groups is None else groups
    words = [word for members in groups.values() for word in members]
    labels = [name for name, members in groups.items() for _ in members]
    codes = np.repeat(np.arange(len(groups)), [len(members) for members in groups.values()])
    rng = np.random.default_rng(seed)
    columns = prompts * len(wordings)

    times = _learning_times(rng, codes, learning_time)
    probability = _curves(rng, times, checkpoints, columns)
    shares = _shares(rng, codes, structure, probability.shape, layers, width)
    rise = probability - _BASELINE
    score = (rise[..., None, None] * shares).astype(np.float32)
    gap = (score.sum(axis=-1, dtype=np.float64) - rise[..., None]).astype(np.float32)
    # A generator of its own: the scores are those that a seed gave before there were activations.
    other = np.random.default_rng((seed, 1))
    activation = _sources(other, codes, structure, probability.shape, layers, width)
    activation = activation.astype(np.float32)

    steps = _STEP * np.arange(checkpoints, dtype=np.int64)
    names = [f"step{step}" for step in steps]
    prints = [hashlib.sha256(f"{seed} {name}".encode()).hexdigest() for name in names]
    coords: dict[str, tuple[str, Any]] = {
        "checkpoint": ("checkpoint", np.array(names, dtype=np.str_)),
        "step": ("checkpoint", steps),
        "word": ("word", np.array(words, dtype=np.str_)),
        "group": ("word", np.array(labels, dtype=np.str_)),
        "prompt": ("prompt", np.arange(columns, dtype=np.int64)),
        "wording": ("prompt", np.repeat(np.array(wordings, dtype=np.str_), prompts)),
        "layer": ("layer", np.arange(layers, dtype=np.int64)),
        "neuron": ("neuron", np.arange(width, dtype=np.int64)),
    }
    cell = ("checkpoint", "word", "prompt")
    return xr.Dataset(
        {
            "score": ((*cell, "layer", "neuron"), score),
            "activation": ((*cell, "layer", "neuron"), activation),
            "gap": ((*cell, "layer"), gap),
            "nodes": ((*cell, "layer"), np.full(gap.shape, _NODES, dtype=np.int32)),
            "converged": ((*cell, "layer"), np.ones(gap.shape, dtype=np.int8)),
            "probability": (cell, probability.astype(np.float32)),
            "rank": (cell, np.floor(1 / probability).astype(np.int32) - 1),
            "fingerprint": ("checkpoint", np.array(prints, dtype=np.str_)),
            "baseline": (
                ("checkpoint", "layer", "neuron"),
                np.zeros((checkpoints, layers, width), dtype=np.float32),
            ),
        },
        coords=coords,
    )


def synthetic_run(
    path: str | Path,
    scores: xr.Dataset | None = None,
    *,
    keep: Literal["prompts", "means"] = "prompts",
    **drawn: Any,
) -> Run:
    """Write the folder of a run that never was, as `kntrace.run` would have left it.

    Parameters
    ----------
    path
        The run folder to make.
    scores
        What it is to hold, in the form of `Run.scores`; may lack prompts (rank -1), and the
        variable `activation`.
    keep
        What the run keeps of them; see `kntrace.settings.Settings`.
    **drawn
        Without `scores`: what `synthetic_scores` is to draw.

    Returns
    -------
    Run
        The opened run, with a study of made-up questions and a suite of checkpoints that do
        not exist.

    Raises
    ------
    RunError
        If the folder cannot be made.
    """
    data = (synthetic_scores(**drawn) if scores is None else scores).load()
    settings = Settings(activations="activation" in data, keep=keep)
    variables = kept(BLOCK_VARIABLES, settings.model_copy(update={"keep": "prompts"}))
    run = create_run(
        path,
        Study(name="synthetic", words=_asked(data)),
        Suite("synthetic", _places(data, Path(path).absolute().parent / "no-weights")),
        settings,
        layers=data.sizes["layer"],
        width=data.sizes["neuron"],
    )
    for checkpoint, fingerprint in enumerate(data["fingerprint"].values):
        run.write_fingerprint(checkpoint, str(fingerprint))
        if data["baseline"].values.any():
            run.write_baseline(checkpoint, data["baseline"].values[checkpoint])
        for word in range(data.sizes["word"]):
            cell = data.isel(checkpoint=checkpoint, word=word)
            parts = {name: cell[name].values for name in variables}
            run.write_block(checkpoint, word, Block(**parts))
    return run


def _asked(data: xr.Dataset) -> tuple[Word, ...]:
    """Make up as many questions for every word as it has scored prompts."""
    words = []
    for place, (text, group) in enumerate(
        zip(data["word"].values, data["group"].values, strict=True)
    ):
        prompts: dict[str, tuple[str, ...]] = {}
        asked = data["rank"].isel(checkpoint=0, word=place).values >= 0
        for wording in data["wording"].values[asked]:
            former = prompts.get(str(wording), ())
            question = f"question {len(former) + 1} in the wording {wording}"
            prompts[str(wording)] = (*former, question)
        words.append(Word(text=str(text), group=str(group), prompts=prompts))
    return tuple(words)


def _places(data: xr.Dataset, folder: Path) -> tuple[Checkpoint, ...]:
    return tuple(
        Checkpoint(
            str(label), None if step < 0 else int(step), None, str(folder / str(label)), None
        )
        for label, step in zip(data["checkpoint"].values, data["step"].values, strict=True)
    )


def _learning_times(rng: np.random.Generator, codes: npt.NDArray[np.intp], how: str) -> _Floats:
    """Half-rise of every word, as a fraction of training."""
    spread: _Floats = rng.permutation((np.arange(codes.size) + 0.5) / codes.size)
    if how == "random":
        return 0.15 + 0.6 * spread
    # Groups take turns in a random order, and overlap a little.
    turn: _Floats = rng.permutation(codes.max() + 1)[codes] / max(codes.max(), 1)
    return 0.15 + 0.5 * turn + 0.1 * spread


def _curves(rng: np.random.Generator, times: _Floats, checkpoints: int, columns: int) -> _Floats:
    """Probability of the answer, (checkpoint, word, prompt)."""
    progress = np.linspace(0.0, 1.0, checkpoints)[:, None, None]
    shifted = times[:, None] + 0.02 * rng.standard_normal((times.size, columns))
    ceiling = _CEILING - 0.04 * rng.random((times.size, columns))
    curves: _Floats = _FLOOR + (ceiling - _FLOOR) / (1 + np.exp((shifted - progress) / _SLOPE))
    return curves


def _sources(
    rng: np.random.Generator,
    codes: npt.NDArray[np.intp],
    structure: float,
    cells: tuple[int, int, int],
    layers: int,
    width: int,
) -> _Floats:
    """What every neuron gets from all words, from the word's group, from the word, by chance."""
    shape = (layers, width)
    common = rng.standard_normal(shape)
    of_group = rng.standard_normal((codes.max() + 1, *shape))[codes]
    of_word = rng.standard_normal((codes.size, *shape))
    own = np.sqrt(structure) * of_group + np.sqrt(1 - structure) * of_word
    # A word's neurons emerge from what an untrained network happens to have.
    grown = np.linspace(0.0, 1.0, cells[0])[:, None, None, None]
    untrained = rng.standard_normal((codes.size, *shape))
    sources: _Floats = common + np.sqrt(grown) * own + np.sqrt(1 - grown) * untrained
    return sources[:, :, None] + 0.3 * rng.standard_normal((*cells, *shape))


def _shares(
    rng: np.random.Generator,
    codes: npt.NDArray[np.intp],
    structure: float,
    cells: tuple[int, int, int],
    layers: int,
    width: int,
) -> _Floats:
    """Shares of every neuron in its layer's contribution; each layer's sum to one."""
    shape = (layers, width)
    logits = _sources(rng, codes, structure, cells, layers, width)
    positive: _Floats = np.exp(logits)
    negative = rng.standard_normal((*cells, *shape)) / width / 4
    shares: _Floats = positive / positive.sum(axis=-1, keepdims=True)
    shares += negative - negative.mean(axis=-1, keepdims=True)
    return shares
