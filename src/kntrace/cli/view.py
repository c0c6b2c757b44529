"""`kntrace view`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

import kntrace
from kntrace.cli import values
from kntrace.cli.ablate import steps_of
from kntrace.cli.helping import examples
from kntrace.cli.options import (
    AsJson,
    Device,
    Figures,
    FigureSize,
    Formats,
    Quiet,
    RunFolder,
    Seed,
    Select,
    Steps,
    Threads,
    WordingName,
    given,
    how,
    what,
)
from kntrace.cli.printing import bars, print_json, say
from kntrace.errors import SettingsError

if TYPE_CHECKING:
    from kntrace.archive import Run
    from kntrace.progress import Progress
    from kntrace.views import Weights

__all__ = ["view"]

_ABOUT_WEIGHTS = ("steps", "suite", "device", "threads")


@examples(
    "kntrace view demo/run",
    "kntrace view demo/run read_out --steps log:6",
    "kntrace view demo/run turnover --set pivot=0 --size slide --formats png,svg",
)
def view(
    context: typer.Context,
    run: RunFolder,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Views to compute; all: those that need no weights and nothing that the run "
            "has not kept; none: list them.",
            autocompletion=values.views,
        ),
    ] = None,
    select: Select = None,
    wording: WordingName = None,
    floor: Annotated[
        float,
        what(metavar="P", help="Below this P(answer) a word does not count as known."),
    ] = 0.05,
    options: Annotated[
        list[str] | None,
        what("--set", metavar="NAME=VALUE", help="An option of a view's own; may be given again."),
    ] = None,
    seed: Seed = 0,
    steps: Steps = None,
    suite: Annotated[
        str | None,
        how(metavar="SUITE", help="Where the run's suite is now, if it was moved."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    figures: Figures = True,
    size: FigureSize = "paper",
    formats: Formats = "png,pdf",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look at a run in other ways: turnover, acquisition, and others; lists them without NAME.

    --steps, --suite, --device and --threads are for views that read the checkpoints' weights.
    """
    from kntrace import views
    from kntrace.figures import figures_folder

    opened = kntrace.open_run(run)
    if not names:
        rows = views.listing(opened)
        if as_json:
            print_json({"run": opened.path, "views": rows})
        else:
            say("\n".join(f"{row['name']:<14} {row['title']}{_state(row)}" for row in rows))
        return
    chosen = views.find_views(names, _pairs(options or []))
    # `all` means all that this run has the variables for; what is named is insisted on.
    left_out = [one for one in chosen if one.name not in names and views.lacking(opened, one)]
    chosen = [one for one in chosen if one not in left_out]
    reading = [one.name for one in chosen if one.name in views.WEIGHT_VIEWS]
    if not reading and (said := given(context, _ABOUT_WEIGHTS)):
        raise SettingsError(
            f"--{next(iter(said))}, but {', '.join(one.name for one in chosen)} read no weights",
            expected=f"one of {', '.join(views.WEIGHT_VIEWS)}",
        )
    with bars(quiet) as progress:
        weights = None
        if reading:
            moved = None if suite is None else kntrace.load_suite(suite, steps=steps_of(opened))
            how_read = {"steps": steps, "suite": moved, "device": device, "threads": threads}
            weights = _weights(opened, progress, **how_read)
        found = views.compute_views(
            opened,
            chosen,
            wording=wording,
            select=select,
            floor=floor,
            seed=seed,
            weights=weights,
            formats=formats.split(",") if figures else (),
            size=size,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                name: {
                    "table": str(views.where_kept(opened) / f"{name}.csv"),
                    "facts": views.plain(one.facts),
                }
                for name, one in found.items()
            }
        )
        return
    for name, one in found.items():
        say(f"{views.all_views()[name].title}\n{one}\n")
    for absent in left_out:
        say(f"Left out: {absent.name}{_lacks(views.lacking(opened, absent))}.")
    say(f"Tables: {views.where_kept(opened)}")
    if figures:
        say(f"Figures: {figures_folder(opened.path, size)}")


def _state(row: dict[str, object]) -> str:
    if row["lacks"]:
        return _lacks(row["lacks"])  # type: ignore[arg-type]
    reads = " (reads the weights)" if row["reads_weights"] else ""
    return reads + (" (computed)" if row["computed"] else "")


def _lacks(names: Sequence[str]) -> str:
    return f" (this run kept no {' and '.join(names)})"


def _weights(run: Run, progress: Progress, **how_read: Any) -> Weights:
    from kntrace.probes import Weights as Checkpoints

    return Checkpoints(run, progress=progress, **how_read)


def _pairs(options: list[str]) -> dict[str, str]:
    pairs = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise SettingsError(f"--set {text!r}", expected="NAME=VALUE, such as pivot=0")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs
