"""`kntrace status`."""

from __future__ import annotations

from typing import Annotated

from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Quiet, RunFolder, how
from kntrace.cli.printing import bars, print_json, say
from kntrace.errors import SettingsError

__all__ = ["status"]


@examples(
    "kntrace status demo/run",
    "kntrace status demo/run --quick --json",
    "kntrace status demo/run --watch --every 10",
)
def status(
    run: RunFolder,
    quick: Annotated[
        bool,
        how("--quick", help="Only count the blocks; no checksum is looked at."),
    ] = False,
    watch: Annotated[
        bool,
        how("--watch", help="Count again and again until all is done, or Ctrl-C."),
    ] = False,
    every: Annotated[
        float,
        how(metavar="SECONDS", min=0.1, help="Between two looks of --watch."),
    ] = 2.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run has, lacks, and has damaged, and how well its integrals converged."""
    from kntrace.sweep import status as read_status

    if watch:
        from kntrace.cli.watching import watch_run

        if as_json:
            raise SettingsError("--watch with --json", expected="one of them")
        watch_run(run, every)
        return
    with bars(quiet) as progress:
        found = read_status(run, verify=not quick, progress=progress)
    if as_json:
        print_json(found.to_dict())
        return
    say(found)
