"""The second way: replay the scored position with the prefix in a cache that forgets.

For models that take a key-value cache but keep their attention to themselves. The prefix lies
in the cache once; every layer that asks is given it, repeated for its rows and followed by the
rows' own token, and nothing is kept. The rows of one prompt and one layer run together, with
the layers below passed over.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from kntrace.attribution.objectives import Answers, Objective, measured
from kntrace.attribution.patching import (
    Altering,
    Placing,
    hidden_states,
    on_site,
    passed_over,
    read_site,
    with_hidden_states,
)
from kntrace.attribution.precision import exact_dtype
from kntrace.attribution.prefix_attention import UnreachableError
from kntrace.attribution.replays import Changes, Read, Recording, Replayed, Rows
from kntrace.models.feedforward import Stack
from kntrace.models.head import logits_at
from kntrace.models.placement import home
from kntrace.models.tokens import Encoded

__all__ = ["FrozenCache"]


class _Prefix(DynamicCache):  # type: ignore[misc]
    """A cache whose contents are seen by every row and changed by none."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        for index, (key, value) in enumerate(layers):
            super().update(key, value, index)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """The prefix for as many rows as ask, followed by their own keys and values."""
        kept = self.layers[layer_idx]
        rows = len(key_states)
        return (
            torch.cat([kept.keys.expand(rows, -1, -1, -1), key_states], 2),
            torch.cat([kept.values.expand(rows, -1, -1, -1), value_states], 2),
        )


@dataclass(frozen=True)
class _State:
    """Of one prompt: its prefix per layer, what entered each layer, and its last tokens."""

    prefix: list[tuple[Tensor, Tensor]]
    inputs: list[Tensor]
    ids: Tensor
    position: int
    answers: Answers


class FrozenCache:
    """Replays of a model through its key-value cache.

    Cost of `evaluate`: a forward and a backward pass of one token per row through the row's
    layer and those above, one pass for every prompt and layer.
    """

    name = "frozen_cache"

    def __init__(self, model: Any, stack: Stack, site: str, objective: Objective) -> None:
        self._model = model
        self._layers = [block.layer for block in stack]
        self._points = [block.site(site) for block in stack]
        self._objective = objective
        self._accepts = set(inspect.signature(model.forward).parameters)
        # transformers is renaming the argument.
        self._cache_name = "cache" if "cache" in self._accepts else "past_key_values"
        if self._cache_name not in self._accepts:
            raise UnreachableError("the model takes no cache")
        self._tuple_length = 0

    def record(self, prompts: Sequence[Encoded]) -> Recording:
        """Run each prompt by itself into a cache."""
        found = [self._record_one(prompt) for prompt in prompts]
        states, activations, logits = zip(*found, strict=True)
        answers = Answers.of(prompts, activations[0].device)
        numbers = measured(torch.cat(logits), answers, self._objective)
        return Recording(
            tuple(prompts),
            torch.stack(activations),
            numbers.objective,
            numbers.probability,
            numbers.rank,
            states,
        )

    def _record_one(self, prompt: Encoded) -> tuple[_State, Tensor, Tensor]:
        device = home(self._model)
        ids = torch.tensor([prompt.sequence], device=device)
        position = prompt.position
        inputs: list[Tensor] = []
        values: list[Tensor] = []
        cache = DynamicCache()  # without the config, so that windows drop nothing of the prefix

        def at_scored(whole: Tensor) -> Tensor:
            return whole.reshape(ids.shape[1], -1)[position]

        def leaving(layer: nn.Module, args: Any, output: Any) -> None:
            self._tuple_length = len(output) if isinstance(output, tuple) else 0

        def entering(layer: nn.Module, args: Any, options: Any) -> None:
            inputs.append(hidden_states(args, options)[:, position:].clone())

        with ExitStack() as hooks, torch.no_grad():
            for layer, point in zip(self._layers, self._points, strict=True):
                hooks.callback(layer.register_forward_hook(leaving).remove)
                hook = layer.register_forward_pre_hook(entering, with_kwargs=True)
                hooks.callback(hook.remove)
                hooks.callback(on_site(point, read_site(point, values, at_scored)).remove)
            given = {self._cache_name: cache, "use_cache": True}
            places = torch.arange(position, ids.shape[1])
            logits = logits_at(self._model, ids, places, **given)
        if len(cache.layers) != len(self._layers):
            raise UnreachableError(f"{len(cache.layers)} of its layers use the cache")
        prefix = [
            (layer.keys[:, :, :position], layer.values[:, :, :position]) for layer in cache.layers
        ]
        activation = torch.stack(values)
        answers = Answers.of([prompt], device)
        state = _State(prefix, inputs, ids[:, position:], position, answers)
        return state, activation, logits

    def evaluate(
        self,
        recording: Recording,
        rows: Rows,
        *,
        gradient: bool = True,
        at_activation: bool = False,
    ) -> Replayed:
        """Run the rows of each prompt and layer together."""
        device = rows.value.device
        objective = torch.empty(len(rows), dtype=exact_dtype(device), device=device)
        slopes = torch.empty_like(rows.value) if gradient else None
        pairs = torch.stack([rows.prompt, rows.layer])
        for prompt, layer in torch.unique(pairs, dim=1).T.tolist():
            chosen = ((rows.prompt == prompt) & (rows.layer == layer)).nonzero().squeeze(1)
            value = rows.value[chosen].detach().requires_grad_(gradient)
            reached = self._run(recording.state[prompt], layer, value)
            if slopes is not None:
                (slopes[chosen],) = torch.autograd.grad(reached.sum(), value)
            objective[chosen] = reached.detach().to(objective.dtype)
        ends = self._slopes_at_activation(recording) if at_activation else None
        return Replayed(objective, slopes, ends)

    def _slopes_at_activation(self, recording: Recording) -> Tensor:
        """One row a prompt in which nothing is replaced, differentiated in every layer."""
        found = []
        for state, activation in zip(recording.state, recording.activation, strict=True):
            nudges = [torch.zeros_like(value[None]).requires_grad_() for value in activation]
            with ExitStack() as hooks:
                for point, nudge in zip(self._points, nudges, strict=True):
                    put = Placing(point, state.ids.shape[1])
                    put.nudge(torch.zeros(1, dtype=torch.long, device=nudge.device), nudge)
                    hooks.callback(on_site(point, put).remove)
                reached = self._objective(self._logits(state, 1), state.answers)
            found.append(torch.cat(torch.autograd.grad(reached.sum(), nudges)))
        return torch.stack(found)

    def change(self, recording: Recording, changes: Changes, read: Read) -> Tensor:
        """Run all rows together from the lowest layer that any of them changes."""
        (state,) = recording.state
        puts = {
            index: Altering(self._points[index], here[0] * state.ids.shape[1], *here[1:])
            for index in range(len(self._layers))
            if (here := changes.at(index)) is not None
        }
        with torch.no_grad():
            return read(self._from_layer(state, int(changes.first[0]), len(changes), puts))

    def _run(self, state: _State, layer: int, value: Tensor) -> Tensor:
        put = Placing(self._points[layer], state.ids.shape[1])
        put.replace(torch.arange(len(value), device=value.device), value)
        with torch.set_grad_enabled(value.requires_grad):
            logits = self._from_layer(state, layer, len(value), {layer: put})
            return self._objective(logits, state.answers.repeated(len(value)))

    def _from_layer(
        self, state: _State, layer: int, count: int, puts: Mapping[int, Placing | Altering]
    ) -> Tensor:
        """Logits of `count` rows that begin with what entered `layer`."""

        def enter(_: nn.Module, args: Any, options: Any) -> Any:
            below = state.inputs[layer].expand(count, -1, -1)
            return with_hidden_states(below, args, args[1:], options)

        with ExitStack() as hooks:
            for below in self._layers[:layer]:
                hooks.enter_context(passed_over(below, self._tuple_length))
            hook = self._layers[layer].register_forward_pre_hook(enter, with_kwargs=True)
            hooks.callback(hook.remove)
            for index, put in puts.items():
                hooks.callback(on_site(self._points[index], put).remove)
            return self._logits(state, count)

    def _logits(self, state: _State, count: int) -> Tensor:
        options: dict[str, Any] = {self._cache_name: _Prefix(state.prefix), "use_cache": True}
        tokens = state.ids.shape[1]
        if "position_ids" in self._accepts:
            places = torch.arange(state.position, state.position + tokens, device=state.ids.device)
            options["position_ids"] = places[None]
        logits: Tensor = self._model(input_ids=state.ids.expand(count, -1), **options).logits
        return logits
