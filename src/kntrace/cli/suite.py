"""`kntrace suite`."""

from __future__ import annotations

from rich.table import Table

import kntrace
from kntrace.cli.options import AsJson, Steps, SuiteName
from kntrace.cli.printing import out, print_json

__all__ = ["show_suite"]


def show_suite(
    suite: SuiteName,
    steps: Steps = None,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a series."""
    series = kntrace.load_suite(suite, steps=steps)
    series.check_present()
    rows = [
        {
            "label": checkpoint.label,
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
            "source": checkpoint.source,
            "revision": checkpoint.revision,
        }
        for checkpoint in series
    ]
    if as_json:
        print_json({"name": series.name, "checkpoints": rows})
        return
    table = Table("label", "step", "tokens seen", "revision", title=series.name, box=None)
    for row in rows:
        shown = (row["label"], row["step"], row["tokens"], row["revision"])
        table.add_row(*("" if value is None else str(value) for value in shown))
    out.print(table)
