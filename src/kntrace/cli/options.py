"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Quiet", "RunFolder", "Steps", "StudyName", "SuiteName", "Threads", "World"]

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
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Study file, or similar-words.")]
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Folder, suite.yaml or hub id.")]
