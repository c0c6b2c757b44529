"""`kntrace status`."""

from __future__ import annotations

from typing import Annotated

import typer

from kntrace.cli.options import AsJson, RunFolder
from kntrace.cli.printing import print_json, say

__all__ = ["status"]


def status(
    run: RunFolder,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only count the blocks; no checksum is looked at.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run has, lacks, and has damaged, and how well its integrals converged."""
    from kntrace.sweep import status as read_status

    found = read_status(run, verify=not quick)
    if as_json:
        print_json(found.to_dict())
        return
    say(found)
