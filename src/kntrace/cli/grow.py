"""`kntrace grow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kntrace.cli.options import Quiet, World
from kntrace.cli.printing import bars, say

__all__ = ["grow"]


def grow(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    world: World = "structured",
    seed: Annotated[int, typer.Option(min=0, help="Of corpus and initial weights.")] = 0,
    world_seed: Annotated[
        int | None, typer.Option(min=0, help="Of the world's dealing; as --seed unless given.")
    ] = None,
    layers: Annotated[int, typer.Option(min=1)] = 4,
    hidden: Annotated[int, typer.Option(min=2, help="Width of the residual stream.")] = 128,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 600,
    batch: Annotated[int, typer.Option(min=1, help="Sentences in a step.")] = 64,
    checkpoints: Annotated[int, typer.Option(min=2, help="States to keep.")] = 20,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = 1e-3,
    quiet: Quiet = False,
) -> None:
    """Pretrain a tiny GPT-NeoX and keep its checkpoints, one Hugging Face folder each."""
    from kntrace.grow import grow as run_grow

    with bars(quiet) as progress:
        suite = run_grow(
            folder,
            world=world,
            seed=seed,
            world_seed=world_seed,
            layers=layers,
            hidden=hidden,
            heads=heads,
            steps=steps,
            batch=batch,
            checkpoints=checkpoints,
            learning_rate=learning_rate,
            progress=progress,
        )
    say(f"{len(suite)} checkpoints, study.yaml and suite.yaml in {folder}")
