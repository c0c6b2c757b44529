"""`kntrace run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import kntrace
from kntrace.cli.options import (
    AllowBin,
    AsJson,
    MemoryBudget,
    Pattern,
    PresetName,
    Quiet,
    Stage,
    Steps,
    StudyName,
    SuiteName,
    Threads,
    given,
)
from kntrace.cli.printing import bars, print_json, say, tell

__all__ = ["run_sweep"]


def run_sweep(
    context: typer.Context,
    study: StudyName,
    suite: SuiteName,
    folder: Annotated[Path, typer.Option("--out", help="The run folder; resumed if it exists.")],
    steps: Steps = None,
    stage: Stage = None,
    pattern: Pattern = None,
    groups: Annotated[
        Path | None, typer.Option(help="Groups file, for a plain {word: [questions]} study.")
    ] = None,
    preset: PresetName = None,
    rule: Annotated[str, typer.Option(help="Integration rule.")] = "adaptive",
    nodes: Annotated[int, typer.Option(min=1, help="Points of a fixed rule.")] = 8,
    tolerance: Annotated[
        float, typer.Option(help="Relative error at which the rule `adaptive` stops.")
    ] = 1e-3,
    site: Annotated[str, typer.Option(help="Which tensor is the neuron.")] = "post_activation",
    objective: Annotated[
        str,
        typer.Option(help="What is attributed: probability, log_probability or logit_difference."),
    ] = "probability",
    baseline: Annotated[
        str, typer.Option(help="Where paths start: zero, mean, or FILE.npy (layer, neuron).")
    ] = "zero",
    answer_tokens: Annotated[
        str, typer.Option(help="Answers of several tokens: error, first, mean, greedy, joint.")
    ] = "error",
    dtype: Annotated[
        str,
        typer.Option(
            help="Number format: float32, float64; on a GPU also tf32, bfloat16, float16."
        ),
    ] = "float32",
    activations: Annotated[
        bool,
        typer.Option(help="Keep what neurons are, too: some views need it; doubles the archive."),
    ] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")] = "cpu",
    threads: Threads = None,
    memory: MemoryBudget = None,
    evict: Annotated[
        bool,
        typer.Option(
            "--evict",
            help="Delete each checkpoint from the hub's cache after use, if this run fetched it.",
        ),
    ] = False,
    allow_bin: AllowBin = False,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin",
            help="Where a branch has moved since the run began, go on with the commit it meant.",
        ),
    ] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Force each block to the disk, against loss of power.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score every neuron of every checkpoint for every word. Run again to resume."""
    from kntrace.archive import audit_run, convergence

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
    tell(f"{len(loaded.words)} words x {len(series)} checkpoints into {folder}")
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
            progress=progress,
            evict=evict,
            allow_bin=allow_bin,
            pin=pin,
            tell=tell,
            sync=sync,
        )
        paths = convergence(finished, progress=progress)
    if as_json:
        missing = len(finished.missing())
        print_json({"run": finished.path, "missing": missing, "unconverged": paths.missed})
        return
    for finding in audit_run(finished):
        if finding.severity != "note":
            say(f"Careful: {finding.says}")
    if paths.missed:
        say(f"Careful: {paths.warning}")
    say(f"Done: {finished.path}. Next: kntrace analyse {finished.path}")
