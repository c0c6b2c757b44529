"""Suites that are scored while they grow, and what is kept of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cases import CASES, RECIPE, SETTINGS, Case
from kntrace.analysis import DEFAULT_DISTANCES, Analysis, analyse_scores
from kntrace.attribution import Attribution, Engine
from kntrace.grow.isolation import own_torch
from kntrace.grow.pretrain import Pretraining
from kntrace.grow.recipe import Recipe
from kntrace.grow.worlds import World, make_world
from kntrace.models.tokens import Encoded
from kntrace.progress import silent
from kntrace.settings import Settings
from kntrace.wording import read_wording, wordings_of

# What of a verdict is kept; the rest follows from it or is the same for all.
JUDGED = (
    *("answer", "p", "auc", "null_mean", "null_sd", "adjusted_auc", "low", "high"),
    *("leverage", "time_share"),
)
CONTRASTED = ("auc", "p", "share_above", "chance", "share_p")


class Scored(Pretraining):
    """A suite that is scored while it grows, so that no checkpoint is written and read.

    The scores are those of `kntrace grow` and `kntrace run` up to rounding: all prompts of a
    checkpoint are replayed together rather than word by word.

    Attributes
    ----------
    found
        For each checkpoint the attributions, word by word and prompt by prompt.
    """

    def __init__(self, recipe: Recipe, world: World, settings: Settings) -> None:
        super().__init__(recipe, world, Path())
        self.study = world.study()
        self.found: list[list[Attribution]] = []
        self._settings = settings
        self._encoded: list[Encoded] = []

    def keep(self, step: int) -> None:
        """Score the model as it stands."""
        with Engine(self.model, self.tokenizer, self._settings) as engine:
            # Every checkpoint has the same tokenizer.
            self._encoded = self._encoded or [
                engine.encode(prompt, word.answer, self.study.answer_form)
                for word in self.study.words
                for prompt in self.study.rendered(word)
            ]
            self.found.append(engine.attribute_many(self._encoded))

    def scores(self) -> xr.Dataset:
        """What analysis needs, in the form of `Run.scores`."""
        study, marks = self.study, self._recipe.marks
        words, slots = study.words, [wording for wording, _ in study.slots]
        shape = len(marks), len(words), len(slots)
        first = self.found[0][0].score
        flat = [one for checkpoint in self.found for one in checkpoint]
        cell = ("checkpoint", "word", "prompt")
        score = np.stack([one.score for one in flat]).reshape(*shape, *first.shape)
        return xr.Dataset(
            {
                "score": ((*cell, "layer", "neuron"), score),
                "probability": (cell, np.reshape([one.probability for one in flat], shape)),
                "rank": (cell, np.reshape([one.rank for one in flat], shape)),
            },
            coords={
                "checkpoint": [f"step{step}" for step in marks],
                "step": ("checkpoint", list(marks)),
                "word": [word.text for word in words],
                "group": ("word", [word.group for word in words]),
                "prompt": list(range(len(slots))),
                "wording": ("prompt", slots),
                "layer": list(range(first.shape[0])),
                "neuron": list(range(first.shape[1])),
            },
        )


def grown(case: Case, seed: int, quick: Mapping[str, Any]) -> xr.Dataset:
    """The scores of one suite."""
    recipe = Recipe.of(
        world=case.world, world_seed=seed, seed=seed, **{**RECIPE, **case.recipe, **quick}
    )
    settings = Settings.of(**{**SETTINGS, **case.settings})
    with own_torch(recipe.seed, 1):
        training = Scored(recipe, make_world(case.world, seed), settings)
        training.run(silent)
    return training.scores()


# All distances but those that are others on another scale; sliced is an estimate of w2.
EVERY = (
    *DEFAULT_DISTANCES,
    *("w2", "emd_over_probability", "sliced", "jaccard", "cosine"),
)


def line(
    name: str, seed: int, folder: Path, quick: Mapping[str, Any], keep: bool
) -> dict[str, Any]:
    """Grow, score and analyse one suite; returns its line."""
    case, start, busy = CASES[name], time.perf_counter(), time.process_time()
    scores = grown(case, seed, quick)
    found = analyse_scores(scores, distances=EVERY)
    main, *others = found.verdicts
    overall = {main: numbers_of(found), **{other: alone(scores, other) for other in others}}
    if keep:
        keep_means(scores, folder / "means" / f"{name}-{seed}.npz")
    return {
        "case": name,
        "seed": seed,
        "verdict": found.verdict.answer,
        "verdicts": {
            wording: {key: rounded(verdict.to_dict()[key]) for key in JUDGED}
            for wording, verdict in found.verdicts.items()
        },
        "overall": overall,
        "learnt": {wording: learnt(scores, wording) for wording in found.verdicts},
        "recipe": {"world": case.world, **RECIPE, **case.recipe, **quick},
        "settings": {**SETTINGS, **case.settings},
        "seconds": round(time.perf_counter() - start, 1),
        "busy_seconds": round(time.process_time() - busy, 1),
    }


def alone(scores: xr.Dataset, wording: str) -> dict[str, dict[str, float]]:
    """The numbers of every distance on the prompts of one wording."""
    own = np.flatnonzero(scores["wording"].values == wording)
    return numbers_of(analyse_scores(scores.isel(prompt=own), distances=EVERY))


def numbers_of(found: Analysis) -> dict[str, dict[str, float]]:
    """AUC, share above and both p-values of every distance, with and without correction."""
    return {
        name: {key: rounded(contrast.overall[key]) for key in CONTRASTED}
        for name, contrast in found.contrasts.items()
    }


def learnt(scores: xr.Dataset, wording: str) -> float:
    """Mean P(answer) at the last checkpoint."""
    return float(rounded(float(read_wording(scores, wording).probability()[-1].mean())))


def rounded(value: Any) -> Any:
    """Six digits are more than a permutation test gives."""
    return round(value, 6) if isinstance(value, float) else value


def keep_means(scores: xr.Dataset, file: Path) -> None:
    """Keep the mean scores of each word and wording, so that other distances can be tried."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {}
    for wording in wordings_of(scores):
        view = read_wording(scores, wording)
        sizes = scores.sizes["checkpoint"], scores.sizes["word"]
        means = np.stack(
            [[view.mean(place, word) for word in range(sizes[1])] for place in range(sizes[0])]
        )
        # Half precision has few exponents: each word's largest score at a checkpoint is 1.
        scale = np.abs(means).max(axis=(2, 3)).astype(np.float32)
        kept[f"{wording}_scale"] = scale
        kept[f"{wording}_scores"] = (means / scale[..., None, None]).astype(np.float16)
        kept[f"{wording}_probability"] = view.probability().values.astype(np.float32)
    groups, words = scores["group"].values.astype(str), scores["word"].values.astype(str)
    partial = file.with_name(f".{file.name}")
    np.savez(partial, groups=groups, words=words, **kept)
    partial.replace(file)
