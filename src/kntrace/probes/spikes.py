"""Massive activations, and the single weights that make them.

For every prompt and layer the coordinate is taken at which the down-projection writes most: a
token and a channel of the residual stream. Whether it is massive there, whether it stays, and
which weight it comes from is then read off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from kntrace.models.feedforward import Stack
from kntrace.models.tokens import Encoded
from kntrace.probes.surgery import value_vectors

__all__ = ["COLUMNS", "spikes"]

COLUMNS = (
    *("layer", "row", "column", "weight", "weight_rank", "input", "output"),
    *("largest_input", "largest_output", "ratio", "of_largest", "of_peak", "persists", "share"),
    "prompts",
)


@dataclass
class _Seen:
    """One layer on one prompt: what entered and left the down-projection, and the stream."""

    entered: Tensor = field(default_factory=lambda: torch.empty(0))
    left: Tensor = field(default_factory=lambda: torch.empty(0))
    stream: Tensor = field(default_factory=lambda: torch.empty(0))


def spikes(
    model: Any,
    stack: Stack,
    prompts: Sequence[Encoded],
    coordinate: tuple[int, int, int] | None = None,
) -> pd.DataFrame:
    """Look for massive activations and their weights, layer by layer.

    Parameters
    ----------
    prompts
        Texts to read, each in one ordinary pass.
    coordinate
        Layer, row and column of a weight: then it alone is looked at, in its layer.

    Returns
    -------
    pd.DataFrame
        One row a layer, of the coordinate that is the largest one in most prompts: `row` (the
        channel that is written), `column` (the neuron that writes most of it), the `weight`
        between them and its `weight_rank` by size in its matrix (0: the largest). Medians over
        those prompts of `input` (the neuron's activation) and `output` (what is written);
        `largest_input` and `largest_output` in the layer; `ratio`, the channel's absolute value
        in the stream after the layer over the median of all channels and tokens there;
        `of_largest`, over the largest; `of_peak`, what this layer writes over the channel's
        largest value from here on (small where a later layer makes the spike); `persists`, the
        share of later layers, the last one
        excepted, in which the channel has at least half of its largest value from here on;
        `share`, the part of the written value that is this one weight's (of the sum of absolute
        parts). `prompts` is the share of prompts with this coordinate.

    References
    ----------
    Yu et al. 2024.
    """
    rows = []
    for prompt in prompts:
        with _watched(model, stack) as seen, torch.no_grad():
            ids = torch.tensor([prompt.sequence], device=model.get_input_embeddings().weight.device)
            model(input_ids=ids, use_cache=False)
        layers = range(len(stack)) if coordinate is None else (coordinate[0],)
        rows += [_largest(stack, seen, layer, coordinate) for layer in layers]
    table = pd.DataFrame(rows)
    found = [_usual(part, stack, len(prompts)) for _, part in table.groupby("layer")]
    return pd.DataFrame(found, columns=COLUMNS)


def _usual(part: pd.DataFrame, stack: Stack, prompts: int) -> dict[str, Any]:
    """The most frequent coordinate of one layer, with medians over its prompts."""
    counts = part.groupby(["row", "column"], sort=False).size()
    row, column = (int(one) for one in counts.index[int(counts.to_numpy().argmax())])
    some = part[(part["row"] == row) & (part["column"] == column)]
    layer = int(part["layer"].iloc[0])
    matrix = value_vectors(stack.layers[layer]).detach()
    weight = matrix[column, row]
    return {
        "layer": layer,
        "row": row,
        "column": column,
        "weight": float(weight),
        "weight_rank": int((matrix.abs() > weight.abs()).sum()),
        **{name: float(some[name].median()) for name in COLUMNS[5:-1]},
        "prompts": len(some) / prompts,
    }


def _largest(
    stack: Stack, seen: list[_Seen], layer: int, coordinate: tuple[int, int, int] | None
) -> dict[str, Any]:
    here = seen[layer]
    size = here.left.abs()
    if coordinate is None:
        token, row = divmod(int(size.argmax()), size.shape[1])
    else:
        row = coordinate[1]
        token = int(size[:, row].argmax())
    parts = here.entered[token] * value_vectors(stack.layers[layer])[:, row].detach()
    column = int(parts.abs().argmax()) if coordinate is None else coordinate[2]
    whole = float(parts.abs().sum())
    stream = here.stream.abs()
    middle = float(stream.median())
    later = torch.stack([one.stream[token, row].abs() for one in seen[layer:-1] or seen[-1:]])
    return {
        "layer": layer,
        "row": row,
        "column": column,
        "input": float(here.entered[token, column]),
        "output": float(here.left[token, row]),
        "largest_input": float(here.entered.abs().max()),
        "largest_output": float(size.max()),
        "ratio": float(stream[token, row]) / middle if middle > 0 else float("inf"),
        "of_largest": float(stream[token, row] / stream.max()),
        "of_peak": float(size[token, row] / later.max()) if float(later.max()) else 0.0,
        # Nothing persists where no layer is left to persist in.
        "persists": float((later[1:] >= later.max() / 2).double().mean())
        if len(later) > 1
        else 0.0,
        "share": float(parts[column].abs()) / whole if whole else 0.0,
    }


@contextmanager
def _watched(model: Any, stack: Stack) -> Iterator[list[_Seen]]:
    """Note what passes every layer in double precision, in one ordinary run of one prompt."""
    seen = [_Seen() for _ in stack]

    def at_down(one: _Seen) -> Any:
        def note(_: nn.Module, entered: tuple[Any, ...], left: Tensor) -> None:
            one.entered = entered[0].reshape(-1, entered[0].shape[-1]).double()
            one.left = left.reshape(-1, left.shape[-1]).double()

        return note

    def at_layer(one: _Seen) -> Any:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            whole = output[0] if isinstance(output, tuple) else output
            one.stream = whole.reshape(-1, whole.shape[-1]).double()

        return note

    with ExitStack() as hooks:
        for block, one in zip(stack, seen, strict=True):
            hooks.callback(block.down.register_forward_hook(at_down(one)).remove)
            hooks.callback(block.layer.register_forward_hook(at_layer(one)).remove)
        yield seen
