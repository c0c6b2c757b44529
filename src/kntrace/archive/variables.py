"""What a run holds: one table of its variables, one of its coordinates, and the block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kntrace.settings import Settings

__all__ = [
    "BLOCK_VARIABLES",
    "COORDINATES",
    "EVERY_COORDINATE",
    "EVERY_VARIABLE",
    "KEPT",
    "KEPT_DISTANCES",
    "MEANS",
    "OF_WORDS",
    "VARIABLES",
    "Block",
    "Variable",
    "kept",
    "kept_coordinates",
    "of_words",
]


@dataclass(frozen=True)
class Variable:
    """One labelled array of the archive.

    Attributes
    ----------
    dims
        Names of its dimensions, outermost first.
    dtype
        Number format in which it is stored.
    fill
        What a part that was never written reads as; None where every part is written at once.
    unit
        Unit of its values, "" for none.
    description
        One sentence for whoever opens the archive without kntrace.
    """

    dims: tuple[str, ...]
    dtype: str
    fill: float | int | None
    unit: str
    description: str


VARIABLES: dict[str, Variable] = {
    "score": Variable(
        ("checkpoint", "word", "prompt", "layer", "neuron"),
        "float32",
        float("nan"),
        "probability",
        "Integrated gradient of the answer's probability with respect to one neuron",
    ),
    "activation": Variable(
        ("checkpoint", "word", "prompt", "layer", "neuron"),
        "float32",
        float("nan"),
        "",
        "What the neuron is at the scored position of the prompt; not in runs that keep none",
    ),
    "gap": Variable(
        ("checkpoint", "word", "prompt", "layer"),
        "float32",
        float("nan"),
        "probability",
        "Completeness gap: sum of a layer's scores minus (probability of the answer at the "
        "layer's activation minus that at its baseline)",
    ),
    "nodes": Variable(
        ("checkpoint", "word", "prompt", "layer"),
        "int32",
        0,
        "",
        "Gradients taken along the layer's path; 0 = no such prompt",
    ),
    "converged": Variable(
        ("checkpoint", "word", "prompt", "layer"),
        "int8",
        -1,
        "",
        "Whether the layer's integral is within the tolerance: 1 = yes, 0 = no, "
        "-1 = no such prompt",
    ),
    "probability": Variable(
        ("checkpoint", "word", "prompt"),
        "float32",
        float("nan"),
        "probability",
        "Probability of the answer after the prompt",
    ),
    "rank": Variable(
        ("checkpoint", "word", "prompt"),
        "int32",
        -1,
        "",
        "Tokens more probable than the answer's; 0 = the answer comes first, -1 = no such prompt",
    ),
    "fingerprint": Variable(
        ("checkpoint", "byte"),
        "uint8",
        0,
        "",
        "SHA-256 of the checkpoint's weights",
    ),
    "baseline": Variable(
        ("checkpoint", "layer", "neuron"),
        "float32",
        0.0,
        "",
        "Where the paths of the integrals start; 0 throughout where none was written",
    ),
}

# In the order in which a block's chunks are written: a block whose score is there is complete.
BLOCK_VARIABLES: tuple[str, ...] = (
    "gap",
    "nodes",
    "converged",
    "probability",
    "rank",
    "activation",
    "score",
)

MEANS: dict[str, str] = {"score": "mean_score", "activation": "mean_activation"}
"""What stands for a variable in runs that keep only means over prompts."""

KEPT: dict[str, tuple[str, ...]] = {
    "score": ("kept_score",),
    "activation": ("kept_activation",),
}
"""What stands for a variable in runs that keep only some neurons."""

KEPT_DISTANCES: tuple[str, ...] = ("identity", "cosine")
"""What such runs have kept of all neurons together: it cannot be computed again from some."""

OF_WORDS: tuple[str, ...] = ("kept_neuron", "layer_size", *KEPT_DISTANCES)
"""Variables of such runs that have one chunk a word, for all checkpoints."""

EVERY_VARIABLE: dict[str, Variable] = VARIABLES | {
    "mean_score": Variable(
        ("checkpoint", "word", "mean_over", "layer", "neuron"),
        "float32",
        float("nan"),
        "probability",
        "Mean of the score over the word's prompts in one wording; only in runs that keep no more",
    ),
    "mean_activation": Variable(
        ("checkpoint", "word", "mean_over", "layer", "neuron"),
        "float32",
        float("nan"),
        "",
        "Mean of the activation over the word's prompts in one wording; only in runs that keep "
        "no more",
    ),
    "kept_score": Variable(
        ("checkpoint", "word", "mean_over", "kept"),
        "float32",
        float("nan"),
        "probability",
        "`mean_score` of the word's kept neurons; only in runs that keep some neurons",
    ),
    "kept_activation": Variable(
        ("checkpoint", "word", "mean_over", "kept"),
        "float32",
        float("nan"),
        "",
        "`mean_activation` of the word's kept neurons; only in runs that keep some neurons",
    ),
    "layer_size": Variable(
        ("word", "checkpoint", "mean_over", "layer"),
        "float64",
        float("nan"),
        "probability",
        "Sum of the sizes of `mean_score` over all neurons of a layer; only in runs that keep "
        "some neurons",
    ),
    "kept_neuron": Variable(
        ("word", "kept"),
        "int32",
        -1,
        "",
        "Which neurons of a word are kept, counted through all layers (layer * width + neuron), "
        "in ascending order; -1 = no further one",
    ),
    "identity": Variable(
        ("word", "mean_over", "other_word"),
        "float64",
        float("nan"),
        "",
        "The distance `identity` of two words, over all neurons and checkpoints",
    ),
    "cosine": Variable(
        ("word", "mean_over", "other_word"),
        "float64",
        float("nan"),
        "",
        "The distance `cosine` of two words, over all neurons and checkpoints",
    ),
}
"""`VARIABLES`, and those that only runs of means, or of some neurons, have."""

COORDINATES: dict[str, Variable] = {
    "checkpoint": Variable(("checkpoint",), "string", None, "", "Label of the checkpoint"),
    "step": Variable(
        ("checkpoint",), "int64", None, "optimizer steps", "Training step, -1 = not known"
    ),
    "word": Variable(("word",), "string", None, "", "The word"),
    "group": Variable(("word",), "string", None, "", "Group the word belongs to"),
    "prompt": Variable(("prompt",), "int64", None, "", "Column of the prompt, from 0"),
    "wording": Variable(("prompt",), "string", None, "", "Wording the prompt belongs to"),
    "layer": Variable(("layer",), "int64", None, "", "Layer, counted from 0"),
    "neuron": Variable(("neuron",), "int64", None, "", "Neuron in its layer, counted from 0"),
}


EVERY_COORDINATE: dict[str, Variable] = COORDINATES | {
    "mean_over": Variable(
        ("mean_over",), "string", None, "", "Wording whose prompts a mean is taken over"
    ),
}
"""`COORDINATES`, and those that only runs of means have."""


def kept(names: Iterable[str], settings: Settings) -> tuple[str, ...]:
    """What a run with these settings has of the variables, by the names it has them under."""
    there = [name for name in names if name != "activation" or settings.activations]
    if settings.top is not None:
        return tuple(one for name in there for one in KEPT.get(name, (name,)))
    return tuple(MEANS.get(name, name) if settings.keep == "means" else name for name in there)


def of_words(settings: Settings) -> tuple[str, ...]:
    """What a run with these settings has beside: a variable for all checkpoints together."""
    return OF_WORDS if settings.top is not None else ()


def kept_coordinates(settings: Settings) -> tuple[str, ...]:
    """Names of the coordinates that a run with these settings has."""
    return tuple(EVERY_COORDINATE if settings.keep == "means" else COORDINATES)


@dataclass(frozen=True)
class Block:
    """All scores of one word at one checkpoint: what is computed, and committed, as a whole.

    Attributes
    ----------
    score
        (prompt, layer, neuron) float32, in units of probability; NaN where the word has no
        such prompt.
    gap
        (prompt, layer) float32, the completeness gap; NaN likewise.
    probability
        (prompt,) float32, probability of the answer; NaN likewise.
    rank
        (prompt,) int32, 0 where the answer is the most probable token; -1 where the word has
        no such prompt.
    nodes
        (prompt, layer) int32, gradients taken along each path; 0 likewise.
    converged
        (prompt, layer) int8, 1 where the integral is within the tolerance and 0 where it is
        not; -1 likewise.
    activation
        (prompt, layer, neuron) float32, what each neuron is at the scored position; NaN
        likewise. A run that keeps no activations passes it over.

    Notes
    -----
    A run that keeps only means over prompts takes them as it writes the block.
    """

    score: npt.NDArray[np.float32]
    gap: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    rank: npt.NDArray[np.int32]
    nodes: npt.NDArray[np.int32]
    converged: npt.NDArray[np.int8]
    activation: npt.NDArray[np.float32] | None = None
