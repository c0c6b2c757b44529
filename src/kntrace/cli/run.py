"""`kntrace run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import kntrace
from kntrace.cli import values
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
    Verify,
    given,
    how,
    output,
    what,
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
    folder: Annotated[
        Path, output("--out", metavar="FOLDER", help="The run folder; resumed if it exists.")
    ],
    steps: Steps = None,
    stage: Stage = None,
    pattern: Pattern = None,
    groups: Groups = None,
    preset: PresetName = None,
    rule: Annotated[
        str,
        what(
            metavar="NAME",
            help="Integration rule: adaptive, gauss_legendre, midpoint, trapezoid and others.",
            autocompletion=values.of(values.RULES),
        ),
    ] = "adaptive",
    nodes: Annotated[int, what(metavar="N", min=1, help="Points of a fixed rule.")] = 8,
    tolerance: Annotated[
        float, what(metavar="X", help="Relative error at which the rule `adaptive` stops.")
    ] = 1e-3,
    site: Annotated[
        str,
        what(
            metavar="NAME",
            help="Which tensor is the neuron: post_activation, pre_activation; in gated layers "
            "also gate_activation, up_projection.",
            autocompletion=values.of(values.SITES),
        ),
    ] = "post_activation",
    objective: Annotated[
        str,
        what(
            metavar="NAME",
            help="What is attributed: probability, log_probability or logit_difference.",
            autocompletion=values.of(values.OBJECTIVES),
        ),
    ] = "probability",
    baseline: Annotated[
        str,
        what(
            metavar="NAME|FILE",
            help="Where paths start: zero, mean, or FILE.npy (layer, neuron).",
            autocompletion=values.of(values.BASELINES),
        ),
    ] = "zero",
    answer_tokens: AnswerTokens = "error",
    dtype: Annotated[
        str,
        what(
            metavar="NAME",
            help="Number format: float32, float64; on a GPU also tf32, bfloat16, float16.",
            autocompletion=values.of(values.DTYPES),
        ),
    ] = "float32",
    device: Device = "cpu",
    threads: Threads = None,
    memory: MemoryBudget = None,
    workers: Annotated[
        int,
        how(
            metavar="N",
            min=1,
            help="Processes to score in, on this machine; with --device cuda they are dealt the "
            "GPUs. No number depends on it.",
        ),
    ] = 1,
    shard: Annotated[
        str | None,
        how(
            metavar="I/N",
            help="Only the I-th of N equal parts of the checkpoints; all may run at once on "
            "machines that share the folder.",
        ),
    ] = None,
    verify: Verify = True,
    sync: Annotated[
        bool, how("--sync", help="Force each block to the disk, against loss of power.")
    ] = False,
    evict: Annotated[
        bool,
        how(
            "--evict",
            help="Delete each checkpoint from the hub's cache after use, if this run fetched it.",
        ),
    ] = False,
    allow_bin: AllowBin = False,
    pin: Annotated[
        bool,
        how(
            "--pin",
            help="Where a branch has moved since the run began, go on with the commit it meant.",
        ),
    ] = False,
    activations: Annotated[
        bool,
        output(
            "--activations/--no-activations",
            help="Keep what neurons are, too: some views need it; doubles the archive.",
        ),
    ] = True,
    keepbits: Annotated[
        int | None,
        output(
            "--keepbits",
            metavar="N",
            help="Store scores and activations with N of 23 bits after the first: smaller.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score every neuron of every checkpoint for every word. Run again to resume."""
    from kntrace.archive import audit_run, convergence
    from kntrace.cli.foreword import Foreword, announce

    named = baseline in ("zero", "mean")
    options = {
        "rule": rule,
        "nodes": nodes,
        "tolerance": tolerance,
        "site": site,
        "objective": objective,
        "answer_tokens": answer_tokens,
        "baseline": baseline if named else "zero",
        "dtype": dtype,
        "activations": activations,
        "keepbits": keepbits,
    }
    if preset is None:
        settings = kntrace.Settings.of(**options)
        loaded = kntrace.load_study(study, groups=groups)
    else:
        chosen = kntrace.find_preset(preset)
        settings = chosen.settings(**given(context, options))
        loaded = chosen.study(kntrace.load_study(study, groups=groups))
        tell(f"Preset {chosen.name}: {chosen.told}")
    series = kntrace.load_suite(suite, steps=steps, stage=stage, pattern=pattern)
    tell(announce(loaded, series, folder))
    with bars(quiet) as progress:
        finished = kntrace.run(
            loaded,
            series,
            folder,
            settings=settings,
            baseline=None if named else baseline,
            device=device,
            threads=threads,
            memory=None if memory is None else int(memory * 2**30),
            workers=workers,
            shard=shard,
            progress=Foreword(progress, folder, len(loaded.words), tell, processes=workers),
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
