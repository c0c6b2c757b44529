"""`kntrace report`."""

from __future__ import annotations

import kntrace
from kntrace.cli.options import RunFolder
from kntrace.cli.printing import say

__all__ = ["report"]


def report(run: RunFolder) -> None:
    """Write report.html, one page that works offline."""
    from kntrace.analysis import load_analysis
    from kntrace.report import write_report

    opened = kntrace.open_run(run)
    say(write_report(opened, load_analysis(opened)))
