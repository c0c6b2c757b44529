"""The folder of a grown suite: its names, and files that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kntrace.documents import parse_json, read_text
from kntrace.errors import SuiteError
from kntrace.suite import Checkpoint, Suite

__all__ = [
    "RECIPE",
    "RECORD",
    "SUITE",
    "clear",
    "folder_of",
    "is_finished",
    "keep_checkpoint",
    "partial_of",
    "suite_of",
    "write_whole",
]

RECIPE, RECORD, SUITE = "recipe.json", "training.json", "suite.yaml"

_CHECKPOINT = ("config.json", "model.safetensors", "tokenizer.json")


class _Recipe(Protocol):
    @property
    def marks(self) -> tuple[int, ...]: ...

    def differences(self, other: dict[str, Any]) -> list[str]: ...


def folder_of(suite: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return suite / f"step{step}"


def partial_of(path: Path) -> Path:
    """What a file or folder is called until it is complete."""
    return path.with_name(f".{path.name}.partial")


def write_whole(path: Path, text: str) -> None:
    """Write a whole file or none."""
    partial = partial_of(path)
    partial.write_text(text + "\n" * (not text.endswith("\n")), encoding="utf-8")
    partial.replace(path)


def keep_checkpoint(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Save a complete Hugging Face folder; it has its name only once it is whole."""
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def suite_of(folder: Path, name: str, states: Sequence[dict[str, Any]]) -> Suite:
    """The suite of the checkpoints in `folder`, from each one's step and tokens."""
    places = [folder_of(folder.absolute(), state["step"]) for state in states]
    checkpoints = [
        Checkpoint(place.name, state["step"], state["tokens"], str(place), None)
        for place, state in zip(places, states, strict=True)
    ]
    return Suite(name, tuple(checkpoints))


def is_finished(folder: Path, recipe: _Recipe, files: Iterable[str]) -> bool:
    """Say whether the suite is there, whole: all its checkpoints, and `files` beside them.

    Raises `SuiteError` if there is anything that growing it would mix with or overwrite.
    """
    if not folder.exists():
        return False
    record = folder / RECIPE
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
    needed = [folder / name for name in files]
    for step in recipe.marks:
        needed += [folder_of(folder, step) / name for name in _CHECKPOINT]
    return all(file.is_file() for file in needed)


def _read_recipe(file: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text(file, SuiteError, what="a recipe"), file.name, SuiteError)
    except SuiteError as failure:
        raise SuiteError(
            f"cannot be read ({failure})", where=file, fix="Give a new folder."
        ) from None
    if not isinstance(found, dict):
        raise SuiteError("is not a recipe", where=file, fix="Give a new folder.")
    return found


def clear(folder: Path, steps: Iterable[int]) -> None:
    """Make the folder, or take out of it what an unfinished growth has left at `steps`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUITE).unlink(missing_ok=True)
        for step in steps:
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
