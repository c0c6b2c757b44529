"""`kntrace report`."""

from __future__ import annotations

import kntrace
from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Quiet, RunFolder, Verify
from kntrace.cli.printing import print_json, say

__all__ = ["report"]


@examples("kntrace report demo/run", "kntrace report demo/run --json")
def report(
    run: RunFolder,
    verify: Verify = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write report.html, one page that works offline."""
    from kntrace.analysis import load_analysis
    from kntrace.report import write_report

    opened = kntrace.open_run(run)
    if verify:
        # Nothing is told of a damaged run.
        opened.require_complete()
    written = write_report(opened, load_analysis(opened))
    if as_json:
        print_json({"run": opened.path, "report": written})
        return
    say(written)
