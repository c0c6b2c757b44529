"""Suites in folders: a subfolder for each checkpoint, as training leaves them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from kntrace.documents import name_of_file, parse_json, read_text
from kntrace.errors import SuiteError
from kntrace.suite.found import Found
from kntrace.suite.model import CONFIG, LARGEST, Checkpoint, order
from kntrace.suite.names import Named, Reader, give_stages, read_name
from kntrace.suite.schedules import Schedule

__all__ = ["FILE", "absolute", "find_folders"]

FILE = "suite.yaml"
_TRAINER = "trainer_state.json"
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")
_SHOWN = 4


def absolute(path: Path) -> Path:
    """Make a path absolute and tidy without following links, whose names say the step."""
    return Path(os.path.normpath(path.absolute()))


def find_folders(path: Path, read: Reader, wanted: Schedule) -> Found:
    """Find the checkpoints in a folder, or in the one folder of it that holds some.

    Raises
    ------
    SuiteError
        If there are none, if one that may be wanted is not whole, or if it cannot be told
        which of several folders is meant.
    """
    path = absolute(path)
    children = _children(path)
    folders = [child for child in children if child.is_dir() and not child.name.startswith(".")]
    whole = [folder for folder in folders if _is_checkpoint(folder)]
    name = name_of_file(path.name, "suite")
    if _is_checkpoint(path):
        whole = [folder for folder in whole if _announced(folder)]
        if not whole:
            return _alone(path, folders, name)
        # What the transformers Trainer leaves: the final model, and checkpoints inside of it.
        whole.append(path)
    elif not whole and (nested := [folder for folder in folders if _holds_checkpoints(folder)]):
        if len(nested) > 1:
            names = ", ".join(folder.name for folder in nested[:_SHOWN])
            raise SuiteError(
                f"several folders hold checkpoints: {names}",
                where=path,
                expected="the folder of one training run",
                fix=f"Name one of them, such as {nested[0]}.",
            )
        return replace(find_folders(nested[0], read, wanted), name=name)
    _refuse_incomplete([child for child in folders if child not in whole], wanted)
    if not whole:
        raise SuiteError(
            f"no checkpoints: the folder {_contents(children, folders)}",
            where=path,
            expected=f"subfolders with a {CONFIG}, as transformers saves them, or a {FILE}",
        )
    return _arranged(name, whole, path, read, wanted)


def _arranged(name: str, whole: list[Path], path: Path, read: Reader, wanted: Schedule) -> Found:
    """Put the checkpoints found into order; say which folders are none."""
    named: list[tuple[Checkpoint, Named]] = []
    aside = []
    for folder in whole:
        said = read(folder.name)
        if said is None:
            aside.append(folder.name)
            continue
        if folder == path:
            said = Named()  # the name of the run, which counts no steps
        if said.step is None:
            said = said._replace(step=_trained_to(folder))
        label = folder.name or "checkpoint"
        item = Checkpoint(label, said.step, said.tokens, str(folder), None, said.stage)
        named.append((item, said))
    steps = {item.step for item, _ in named if item.source != str(path)}
    kept = []
    for item, said in named:
        if item.source == str(path) and (item.step is None or item.step in steps):
            aside.append(item.label)
        else:
            kept.append((item, said))
    found, unsettled = give_stages(kept)
    if wanted.kind != "all":
        # A folder such as `final` in whose name there is no step was not asked for.
        found = [item for item in found if item.step is not None] or found
    if not found:
        raise SuiteError(
            f"the pattern finds nothing in {', '.join(sorted(aside)[:_SHOWN])}",
            where=path,
            expected="a pattern that finds the step in the names of folders",
        )
    aside += [item.label for item in unsettled]
    return Found(name, tuple(sorted(found, key=order)), tuple(sorted(aside)))


def _alone(path: Path, folders: list[Path], name: str) -> Found:
    """Take a folder that is a checkpoint itself."""
    inside = next((folder for folder in folders if _is_checkpoint(folder)), None)
    if inside is not None:
        raise SuiteError(
            f"the folder is a checkpoint itself and holds others, such as {inside.name}",
            where=path,
            expected="one or the other",
            fix=f"Move the checkpoints to a folder of their own, or list them in a {FILE}.",
        )
    said = read_name(path.name, alone=True)
    return Found(
        name, (Checkpoint(path.name or "checkpoint", said.step, said.tokens, str(path), None),)
    )


def _is_checkpoint(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _announced(folder: Path) -> bool:
    return read_name(folder.name, alone=True).step is not None


def _holds_checkpoints(folder: Path) -> bool:
    try:
        return any(_is_checkpoint(child) for child in folder.iterdir())
    except OSError:
        return False


def _trained_to(folder: Path) -> int | None:
    """Return the step that the transformers Trainer wrote beside its weights, if it did."""
    try:
        text = read_text(folder / _TRAINER, SuiteError, what="the state of a trainer")
        step = parse_json(text, _TRAINER, SuiteError)["global_step"]
    except (SuiteError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) and 0 <= step <= LARGEST else None


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise SuiteError(f"the folder cannot be read: {reason}", where=folder) from None


def _refuse_incomplete(folders: list[Path], wanted: Schedule) -> None:
    """Refuse folders that are meant as checkpoints and are none: no gap goes unnoticed."""
    for folder in folders:
        if _is_checkpoint(folder) or not wanted.may_want(read_name(folder.name).step):
            continue
        weights = any(True for pattern in _WEIGHTS for _ in folder.glob(pattern))
        if weights or _announced(folder):
            raise SuiteError(
                f"no {CONFIG} in the folder",
                where=folder,
                expected="a whole checkpoint, as transformers saves it",
                fix="Complete it, move it away, or choose other checkpoints with steps= (--steps).",
            )


def _contents(children: list[Path], folders: list[Path]) -> str:
    """Say what is in a folder that should hold checkpoints."""
    if not children:
        return "is empty"
    names = [f"{child.name}/" if child in folders else child.name for child in children]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"holds {', '.join(names[:_SHOWN])}{more}"
