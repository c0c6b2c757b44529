"""What a run would take, reckoned from a model's shape where no block of it can be tried."""

from __future__ import annotations

from dataclasses import dataclass

from kntrace.attribution.memory import usual_budget
from kntrace.models.shape import Shape, read_shape
from kntrace.models.tokens import encode
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Checkpoint

__all__ = ["SHARE", "Reckoning", "kept_of_words", "operations", "reckon"]

# What `adaptive` took of SmolLM2-135M at a tolerance of 1e-3 (docs/validation.md).
_ADAPTIVE = (103.0, 6.3)
SHARE = 0.6
"""Of the speed of large matrix products, what replays of several prompts reach on a CPU
(docs/benchmarks.md)."""
_BESIDE = 0.3
"""Of the weights, what may be needed beside them and the budget."""


@dataclass(frozen=True)
class Reckoning:
    """What follows from the last checkpoint's configuration and from the study.

    Attributes
    ----------
    checkpoint
        Whose configuration.
    device, threads
        On what the speed was measured.
    layers, width, parameters
        The shape of the model.
    nodes
        Points that the rule is taken to need in the first layer, and in each other.
    operations
        Multiplications and additions of all prompts of each word, in the study's order.
    archive
        Bytes of each word's block, before they are compressed.
    weights
        Bytes of a checkpoint's weights as they are computed with.
    memory
        Most bytes that a process needs: the weights and .3 of them, and the budget.
    speed
        Float32 operations a second of a large matrix product on this device.
    share
        Which part of that speed is taken to be reached.
    """

    checkpoint: str
    device: str
    threads: int
    layers: int
    width: int
    parameters: int
    nodes: tuple[float, float]
    operations: tuple[float, ...]
    archive: tuple[int, ...]
    weights: int
    memory: int
    speed: float
    share: float = SHARE

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each word at one checkpoint; loading the checkpoint is not in it."""
        return tuple(one / (self.speed * self.share) for one in self.operations)


def reckon(
    study: Study,
    checkpoint: Checkpoint,
    settings: Settings,
    *,
    device: str,
    memory: int | None,
    threads: int,
    speed: float,
) -> Reckoning:
    """Reckon what the blocks of one checkpoint take.

    Raises
    ------
    KntraceError
        If configuration or tokenizer cannot be read, or a prompt cannot be encoded.
    """
    import torch

    shape = read_shape(checkpoint)
    fixed = float(settings.nodes)
    nodes = _ADAPTIVE if settings.rule == "adaptive" else (fixed, fixed)
    # Formats coarser than float32 are loaded as float32 and rounded then.
    weights = shape.parameters * (8 if settings.dtype == "float64" else 4)
    each = shape.layers * shape.width * 4 * (2 if settings.activations else 1)
    budget = usual_budget(torch.device(device)) if memory is None else memory
    return Reckoning(
        checkpoint.label,
        device,
        threads,
        shape.layers,
        shape.width,
        shape.parameters,
        nodes,
        tuple(_of_word(study, word, shape, settings, nodes) for word in study.words),
        tuple(count * each for count in kept_of_words(study, settings)),
        weights,
        round(weights * (1 + _BESIDE)) + budget,
        speed,
    )


def operations(shape: Shape, nodes: tuple[float, float], *, tokens: int, answers: int = 1) -> float:
    """Count the multiplications and additions that scoring all layers for one prompt takes.

    Parameters
    ----------
    nodes
        Of the first layer, and of each other.
    tokens
        Of the prompt.
    answers
        Tokens of the answer that are scored.

    Notes
    -----
    The prompt goes through the model once. Then each node of layer l, one token, goes through
    l, the layers above and the head, and its gradient back to the neurons of l; in a masked
    model all tokens of the prompt go with it.
    """
    first, other = nodes
    rows = first + other * (shape.layers - 1)
    above = first * (shape.layers - 1) + other * (shape.layers - 1) * (shape.layers - 2) / 2
    there = (above + rows) * shape.layer_operations + rows * shape.head_operations
    back = above * shape.layer_operations + rows * (shape.down_operations + shape.head_operations)
    beside = tokens if shape.masked else 1
    once = tokens * shape.layers * shape.layer_operations + shape.head_operations
    return answers * ((there + back) * beside + once)


def _of_word(
    study: Study, word: Word, shape: Shape, settings: Settings, nodes: tuple[float, float]
) -> float:
    spent = 0.0
    for prompt in study.rendered(word):
        if prompt is None:
            continue
        one = encode(shape.tokenizer, prompt, word.answer, study.answer_form, masked=shape.masked)
        several = settings.answer_tokens in ("mean", "greedy", "joint")
        answers = len(one.answer) if several else 1
        spent += operations(shape, nodes, tokens=len(one.ids), answers=answers)
    return spent


def kept_of_words(study: Study, settings: Settings) -> tuple[int, ...]:
    """How many arrays of scores a run keeps of each word at a checkpoint."""
    wordings = [wording for wording, _ in study.slots]
    counts = []
    for word in study.words:
        asked = zip(wordings, study.rendered(word), strict=True)
        kept = [wording for wording, prompt in asked if prompt is not None]
        counts.append(len(set(kept) if settings.keep == "means" else kept))
    return tuple(counts)
