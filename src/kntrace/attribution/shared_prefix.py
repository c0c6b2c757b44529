"""The fast way: replay the scored position alone, all layers and nodes in one growing batch.

Changing neurons at the last prompt position touches nothing at earlier positions and nothing
below their layer. So one ordinary pass records, per layer, the keys and values of the prefix
and the layer's input at the last position; after that every row is a single token that starts
at its own layer. Entering a layer, that layer's rows join those that came up from below, and
attention lets all rows of a prompt look at the one recorded copy of its prefix.

The only thing asked of the model is that its attention goes through transformers' attention
interface. Nothing is known about families.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kntrace.attribution.objectives import Objective, answer_log_probability
from kntrace.attribution.prefix_attention import (
    Prefix,
    Scene,
    UnreachableError,
    playing,
    prefixes_of,
)
from kntrace.attribution.replays import Recording, Replayed, Rows
from kntrace.models.feedforward import SitePoint, Stack
from kntrace.models.tokens import Encoded

__all__ = ["SharedPrefix"]


@dataclass(frozen=True)
class _State:
    """What a recording keeps for its replays.

    Attributes
    ----------
    prefixes
        Per attention module, each prompt's keys and values before the scored token.
    inputs
        Per layer, what entered it at the scored token and at the answer's tokens but the
        last, (prompt, token, hidden).
    ids, positions
        Those tokens and where they stand, (prompt, token).
    answers
        The tokens they predict, (prompt, token).
    """

    prefixes: dict[nn.Module, list[Prefix]]
    inputs: list[Tensor]
    ids: Tensor
    positions: Tensor
    answers: Tensor


class SharedPrefix:
    """Replays of a model whose attention goes through `prefix_attention.attention_through`.

    Cost of `evaluate`: a forward (and, with gradients, a backward) pass of one token per row
    through the row's layer and those above. Memory: about the activations of that pass.
    """

    name = "shared_prefix"

    def __init__(self, model: Any, stack: Stack, site: str, objective: Objective) -> None:
        self._model = model
        self._layers = [block.layer for block in stack]
        self._points = [block.site(site) for block in stack]
        self._objective = objective
        self._accepts = set(inspect.signature(model.forward).parameters)
        self._tuple_length = 0

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._model.get_input_embeddings().weight.device
        return device

    def record(self, prompts: Sequence[Encoded]) -> Recording:
        """Run the prompts together, padded on the right, where causal attention never looks."""
        ids, positions = self._padded(prompts)
        scene = Scene("record")
        inputs: list[Tensor] = []
        values: list[Tensor] = []

        def leaving(layer: nn.Module, args: Any, output: Any) -> None:
            self._tuple_length = len(output) if isinstance(output, tuple) else 0

        with ExitStack() as stack:
            for layer, point in zip(self._layers, self._points, strict=True):
                entering = layer.register_forward_pre_hook(
                    lambda _, args, options: inputs.append(_hidden_states(args, options)),
                    with_kwargs=True,
                )
                for hook in (entering, layer.register_forward_hook(leaving)):
                    stack.callback(hook.remove)
                stack.callback(_on_site(point, _reading(point, values)).remove)
            stack.enter_context(playing(scene))
            stack.enter_context(torch.no_grad())
            logits = self._logits_at(ids, positions)
        if len(scene.seen) != len(self._layers):
            raise UnreachableError(
                f"{len(scene.seen)} of its {len(self._layers)} layers use the attention interface"
            )
        rows = torch.arange(len(prompts), device=self._device)[:, None]
        answers = torch.tensor([prompt.answer for prompt in prompts], device=self._device)
        first = logits[:, 0]
        return Recording(
            prompts=tuple(prompts),
            activation=torch.stack(
                [value.reshape(*ids.shape, -1)[rows[:, 0], positions[:, 0]] for value in values], 1
            ),
            objective=self._objective(logits, answers).double(),
            probability=answer_log_probability(logits, answers).double().exp(),
            rank=(first > first.gather(1, answers[:, :1])).sum(1),
            state=_State(
                prefixes_of(scene.seen, positions[:, 0].tolist()),
                [hidden[rows, positions] for hidden in inputs],
                ids[rows, positions],
                positions,
                answers,
            ),
        )

    def _padded(self, prompts: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """Ids (prompt, token) of prompt and answer, and where the answer's tokens are predicted."""
        texts = [torch.tensor(prompt.ids + prompt.answer[:-1]) for prompt in prompts]
        ids = nn.utils.rnn.pad_sequence(texts, batch_first=True)
        last = torch.tensor([len(prompt.ids) - 1 for prompt in prompts])
        positions = last[:, None] + torch.arange(len(prompts[0].answer))
        return ids.to(self._device), positions.to(self._device)

    def _logits_at(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits (prompt, position, token); the head is not run where nobody looks."""
        if "logits_to_keep" in self._accepts:
            kept, where = torch.unique(positions, return_inverse=True)
            logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        else:
            where = positions
            logits = self._model(input_ids=ids, use_cache=False).logits
        chosen: Tensor = logits[torch.arange(len(ids), device=ids.device)[:, None], where]
        return chosen

    def evaluate(self, recording: Recording, rows: Rows, *, gradient: bool) -> Replayed:
        """Run all rows in one growing batch."""
        state: _State = recording.state
        plan = _Plan(rows, len(recording.prompts), len(self._layers))
        leaves = [
            rows.value[start:stop].detach().requires_grad_(gradient) for start, stop in plan.entries
        ]
        scene = Scene("replay", prefixes=state.prefixes)
        with ExitStack() as stack:
            for index, (layer, point) in enumerate(zip(self._layers, self._points, strict=True)):
                if index < plan.first:
                    stack.enter_context(self._skipped(layer))
                else:
                    grow = self._growing(index, plan, state, scene)
                    hook = layer.register_forward_pre_hook(grow, with_kwargs=True)
                    stack.callback(hook.remove)
                if plan.new(index):
                    put = _replacing(point, plan.places[index], leaves[index], state.ids.shape[1])
                    stack.callback(_on_site(point, put).remove)
            stack.enter_context(playing(scene))
            stack.enter_context(torch.set_grad_enabled(gradient))
            options = {"position_ids": state.positions} if "position_ids" in self._accepts else {}
            logits = self._model(input_ids=state.ids, use_cache=False, **options).logits
            objective = self._objective(logits, state.answers[plan.prompt])
        slopes = None
        if gradient:
            used = [leaf for leaf in leaves if len(leaf)]
            slopes = torch.cat(torch.autograd.grad(objective.sum(), used))
        return Replayed(objective.detach().double()[plan.back], slopes)

    def _growing(
        self, index: int, plan: _Plan, state: _State, scene: Scene
    ) -> Callable[[nn.Module, Any, Any], Any]:
        """Make the hook that lets the rows of layer `index` join those from below."""
        prompt_of_row, arriving, order = plan.joining(index)

        def grow(layer: nn.Module, args: Any, options: Any) -> Any:
            below = _hidden_states(args, options)
            joining = state.inputs[index][arriving]
            hidden = joining if index == plan.first else torch.cat([below, joining])
            scene.counts = plan.counts[index]
            rest = _per_row((args[1:], options), prompt_of_row, len(state.ids))
            return _with_hidden_states(hidden[order], args, *rest)

        return grow

    def _skipped(self, layer: nn.Module) -> ExitStack:
        """Let a layer below all rows pass on what enters it."""

        def forward(*args: Any, **options: Any) -> Any:
            hidden = _hidden_states(args, options)
            return (hidden, *[None] * (self._tuple_length - 1)) if self._tuple_length else hidden

        undo = ExitStack()
        layer.forward = forward
        undo.callback(delattr, layer, "forward")
        return undo


class _Plan:
    """Which rows are in the batch at which layer, and in what order.

    In every layer the rows lie prompt after prompt, and within a prompt in order of their
    layer, so that attention can take a prompt's rows as one slice.
    """

    def __init__(self, rows: Rows, prompts: int, layers: int) -> None:
        self._layer = rows.layer.cpu().contiguous()
        self._prompt = rows.prompt.cpu()
        self._device = rows.value.device
        bounds = torch.searchsorted(self._layer, torch.arange(layers + 1)).tolist()
        self.entries = list(pairwise(bounds))
        self.first = int(self._layer[0])
        # A stable sort by prompt keeps the rows of each prompt in order of their layers.
        self._order = torch.argsort(self._prompt, stable=True)
        layer_of, prompt_of = self._layer[self._order], self._prompt[self._order]
        self.places: list[Tensor] = []
        self.counts: list[list[int]] = []
        for index in range(layers):
            present = layer_of <= index
            self.places.append((layer_of[present] == index).nonzero().squeeze(1).to(self._device))
            self.counts.append(torch.bincount(prompt_of[present], minlength=prompts).tolist())
        self.prompt = prompt_of.to(self._device)
        self.back = torch.argsort(self._order).to(self._device)

    def new(self, layer: int) -> bool:
        """Whether any row starts in this layer."""
        start, stop = self.entries[layer]
        return bool(start < stop)

    def joining(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """How the batch of `layer` is made.

        Returns
        -------
        prompt_of_row
            The prompt of every row in the batch.
        arriving
            The prompts of the rows that start here.
        order
            Where each row of the batch lies in the rows from below followed by the new ones.
        """
        start, stop = self.entries[layer]
        layer_of = self._layer[self._order]
        present = self._order[layer_of <= layer]
        new = (present >= start) & (present < stop)
        order = torch.empty(len(present), dtype=torch.long)
        order[~new] = torch.arange(int((~new).sum()))
        # New rows are appended in the order in which they were given.
        order[new] = int((~new).sum()) + present[new] - start
        return (
            self._prompt[present].to(self._device),
            self._prompt[start:stop].to(self._device),
            order.to(self._device),
        )


def _hidden_states(args: Any, options: Any) -> Tensor:
    hidden: Tensor = args[0] if args else options["hidden_states"]
    return hidden


def _with_hidden_states(hidden: Tensor, args: Any, rest: Any, options: Any) -> tuple[Any, Any]:
    if args:
        return (hidden, *rest), options
    return (), {**options, "hidden_states": hidden}


def _per_row(given: Any, prompt_of_row: Tensor, prompts: int) -> Any:
    """Repeat what a layer is given per prompt (such as rotary angles) for each of its rows."""
    if isinstance(given, Tensor):
        spread = prompts > 1 and given.dim() > 1 and len(given) == prompts
        return given[prompt_of_row] if spread else given
    if isinstance(given, tuple | list):
        return type(given)(_per_row(part, prompt_of_row, prompts) for part in given)
    if isinstance(given, dict):
        return {
            name: part if name == "hidden_states" else _per_row(part, prompt_of_row, prompts)
            for name, part in given.items()
        }
    return given


def _reading(point: SitePoint, values: list[Tensor]) -> Callable[[Tensor], None]:
    """Make the function that keeps the site's columns of what it is shown."""
    return lambda whole: values.append(whole[..., point.columns])


def _replacing(
    point: SitePoint, places: Tensor, values: Tensor, tokens: int
) -> Callable[[Tensor], Tensor]:
    """Make the function that puts `values` at the first token of the rows at `places`."""

    def put(whole: Tensor) -> Tensor:
        flat = whole.reshape(-1, whole.shape[-1])
        where = places * tokens
        new = values
        if values.shape[1] != flat.shape[1]:
            new = flat[where].clone()
            new[:, point.columns] = values
        return flat.index_copy(0, where, new).reshape(whole.shape)

    return put


def _on_site(point: SitePoint, change: Callable[[Tensor], Tensor | None]) -> Any:
    """Hook `change` onto the site's module; a tensor that it returns takes the site's place."""
    if point.end == "input":
        return point.module.register_forward_pre_hook(
            lambda _, args: None if (new := change(args[0])) is None else (new, *args[1:])
        )
    return point.module.register_forward_hook(lambda _, args, output: change(output))
