"""Reading and changing a model in the middle: the hooks that every replay uses.

Each hook is a callback that removes itself, to be kept in an `ExitStack`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kntrace.models.feedforward import SitePoint

__all__ = [
    "Altering",
    "Placing",
    "hidden_states",
    "on_site",
    "passed_over",
    "read_site",
    "recomputed",
    "with_hidden_states",
]


def hidden_states(args: Any, options: Any) -> Tensor:
    """What enters a layer, by position or by name."""
    hidden: Tensor = args[0] if args else options["hidden_states"]
    return hidden


def with_hidden_states(hidden: Tensor, args: Any, rest: Any, options: Any) -> tuple[Any, Any]:
    """A layer's arguments with other hidden states, `rest` being those by position after it."""
    if args:
        return (hidden, *rest), options
    return (), {**options, "hidden_states": hidden}


def read_site(
    point: SitePoint, values: list[Tensor], where: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], None]:
    """Make the function that keeps, of what it is shown, the site's columns at `where`.

    `where` takes the tokens that matter out of (token, column) or (prompt, token, column); the
    others' neurons are let go of at once.
    """
    return lambda whole: values.append(where(whole)[..., point.columns].clone())


class Placing:
    """Changes the site's tensor in some rows, at the first of each row's tokens."""

    def __init__(self, point: SitePoint, tokens: int) -> None:
        self._columns = point.columns
        self._tokens = tokens
        self._replaced: tuple[Tensor, Tensor] | None = None
        self._nudged: tuple[Tensor, Tensor] | None = None

    def replace(self, places: Tensor, values: Tensor) -> None:
        """Put `values` into the rows at `places`."""
        self._replaced = (places * self._tokens, values)

    def nudge(self, places: Tensor, nudges: Tensor) -> None:
        """Add `nudges` (zeros, there to be differentiated by) to the rows at `places`."""
        self._nudged = (places * self._tokens, nudges)

    def __call__(self, whole: Tensor) -> Tensor:
        """The site's tensor, changed."""
        flat = whole.reshape(-1, whole.shape[-1])
        if self._replaced is not None:
            where, values = (part.to(flat.device) for part in self._replaced)
            flat = flat.index_copy(0, where, self._spread(values, flat, where))
        if self._nudged is not None:
            where, nudges = (part.to(flat.device) for part in self._nudged)
            old = flat[where]
            new = old[:, self._columns] + nudges
            flat = flat.index_copy(0, where, self._spread(new, flat, where))
        return flat.reshape(whole.shape)

    def _spread(self, values: Tensor, flat: Tensor, where: Tensor) -> Tensor:
        """Values for all columns: the site's own, and what the others hold already."""
        if values.shape[1] == flat.shape[1]:
            return values
        old, start, stop = flat[where], self._columns.start, self._columns.stop
        return torch.cat([old[:, :start], values, old[:, stop:]], 1)


class Altering:
    """Changes single numbers of the site's tensor: each becomes factor times itself plus offset.

    `places` are tokens, counted through all rows of the batch.
    """

    def __init__(
        self, point: SitePoint, places: Tensor, neuron: Tensor, factor: Tensor, offset: Tensor
    ) -> None:
        self._places = places
        self._columns = neuron + point.columns.start
        self._factor, self._offset = factor, offset

    def __call__(self, whole: Tensor) -> Tensor:
        """The site's tensor, changed."""
        flat = whole.reshape(-1, whole.shape[-1]).clone()
        places, columns, factor, offset = (
            part.to(flat.device)
            for part in (self._places, self._columns, self._factor, self._offset)
        )
        flat[places, columns] = flat[places, columns] * factor + offset
        return flat.reshape(whole.shape)


def on_site(point: SitePoint, change: Callable[[Tensor], Tensor | None]) -> Any:
    """Hook `change` onto the site's module; a tensor that it returns takes the site's place."""
    if point.end == "input":
        return point.module.register_forward_pre_hook(
            lambda _, args: None if (new := change(args[0])) is None else (new, *args[1:])
        )
    return point.module.register_forward_hook(lambda _, args, output: change(output))


def passed_over(layer: nn.Module, tuple_length: int) -> ExitStack:
    """Let a layer pass on what enters it, as a tuple of that length (0: as a tensor)."""

    def forward(*args: Any, **options: Any) -> Any:
        hidden = hidden_states(args, options)
        return (hidden, *[None] * (tuple_length - 1)) if tuple_length else hidden

    return _instead(layer, forward)


@contextmanager
def recomputed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let the layers keep of a pass only what enters them, and run once more going backwards.

    For weights that are fetched for as long as a layer runs: what a pass keeps for its
    gradient would else keep them all. Hooks have to be in place until the gradient is taken.
    Cost: a second forward pass wherever gradients are asked for.
    """
    with ExitStack() as undo:
        for layer in layers:
            undo.enter_context(_instead(layer, _twice(layer.forward)))
        yield


def _twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        # A GPU's gradients are computed in a thread of their own, which knows no scene.
        context = copy_context()

        def once_more(*args: Any, **options: Any) -> Any:
            return context.copy().run(forward, *args, **options)

        return checkpoint(
            once_more, *args, use_reentrant=False, preserve_rng_state=False, **options
        )

    return run


def _instead(layer: nn.Module, forward: Callable[..., Any]) -> ExitStack:
    """Give a layer another `forward`, and later the one it had, its own or its class's."""
    undo = ExitStack()
    if (own := vars(layer).get("forward")) is None:
        undo.callback(delattr, layer, "forward")
    else:
        undo.callback(setattr, layer, "forward", own)
    layer.forward = forward
    return undo
