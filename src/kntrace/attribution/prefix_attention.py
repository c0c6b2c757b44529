"""Attention of many short rows over one shared copy of their prompt's keys and values.

transformers lets a model's attention be replaced by name. Under the name registered here a
model behaves as it did before, except that a recording scene keeps its keys and values, and
that in a replaying scene it looks at recorded prefixes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = [
    "NAME",
    "Prefix",
    "Scene",
    "UnreachableError",
    "attention_through",
    "playing",
    "prefixes_of",
]

NAME = "kntrace_shared_prefix"

# Options of the attention interface that this attention understands or may ignore: without
# padding, dropout and packing there is nothing for the others to say.
_UNDERSTOOD = {"scaling", "sliding_window", "softcap"}
_IGNORED = {
    "dropout",
    "position_ids",
    "position_embeddings",
    "use_cache",
    "cache",
    "cache_position",
    "is_causal",
    "output_attentions",
}


class UnreachableError(Exception):
    """The model does not go through the attention interface as a replay needs."""


@dataclass(frozen=True)
class Prefix:
    """Keys and values of one prompt's tokens before the scored one, (head, token, channel)."""

    key: Tensor
    value: Tensor


@dataclass
class Scene:
    """One pass through a model: what its attention is to do and what it has seen.

    Attributes
    ----------
    mode
        `record` keeps every layer's keys and values; `replay` looks at `prefixes`.
    seen
        In order of the layers: the attention module, its keys and its values.
    prefixes
        Per attention module, each prompt's prefix.
    counts
        How many rows each prompt has in the layer in hand; rows lie prompt after prompt.
    """

    mode: Literal["record", "replay"]
    seen: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)
    prefixes: dict[nn.Module, list[Prefix]] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)


_SCENE: ContextVar[Scene | None] = ContextVar("kntrace_scene", default=None)
_USUAL: ContextVar[str] = ContextVar("kntrace_usual_attention", default="eager")


@contextmanager
def playing(scene: Scene) -> Iterator[Scene]:
    """Make `scene` the one that the attention of this thread answers to."""
    token = _SCENE.set(scene)
    try:
        yield scene
    finally:
        _SCENE.reset(token)


@contextmanager
def attention_through(model: Any) -> Iterator[None]:
    """Send the model's attention through this module, and back afterwards.

    Raises
    ------
    UnreachableError
        If the model does not let its attention be replaced.
    """
    # transformers says by a private method whether a family's attention can be replaced;
    # asked to replace it where it cannot be, it logs a warning and leaves half of it changed.
    if not model._can_set_attn_implementation():
        raise UnreachableError("its attention cannot be replaced")
    usual: str = model.config._attn_implementation
    token = _USUAL.set(usual)
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        _USUAL.reset(token)
        model.set_attn_implementation(usual)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, Any]:
    scene = _SCENE.get()
    if scene is None or scene.mode == "record":
        if scene is not None:
            scene.seen.append((module, key, value))
        usual = _usual_attention(module)
        result: tuple[Tensor, Any] = usual(module, query, key, value, mask, **options)
        return result
    asked = {name for name, given in options.items() if given is not None}
    if asked - _UNDERSTOOD - _IGNORED:
        raise UnreachableError(f"its attention asks for {', '.join(sorted(asked - _UNDERSTOOD))}")
    start, outputs = 0, []
    for prefix, count in zip(scene.prefixes[module], scene.counts, strict=True):
        rows = slice(start, start + count)
        if count:
            outputs.append(_attend(prefix, query[rows], key[rows], value[rows], module, options))
        start += count
    return torch.cat(outputs), None


def _usual_attention(module: nn.Module) -> Callable[..., Any]:
    # Families keep their plain implementation beside their modules, not in the table.
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(_USUAL.get(), eager)
    return function


def _mask(*args: Any, **options: Any) -> Any:
    scene = _SCENE.get()
    if scene is not None and scene.mode == "replay":
        return None
    return ALL_MASK_ATTENTION_FUNCTIONS[_USUAL.get()](*args, **options)


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _mask)


def _attend(
    prefix: Prefix,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    module: nn.Module,
    options: dict[str, Any],
) -> Tensor:
    """Attention of one prompt's rows; query, key and value are (row, head, token, channel).

    Grouped keys and values are not repeated: the query heads that share one are folded into
    its rows, so that all rows of a head are a single matrix product.
    """
    rows, heads, tokens, channels = query.shape
    shared = key.shape[1]
    grouped = heads // shared
    scaling = options.get("scaling")
    query = query * (channels**-0.5 if scaling is None else scaling)
    query = query.reshape(rows, shared, grouped, tokens, channels)
    folded = query.permute(1, 0, 2, 3, 4).reshape(shared, rows * grouped * tokens, channels)
    past = torch.bmm(folded, prefix.key.transpose(1, 2))
    past = past.view(shared, rows, grouped, tokens, -1)
    own = torch.einsum("rsgtc,rsuc->srgtu", query, key)
    logits = torch.cat([past, own], -1)
    if (cap := options.get("softcap")) is not None:
        logits = torch.tanh(logits / cap) * cap
    window = options.get("sliding_window") or getattr(module, "sliding_window", None)
    if (hidden := _hidden(past.shape[-1], tokens, window, logits.device)) is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    exact = torch.promote_types(torch.float32, logits.dtype)
    weights = torch.softmax(logits, -1, dtype=exact).to(query.dtype)
    from_past = weights[..., : past.shape[-1]].reshape(shared, rows * grouped * tokens, -1)
    output = torch.bmm(from_past, prefix.value).view(shared, rows, grouped, tokens, -1)
    output = output + torch.einsum("srgtu,rsuc->srgtc", weights[..., past.shape[-1] :], value)
    return output.permute(1, 3, 0, 2, 4).reshape(rows, tokens, heads, -1)


def _hidden(past: int, tokens: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which of (token, past + own token) may not be looked at; None where all may be."""
    if tokens == 1 and (window is None or past < window):
        return None
    here = torch.arange(past, past + tokens, device=device)[:, None]
    there = torch.arange(past + tokens, device=device)
    hidden = there > here
    if window is not None:
        # A window of w tokens counts the looking token itself.
        hidden = hidden | (there <= here - window)
    return hidden


def prefixes_of(
    seen: Sequence[tuple[nn.Module, Tensor, Tensor]], ends: Sequence[int]
) -> dict[nn.Module, list[Prefix]]:
    """Cut every module's recorded keys and values to each prompt's first `ends` tokens."""
    return {
        module: [Prefix(key[row, :, :end], value[row, :, :end]) for row, end in enumerate(ends)]
        for module, key, value in seen
    }
