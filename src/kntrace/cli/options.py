"""Arguments and options that several commands have, so that each is worded in one place.

Every option says in which part of the help it stands: `WHAT` changes numbers, `HOW` does not,
and `OUTPUT` is what is printed, drawn or written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kntrace.cli import values
from kntrace.cli.printing import hush, tell

__all__ = [
    "HOW",
    "OUTPUT",
    "WHAT",
    "AllowBin",
    "AnswerTokens",
    "AsJson",
    "Device",
    "FigureSize",
    "Figures",
    "Force",
    "Formats",
    "Groups",
    "MemoryBudget",
    "OutFolder",
    "Pattern",
    "Permutations",
    "PresetName",
    "Quiet",
    "RunFolder",
    "Seed",
    "Select",
    "Stage",
    "Steps",
    "StudyName",
    "SuiteName",
    "Threads",
    "Verify",
    "WordingName",
    "Workers",
    "World",
    "given",
    "how",
    "output",
    "placed",
    "usable_processors",
    "what",
]

WHAT = "What to compute"
HOW = "Where and how"
OUTPUT = "Output"

what = partial(typer.Option, rich_help_panel=WHAT)
how = partial(typer.Option, rich_help_panel=HOW)
output = partial(typer.Option, rich_help_panel=OUTPUT)

# Arguments


def placed(context: typer.Context, place: str | Path | None) -> Path | None:
    """The folder of a run: of one at a URL its mirror, until the command has ended."""
    if place is None:
        return None
    from kntrace.archive import mirrored

    return context.with_resource(mirrored(place, tell))


RunFolder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run folder, or its URL.", parser=str, callback=placed),
]
OutFolder = Annotated[
    Path,
    output(
        "--out",
        metavar="FOLDER",
        help="The run folder, or its URL; resumed if it exists.",
        parser=str,
        callback=placed,
    ),
]
StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="Study file, or similar-words.",
        autocompletion=values.studies,
    ),
]
SuiteName = Annotated[
    str,
    typer.Argument(
        metavar="SUITE", help="Folder, suite.yaml or hub id.", autocompletion=values.suites
    ),
]

# What to compute

Steps = Annotated[
    str | None,
    what(
        metavar="WHICH",
        help="Which checkpoints: paper (the 20 steps of the paper), all, log:N or linear:N (N of "
        "them, evenly spaced), every:K (multiples of K), or steps such as 0,512,1000.",
        autocompletion=values.of(values.STEPS),
    ),
]
Stage = Annotated[
    str | None,
    what(metavar="NAME", help="Only this stage, where steps begin anew in each."),
]
Pattern = Annotated[
    str | None,
    what(
        metavar="REGEX",
        help="How to read other names: a regular expression with groups named step, tokens "
        "and stage.",
    ),
]
Groups = Annotated[
    Path | None,
    what(metavar="FILE", help="Groups file, for a plain {word: [questions]} study."),
]
PresetName = Annotated[
    str | None,
    what(
        "--preset",
        metavar="NAME",
        help="Options by name: public-code, as the paper's public code.",
        autocompletion=values.presets,
    ),
]
AnswerTokens = Annotated[
    str,
    what(
        metavar="POLICY",
        help="Answers of several tokens: error, first, mean, greedy, joint.",
        autocompletion=values.of(values.ANSWER_TOKENS),
    ),
]
Select = Annotated[
    str | None,
    what(
        metavar="HOW",
        help="Which neurons are a word's own: top:K, or threshold:T:MIN (at least T times a "
        "prompt's largest score, in MIN prompts or more), or rare:T:MIN:K (the K of these that "
        "fewest words have).",
        autocompletion=values.of(values.SELECTIONS),
    ),
]
WordingName = Annotated[
    str | None,
    what("--wording", metavar="NAME", help="A wording of the study."),
]
World = Annotated[
    str,
    what(
        metavar="NAME",
        help="A world of facts: structured, flat, confounded and others.",
        autocompletion=values.of(values.WORLDS),
    ),
]
Seed = Annotated[
    int,
    what(metavar="N", min=0, help="Seed of all that is drawn at random."),
]
Permutations = Annotated[
    int,
    what(metavar="N", min=1, help="Permutations of every test."),
]

# Where and how

Device = Annotated[
    str,
    how(
        metavar="NAME",
        help="cpu, cuda, cuda:N, mps, or auto: over all there is.",
        autocompletion=values.of(values.DEVICES),
    ),
]
Threads = Annotated[
    int | None,
    how(metavar="N", min=1, help="CPU threads for the model's arithmetic."),
]
MemoryBudget = Annotated[
    float | None,
    how(
        "--memory",
        metavar="GIB",
        help="GiB of the device for one pass beside the weights; 2, or a quarter of a CUDA card.",
    ),
]
Workers = Annotated[
    int | None,
    how(
        metavar="N",
        min=1,
        help="Processes for distances; by default one a processor. No number depends on it.",
    ),
]
AllowBin = Annotated[
    bool,
    how(
        "--allow-bin",
        help="Read weights that are there only as .bin files (pickles): their tensors, and no "
        "programs.",
    ),
]
Verify = Annotated[
    bool,
    how("--verify/--no-verify", help="Read what is there and look at its checksums first."),
]

# Output

Figures = Annotated[
    bool,
    output("--figures/--no-figures", help="Draw the figures too."),
]
FigureSize = Annotated[
    str,
    output(
        metavar="SIZE",
        help="paper (a column or a page wide, as each needs), column (85 mm), wide (170 mm) "
        "or slide (16:9, text of 14 points).",
        autocompletion=values.of(values.SIZES),
    ),
]
Formats = Annotated[str, output(metavar="LIST", help="Of png, pdf and svg.")]
Force = Annotated[bool, output("--force", help="Write over what is there.")]
Quiet = Annotated[
    bool,
    output(
        "--quiet",
        "-q",
        help="Only results, warnings and errors: no progress, no remarks.",
        callback=hush,
    ),
]
AsJson = Annotated[
    bool,
    output("--json", help="Print the result as JSON, and nothing else on standard output."),
]


def given(context: typer.Context, names: Iterable[str]) -> dict[str, Any]:
    """Those of the named options that stand on the command line, with their values."""
    return {
        name: context.params[name]
        for name in names
        if (source := context.get_parameter_source(name)) and source.name != "DEFAULT"
    }


def usable_processors() -> int:
    """How many processors this process may use, where the system says; else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
