"""How many rows may be alive at once: what a row costs is measured, and the budget divided by it.

A replay's memory is what its backward pass keeps. It grows with the rows and with the layers
that each runs through, and how much it is depends on the family, so it is counted on made-up
rows instead of being guessed from the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from kntrace.attribution.replays import Recording, Replay, Replayed, Rows
from kntrace.errors import ModelError

__all__ = ["Memory", "cost_of_rows", "in_pieces", "piece_by_piece", "usual_budget"]

_Found = TypeVar("_Found")

_GIB = 2**30


def usual_budget(device: torch.device) -> int:
    """Bytes that the rows of one replay may take on a device unless the caller says otherwise.

    2 GiB; on a CUDA card a quarter of its memory, as the power of two below it, and never less
    than 1 GiB. Small passes leave a card waiting for the next: Pythia-410M's shape took six
    times as long on an H200 with 2 GiB as with 32 (docs/benchmarks.md). What is free at the
    moment is not asked, since the same work would then be cut differently, and its sums
    rounded differently, from one run to the next; `piece_by_piece` minds a card that is full.
    """
    if device.type != "cuda":
        return 2 * _GIB
    total: int = torch.cuda.get_device_properties(device).total_memory
    return max(_GIB, int(2 ** math.floor(math.log2(total / 4))))


@dataclass(frozen=True)
class Memory:
    """A budget, and what a row takes of it.

    Attributes
    ----------
    budget
        Bytes that the rows of one pass may take.
    per_row_layer, per_row
        Bytes that a row takes in each layer it runs through, and once.
    """

    budget: int
    per_row_layer: float
    per_row: float

    def split(self, layer: Tensor, layers: int) -> Iterator[slice]:
        """Cut rows, sorted by layer, into runs that fit; always at least one row a run."""
        cost = (self.per_row + self.per_row_layer * (layers - layer.cpu().double())).cumsum(0)
        start = 0
        while start < len(layer):
            spent = 0.0 if start == 0 else float(cost[start - 1])
            stop = int(torch.searchsorted(cost, spent + self.budget, right=True))
            stop = max(stop, start + 1)
            yield slice(start, stop)
            start = stop


def in_pieces(
    replay: Replay,
    recording: Recording,
    prompt: Tensor,
    layer: Tensor,
    value: Callable[[slice], Tensor],
    memory: Memory,
    *,
    gradient: bool = True,
    at_activation: bool = False,
) -> Iterator[tuple[slice, Replayed]]:
    """Replay rows, sorted by layer, in pieces that fit the budget; see `piece_by_piece`.

    Parameters
    ----------
    prompt, layer
        Of each row.
    value
        Makes the values that a piece of the rows puts in, so that not all exist at once.
    at_activation
        Whether the first piece also gives the gradient at the activation.

    Raises
    ------
    ModelError
        If the device has no room for a single row.
    """

    def run(piece: slice) -> Replayed:
        nonlocal at_activation
        rows = Rows(prompt[piece], layer[piece], value(piece))
        found = replay.evaluate(recording, rows, gradient=gradient, at_activation=at_activation)
        at_activation = False
        return found

    return piece_by_piece(run, layer, recording.activation.shape[1], memory)


def piece_by_piece(
    run: Callable[[slice], _Found], layer: Tensor, layers: int, memory: Memory
) -> Iterator[tuple[slice, _Found]]:
    """Run rows, sorted by the layer in which they start, in pieces that fit the budget.

    A device that runs out of memory all the same gets pieces of half the size from then on.

    Raises
    ------
    ModelError
        If the device has no room for a single row.
    """
    most = len(layer)
    for planned in memory.split(layer, layers):
        start = planned.start
        while start < planned.stop:
            piece = slice(start, min(start + most, planned.stop))
            try:
                found = run(piece)
            except torch.OutOfMemoryError as error:
                most = (piece.stop - piece.start) // 2
                if not most:
                    raise ModelError(
                        "the device has no memory left for a single row",
                        expected="room beside the weights",
                        fix="Use a larger device, fewer other programs on it, or dtype bfloat16.",
                    ) from error
                _let_go(layer.device)
                continue
            yield piece, found
            start = piece.stop


def _let_go(device: torch.device) -> None:
    """Give what the failed pass had reserved back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def cost_of_rows(replay: Replay, recording: Recording, vocabulary: int) -> tuple[float, float]:
    """Count the bytes that a row of such a recording takes, per layer and once.

    Parameters
    ----------
    recording
        Of prompts as long as any that will be replayed.
    vocabulary
        Tokens among which the model's head chooses.

    Returns
    -------
    per_row_layer, per_row

    Notes
    -----
    Cost: four passes of up to three rows. What all rows share, such as the prefix and the
    weights, falls out of the difference between one row and three.
    """
    layers, width = recording.activation.shape[1:]
    number = recording.activation.element_size()

    def per_row(layer: int) -> float:
        one, three = (_kept(replay, recording, layer, rows) for rows in (1, 3))
        return (three - one) / 2

    top, bottom = per_row(layers - 1), per_row(0)
    per_layer = max((bottom - top) / max(layers - 1, 1), 0)
    # What is held in passing: the gradient of the logits, and some tensors of one layer.
    logits = max(number, 4) * vocabulary * len(recording.prompts[0].answer)
    passing = 1.25 * logits + 8 * number * width
    return per_layer, max(top - per_layer, 0) + passing


def _kept(replay: Replay, recording: Recording, layer: int, rows: int) -> int:
    """Bytes that a backward pass of so many rows of one layer would keep."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = recording.activation.device
    made_up = Rows(
        torch.zeros(rows, dtype=torch.long, device=device),
        torch.full((rows,), layer, device=device),
        recording.activation[0, layer].expand(rows, -1).clone(),
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        replay.evaluate(recording, made_up, gradient=True)
    return sum(seen.values())
