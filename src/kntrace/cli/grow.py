"""`kntrace grow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, Quiet, Threads, how, what
from kntrace.cli.printing import bars, print_json, say, tell
from kntrace.errors import SettingsError

__all__ = ["grow"]

_SHAPE = {"architecture": "gpt_neox", "layers": 4, "hidden": 128}


@examples(
    "kntrace grow suite",
    "kntrace grow flat --world flat --seed 1 --checkpoints log:8",
    "kntrace grow books --corpus texts/ --layers 6 --hidden 256",
)
def grow(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    corpus: Annotated[
        list[Path] | None,
        what(metavar="FILE", help="Grow on this text file, or folder of them; may be given again."),
    ] = None,
    world: Annotated[
        str | None,
        what(
            metavar="NAME",
            help="Grow on a world of facts: structured (unless given), flat, confounded and "
            "others.",
            autocompletion=values.of(values.WORLDS),
        ),
    ] = None,
    seed: Annotated[
        int | None, what(metavar="N", min=0, help="Of order and initial weights.")
    ] = None,
    layers: Annotated[int | None, what(metavar="N", min=1, help="4 unless given.")] = None,
    hidden: Annotated[
        int | None,
        what(metavar="N", min=2, help="Width of the residual stream; 128 unless given."),
    ] = None,
    heads: Annotated[int | None, what(metavar="N", min=1, help="4 unless given.")] = None,
    steps: Annotated[
        int | None,
        what(metavar="N", min=1, help="Optimizer steps; 600 for a world, 1500 for a text."),
    ] = None,
    batch: Annotated[
        int | None,
        what(
            metavar="N",
            min=1,
            help="In a step: 64 sentences of a world, 16 windows of a text.",
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        what(
            metavar="WHICH",
            help="States to keep: log:N, linear:N, every:K, steps such as 0,1,2,8, or how many. "
            "20 for a world, log:20 for a text.",
            autocompletion=values.of(values.STEPS[2:]),
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, what(metavar="X", help="At its highest; 0.001 unless given.")
    ] = None,
    world_seed: Annotated[
        int | None,
        what(
            metavar="N",
            min=0,
            help="World: seed of its dealing; as --seed unless given.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, what(metavar="NAME", help="Text: folder or hub id of one to use.")
    ] = None,
    vocabulary: Annotated[
        int | None,
        what("--vocab", metavar="N", help="Text: tokens of the one to train; 4096 unless given."),
    ] = None,
    architecture: Annotated[
        str | None,
        what(
            metavar="NAME",
            help="gpt_neox (unless given) or llama.",
            autocompletion=values.of(values.ARCHITECTURES),
        ),
    ] = None,
    context: Annotated[
        int | None,
        what(metavar="N", min=1, help="Text: tokens in a window; 128 unless given."),
    ] = None,
    held_out: Annotated[
        float | None,
        what(metavar="SHARE", help="Text: share not learnt from; 0.02 unless given."),
    ] = None,
    threads: Threads = None,
    save_every: Annotated[
        float | None,
        how(
            metavar="SECONDS",
            min=0,
            help="Text: seconds between two states to go on from; 60 unless given.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Pretrain a small model and keep its checkpoints, one Hugging Face folder each.

    On a text, the same command goes on after a kill.
    """
    common = {
        "seed": seed,
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "architecture": architecture,
        "threads": threads,
    }
    of_world = {"world": world, "world_seed": world_seed}
    of_text = {
        "tokenizer": tokenizer,
        "vocabulary": vocabulary,
        "context": context,
        "held_out": held_out,
        "save_every": save_every,
    }
    if corpus:
        _refuse(of_world, "without --corpus")
        _announce(common, ", ".join(map(str, corpus)), steps=1500)
        grown = _grow_text(folder, corpus, quiet, {**common, **of_text, "checkpoints": checkpoints})
    else:
        _refuse(of_text, "with --corpus")
        _announce(common, f"the world {world or 'structured'!r}", steps=600)
        grown = _grow_world(folder, quiet, {**common, **of_world}, checkpoints)
    if as_json:
        print_json({"suite": folder, "checkpoints": grown})
        return
    beside = "loss.csv" if corpus else "study.yaml"
    say(f"{len(grown)} checkpoints, {beside} and suite.yaml in {folder}")


def _announce(values: dict[str, Any], subject: str, steps: int) -> None:
    """Say what will be pretrained."""
    of = {**_SHAPE, "steps": steps, **_given(values)}
    tell(
        f"Pretraining {of['architecture']} of {of['layers']} layers, {of['hidden']} wide, for "
        f"{of['steps']} steps on {subject}"
    )


def _grow_world(
    folder: Path, quiet: bool, values: dict[str, Any], checkpoints: str | None
) -> list[str]:
    from kntrace.grow import grow as run_grow
    from kntrace.grow.recipe import marks_of

    chosen = _given(values)
    if checkpoints is not None and checkpoints.strip().isdecimal():
        chosen["checkpoints"] = int(checkpoints)
    elif checkpoints is not None:
        chosen["checkpoints"] = marks_of(checkpoints, chosen.get("steps", 600))
    with bars(quiet) as progress:
        suite = run_grow(folder, **chosen, progress=progress)
    return [item.label for item in suite]


def _grow_text(folder: Path, corpus: list[Path], quiet: bool, values: dict[str, Any]) -> list[str]:
    from kntrace.grow import grow_text

    with bars(quiet) as progress:
        suite = grow_text(folder, corpus, **_given(values), progress=progress)
    return [item.label for item in suite]


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """What was given; the functions have the defaults of the rest."""
    return {name: value for name, value in values.items() if value is not None}


def _refuse(values: dict[str, Any], when: str) -> None:
    for name in _given(values):
        option = "--vocab" if name == "vocabulary" else f"--{name.replace('_', '-')}"
        raise SettingsError(f"{option} has a meaning only {when}", fix="Leave one of them out.")
