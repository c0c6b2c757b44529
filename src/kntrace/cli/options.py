"""Arguments and options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "AllowBin",
    "AsJson",
    "Pattern",
    "PresetName",
    "Quiet",
    "RunFolder",
    "Stage",
    "Steps",
    "StudyName",
    "SuiteName",
    "Threads",
    "Workers",
    "World",
    "given",
    "usable_processors",
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for the model's arithmetic.")]
MemoryBudget = Annotated[
    float | None,
    typer.Option(
        "--memory",
        metavar="GIB",
        help="GiB of the device for one pass beside the weights; 2, or a quarter of a CUDA card.",
    ),
]
World = Annotated[
    str, typer.Option(help="A world of facts: structured, flat, confounded and others.")
]
PresetName = Annotated[
    str | None,
    typer.Option("--preset", help="Options by name: public-code, as the paper's public code."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Steps = Annotated[
    str | None,
    typer.Option(
        help="Which checkpoints: paper (the 20 steps of the paper), all, log:N or linear:N (N of "
        "them, evenly spaced), every:K (multiples of K), or steps such as 0,512,1000."
    ),
]
Stage = Annotated[str | None, typer.Option(help="Only this stage, where steps begin anew in each.")]
Pattern = Annotated[
    str | None,
    typer.Option(
        help="How to read other names: a regular expression with groups named step, tokens "
        "and stage."
    ),
]
AllowBin = Annotated[
    bool,
    typer.Option(
        "--allow-bin",
        help="Read weights that are there only as .bin files (pickles): their tensors, and no "
        "programs.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes for distances; by default one a processor. No number depends on it.",
    ),
]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Study file, or similar-words.")]
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Folder, suite.yaml or hub id.")]


def given(context: typer.Context, names: Iterable[str]) -> dict[str, Any]:
    """Those of the named options that stand on the command line, with their values."""
    return {
        name: context.params[name]
        for name in names
        if (source := context.get_parameter_source(name)) and source.name != "DEFAULT"
    }


def usable_processors() -> int:
    """How many processors this process may use, where the system says; else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
