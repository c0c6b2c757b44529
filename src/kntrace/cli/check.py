"""`kntrace check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import kntrace
from kntrace.cli.options import AllowBin, AsJson, Quiet, Steps, StudyName
from kntrace.cli.printing import bars, print_json, say, tell

__all__ = ["check"]


def check(
    study: StudyName,
    suite: Annotated[
        str | None, typer.Option(help="Ask the tokenizer of this suite's last checkpoint.")
    ] = None,
    steps: Steps = None,
    groups: Annotated[
        Path | None, typer.Option(help="Groups file, for a plain {word: [questions]} study.")
    ] = None,
    answer_tokens: Annotated[
        str, typer.Option(help="What the run will do with answers of several tokens.")
    ] = "error",
    answers: Annotated[
        bool, typer.Option("--answers", help="Load the last checkpoint and ask it every prompt.")
    ] = False,
    top: Annotated[
        int, typer.Option(min=1, help="Known means: among so many likeliest tokens.")
    ] = 10,
    allow_bin: AllowBin = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail the check too.")] = False,
    notes: Annotated[bool, typer.Option(help="Show the answers' tokens.")] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look for what would spoil a run, one line a finding; exit code 2 if there are errors."""
    from kntrace.lint import check_study

    series = None if suite is None else kntrace.load_suite(suite, steps=steps)
    with bars(quiet) as progress:
        checked = check_study(
            study,
            series,
            groups=groups,
            answer_tokens=answer_tokens,
            answers=answers,
            top=top,
            allow_bin=allow_bin,
            progress=progress,
        )
    if as_json:
        print_json(checked.to_dict())
    else:
        for finding in checked.findings:
            if notes or finding.severity != "note":
                say(finding)
        tell(str(checked))
    if not checked.passes(strict=strict):
        raise typer.Exit(2)
