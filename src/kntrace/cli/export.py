"""`kntrace export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import kntrace
from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Force, Quiet, RunFolder, output
from kntrace.cli.printing import bars, print_json, say

__all__ = ["export"]


@examples(
    "kntrace export demo/run --format parquet",
    "kntrace export demo/run --format csv --out scores.csv --force",
)
def export(
    run: RunFolder,
    format_name: Annotated[
        str,
        output(
            "--format",
            metavar="NAME",
            help="parquet, csv, or jsonl: the layout that the paper's public code reads.",
            autocompletion=values.export_formats,
        ),
    ],
    out_path: Annotated[
        Path | None,
        output(
            "--out", metavar="PATH", help="File to write (jsonl: folder); RUN/export/ unless given."
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's scores as a table, or as the paper's public code does."""
    from kntrace.export import export_run

    opened = kntrace.open_run(run)
    with bars(quiet) as progress:
        written = export_run(opened, format_name, out_path, overwrite=force, progress=progress)
    if as_json:
        print_json({"run": opened.path, "format": format_name, "written": written})
        return
    say(written)
