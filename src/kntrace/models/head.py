"""The end of a model, its unembedding, run where somebody looks and nowhere else.

A vocabulary has a hundred thousand tokens and more, so that the logits of a prompt can take
more than the rest of its pass. Some models can be told which positions to keep; here the
unembedding of any is handed no more than that, whatever the model does with its logits after.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["logits_at"]


def logits_at(model: Any, ids: Tensor, positions: Tensor, **options: Any) -> Tensor:
    """Run a model, and its unembedding at some positions alone.

    Parameters
    ----------
    ids
        Token ids, (row, token), on the device on which the model takes its input.
    positions
        Where the logits are wanted, (row, place) or, the same in all rows, (place,).
    options
        What else the model is to be given.

    Returns
    -------
    Tensor
        Logits (row, place, token).

    Notes
    -----
    An unembedding that the model does not call as a module, or calls with what is no longer
    one vector a position, is run as the model does, and its logits are chosen from.
    """
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    where = positions.to(ids.device).expand(len(ids), -1)
    narrowed = False

    def narrow(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal narrowed
        hidden = args[0] if args else None
        if narrowed or not isinstance(hidden, Tensor) or hidden.shape[:-1] != ids.shape:
            return None
        narrowed = True
        return (hidden[rows.to(hidden.device), where.to(hidden.device)], *args[1:])

    head = _unembedding(model)
    hook = None if head is None else head.register_forward_pre_hook(narrow)
    try:
        logits: Tensor = model(input_ids=ids, **options).logits
    finally:
        if hook is not None:
            hook.remove()
    if narrowed:
        return logits
    return logits[rows.to(logits.device), where.to(logits.device)]


def _unembedding(model: Any) -> nn.Module | None:
    try:
        found = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Module) else None
