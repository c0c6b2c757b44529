"""Arguments and options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AsJson",
    "Quiet",
    "RunFolder",
    "Steps",
    "StudyName",
    "SuiteName",
    "Threads",
    "Workers",
    "World",
    "usable_processors",
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for the model's arithmetic.")]
World = Annotated[
    str, typer.Option(help="A world of facts: structured, flat, confounded and others.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Steps = Annotated[
    str | None,
    typer.Option(help='Which checkpoints: "paper", "all", or steps such as 0,512,1000.'),
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


def usable_processors() -> int:
    """How many processors this process may use, where the system says; else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
