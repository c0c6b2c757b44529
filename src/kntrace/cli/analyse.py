"""`kntrace analyse`."""

from __future__ import annotations

from typing import Annotated

import typer

import kntrace
from kntrace.cli.options import AsJson, Quiet, RunFolder
from kntrace.cli.printing import bars, say, tell

__all__ = ["analyse"]


def analyse(
    run: RunFolder,
    k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Knowledge neurons a word; by default 1000, but never more than one in forty.",
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="Another choice of neurons than the k strongest: threshold:T:MIN (at least T "
            "times a prompt's largest score, in MIN prompts or more)."
        ),
    ] = None,
    distance: Annotated[
        list[str] | None, typer.Option(help="A distance by name; may be given again.")
    ] = None,
    permutations: Annotated[int, typer.Option(min=1)] = 999,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    figures: Annotated[bool, typer.Option(help="Draw the figures too.")] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose knowledge neurons, follow their formation, compare words, test the groups."""
    from kntrace.analysis import analyse as run_analysis
    from kntrace.archive import convergence

    opened = kntrace.open_run(run)
    with bars(quiet) as progress:
        found = run_analysis(
            opened,
            k=k,
            select=select,
            distances=tuple(distance) if distance else None,
            permutations=permutations,
            seed=seed,
            progress=progress,
        )
        if figures:
            from kntrace.figures import draw_all

            draw_all(found, opened.path / "figures", progress=progress)
        paths = convergence(opened, progress=progress)
    if paths.missed:
        tell(f"Careful: {paths.warning}")
    if as_json:
        print((opened.path / "analysis" / "contrast.json").read_text(encoding="utf-8"))
        return
    say(found)
