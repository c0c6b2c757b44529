"""`kntrace check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import kntrace
from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import (
    AllowBin,
    AnswerTokens,
    AsJson,
    Groups,
    PresetName,
    Quiet,
    Steps,
    StudyName,
    given,
    output,
    what,
)
from kntrace.cli.printing import bars, print_json, say, tell

if TYPE_CHECKING:
    from kntrace.study import Study

__all__ = ["check"]


@examples(
    "kntrace check words.yaml",
    "kntrace check similar-words --suite demo/suite",
    "kntrace check words.yaml --suite demo/suite --answers --strict",
)
def check(
    context: typer.Context,
    study: StudyName,
    suite: Annotated[
        str | None,
        what(
            metavar="SUITE",
            help="Ask the tokenizer of this suite's last checkpoint.",
            autocompletion=values.suites,
        ),
    ] = None,
    steps: Steps = None,
    groups: Groups = None,
    preset: PresetName = None,
    answer_tokens: AnswerTokens = "error",
    answers: Annotated[
        bool,
        what("--answers", help="Load the last checkpoint and ask it every prompt."),
    ] = False,
    top: Annotated[
        int,
        what(metavar="N", min=1, help="Known means: among so many likeliest tokens."),
    ] = 10,
    allow_bin: AllowBin = False,
    strict: Annotated[
        bool,
        output("--strict", help="Warnings fail the check too."),
    ] = False,
    notes: Annotated[
        bool,
        output("--notes/--no-notes", help="Show the answers' tokens."),
    ] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look for what would spoil a run, one line a finding; exit code 2 if there are errors."""
    from kntrace.lint import check_study

    asked: str | Study = study
    if preset is not None:
        chosen = kntrace.find_preset(preset)
        settings = chosen.settings(**given(context, ["answer_tokens"]))
        asked, groups = chosen.study(kntrace.load_study(study, groups=groups)), None
        answer_tokens = settings.answer_tokens
    series = None if suite is None else kntrace.load_suite(suite, steps=steps)
    with bars(quiet) as progress:
        checked = check_study(
            asked,
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
