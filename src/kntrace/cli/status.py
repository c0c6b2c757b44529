"""`kntrace status`."""

from __future__ import annotations

from kntrace.cli.options import AsJson, RunFolder
from kntrace.cli.printing import print_json, say

__all__ = ["status"]


def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Say what a run has, lacks, and has damaged, and how well its integrals converged."""
    from kntrace.sweep import status as read_status

    found = read_status(run)
    if as_json:
        print_json(found.to_dict())
        return
    say(found)
