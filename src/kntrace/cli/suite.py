"""`kntrace suite`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Pattern, Quiet, Stage, Steps, how, output
from kntrace.cli.printing import bars, out, print_json, say, tell
from kntrace.errors import SettingsError

if TYPE_CHECKING:
    from kntrace.audit import Audit, TensorPrint
    from kntrace.suite import Checkpoint, Found, Weights

__all__ = ["show_suite"]

_SHOWN = 8


@examples(
    "kntrace suite",
    "kntrace suite demo/suite --steps log:5 --out few.yaml",
    "kntrace suite demo/suite --audit --json",
)
def show_suite(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="Folder, suite.yaml, hub id, or a pattern of ids with *; without it, the table "
            "of known suites.",
            autocompletion=values.suites,
        ),
    ] = None,
    steps: Steps = None,
    stage: Stage = None,
    pattern: Pattern = None,
    sizes: Annotated[
        bool,
        how("--sizes", help="Ask the hub for sizes and formats: a request a checkpoint."),
    ] = False,
    audit: Annotated[
        bool,
        how(
            "--audit",
            help="Read every weight and say what is wrong; exit code 1 if there are errors.",
        ),
    ] = False,
    by_file: Annotated[
        bool,
        how(
            "--by-file",
            help="With --audit: compare files by what the hub says of them, and fetch nothing.",
        ),
    ] = False,
    out_file: Annotated[
        Path | None,
        output("--out", metavar="FILE", help="Write what is listed as a suite file."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a series, or the series that are known."""
    from kntrace.suite import check_revisions, find_suite, find_weights

    if by_file and not audit:
        raise SettingsError("--by-file without --audit", expected="both, or neither")
    if suite is None:
        if audit:
            raise SettingsError("--audit without a suite", expected="a folder, a file or a hub id")
        _show_known(as_json)
        return
    found = find_suite(suite, steps=steps, stage=stage, pattern=pattern)
    commits = found.commits or check_revisions(found.checkpoints)
    weights = find_weights(found.checkpoints, commits, ask=sizes)
    rows = [_row(item, weights[item.label], commits.get(item.label)) for item in found.checkpoints]
    audited = _audited(found, commits, by_file, quiet) if audit else None
    if as_json:
        plain = {"audit": audited.to_dict()} if audited else {}
        print_json(
            {
                "name": found.name,
                "checkpoints": rows,
                "aside": found.aside,
                "notes": found.notes,
            }
            | plain
        )
    else:
        _show(found, rows)
        if audited:
            _show_audit(audited)
    # What can be listed may yet be no series, which is wrong input for all that comes after.
    series = found.suite
    series.check_present()
    if out_file is not None:
        out_file.write_text(series.to_yaml(relative_to=out_file.parent), encoding="utf-8")
        tell(f"{len(series)} checkpoints in {out_file}")
    if audited and audited.count("error"):
        raise typer.Exit(1)


def _audited(found: Found, commits: Mapping[str, str], by_file: bool, quiet: bool) -> Audit:
    from kntrace.audit import audit_suite

    def read_bin(file: Path) -> Iterator[tuple[str, TensorPrint]]:
        # Here, since only such files need torch, which takes seconds to load.
        from kntrace.models import read_bin as read

        return read(file)

    with bars(quiet) as progress:
        return audit_suite(
            found.checkpoints, commits, by_file=by_file, read_bin=read_bin, progress=progress
        )


def _show_audit(audited: Audit) -> None:
    """Print the findings, a row each, in 80 columns."""
    from rich.markup import escape

    say(f"\n{audited}")
    if not audited.findings:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "kind", "finding"):
        table.add_column(name, overflow="fold", no_wrap=name != "finding")
    for finding in audited.findings:
        table.add_row(finding.severity, finding.kind, escape(finding.says))
    out.print(table)


def _row(checkpoint: Checkpoint, weights: Weights, commit: str | None) -> dict[str, Any]:
    return {
        "label": checkpoint.label,
        "stage": checkpoint.stage,
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "source": checkpoint.source,
        "revision": checkpoint.revision,
        "commit": commit,
        "bytes": weights.bytes,
        "format": weights.format,
        "cached": weights.cached,
    }


_COLUMNS = {
    "label": "label",
    "stage": "stage",
    "step": "step",
    "tokens": "tokens seen",
    "revision": "revision",
    "bytes": "size",
    "format": "format",
    "cached": "here",
}


def _show(found: Found, rows: Sequence[dict[str, Any]]) -> None:
    """Print the checkpoints, without the columns that say nothing."""
    said = {name for row in rows for name, value in row.items() if value is not None}
    if all(row["revision"] in (row["label"], None) for row in rows):
        said.discard("revision")
    if all(row["revision"] is None for row in rows):
        said.discard("cached")
    names = [name for name in _COLUMNS if name in said]
    table = Table(title=found.name, box=None, title_justify="left")
    for name in names:
        right = name in ("step", "tokens", "bytes")
        table.add_column(_COLUMNS[name], justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(name, row[name]) for name in names))
    out.print(table)
    if found.aside:
        more = f" and {len(found.aside) - _SHOWN} more" if len(found.aside) > _SHOWN else ""
        say(f"Not of the series: {', '.join(found.aside[:_SHOWN])}{more}.")
    for note in found.notes:
        say(note)


def _cell(name: str, value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    if name == "cached":
        return "yes" if value else "no"
    if name == "bytes":
        from kntrace.suite.weights import size_in_words

        return size_in_words(value)
    if name in ("step", "tokens"):
        return f"{value:,}"
    return escape(str(value))


def _show_known(as_json: bool) -> None:
    from kntrace.suite import known_suites

    suites = known_suites()
    if as_json:
        print_json({"suites": [{**suite.model_dump(), "ids": suite.ids} for suite in suites]})
        return
    for suite in suites:
        licence = suite.licence or "see the repositories for the licence"
        say(f"{suite.name} ({suite.sizes}; {licence})")
        for repositories in suite.repositories:
            say(f"    {repositories}")
        say(f"    checkpoints: {suite.revisions}")
        if suite.final is not None:
            say(f"    final model: {suite.final}")
        if suite.note is not None:
            say(f"    {suite.note}")
        for fault in suite.faults:
            say(f"    fault: {fault.repositories}: {fault.what}")
        say(f"    {suite.source}")
