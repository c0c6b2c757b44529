"""Checkpoints and the series they form, wherever they lie."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kntrace.documents import DataPath, Fault, clean_text, one_name, write_yaml
from kntrace.errors import SuiteError
from kntrace.notebook import Card, Shown

__all__ = ["CONFIG", "GGUF", "LARGEST", "Checkpoint", "Suite", "check_series", "order"]

LARGEST = 2**63 - 1
"""The largest step or number of tokens: they are stored in 64 bits."""

CONFIG = "config.json"
"""The file that makes a folder a Hugging Face checkpoint."""

GGUF = ".gguf"
"""How the name of a file ends that is a whole checkpoint by itself."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a model.

    Attributes
    ----------
    label
        Its name, unique in its suite.
    step
        Its place in training, in optimiser steps (or whatever the suite counts); None if
        unknown.
    tokens
        Tokens seen by then; None if unknown.
    source
        Absolute path of a folder or of a GGUF file, or the id of a hub repository.
    revision
        Branch, tag or commit in the repository; None for a folder or file.
    stage
        The part of training in which the step counts (`stage2`), where steps begin anew in
        each; None if there is but one.
    """

    label: str
    step: int | None
    tokens: int | None
    source: str
    revision: str | None
    stage: str | None = None

    @property
    def gguf(self) -> bool:
        """Whether it is one GGUF file; its name alone says so."""
        return self.revision is None and self.source.lower().endswith(GGUF)

    @property
    def present(self) -> bool:
        """Whether the folder or file is there; repositories are not asked."""
        path = Path(self.source)
        return self.revision is not None or (path if self.gguf else path / CONFIG).is_file()

    @property
    def place(self) -> str:
        """Where it lies, in words: a folder, a file, or a repository at a revision."""
        return self.source if self.revision is None else f"{self.source} at {self.revision}"

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """What makes it this checkpoint. A folder may be moved, so its path is no part of it."""
        hub = (None, None) if self.revision is None else (self.source, self.revision)
        # Runs made before there were stages have digests without them.
        stage = () if self.stage is None else (self.stage,)
        return (self.label, self.step, self.tokens, *hub, *stage)

    @property
    def when(self) -> str:
        """Its place in training, in words: `step 10`, or `step 10 of stage2`."""
        return f"step {self.step}" + (f" of {self.stage}" if self.stage else "")


@dataclass(frozen=True, repr=False)
class Suite(Shown):
    """Checkpoints of one training run, ordered by stage and step.

    Attributes
    ----------
    name
        What reports call it. No part of `digest`.
    checkpoints
        The checkpoints; put into the order of their stages (`stage2` before `stage10`, none
        before any) and in each of their steps, which must differ there. If none has a step,
        their order is the one given.

    Raises
    ------
    SuiteError
        If there is none, if a label or, in one stage, a step occurs twice, or if only some
        have a step.
    """

    name: str
    checkpoints: tuple[Checkpoint, ...]

    def __post_init__(self) -> None:
        try:
            one_name(self.name)
        except Fault as fault:
            raise SuiteError(f"the name {self.name!r} {fault.says}", fix=fault.fix) from None
        try:
            check_series(self.checkpoints)
        except Fault as fault:
            raise SuiteError(
                fault.says, where=f"suite {self.name}", expected=fault.expected, fix=fault.fix
            ) from None
        object.__setattr__(self, "checkpoints", tuple(sorted(self.checkpoints, key=order)))

    def _card(self) -> Card:
        first, last = self.checkpoints[0].label, self.checkpoints[-1].label
        return Card(
            f"Suite {self.name}",
            {"checkpoints": len(self), "from": first, "to": last},
            [
                {
                    "checkpoint": one.label,
                    "step": one.step,
                    "tokens seen": one.tokens,
                    "source": one.source,
                }
                for one in self
            ],
        )

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    @property
    def stages(self) -> tuple[str | None, ...]:
        """The stages that occur, in order; (None,) if there are none."""
        return tuple(dict.fromkeys(item.stage for item in self))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of labels, steps, tokens, repositories and revisions.

        Neither the suite's name nor the place of a folder counts, so that a run goes on after
        its checkpoints were moved; their weights are told apart by fingerprints.
        """
        content = [checkpoint.identity for checkpoint in self.checkpoints]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def differences(self, other: Suite) -> list[str]:
        """Name each way in which `other` is another series, moved folders and names aside."""
        mine = {checkpoint.label: checkpoint for checkpoint in self}
        theirs = {checkpoint.label: checkpoint for checkpoint in other}
        found = [f"checkpoint {label} is gone" for label in mine if label not in theirs]
        found += [f"checkpoint {label} is new" for label in theirs if label not in mine]
        both = [label for label in mine if label in theirs]
        for label in both:
            found += _changes(mine[label], theirs[label])
        if not found and both != list(theirs):
            found.append("the checkpoints come in another order")
        return found

    def check_present(self, labels: Collection[str] | None = None) -> None:
        """Raise `SuiteError` if a folder or file is not there, naming the first few.

        Only checkpoints of these labels are looked for, unless all are meant.

        `load_suite` does not ask this of a suite file: what was measured stays readable after
        the weights were deleted. Repositories are not asked.
        """
        absent = [
            checkpoint
            for checkpoint in self
            if (labels is None or checkpoint.label in labels) and not checkpoint.present
        ]
        if absent:
            labels = ", ".join(checkpoint.label for checkpoint in absent[:3])
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            lack = "are not there" if absent[0].gguf else f"have no {CONFIG}"
            raise SuiteError(
                f"{len(absent)} of {len(self)} checkpoints {lack}: {labels}{more}",
                where=absent[0].source,
                expected="a folder for each, as transformers saves it, or a GGUF file",
                fix="Bring them back, correct the suite file, or choose others with steps=.",
            )

    def to_yaml(self, relative_to: str | Path | None = None) -> str:
        """Write the suite as a file that `load_suite` reads back to an equal one.

        Parameters
        ----------
        relative_to
            The folder that the file will lie in: checkpoints are then named by their path
            from there, so that all of it can be moved together. Absolute paths unless given.
        """
        entries = [_entry(checkpoint, relative_to) for checkpoint in self]
        return write_yaml({"name": self.name, "checkpoints": entries})


def order(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """Sort by stage, then by step; the numbers in a stage's name count as numbers."""
    parts = re.split(r"([0-9]+)", checkpoint.stage or "")
    named = [
        ("", len(part.lstrip("0")), part.lstrip("0")) if place % 2 else (part, 0, "")
        for place, part in enumerate(parts)
    ]
    return named, checkpoint.step or 0


def check_series(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise a `Fault` unless these checkpoints can be one series."""
    if not checkpoints:
        raise Fault("no checkpoints", expected="at least one", whole=True)
    labels: set[str] = set()
    at: dict[tuple[str | None, int], str] = {}
    for place, item in enumerate(checkpoints):
        path = ("checkpoints", place)
        _check_texts(item, path)
        if item.label in labels:
            raise Fault(
                f"two checkpoints are called {item.label}",
                path=path,
                expected="a label of its own for each",
                whole=True,
            )
        labels.add(item.label)
        if item.step is None and item.stage is not None:
            says = f"{item.label} has the stage {item.stage}, but no step"
            raise Fault(says, path=path, expected="a step in it", whole=True)
        if item.step is None:
            continue
        if not 0 <= item.step <= LARGEST:
            says = f"{item.label} is at step {item.step}"
            raise Fault(says, path=path, expected=f"a step from 0 to {LARGEST}", whole=True)
        key = (item.stage, item.step)
        if key in at:
            raise Fault(
                f"{at[key]} and {item.label} are both at {item.when}",
                path=path,
                expected="one checkpoint a step",
                fix="Leave one of the two out.",
                whole=True,
            )
        at[key] = item.label
    _refuse_gaps(checkpoints, known=len(at))


def _check_texts(checkpoint: Checkpoint, path: DataPath) -> None:
    for what, text, check in (
        ("label", checkpoint.label, one_name),
        ("source", checkpoint.source, clean_text),
        ("stage", checkpoint.stage, one_name),
    ):
        if text is None:
            continue
        try:
            check(text)
        except Fault as fault:
            says = f"the {what} {text!r} {fault.says}"
            raise Fault(says, path=path, fix=fault.fix, whole=True) from None


def _refuse_gaps(checkpoints: Sequence[Checkpoint], known: int) -> None:
    """Refuse a series of which only some members have a step: it has no order."""
    unknown = [place for place, item in enumerate(checkpoints) if item.step is None]
    if known and unknown:
        names = ", ".join(checkpoints[place].label for place in unknown[:3])
        raise Fault(
            f"the step of {names} is unknown, while others have one",
            path=("checkpoints", unknown[0]),
            expected="a step for every checkpoint, or for none",
            fix="Say it in a suite.yaml, or leave the checkpoint out.",
            whole=True,
        )


def _changes(mine: Checkpoint, theirs: Checkpoint) -> Iterator[str]:
    for name in ("stage", "step", "tokens"):
        before, after = getattr(mine, name), getattr(theirs, name)
        if before != after:
            yield f"{name} of {mine.label}: {before} -> {after}"
    if mine.identity[3:5] != theirs.identity[3:5]:
        yield f"source of {mine.label}: {mine.place} -> {theirs.place}"


def _entry(checkpoint: Checkpoint, relative_to: str | Path | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": checkpoint.label}
    for name in ("stage", "step", "tokens"):
        if getattr(checkpoint, name) is not None:
            entry[name] = getattr(checkpoint, name)
    if checkpoint.revision is not None:
        return entry | {"repository": checkpoint.source, "revision": checkpoint.revision}
    path = Path(checkpoint.source)
    if relative_to is not None:
        path = Path(os.path.relpath(path, relative_to))
    return entry | {"file" if checkpoint.gguf else "folder": path.as_posix()}
