"""Choosing a replay: try the fast ones on the model in hand and believe none unseen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

import torch

from kntrace.attribution.frozen_cache import FrozenCache
from kntrace.attribution.full_forward import FullForward
from kntrace.attribution.objectives import find_objective
from kntrace.attribution.patching import recomputed
from kntrace.attribution.prefix_attention import attention_through
from kntrace.attribution.replays import Replay, Rows
from kntrace.attribution.shared_prefix import SharedPrefix
from kntrace.models.feedforward import Stack, is_masked
from kntrace.models.placement import is_offloaded
from kntrace.models.tokens import Encoded
from kntrace.settings import Settings

__all__ = ["fastest_replay"]


def fastest_replay(model: Any, blocks: Stack, settings: Settings, stack: ExitStack) -> Replay:
    """Take the fastest replay that agrees with an ordinary forward pass on this model.

    What the replay changes in the model is undone when `stack` is closed.
    """
    site, objective = settings.site, find_objective(settings.objective)
    slow = FullForward(model, blocks, site, objective)
    if is_masked(model):
        return slow  # it reads in both directions: no token's state is safe from the scored one
    faster: tuple[tuple[Callable[..., Replay], Callable[[Any], Any]], ...] = (
        (SharedPrefix, attention_through),
        (FrozenCache, nullcontext),
    )
    if is_offloaded(model):
        # Weights come and go with the layers: a gradient must not keep them. The second way
        # takes its gradients apart from the pass, when it is too late to run a layer again.
        stack.enter_context(recomputed([block.layer for block in blocks]))
        faster = faster[:1]
    for make, prepared in faster:
        # A model may refuse a replay in as many ways as there are families; whatever it
        # raises, the replay does not fit it, and the next one is tried.
        with ExitStack() as attempt, suppress(Exception):
            attempt.enter_context(prepared(model))
            fast = make(model, blocks, site, objective)
            if _agree(fast, slow, model):
                stack.push(attempt.pop_all())
                return fast
    return slow


def _agree(fast: Replay, slow: Replay, model: Any) -> bool:
    """Replay two short made-up prompts both ways; compare objectives and gradients."""
    size = model.get_input_embeddings().weight.shape[0]
    ids = [(7 * step + 3) % size for step in range(9)]
    prompts = [
        Encoded(tuple(ids[:8]), (ids[8],), alternatives=(ids[0],)),
        Encoded(tuple(ids[2:7]), (ids[7],), alternatives=(ids[1],)),
    ]
    recording, plain = fast.record(prompts), slow.record(prompts)
    layers = recording.activation.shape[1]
    layer = torch.arange(layers).repeat_interleave(2).to(recording.activation.device)
    prompt = torch.arange(2).repeat(layers).to(recording.activation.device)
    rows = Rows(prompt, layer, 0.5 * plain.activation[prompt, layer])
    mine = fast.evaluate(recording, rows, gradient=True)
    theirs = slow.evaluate(plain, rows, gradient=True)
    loose = {torch.float64: 1e-8, torch.float32: 1e-3}.get(rows.value.dtype, 0.1)
    return all(
        float((a - b).norm()) <= loose * float(b.norm())
        for a, b in (
            (recording.activation, plain.activation),
            (mine.objective, theirs.objective),
            (mine.slopes, theirs.slopes),
        )
    )
