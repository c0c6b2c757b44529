"""The slow way: an ordinary forward pass over the whole prompt for every row.

It needs nothing from the model but that it runs, so it serves models that no faster way fits,
and it is the oracle: it shares no code with the fast replays beyond the definition of a row.
Cost: one forward and backward pass over the full sequence per row.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kntrace.attribution.objectives import Answers, Measured, Objective, measured
from kntrace.attribution.precision import exact_dtype
from kntrace.attribution.replays import Changes, Read, Recording, Replayed, Rows
from kntrace.models.feedforward import SitePoint, Stack
from kntrace.models.head import logits_at
from kntrace.models.placement import home
from kntrace.models.tokens import Encoded

__all__ = ["FullForward"]


class FullForward:
    """Replays by running whole sequences with one layer's neurons replaced by a hook."""

    name = "full_forward"

    def __init__(
        self,
        model: Any,
        stack: Stack,
        site: str,
        objective: Objective,
        *,
        rows_at_once: int = 32,
    ) -> None:
        self._model = model
        self._points = [layer.site(site) for layer in stack]
        self._objective = objective
        self._rows_at_once = rows_at_once
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def record(self, prompts: Sequence[Encoded]) -> Recording:
        """Run each prompt by itself and read every layer's neurons at the scored position."""
        activations: list[Tensor] = []
        numbers: list[Measured] = []
        for prompt in prompts:
            seen: list[Tensor] = []
            length, position = len(prompt.sequence), prompt.position

            def keep(
                value: Tensor, seen: list[Tensor] = seen, at: tuple[int, int] = (length, position)
            ) -> None:
                seen.append(value.reshape(at[0], -1)[at[1]].to(home(self._model), copy=True))

            hooks = [_on_site(point, keep) for point in self._points]
            try:
                with torch.no_grad():
                    logits = self._logits(prompt, 1)
            finally:
                for hook in hooks:
                    hook.remove()
            activations.append(torch.stack(seen))
            answers = Answers.of([prompt], logits.device)
            numbers.append(measured(logits, answers, self._objective))
        return Recording(
            tuple(prompts),
            torch.stack(activations),
            torch.cat([number.objective for number in numbers]),
            torch.cat([number.probability for number in numbers]),
            torch.cat([number.rank for number in numbers]),
            None,
        )

    def evaluate(
        self,
        recording: Recording,
        rows: Rows,
        *,
        gradient: bool = True,
        at_activation: bool = False,
    ) -> Replayed:
        """Run every row, a few at a time, grouped by prompt and layer."""
        device = rows.value.device
        objective = torch.empty(len(rows), dtype=exact_dtype(device), device=device)
        slopes = torch.empty_like(rows.value) if gradient else None
        pairs = torch.stack([rows.prompt, rows.layer])
        for prompt, layer in torch.unique(pairs, dim=1).T.tolist():
            chosen = ((rows.prompt == prompt) & (rows.layer == layer)).nonzero().squeeze(1)
            for some in chosen.split(self._rows_at_once):
                value = rows.value[some].detach().requires_grad_(gradient)
                reached, slope = self._run(recording.prompts[prompt], layer, value)
                if slopes is not None:
                    slopes[some] = slope
                objective[some] = reached.to(objective.dtype)
        ends = None
        if at_activation:
            ends = torch.empty_like(recording.activation)
            for prompt, encoded in enumerate(recording.prompts):
                for layer, value in enumerate(recording.activation[prompt]):
                    leaf = value[None].detach().requires_grad_()
                    ends[prompt, layer] = self._run(encoded, layer, leaf)[1][0]
        return Replayed(objective, slopes, ends)

    def change(
        self, recording: Recording, changes: Changes, read: Read, *, everywhere: bool = False
    ) -> Tensor:
        """Run every row, a few at a time; with `everywhere` neurons are changed at all tokens."""
        (prompt,) = recording.prompts
        found: list[Tensor] = []
        for start in range(0, len(changes), self._rows_at_once):
            some = changes.rows(start, min(start + self._rows_at_once, len(changes)))
            hooks = [
                _on_site(point, _altered(*here, len(some), None if everywhere else prompt.position))
                for index, point in enumerate(self._points)
                if (here := some.at(index)) is not None
            ]
            try:
                with torch.no_grad():
                    found.append(read(self._logits(prompt, len(some))))
            finally:
                for hook in hooks:
                    hook.remove()
        return torch.cat(found)

    def _run(self, prompt: Encoded, layer: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """The objective with `value` in place, and its gradient (zero where none is wanted)."""
        position, count = prompt.position, len(value)

        def replace(tensor: Tensor) -> Tensor:
            whole = tensor.reshape(count, -1, tensor.shape[-1])
            before, after = whole[:, :position], whole[:, position + 1 :]
            here = value.to(whole.device).unsqueeze(1)
            return torch.cat([before, here, after], 1).reshape(tensor.shape)

        hook = _on_site(self._points[layer], replace)
        try:
            with torch.set_grad_enabled(value.requires_grad):
                logits = self._logits(prompt, count)
                answers = Answers.of([prompt], logits.device)
                reached = self._objective(logits, answers.repeated(count))
                slope = torch.zeros_like(value)
                if value.requires_grad:  # with the hook in place: see `patching.recomputed`
                    (slope,) = torch.autograd.grad(reached.sum(), value)
        finally:
            hook.remove()
        return reached.detach(), slope

    def _logits(self, prompt: Encoded, count: int) -> Tensor:
        """Logits at the positions that predict the answer's tokens, for `count` equal rows."""
        ids = torch.tensor([prompt.sequence], device=home(self._model))
        kept = len(prompt.answer)
        last = prompt.position + kept == len(prompt.sequence)
        # A head of a hundred thousand tokens is not run where nobody looks. Most models do that
        # themselves, and so share nothing here with the fast replays.
        if last and self._keeps:
            found = self._model(
                input_ids=ids.expand(count, -1), use_cache=False, logits_to_keep=kept
            )
            return cast("Tensor", found.logits)
        places = torch.arange(prompt.position, prompt.position + kept)
        return logits_at(self._model, ids.expand(count, -1), places, use_cache=False)


def _altered(
    row: Tensor, neuron: Tensor, factor: Tensor, offset: Tensor, count: int, position: int | None
) -> Any:
    """Make the function that changes some neurons of some of `count` rows, at one token or all."""

    def alter(tensor: Tensor) -> Tensor:
        whole = tensor.reshape(count, -1, tensor.shape[-1]).clone()
        tokens = slice(None) if position is None else slice(position, position + 1)
        old = whole[row, tokens, neuron]
        whole[row, tokens, neuron] = old * factor[:, None] + offset[:, None]
        return whole.reshape(tensor.shape)

    return alter


def _on_site(point: SitePoint, change: Any) -> Any:
    """Hook `change` onto the site; where it returns a tensor, that takes the site's place."""

    def apply(whole: Tensor) -> Tensor | None:
        new = change(whole[..., point.columns])
        if new is None:
            return None
        left, right = whole[..., : point.columns.start], whole[..., point.columns.stop :]
        return torch.cat([left, new, right], -1)

    def entering(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        new = apply(args[0])
        return None if new is None else (new, *args[1:])

    def leaving(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return apply(output)

    if point.end == "input":
        return point.module.register_forward_pre_hook(entering)
    return point.module.register_forward_hook(leaving)
