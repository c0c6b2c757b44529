"""`kntrace demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Quiet, Seed, World, output
from kntrace.cli.printing import bars, out, print_json, say, tell

__all__ = ["demo"]


@examples("kntrace demo", "kntrace demo --world flat --seed 3 --out flat")
def demo(
    world: World = "structured",
    seed: Seed = 0,
    out_dir: Annotated[
        Path,
        output("--out", metavar="FOLDER", help="Where to put everything."),
    ] = Path("demo"),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Do everything once, on a model pretrained in front of you (2 to 5 minutes)."""
    from kntrace.demo import demo as run_demo

    with bars(quiet) as progress:
        result = run_demo(out_dir, world=world, seed=seed, tell=tell, progress=progress)
    analysis, took = result.analysis, result.seconds
    if as_json:
        print_json(
            {
                "suite": result.suite,
                "run": result.run,
                "figures": result.figures,
                "report": result.report,
                "seconds": took,
                "verdict": analysis.verdict.to_dict(),
            }
        )
        return
    say(analysis)
    out.print()
    parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in took.items())
    say(f"Took {sum(took.values()):.0f} s ({parts}).")
    say(f"Run folder  {result.run}")
    say(f"Figures     {result.run / 'figures'}")
    say(f"Report      {result.report}")
