"""`kntrace demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kntrace.cli.options import Quiet, World
from kntrace.cli.printing import bars, out, say, tell

__all__ = ["demo"]


def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Where to put everything.")] = Path("demo"),
    world: World = "structured",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pretraining.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Do everything once, on a model pretrained in front of you (2 to 5 minutes)."""
    from kntrace.demo import demo as run_demo

    with bars(quiet) as progress:
        result = run_demo(out_dir, world=world, seed=seed, tell=tell, progress=progress)
    analysis, took = result.analysis, result.seconds
    say(analysis)
    out.print()
    parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in took.items())
    say(f"Took {sum(took.values()):.0f} s ({parts}).")
    say(f"Run folder  {result.run}")
    say(f"Figures     {result.run / 'figures'}")
    say(f"Report      {result.report}")
