"""`kntrace plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kntrace.cli.asking import (
    Activations,
    Baseline,
    Evict,
    Keep,
    KeepBits,
    Nodes,
    NumberFormat,
    Objective,
    Pin,
    Processes,
    Rule,
    Site,
    Tolerance,
    asked_for,
)
from kntrace.cli.helping import examples
from kntrace.cli.options import (
    AllowBin,
    AnswerTokens,
    AsJson,
    Device,
    Groups,
    MemoryBudget,
    Pattern,
    PresetName,
    Quiet,
    Stage,
    Steps,
    StudyName,
    SuiteName,
    Threads,
    how,
    placed,
)
from kntrace.cli.printing import bars, print_json, say, tell
from kntrace.errors import SettingsError

__all__ = ["plan"]


@examples(
    "kntrace plan words.yaml demo/suite",
    "kntrace plan words.yaml demo/suite --workers 2 --shards 8 --machine card=20",
    "kntrace plan words.yaml EleutherAI/pythia-12b --steps log:20 --untried",
)
def plan(
    context: typer.Context,
    study: StudyName,
    suite: SuiteName,
    folder: Annotated[
        Path | None,
        how(
            "--out",
            metavar="FOLDER",
            help="A run that was begun, or its URL: only what lacks is counted.",
            parser=str,
            callback=placed,
        ),
    ] = None,
    steps: Steps = None,
    stage: Stage = None,
    pattern: Pattern = None,
    groups: Groups = None,
    preset: PresetName = None,
    rule: Rule = "adaptive",
    nodes: Nodes = 8,
    tolerance: Tolerance = 1e-3,
    site: Site = "post_activation",
    objective: Objective = "probability",
    baseline: Baseline = "zero",
    answer_tokens: AnswerTokens = "error",
    dtype: NumberFormat = "float32",
    device: Device = "cpu",
    threads: Threads = None,
    memory: MemoryBudget = None,
    workers: Processes = 1,
    shards: Annotated[
        int, how(metavar="N", min=1, help="Machines like this one that compute at a time.")
    ] = 1,
    machine: Annotated[
        list[str] | None,
        how(
            metavar="NAME=TFLOPS",
            help="Another machine, and how fast its large float32 matrix products are.",
        ),
    ] = None,
    untried: Annotated[
        bool,
        how(
            "--untried",
            help="Try no block and read no weights: reckon from the configuration and from the "
            "speed of matrix products here.",
        ),
    ] = False,
    evict: Evict = False,
    allow_bin: AllowBin = False,
    pin: Pin = False,
    activations: Activations = True,
    keepbits: KeepBits = None,
    keep: Keep = "prompts",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say how many blocks, hours and gigabytes a run would take, from one real block."""
    from kntrace.sweep.estimate import plan as estimate

    machines = dict(_machine(text) for text in machine or [])
    asked = asked_for(context)
    with bars(quiet) as progress:
        found = estimate(
            asked.study,
            asked.suite,
            folder,
            settings=asked.settings,
            baseline=asked.baseline,
            device=device,
            threads=threads,
            memory=None if memory is None else int(memory * 2**30),
            workers=workers,
            shards=shards,
            machines=machines,
            tried=not untried,
            evict=evict,
            allow_bin=allow_bin,
            pin=pin,
            progress=progress,
            tell=tell,
        )
    if as_json:
        print_json(found.to_dict())
        return
    say(found)


def _machine(text: str) -> tuple[str, float]:
    name, _, speed = text.rpartition("=")
    try:
        number = float(speed)
    except ValueError:
        number = 0.0
    if not name.strip() or not 0 < number < 1e6 or not name.isprintable():
        raise SettingsError(
            f"--machine {text!r}",
            expected="a name, and the speed of its large float32 matrix products in TFLOP/s, such "
            "as card=20",
        )
    return name, number
