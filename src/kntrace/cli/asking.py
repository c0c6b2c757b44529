"""What a sweep is asked for: the options that `run` and `plan` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

import kntrace
from kntrace.cli import values
from kntrace.cli.options import given, how, output, what
from kntrace.cli.printing import tell
from kntrace.errors import SettingsError
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite

__all__ = [
    "Activations",
    "Asked",
    "Baseline",
    "Evict",
    "Keep",
    "KeepBits",
    "Nodes",
    "NumberFormat",
    "Objective",
    "Pin",
    "Processes",
    "Rule",
    "Site",
    "Tolerance",
    "asked_for",
]

Rule = Annotated[
    str,
    what(
        metavar="NAME",
        help="Integration rule: adaptive, gauss_legendre, midpoint, trapezoid and others.",
        autocompletion=values.of(values.RULES),
    ),
]
Nodes = Annotated[int, what(metavar="N", min=1, help="Points of a fixed rule.")]
Tolerance = Annotated[
    float, what(metavar="X", help="Relative error at which the rule `adaptive` stops.")
]
Site = Annotated[
    str,
    what(
        metavar="NAME",
        help="Which tensor is the neuron: post_activation, pre_activation; in gated layers "
        "also gate_activation, up_projection.",
        autocompletion=values.of(values.SITES),
    ),
]
Objective = Annotated[
    str,
    what(
        metavar="NAME",
        help="What is attributed: probability, log_probability or logit_difference.",
        autocompletion=values.of(values.OBJECTIVES),
    ),
]
Baseline = Annotated[
    str,
    what(
        metavar="NAME|FILE",
        help="Where paths start: zero, mean, or FILE.npy (layer, neuron).",
        autocompletion=values.of(values.BASELINES),
    ),
]
NumberFormat = Annotated[
    str,
    what(
        metavar="NAME",
        help="Number format: float32, float64; on a GPU also tf32, bfloat16, float16.",
        autocompletion=values.of(values.DTYPES),
    ),
]
Processes = Annotated[
    int,
    how(
        metavar="N",
        min=1,
        help="Processes to score in, on this machine; with --device cuda they are dealt the "
        "GPUs. No number depends on it.",
    ),
]
Evict = Annotated[
    bool,
    how(
        "--evict",
        help="Delete each checkpoint from the hub's cache after use, if this run fetched it.",
    ),
]
Pin = Annotated[
    bool,
    how(
        "--pin",
        help="Where a branch has moved since the run began, go on with the commit it meant.",
    ),
]
Activations = Annotated[
    bool,
    output(
        "--activations/--no-activations",
        help="Keep what neurons are, too: some views need it; doubles the archive.",
    ),
]
KeepBits = Annotated[
    int | None,
    output(
        "--keepbits",
        metavar="N",
        help="Store scores and activations with N of 23 bits after the first: smaller.",
    ),
]

Keep = Annotated[
    str,
    output(
        "--keep",
        metavar="WHAT",
        help="Scores and activations of every prompt (prompts), or only means over a word's "
        "prompts (means): smaller by the prompts a word has.",
        autocompletion=values.of(values.KEEPS),
    ),
]

_SETTINGS = (
    *("rule", "nodes", "tolerance", "site", "objective", "answer_tokens", "baseline", "dtype"),
    *("activations", "keepbits", "keep"),
)


@dataclass(frozen=True)
class Asked:
    """What is to be scored, and how; `baseline` is the file of one."""

    study: Study
    suite: Suite
    settings: Settings
    baseline: str | None


def asked_for(context: typer.Context) -> Asked:
    """Read study and suite, and make settings of the options on the command line."""
    options = {name: context.params[name] for name in _SETTINGS}
    if options["keep"] == "chosen":
        raise SettingsError(
            "--keep chosen: a sweep cannot know which neurons later checkpoints choose",
            expected=" or ".join(values.KEEPS),
            fix="Keep means, and make a smaller run of it with `kntrace compact` when it is done.",
        )
    baseline = options["baseline"]
    named = baseline in ("zero", "mean")
    options["baseline"] = baseline if named else "zero"
    study, preset = context.params["study"], context.params["preset"]
    groups = context.params["groups"]
    if preset is None:
        settings = kntrace.Settings.of(**options)
        loaded = kntrace.load_study(study, groups=groups)
    else:
        chosen = kntrace.find_preset(preset)
        settings = chosen.settings(**given(context, options))
        loaded = chosen.study(kntrace.load_study(study, groups=groups))
        tell(f"Preset {chosen.name}: {chosen.told}")
    which = {name: context.params[name] for name in ("steps", "stage", "pattern")}
    suite = kntrace.load_suite(context.params["suite"], **which)
    return Asked(loaded, suite, settings, None if named else baseline)
