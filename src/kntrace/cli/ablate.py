"""`kntrace ablate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import kntrace
from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import (
    AsJson,
    Device,
    Figures,
    Quiet,
    RunFolder,
    Seed,
    Select,
    Steps,
    Threads,
    WordingName,
    how,
    output,
    what,
)
from kntrace.cli.printing import bars, print_json, say, tell
from kntrace.errors import SettingsError

if TYPE_CHECKING:
    from kntrace.archive import Run

__all__ = ["ablate", "steps_of"]


@examples(
    "kntrace ablate demo/run",
    "kntrace ablate demo/run --steps log:5 --doses 1,10 --methods zero,x2",
    "kntrace ablate demo/run --singles 0 --draws 8 --anew --json",
)
def ablate(
    run: RunFolder,
    steps: Steps = None,
    select: Select = None,
    doses: Annotated[
        str | None,
        what(metavar="N,N", help="How many are changed together, such as 1,10,50; 0: all."),
    ] = None,
    methods: Annotated[
        str,
        what(
            metavar="NAME,NAME",
            help="What becomes of them: zero, a factor such as x2, mean, resample.",
        ),
    ] = "zero,x0.5,x1.5,x2,mean,resample",
    chosen_at: Annotated[
        str,
        what(
            metavar="WHEN",
            help="Own at the last checkpoint (last), or at the one changed (each).",
            autocompletion=values.of(("last", "each")),
        ),
    ] = "last",
    partners: Annotated[
        int,
        what(metavar="N", min=0, help="Other words, of the group and of others each."),
    ] = 4,
    draws: Annotated[
        int,
        what(metavar="N", min=0, help="Random sets, matched and plain each."),
    ] = 4,
    singles: Annotated[
        int,
        what(metavar="N", min=0, help="Strongest neurons that are also silenced one at a time."),
    ] = 50,
    positions: Annotated[
        str,
        what(
            metavar="WHERE",
            help="Change neurons at the answer's position (last) or everywhere (all).",
            autocompletion=values.of(("last", "all")),
        ),
    ] = "last",
    wording: WordingName = None,
    seed: Seed = 0,
    suite: Annotated[
        str | None,
        how(metavar="SUITE", help="Where the run's suite is now, if it was moved."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    anew: Annotated[
        bool,
        output("--anew", help="Throw away results with other settings."),
    ] = False,
    figures: Figures = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Suppress and amplify neurons, and see what becomes of the answers. Run again to resume."""
    opened = kntrace.open_run(run)
    with bars(quiet) as progress:
        found = kntrace.ablate(
            opened,
            steps=steps,
            select=select,
            doses=None if doses is None else _numbers(doses),
            methods=methods.split(","),
            chosen_at=chosen_at,
            partners=partners,
            draws=draws,
            singles=singles,
            positions=positions,
            wording=wording,
            seed=seed,
            anew=anew,
            suite=None if suite is None else kntrace.load_suite(suite, steps=steps_of(opened)),
            device=device,
            threads=threads,
            tell=tell,
            progress=progress,
        )
        if figures:
            from kntrace.figures import draw_ablation

            draw_ablation(found, opened.path / "figures")
    if as_json:
        print_json(found.to_dict())
        return
    say(found)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingsError(
            f"--doses {text!r}", expected="whole numbers, such as 1,10,50"
        ) from None


def steps_of(run: Run) -> list[int] | None:
    """The steps of a run's checkpoints, so that a suite is cut down to them."""
    steps = [item.step for item in run.suite]
    known = [step for step in steps if step is not None]
    return known if len(known) == len(steps) and len(run.suite.stages) == 1 else None
