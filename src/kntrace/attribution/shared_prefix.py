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
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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
from kntrace.attribution.prefix_attention import (
    Prefix,
    Scene,
    UnreachableError,
    playing,
    prefixes_of,
)
from kntrace.attribution.replays import Changes, Read, Recording, Replayed, Rows
from kntrace.models.feedforward import Stack
from kntrace.models.head import logits_at
from kntrace.models.placement import home
from kntrace.models.tokens import Encoded

__all__ = ["SharedPrefix"]

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class _State:
    """What a recording keeps for its replays.

    Attributes
    ----------
    prefixes
        Per attention module, the prompts' keys and values before the scored token.
    inputs
        Per layer, what entered it at the scored token and at the answer's tokens but the
        last, (prompt, token, hidden).
    ids, positions
        Those tokens and where they stand, (prompt, token).
    answers
        What those tokens should predict.
    """

    prefixes: dict[nn.Module, Prefix]
    inputs: list[Tensor]
    ids: Tensor
    positions: Tensor
    answers: Answers


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
        return home(self._model)

    def record(self, prompts: Sequence[Encoded]) -> Recording:
        """Run the prompts together, padded on the right, where causal attention never looks."""
        ids, positions = self._padded(prompts)
        scene = Scene("record")
        inputs: list[Tensor] = []
        values: list[Tensor] = []
        rows = torch.arange(len(prompts), device=self._device)[:, None]

        def at_scored(whole: Tensor) -> Tensor:
            where = (rows[:, 0].to(whole.device), positions[:, 0].to(whole.device))
            return whole.reshape(*ids.shape, -1)[where].to(ids.device)

        def entering(layer: nn.Module, args: Any, options: Any) -> None:
            hidden = hidden_states(args, options)
            inputs.append(hidden[rows.to(hidden.device), positions.to(hidden.device)])

        def leaving(layer: nn.Module, args: Any, output: Any) -> None:
            self._tuple_length = len(output) if isinstance(output, tuple) else 0

        with ExitStack() as stack:
            for layer, point in zip(self._layers, self._points, strict=True):
                hook = layer.register_forward_pre_hook(entering, with_kwargs=True)
                stack.callback(hook.remove)
                stack.callback(layer.register_forward_hook(leaving).remove)
                stack.callback(on_site(point, read_site(point, values, at_scored)).remove)
            stack.enter_context(playing(scene))
            stack.enter_context(torch.no_grad())
            logits = logits_at(self._model, ids, positions, use_cache=False)
        if len(scene.seen) != len(self._layers):
            raise UnreachableError(
                f"{len(scene.seen)} of its {len(self._layers)} layers use the attention interface"
            )
        answers = Answers.of(prompts, self._device)
        numbers = measured(logits, answers, self._objective)
        return Recording(
            prompts=tuple(prompts),
            activation=torch.stack(values, 1),
            objective=numbers.objective,
            probability=numbers.probability,
            rank=numbers.rank,
            state=_State(
                prefixes_of(scene.seen, positions[:, 0].tolist()),
                inputs,
                ids[rows, positions],
                positions,
                answers,
            ),
        )

    def _padded(self, prompts: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """Ids (prompt, token) of prompt and answer, and where the answer's tokens are predicted."""
        texts = [torch.tensor(prompt.sequence) for prompt in prompts]
        ids = nn.utils.rnn.pad_sequence(texts, batch_first=True)
        last = torch.tensor([prompt.position for prompt in prompts])
        positions = last[:, None] + torch.arange(len(prompts[0].answer))
        return ids.to(self._device), positions.to(self._device)

    def evaluate(
        self,
        recording: Recording,
        rows: Rows,
        *,
        gradient: bool = True,
        at_activation: bool = False,
    ) -> Replayed:
        """Run all rows in one growing batch."""
        state: _State = recording.state
        plan = _Plan(
            rows.prompt, rows.layer, len(recording.prompts), len(self._layers), plain=at_activation
        )
        leaves = [
            rows.value[start:stop].detach().requires_grad_(gradient) for start, stop in plan.entries
        ]
        nudges = [
            torch.zeros_like(recording.activation[:, index]).requires_grad_()
            for index in range(len(self._layers) if at_activation else 0)
        ]

        def put(index: int) -> Placing:
            placing = Placing(self._points[index], state.ids.shape[1])
            if len(leaves[index]):
                placing.replace(plan.places[index], leaves[index])
            if nudges:
                placing.nudge(plan.plain[index], nudges[index])
            return placing

        used = [leaf for leaf in leaves if len(leaf) and gradient]

        def differentiated(logits: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            objective = self._objective(logits, state.answers[plan.prompt])
            wanted = used + nudges
            return objective, torch.autograd.grad(objective.sum(), wanted) if wanted else ()

        with torch.set_grad_enabled(gradient or at_activation):
            objective, found = self._through(plan, state, put, differentiated)
        return Replayed(
            objective.detach().to(exact_dtype(objective.device))[plan.back],
            torch.cat(found[: len(used)]) if used else None,
            torch.stack(found[len(used) :], 1) if nudges else None,
        )

    def change(self, recording: Recording, changes: Changes, read: Read) -> Tensor:
        """Run all rows in one growing batch, each entering at the lowest layer it changes."""
        state: _State = recording.state
        prompt = torch.zeros_like(changes.first)
        plan = _Plan(prompt, changes.first, 1, len(self._layers), plain=False)

        def put(index: int) -> Altering | None:
            if (here := changes.at(index)) is None:
                return None
            row, *rest = here
            # With a single prompt the batch holds the rows in their order: who is there is first.
            return Altering(self._points[index], row * state.ids.shape[1], *rest)

        with torch.no_grad():
            return self._through(plan, state, put, read)

    def _through(
        self,
        plan: _Plan,
        state: _State,
        put: Callable[[int], Placing | Altering | None],
        then: Callable[[Tensor], _Found],
    ) -> _Found:
        """What `then` makes of the logits of the plan's rows, the changes still in place.

        `put(layer)` is what changes that layer's neurons.
        """
        counts = dict(zip(state.prefixes, plan.counts, strict=True))
        scene = Scene("replay", prefixes=state.prefixes, counts=counts)
        with ExitStack() as stack:
            for index, (layer, point) in enumerate(zip(self._layers, self._points, strict=True)):
                if index < plan.first:
                    stack.enter_context(passed_over(layer, self._tuple_length))
                    continue
                grow = self._growing(index, plan, state)
                hook = layer.register_forward_pre_hook(grow, with_kwargs=True)
                stack.callback(hook.remove)
                if (placing := put(index)) is not None:
                    stack.callback(on_site(point, placing).remove)
            stack.enter_context(playing(scene))
            options = {"position_ids": state.positions} if "position_ids" in self._accepts else {}
            return then(self._model(input_ids=state.ids, use_cache=False, **options).logits)

    def _growing(
        self, index: int, plan: _Plan, state: _State
    ) -> Callable[[nn.Module, Any, Any], Any]:
        """Make the hook that lets the rows of layer `index` join those from below."""
        prompt_of_row, arriving, order = plan.joining(index)

        def grow(layer: nn.Module, args: Any, options: Any) -> Any:
            below = hidden_states(args, options)
            joining = state.inputs[index].to(below.device)[arriving.to(below.device)]
            hidden = joining if index == plan.first else torch.cat([below, joining])
            rest = _per_row((args[1:], options), prompt_of_row, len(state.ids))
            return with_hidden_states(hidden[order.to(below.device)], args, *rest)

        return grow


class _Plan:
    """Which rows are in the batch at which layer, and in what order.

    In every layer the rows lie prompt after prompt, and within a prompt in order of their
    layer, so that attention can take a prompt's rows as one slice. A plain row, one a prompt,
    replaces nothing; it counts as a row of layer -1 and enters with the first.

    Attributes
    ----------
    first
        The lowest layer in which any row starts.
    entries
        Per layer, from where to where its rows lie among those given.
    places, plain
        Per layer, where in the batch its own rows lie, and where the plain ones.
    counts
        Per layer, how many rows each prompt has in the batch.
    prompt
        Of each row at the top.
    back
        Where at the top the rows lie, in the order in which they were given.
    """

    def __init__(
        self, prompt: Tensor, layer: Tensor, prompts: int, layers: int, *, plain: bool
    ) -> None:
        device = prompt.device
        given = layer.cpu().contiguous()
        bounds = torch.searchsorted(given, torch.arange(layers + 1)).tolist()
        self.entries = list(pairwise(bounds))
        self.first = 0 if plain else int(given[0])
        ahead = prompts if plain else 0
        layer = torch.cat([torch.full((ahead,), -1), given])
        prompt = torch.cat([torch.arange(ahead), prompt.cpu()])
        # A stable sort by prompt keeps the rows of each prompt in order of their layers.
        order = torch.argsort(prompt, stable=True)
        layer, prompt = layer[order], prompt[order]
        self._joining: list[tuple[Tensor, Tensor, Tensor]] = []
        self.places: list[Tensor] = []
        self.plain: list[Tensor] = []
        self.counts: list[list[int]] = []
        for index in range(layers):
            here, whose = layer[layer <= index], prompt[layer <= index]
            new = here == index
            if index == self.first:
                new = torch.ones_like(new)
            # Rows from below keep their order; those that join are appended in batch order.
            source = torch.empty(len(here), dtype=torch.long)
            source[~new] = torch.arange(int((~new).sum()))
            source[new] = int((~new).sum()) + torch.arange(int(new.sum()))
            self._joining.append((whose.to(device), whose[new].to(device), source.to(device)))
            # The batch holds a layer's rows prompt by prompt, as given if they were sorted so.
            places = torch.empty(self.entries[index][1] - self.entries[index][0], dtype=torch.long)
            given_place = order[layer <= index][here == index] - ahead - self.entries[index][0]
            places[given_place] = (here == index).nonzero().squeeze(1)
            self.places.append(places.to(device))
            self.plain.append((here == -1).nonzero().squeeze(1).to(device))
            self.counts.append(torch.bincount(whose, minlength=prompts).tolist())
        self.prompt = prompt.to(device)
        self.back = torch.argsort(order)[ahead:].to(device)

    def joining(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """How the batch of `layer` is made.

        Returns
        -------
        prompt_of_row
            The prompt of every row in the batch.
        arriving
            The prompts of the rows that join here.
        order
            Where each row of the batch lies in the rows from below followed by the new ones.
        """
        return self._joining[layer]


def _per_row(given: Any, prompt_of_row: Tensor, prompts: int) -> Any:
    """Repeat what a layer is given per prompt (such as rotary angles) for each of its rows."""
    if isinstance(given, Tensor):
        spread = prompts > 1 and given.dim() > 1 and len(given) == prompts
        return given[prompt_of_row.to(given.device)] if spread else given
    if isinstance(given, tuple | list):
        return type(given)(_per_row(part, prompt_of_row, prompts) for part in given)
    if isinstance(given, dict):
        return {
            name: part if name == "hidden_states" else _per_row(part, prompt_of_row, prompts)
            for name, part in given.items()
        }
    return given
