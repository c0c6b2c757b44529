"""`kntrace report`."""

from __future__ import annotations

from typing import Annotated

import typer

import kntrace
from kntrace.cli.options import RunFolder
from kntrace.cli.printing import say

__all__ = ["report"]


def report(
    run: RunFolder,
    verify: Annotated[
        bool, typer.Option(help="Read all scores first: nothing is told of a damaged run.")
    ] = True,
) -> None:
    """Write report.html, one page that works offline."""
    from kntrace.analysis import load_analysis
    from kntrace.report import write_report

    opened = kntrace.open_run(run)
    if verify:
        opened.require_complete()
    say(write_report(opened, load_analysis(opened)))
