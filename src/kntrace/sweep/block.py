"""One block, one word at one checkpoint: computed from plain data and an engine alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kntrace.archive import Block

if TYPE_CHECKING:
    from kntrace.attribution import Engine

__all__ = ["compute_block"]


def compute_block(
    engine: Engine,
    prompts: Sequence[str | None],
    answer: str,
    answer_form: str,
    alternatives: Sequence[str] = (),
) -> Block:
    """Score the neurons for all prompts of one word.

    They are replayed together, always in this grouping, so that a block has the same bytes
    whichever session or process computes it.

    Parameters
    ----------
    engine
        An entered engine.
    prompts
        One text per column of the archive; None where the word has no such prompt.
    answer, answer_form
        The word's answer, and how it follows a prompt.
    alternatives
        Other answers, for the objective `logit_difference`.
    """
    places = [place for place, prompt in enumerate(prompts) if prompt is not None]
    encoded = [
        engine.encode(prompt, answer, answer_form, alternatives)
        for prompt in prompts
        if prompt is not None
    ]
    count, layers, width = len(prompts), engine.layers, engine.width
    score = np.full((count, layers, width), np.nan, dtype=np.float32)
    gap = np.full((count, layers), np.nan, dtype=np.float32)
    probability = np.full(count, np.nan, dtype=np.float32)
    rank = np.full(count, -1, dtype=np.int32)
    nodes = np.zeros((count, layers), dtype=np.int32)
    converged = np.full((count, layers), -1, dtype=np.int8)
    activation = np.full(score.shape, np.nan, dtype=np.float32)
    for place, found in zip(places, engine.attribute_many(encoded), strict=True):
        score[place], gap[place] = found.score, found.gap
        probability[place], rank[place] = found.probability, found.rank
        nodes[place], converged[place] = found.nodes, found.converged
        activation[place] = found.activation
    return Block(score, gap, probability, rank, nodes, converged, activation)
