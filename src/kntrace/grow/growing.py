"""Grow a suite into a folder, once."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError

from kntrace.documents import write_yaml
from kntrace.errors import SettingsError, SuiteError
from kntrace.grow.folder import (
    RECIPE,
    RECORD,
    SUITE,
    clear,
    is_finished,
    suite_of,
    write_whole,
)
from kntrace.grow.isolation import own_torch, quiet_transformers
from kntrace.grow.pretrain import Pretraining
from kntrace.grow.recipe import Recipe
from kntrace.grow.worlds import make_world
from kntrace.progress import Progress, silent
from kntrace.suite import Suite, load_suite

__all__ = ["grow"]

_STUDY, _TRUTH = "study.yaml", "world.yaml"


def grow(
    out: Path | str,
    *,
    world: str = "structured",
    seed: int = 0,
    world_seed: int | None = None,
    layers: int = 4,
    hidden: int = 128,
    heads: int = 4,
    steps: int = 600,
    batch: int = 64,
    checkpoints: int | Sequence[int] = 20,
    learning_rate: float = 1e-3,
    architecture: str = "gpt_neox",
    threads: int = 1,
    progress: Progress = silent,
) -> Suite:
    """Pretrain a tiny suite on a world of facts: one Hugging Face folder a checkpoint.

    Beside the folders `step0` ... lie `suite.yaml`, the matching `study.yaml` (questions in
    phrasings that the corpus does not hold), `world.yaml` (the truth), `recipe.json` (what was
    asked for) and `training.json` (the loss, and how well the questions were answered at each
    checkpoint).

    Parameters
    ----------
    out
        A folder that does not exist or is empty. If it holds the finished suite of the same
        recipe, nothing is done; an unfinished one is begun anew.
    world
        What is learnt: a key of `WORLDS`.
    seed
        Of the corpus drawn from the world, and of the initial weights.
    world_seed
        Of the world's dealing; the same as `seed` unless given, so that suites of different
        seeds learn different dealings.
    layers, hidden, heads
        Shape of the model; a layer has 4 x hidden neurons.
    steps, batch
        Optimizer steps, and sentences in each.
    checkpoints
        How many states are kept, by default close together early in training; or the steps at
        which they are. Training ends at the last one.
    learning_rate
        At its highest, after a tenth of the steps; it ends at a tenth of that.
    architecture
        A key of `kntrace.grow.network.ARCHITECTURES`.
    threads
        CPU threads. The same recipe gives the same weights, bit for bit, on the same machine
        with the same versions of the libraries and the same number of threads.
    progress
        Told the step, the loss, and how many of the grouped questions were answered at the
        last checkpoint.

    Returns
    -------
    Suite
        The checkpoints, as `load_suite` reads them from the folder.

    Raises
    ------
    SettingsError
        If this cannot be grown.
    SuiteError
        If the folder holds something else, or a suite of another recipe, or cannot be written.

    Notes
    -----
    Cost: as it stands, about a minute on one core and 80 MB of disk.
    """
    recipe = Recipe.of(
        world=world,
        world_seed=seed if world_seed is None else world_seed,
        seed=seed,
        layers=layers,
        hidden=hidden,
        heads=heads,
        steps=steps,
        batch=batch,
        checkpoints=tuple(checkpoints) if isinstance(checkpoints, Sequence) else checkpoints,
        learning_rate=learning_rate,
        architecture=architecture,
    )
    if threads < 1:
        raise SettingsError(f"threads = {threads}", expected="1 or more")
    folder = Path(out)
    if is_finished(folder, recipe, (_STUDY, _TRUTH, RECORD, SUITE)):
        last = recipe.marks[-1]
        progress("grow", last, last, "this suite was there already")
        return load_suite(folder)
    clear(folder, recipe.marks)
    try:
        _grow_into(folder, recipe, threads, progress)
    except (OSError, SafetensorError) as failure:
        raise SuiteError(
            f"could not be written ({failure})",
            where=folder,
            fix="Make room and give the same command again: an unfinished suite is begun anew.",
        ) from failure
    return load_suite(folder)


def _grow_into(folder: Path, recipe: Recipe, threads: int, progress: Progress) -> None:
    started = time.perf_counter()
    world = make_world(recipe.world, recipe.world_seed)
    write_whole(folder / RECIPE, json.dumps(recipe.model_dump(mode="json"), indent=2))
    write_whole(folder / _STUDY, world.study().to_yaml())
    write_whole(folder / _TRUTH, write_yaml(world.truth()))
    with own_torch(recipe.seed, threads), quiet_transformers():
        training = Pretraining(recipe, world, folder)
        training.run(progress)
    record = {
        "recipe": recipe.model_dump(mode="json"),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "threads": threads,
        "seconds": round(time.perf_counter() - started, 1),
        "checkpoints": training.states,
        "loss": training.losses,
    }
    write_whole(folder / RECORD, json.dumps(record, indent=1))
    # Written last: a folder with a suite.yaml is finished.
    suite = suite_of(folder, f"{recipe.world} world, seed {recipe.seed}", training.states)
    write_whole(folder / SUITE, suite.to_yaml(relative_to=folder.absolute()))
