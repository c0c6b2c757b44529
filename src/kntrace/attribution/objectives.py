"""What is attributed: a number that the model's logits give for an answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kntrace.errors import SettingsError

__all__ = ["OBJECTIVES", "Objective", "answer_log_probability", "find_objective"]

Objective = Callable[[Tensor, Tensor], Tensor]
"""From logits (row, position, token) and answers (row, position) to one number a row.

The positions are those whose next tokens are the answer's, in order."""


def answer_log_probability(logits: Tensor, answers: Tensor) -> Tensor:
    """Log-probability of each row's answer, summed over its tokens.

    Computed in float32 or better whatever the model's format, because probabilities near one
    have no digits left in half precision.
    """
    exact = logits.to(torch.promote_types(torch.float32, logits.dtype))
    picked = exact.gather(-1, answers.unsqueeze(-1)).squeeze(-1)
    return (picked - exact.logsumexp(-1)).sum(-1)


def _probability(logits: Tensor, answers: Tensor) -> Tensor:
    return answer_log_probability(logits, answers).exp()


OBJECTIVES: dict[str, Objective] = {
    "probability": _probability,
    "log_probability": answer_log_probability,
}


def find_objective(name: str) -> Objective:
    """Return the named objective; raises `SettingsError` with the known ones otherwise."""
    found = OBJECTIVES.get(name.replace("-", "_"))
    if found is None:
        raise SettingsError(f"objective {name!r}", expected=f"one of {', '.join(OBJECTIVES)}")
    return found
