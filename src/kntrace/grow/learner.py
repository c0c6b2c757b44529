"""One optimizer step after another: what growing a world and growing a text have in common."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

__all__ = ["Learner", "token_loss"]

_NONE = -100


class Learner:
    """A model and what changes it: AdamW, its learning rate by step, clipped gradients.

    Parameters
    ----------
    model
        What learns.
    learning_rate
        At its highest, after a tenth of the steps; it ends at a tenth of that.
    steps
        How many there will be.
    """

    def __init__(self, model: PreTrainedModel, learning_rate: float, steps: int) -> None:
        self.model = model
        self._highest, self._steps = learning_rate, steps
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1
        )

    def rate(self, step: int) -> float:
        """The learning rate of a step: a linear start over a tenth, then a cosine to a tenth."""
        rise = min(1.0, (step + 1) / max(1, self._steps // 10))
        return self._highest * (rise * (0.55 + 0.45 * math.cos(math.pi * step / self._steps)))

    def learn(self, ids: Tensor, step: int, *, ignored: int = _NONE) -> float:
        """Take one step on `ids` (text, token); returns the loss before it.

        `ignored` is the token id whose prediction does not count.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.model.train()
        loss = token_loss(self.model, ids, ignored=ignored)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as `torch.save` takes it."""
        return {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


def token_loss(model: PreTrainedModel, ids: Tensor, *, ignored: int = _NONE) -> Tensor:
    """Mean cross entropy (nats) of each token of `ids` (text, token) but the first."""
    logits = model(ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=ignored
    )
