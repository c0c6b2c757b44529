"""`kntrace view`."""

from __future__ import annotations

from typing import Annotated

import typer

import kntrace
from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import (
    AsJson,
    Figures,
    Quiet,
    RunFolder,
    Seed,
    Select,
    WordingName,
    what,
)
from kntrace.cli.printing import bars, print_json, say
from kntrace.errors import SettingsError

__all__ = ["view"]


@examples(
    "kntrace view demo/run",
    "kntrace view demo/run turnover acquisition",
    "kntrace view demo/run turnover --set pivot=0 --no-figures --json",
)
def view(
    run: RunFolder,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Views to compute, or all; none: list them.",
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
    figures: Figures = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look at a run in other ways: turnover, acquisition, and others; lists them without NAME."""
    from kntrace import views

    opened = kntrace.open_run(run)
    if not names:
        rows = views.listing(opened)
        if as_json:
            print_json(rows)
        else:
            say("\n".join(f"{row['name']:<14} {row['title']}{_state(row)}" for row in rows))
        return
    chosen = views.find_views(names, _pairs(options or []))
    with bars(quiet) as progress:
        found = views.compute_views(
            opened,
            chosen,
            wording=wording,
            select=select,
            floor=floor,
            seed=seed,
            formats=("png", "pdf") if figures else (),
            progress=progress,
        )
    if as_json:
        print_json(
            {
                name: {"table": views.where_kept(opened) / f"{name}.csv", "facts": one.facts}
                for name, one in found.items()
            }
        )
        return
    for name, one in found.items():
        say(f"{views.VIEWS[name].title}\n{one}\n")
    say(f"Tables: {views.where_kept(opened)}")


def _state(row: dict[str, object]) -> str:
    if row["lacks"]:
        return f" (this run kept no {' and '.join(map(str, row['lacks']))})"  # type: ignore[call-overload]
    return " (computed)" if row["computed"] else ""


def _pairs(options: list[str]) -> dict[str, str]:
    pairs = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise SettingsError(f"--set {text!r}", expected="NAME=VALUE, such as pivot=0")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs
