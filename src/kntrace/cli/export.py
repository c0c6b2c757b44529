"""`kntrace export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import kntrace
from kntrace.cli.options import Quiet, RunFolder
from kntrace.cli.printing import bars, say

__all__ = ["export"]


def export(
    run: RunFolder,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="parquet, csv, or jsonl: the layout that the paper's public code reads.",
        ),
    ],
    out_path: Annotated[
        Path | None,
        typer.Option("--out", help="File to write (jsonl: folder); RUN/export/ unless given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's scores as a table, or as the paper's public code does."""
    from kntrace.export import export_run

    opened = kntrace.open_run(run)
    with bars(quiet) as progress:
        written = export_run(opened, format_name, out_path, overwrite=force, progress=progress)
    say(written)
