"""`kntrace compact`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import kntrace
from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Quiet, RunFolder, output, placed, what
from kntrace.cli.printing import bars, print_json, say, tell

__all__ = ["compact"]


@examples(
    "kntrace compact demo/run small-run",
    "kntrace compact demo/run smaller-run --top 20 --no-activations --json",
)
def compact(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The run folder to make, or its URL.", parser=str, callback=placed
        ),
    ],
    top: Annotated[
        int | None,
        what(
            metavar="K",
            min=1,
            help="Most neurons a word that can be chosen of it later; by default 1000, but never "
            "more than one in forty.",
        ),
    ] = None,
    activations: Annotated[
        bool,
        output("--activations/--no-activations", help="Keep what neurons are, where the run has."),
    ] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a small run of a finished one: only the neurons that are ever chosen.

    Kept are, of every word, those among its K strongest at any checkpoint in any wording, as
    means over prompts. Analyses with K neurons or fewer come out as those of --keep means. The
    run itself stays as it is.
    """
    from kntrace.compacting import sizes
    from kntrace.suite.weights import size_in_words

    opened = kntrace.open_run(run)
    tell(f"Keeping the neurons of every word that are ever chosen, into {out}")
    with bars(quiet) as progress:
        made = kntrace.compact(
            opened,
            out,
            top=top,
            activations=activations and opened.settings.activations,
            progress=progress,
        )
    found = sizes(opened, made)
    if as_json:
        print_json({"run": made.path, "top": made.settings.top, **found})
        return
    say(
        f"{made.path}: {found['kept']:,.0f} of {found['neurons']:,} neurons a word are kept "
        f"({found['most']:,} at most), {size_in_words(found['bytes'])} of "
        f"{size_in_words(found['bytes_before'])}. Analyse it with --k {made.settings.top} or less."
    )
