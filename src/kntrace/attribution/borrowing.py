"""A model that belongs to somebody else: what is asked of it, and how it is given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from kntrace.errors import ModelError

__all__ = ["at_rest", "refuse_half_on_cpu"]


def refuse_half_on_cpu(model: Any) -> None:
    """Raise `ModelError` if the weights are of a format that CPUs do not compute in."""
    weight = model.get_input_embeddings().weight
    if weight.device.type == "cpu" and weight.dtype in (torch.float16, torch.bfloat16):
        raise ModelError(
            f"weights of {str(weight.dtype).removeprefix('torch.')} on a CPU",
            where=type(model).__name__,
            expected="float32 or float64",
            fix="CPUs compute in half precision slowly and coarsely; call model.float() first.",
        )


@contextmanager
def at_rest(model: Any) -> Iterator[None]:
    """Put the model in evaluation mode with frozen weights, and back afterwards."""
    training = {part: part.training for part in model.modules()}
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
        for part, mode in training.items():
            part.training = mode
