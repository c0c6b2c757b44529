"""What a model makes of a vector at the very end: its final norm and its unembedding, no more.

Nothing here knows a family by name. The model runs as it always does, but every layer returns
the vectors in question instead of computing; so whatever comes after the last layer, be it a
norm, a projection or a cap on logits, is the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kntrace.errors import ModelError
from kntrace.models.feedforward import decoder_layers

__all__ = ["Tail", "tail_of"]

Tail = Callable[[Tensor], Tensor]
"""From vectors of the residual stream (row, hidden) to logits (row, token)."""


@contextmanager
def tail_of(model: Any) -> Iterator[Tail]:
    """Borrow the end of a model: inside the `with`, its layers do nothing.

    Cost: a row takes one product with the unembedding.

    Raises
    ------
    ModelError
        If the end of the model cannot be reached so.
    """
    layers = decoder_layers(model)
    returned = _returned(model, layers)
    held: dict[str, Tensor] = {}

    def instead(pattern: Any) -> Callable[..., Any]:
        def forward(*_: Any, **__: Any) -> Any:
            rows = held["rows"]
            return rows if isinstance(pattern, Tensor) else (rows, *pattern[1:])

        return forward

    def tail(vectors: Tensor) -> Tensor:
        held["rows"] = vectors[:, None, :]
        ids = torch.zeros((len(vectors), 1), dtype=torch.long, device=vectors.device)
        with torch.no_grad():
            logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits[:, 0]

    with ExitStack() as undo:
        for layer, pattern in zip(layers, returned, strict=True):
            undo.callback(_restore, layer, layer.__dict__.get("forward"))
            layer.forward = instead(pattern)
        yield tail


def _restore(layer: nn.Module, former: Any) -> None:
    """Give a layer the `forward` back that it had: its class's, as a rule."""
    del layer.__dict__["forward"]
    if former is not None:
        layer.forward = former


def _returned(model: Any, layers: list[nn.Module]) -> list[Any]:
    """What every layer returns in an ordinary run: a tensor, or a tuple that begins with one."""
    found: dict[int, Any] = {}

    def note(place: int) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            found[place] = output

        return keep

    with ExitStack() as hooks, torch.no_grad():
        for place, layer in enumerate(layers):
            hooks.callback(layer.register_forward_hook(note(place)).remove)
        ids = torch.zeros(
            (1, 1), dtype=torch.long, device=model.get_input_embeddings().weight.device
        )
        model(input_ids=ids, use_cache=False)
    for place, output in found.items():
        first = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(first, Tensor):
            raise ModelError(
                f"layer {place} returns a {type(output).__name__}",
                where=type(model).__name__,
                expected="a tensor, or a tuple that begins with one",
            )
    return [found[place] for place in range(len(layers))]
