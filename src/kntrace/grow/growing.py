"""Grow a suite into a folder, once."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from kntrace.documents import write_yaml
from kntrace.errors import SettingsError, SuiteError
from kntrace.grow.isolation import own_torch, quiet_transformers
from kntrace.grow.pretrain import Pretraining, folder_of, partial_of
from kntrace.grow.recipe import Recipe
from kntrace.grow.worlds import make_world
from kntrace.progress import Progress, silent
from kntrace.suite import Checkpoint, Suite, load_suite

__all__ = ["grow"]

_RECIPE, _STUDY, _TRUTH, _RECORD, _SUITE = (
    "recipe.json",
    "study.yaml",
    "world.yaml",
    "training.json",
    "suite.yaml",
)


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
    threads: int = 1,
    progress: Progress = silent,
) -> Suite:
    """Pretrain a tiny GPT-NeoX suite: one Hugging Face folder a checkpoint.

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
    )
    if threads < 1:
        raise SettingsError(f"threads = {threads}", expected="1 or more")
    folder = Path(out)
    if _is_finished(folder, recipe):
        last = recipe.marks[-1]
        progress("grow", last, last, "this suite was there already")
        return load_suite(folder)
    _make_room(folder, recipe)
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
    _write(folder / _RECIPE, json.dumps(recipe.model_dump(mode="json"), indent=2))
    _write(folder / _STUDY, world.study().to_yaml())
    _write(folder / _TRUTH, write_yaml(world.truth()))
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
    _write(folder / _RECORD, json.dumps(record, indent=1))
    # Written last: a folder with a suite.yaml is finished.
    suite = _suite(folder, recipe, training.states)
    _write(folder / _SUITE, suite.to_yaml(relative_to=folder.absolute()))


def _suite(folder: Path, recipe: Recipe, states: list[dict[str, Any]]) -> Suite:
    places = [folder_of(folder.absolute(), state["step"]) for state in states]
    checkpoints = [
        Checkpoint(place.name, state["step"], state["tokens"], str(place), None)
        for place, state in zip(places, states, strict=True)
    ]
    return Suite(f"{recipe.world} world, seed {recipe.seed}", tuple(checkpoints))


def _is_finished(folder: Path, recipe: Recipe) -> bool:
    """Say whether the suite is there, whole.

    Raises `SuiteError` if there is anything that growing it would mix with or overwrite.
    """
    if not folder.exists():
        return False
    record = folder / _RECIPE
    if not record.is_file():
        # A growth killed at its very beginning leaves a file that was not whole yet.
        if folder.is_dir() and set(folder.iterdir()) <= {partial_of(record)}:
            return False
        raise SuiteError("exists and is not a grown suite", where=folder, fix="Give a new folder.")
    changes = recipe.differences(_read_recipe(record))
    if changes:
        raise SuiteError(
            f"holds a suite grown otherwise ({', '.join(changes)})",
            where=folder,
            fix="Give a new folder.",
        )
    needed = [folder / name for name in (_STUDY, _TRUTH, _RECORD, _SUITE)]
    for step in recipe.marks:
        place = folder_of(folder, step)
        needed += [place / name for name in ("config.json", "model.safetensors", "tokenizer.json")]
    return all(file.is_file() for file in needed)


def _read_recipe(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as failure:
        raise SuiteError(
            f"cannot be read ({failure})", where=file, fix="Give a new folder."
        ) from None
    if not isinstance(found, dict):
        raise SuiteError("is not a recipe", where=file, fix="Give a new folder.")
    return found


def _make_room(folder: Path, recipe: Recipe) -> None:
    """Make the folder, or take out of it what an unfinished growth of the recipe has left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _SUITE).unlink(missing_ok=True)
        for step in recipe.marks:
            place = folder_of(folder, step)
            for leftover in (place, partial_of(place)):
                if leftover.exists():
                    shutil.rmtree(leftover)
    except OSError as failure:
        raise SuiteError(
            f"cannot be written ({failure.strerror or failure})",
            where=folder,
            fix="Give another folder.",
        ) from None


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    partial = partial_of(path)
    partial.write_text(text + "\n" * (not text.endswith("\n")), encoding="utf-8")
    partial.replace(path)
