"""`kntrace compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import kntrace
from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Figures, Permutations, Quiet, Seed, output, what
from kntrace.cli.printing import bars, print_json, say

__all__ = ["compare"]


@examples(
    "kntrace compare runs/seed-0 runs/seed-1 runs/seed-2",
    "kntrace compare runs --evaluations scores.csv --out compared",
)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_FOLDER",
            help="Analysed run folders or their URLs, or folders that hold them.",
            parser=str,  # a path would take a URL's second slash away
        ),
    ],
    evaluations: Annotated[
        Path | None,
        what(
            metavar="FILE.csv",
            help="What else was measured: columns step, task, value, and run where the runs are "
            "of different checkpoints. Every checkpoint needs a value at exactly its step.",
        ),
    ] = None,
    permutations: Permutations = 999,
    seed: Seed = 0,
    out_path: Annotated[
        Path | None,
        output(
            "--out",
            metavar="FOLDER",
            help="A folder for tables and the figure; none are written without.",
        ),
    ] = None,
    figures: Figures = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Set several runs side by side: do seeds, sizes or suites agree? Reads their analyses."""
    with bars(quiet) as progress:
        found = kntrace.compare(
            runs,
            evaluations=evaluations,
            permutations=permutations,
            seed=seed,
            progress=progress,
        )
    if out_path is not None:
        from kntrace.comparison import write_comparison

        write_comparison(found, out_path)
        if figures:
            from kntrace.figures import draw_comparison

            draw_comparison(found, out_path)
    if as_json:
        print_json(found.to_dict())
        return
    say(found)
