"""`kntrace run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import kntrace
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
    OutFolder,
    Pattern,
    PresetName,
    Quiet,
    Stage,
    Steps,
    StudyName,
    SuiteName,
    Threads,
    Verify,
    how,
)
from kntrace.cli.printing import bars, print_json, say, tell

if TYPE_CHECKING:
    from kntrace.archive import Run

__all__ = ["run_sweep"]


@examples(
    "kntrace run words.yaml demo/suite --out runs/words",
    "kntrace run similar-words EleutherAI/pythia-70m --steps paper --out r",
    "kntrace run words.yaml checkpoints/ --device cuda --dtype bfloat16 --out r",
)
def run_sweep(
    context: typer.Context,
    study: StudyName,
    suite: SuiteName,
    folder: OutFolder,
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
    shard: Annotated[
        str | None,
        how(
            metavar="I/N",
            help="Only the I-th of N equal parts of the checkpoints; all may run at once on "
            "machines that share the folder.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        how(metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786, to compute with."),
    ] = None,
    slurm: Annotated[
        Path | None,
        how(metavar="FILE", help="Ask Slurm for jobs that compute, by the options in this file."),
    ] = None,
    verify: Verify = True,
    sync: Annotated[
        bool, how("--sync", help="Force each block to the disk, against loss of power.")
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
    """Score every neuron of every checkpoint for every word. Run again to resume."""
    from kntrace.archive import audit_run, convergence
    from kntrace.cli.foreword import Foreword, announce

    asked = asked_for(context)
    tell(announce(asked.study, asked.suite, folder))
    elsewhere = scheduler is not None or slurm is not None
    with bars(quiet) as progress:
        foreword = Foreword(progress, folder, len(asked.study.words), tell, processes=workers)
        finished = kntrace.run(
            asked.study,
            asked.suite,
            folder,
            settings=asked.settings,
            baseline=asked.baseline,
            device=device,
            threads=threads,
            memory=None if memory is None else int(memory * 2**30),
            workers=workers,
            shard=shard,
            scheduler=scheduler,
            slurm=slurm,
            progress=progress if elsewhere else foreword,
            verify=verify,
            evict=evict,
            allow_bin=allow_bin,
            pin=pin,
            tell=tell,
            sync=sync,
        )
        lacking = len(finished.missing())
        if shard is not None:
            _tell_of_shard(finished, shard, lacking, as_json=as_json)
            return
        paths = convergence(finished, progress=progress)
    careful = [finding.says for finding in audit_run(finished) if finding.severity != "note"]
    careful += [paths.warning] if paths.missed else []
    if as_json:
        print_json(
            {
                "run": finished.path,
                "missing": lacking,
                "unconverged": paths.missed,
                "careful": careful,
            }
        )
        return
    for warning in careful:
        say(f"Careful: {warning}")
    say(f"Done: {finished.path}. Next: kntrace analyse {finished.path}")


def _tell_of_shard(finished: Run, shard: str, lacking: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"run": finished.path, "shard": shard, "missing": lacking})
        return
    rest = f"{lacking} blocks of the run are missing" if lacking else "The run has all its blocks"
    say(f"Shard {shard} is done. {rest}: kntrace status {finished.path}")
