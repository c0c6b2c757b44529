"""What is attributed: a number that the model's logits give for an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kntrace.attribution.precision import exact_dtype
from kntrace.errors import SettingsError
from kntrace.models.tokens import Encoded

__all__ = [
    "OBJECTIVES",
    "Answers",
    "Measured",
    "Objective",
    "find_objective",
    "measured",
    "widened",
]


@dataclass(frozen=True)
class Answers:
    """What each row should answer, and what it might answer instead.

    Attributes
    ----------
    tokens
        The answers' tokens, (row, position).
    alternatives
        First tokens of the alternatives, (row, alternative).
    shares
        What each alternative counts for, (row, alternative): one over their number, and zero
        where a row has fewer than others.
    """

    tokens: Tensor
    alternatives: Tensor
    shares: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Encoded], device: torch.device) -> Answers:
        """Of prompts whose answers have equally many tokens."""
        most = max(len(prompt.alternatives) for prompt in prompts)
        padded = [
            [*prompt.alternatives, *[0] * (most - len(prompt.alternatives))] for prompt in prompts
        ]
        shares = [
            [float(place < len(prompt.alternatives)) / max(len(prompt.alternatives), 1)
             for place in range(most)]
            for prompt in prompts
        ]  # fmt: skip
        return cls(
            torch.tensor([prompt.answer for prompt in prompts], device=device),
            torch.tensor(padded, dtype=torch.long, device=device).view(len(prompts), most),
            torch.tensor(shares, dtype=torch.float32, device=device).view(len(prompts), most),
        )

    def __getitem__(self, rows: Tensor) -> Answers:
        return Answers(self.tokens[rows], self.alternatives[rows], self.shares[rows])

    def repeated(self, count: int) -> Answers:
        """The only row's answer, `count` times."""
        return self[torch.zeros(count, dtype=torch.long, device=self.tokens.device)]


# Rows of logits in the works at once.
_AT_ONCE = 32

Objective = Callable[[Tensor, Answers], Tensor]
"""From logits (row, position, token) and answers to one number a row.

The positions are those that predict the answer's tokens, in order."""


def widened(logits: Tensor) -> Tensor:
    """In float32 or better: probabilities near one have no digits left in half precision."""
    return logits.to(torch.promote_types(torch.float32, logits.dtype))


class _LogProbability(torch.autograd.Function):
    """Log-softmax at one token each, with its gradient written out.

    Composed of torch's own operations it would hold four copies of the logits at once, the
    largest tensors of all; this holds one besides the gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        total = torch.cat([some.logsumexp(-1) for some in torch.split(logits, _AT_ONCE)])
        ctx.save_for_backward(logits, tokens, total)
        return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        logits, tokens, total = ctx.saved_tensors
        upstream = grad[0].unsqueeze(-1)
        slope = (logits - total.unsqueeze(-1)).exp_().mul_(-upstream)
        return slope.scatter_add_(-1, tokens.unsqueeze(-1), upstream), None


def _log_probability(logits: Tensor, answers: Answers) -> Tensor:
    found: Tensor = _LogProbability.apply(  # type: ignore[no-untyped-call]
        widened(logits), answers.tokens
    )
    return found.sum(-1)


def _probability(logits: Tensor, answers: Answers) -> Tensor:
    return _log_probability(logits, answers).exp()


def _logit_difference(logits: Tensor, answers: Answers) -> Tensor:
    exact = widened(logits[:, 0])
    wanted = exact.gather(-1, answers.tokens[:, :1]).squeeze(-1)
    instead = exact.gather(-1, answers.alternatives) * answers.shares.to(exact.dtype)
    return wanted - instead.sum(-1)


OBJECTIVES: dict[str, Objective] = {
    "probability": _probability,
    "log_probability": _log_probability,
    "logit_difference": _logit_difference,
}


def find_objective(name: str) -> Objective:
    """Return the named objective; raises `SettingsError` with the known ones otherwise."""
    found = OBJECTIVES.get(name.replace("-", "_"))
    if found is None:
        raise SettingsError.unknown("objective", name, OBJECTIVES)
    return found


@dataclass(frozen=True)
class Measured:
    """What prompts' logits say of their answers: one number a prompt each.

    Attributes
    ----------
    objective, probability
        In the widest format of the device.
    rank
        How many tokens are more probable than the answer's first.
    """

    objective: Tensor
    probability: Tensor
    rank: Tensor


def measured(logits: Tensor, answers: Answers, objective: Objective) -> Measured:
    """Take from logits (prompt, position, token) what a recording keeps of them."""
    exact = exact_dtype(logits.device)
    first = logits[:, 0]
    return Measured(
        objective(logits, answers).to(exact),
        _probability(logits, answers).to(exact),
        (first > first.gather(1, answers.tokens[:, :1])).sum(1),
    )
