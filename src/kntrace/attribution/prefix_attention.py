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
    """Keys and values of some prompts' tokens before the scored one.

    Attributes
    ----------
    key, value
        (prompt, head, token, channel), as long as the longest prefix.
    lengths
        How many of the tokens are each prompt's own, (prompt,).
    """

    key: Tensor
    value: Tensor
    lengths: tuple[int, ...]

    def of(self, prompt: int) -> Prefix:
        """One prompt's prefix, cut to its length."""
        length = self.lengths[prompt]
        one = slice(prompt, prompt + 1)
        return Prefix(self.key[one, :, :length], self.value[one, :, :length], (length,))


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
        Per attention module, the prompts' prefixes.
    counts
        Per attention module, how many rows each prompt has; rows lie prompt after prompt.
    """

    mode: Literal["record", "replay"]
    seen: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)
    prefixes: dict[nn.Module, Prefix] = field(default_factory=dict)
    counts: dict[nn.Module, list[int]] = field(default_factory=dict)


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
    prefix, counts = scene.prefixes[module], scene.counts[module]
    if len(set(counts)) == 1:
        return _attend(prefix, query, key, value, module, options), None
    start, outputs = 0, []
    for prompt, count in enumerate(counts):
        rows = slice(start, start + count)
        if count:
            here = prefix.of(prompt)
            outputs.append(_attend(here, query[rows], key[rows], value[rows], module, options))
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
    """Attention of equally many rows of every prompt.

    Query, key and value are (row, head, token, channel), the rows prompt after prompt. Grouped
    keys and values are not repeated: the query heads that share one are folded into its rows,
    so that all rows of a prompt and head are a single matrix product.
    """
    rows, heads, tokens, channels = query.shape
    prompts, shared, past = prefix.key.shape[:3]
    each, grouped = rows // prompts, heads // shared
    scaling = options.get("scaling")
    query = query * (channels**-0.5 if scaling is None else scaling)
    query = query.view(prompts, each, shared, grouped, tokens, channels).transpose(1, 2)
    key, value = (
        own.view(prompts, each, shared, 1, tokens, channels).transpose(1, 2) for own in (key, value)
    )
    folded = query.reshape(prompts * shared, -1, channels)
    logits = torch.bmm(folded, prefix.key.flatten(0, 1).transpose(1, 2))
    logits = logits.view(prompts, shared, each, grouped, tokens, past)
    logits = torch.cat([logits, _products(query, key)], -1)
    if (cap := options.get("softcap")) is not None:
        logits = torch.tanh(logits / cap) * cap
    window = options.get("sliding_window") or getattr(module, "sliding_window", None)
    if (hidden := _hidden(prefix, tokens, window)) is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    exact = torch.promote_types(torch.float32, logits.dtype)
    weights = torch.softmax(logits, -1, dtype=exact).to(query.dtype)
    seen = weights[..., :past].reshape(*folded.shape[:2], past)
    output = torch.bmm(seen, prefix.value.flatten(0, 1)).view(query.shape)
    output = output + _mixture(weights[..., past:], value)
    return output.permute(0, 2, 4, 1, 3, 5).reshape(rows, tokens, heads, channels)


def _products(query: Tensor, key: Tensor) -> Tensor:
    """Of every token with its row's own tokens, (..., token, own token)."""
    if query.shape[-2] == 1:  # a batch of products of single vectors is slow
        return (query * key).sum(-1, keepdim=True)
    return query @ key.transpose(-1, -2)


def _mixture(weights: Tensor, value: Tensor) -> Tensor:
    """The row's own values under their weights, (..., token, channel)."""
    return weights * value if weights.shape[-1] == 1 else weights @ value


def _hidden(prefix: Prefix, tokens: int, window: int | None) -> Tensor | None:
    """Which of (prompt, 1, 1, 1, token, past + own token) may not be looked at; None: none."""
    longest = prefix.key.shape[2]
    if tokens == 1 and min(prefix.lengths) == longest and (window is None or longest < window):
        return None
    device = prefix.key.device
    length = torch.tensor(prefix.lengths, device=device)[:, None, None]
    own = torch.arange(tokens, device=device)
    # Places in the text: of the looking tokens, and of those that are looked at.
    here = length + own[:, None]
    past = torch.arange(longest, device=device).expand(len(prefix.lengths), 1, -1)
    there = torch.cat([past, length + own], -1)
    padding = torch.cat([past >= length, torch.zeros_like(length + own, dtype=torch.bool)], -1)
    hidden = padding | (there > here)
    if window is not None:
        # A window of w tokens counts the looking token itself.
        hidden = hidden | (there <= here - window)
    return hidden[:, None, None, None]


def prefixes_of(
    seen: Sequence[tuple[nn.Module, Tensor, Tensor]], ends: Sequence[int]
) -> dict[nn.Module, Prefix]:
    """Cut every module's recorded keys and values to the tokens before the prompts' `ends`."""
    longest = max(ends)
    return {
        module: Prefix(key[:, :, :longest], value[:, :, :longest], tuple(ends))
        for module, key, value in seen
    }
