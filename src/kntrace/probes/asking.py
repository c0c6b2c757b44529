"""Ordinary passes over prompts: what the model answers, and how well it predicts the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kntrace.models.head import logits_at
from kntrace.models.tokens import Encoded

__all__ = ["Answers", "ask", "text_loss", "text_losses"]

_AT_ONCE = 32
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Answers:
    """What the model says of each prompt's answer.

    Attributes
    ----------
    log_probability, log_odds
        Of the whole answer, token after token, (prompt,).
    rank
        How many tokens are more probable than the answer's first, (prompt,).
    """

    log_probability: npt.NDArray[np.float64]
    log_odds: npt.NDArray[np.float64]
    rank: npt.NDArray[np.int64]


def ask(model: Any, prompts: Sequence[Encoded]) -> Answers:
    """Ask for the answer of every prompt.

    Cost: one ordinary forward pass a prompt, those of one length together.
    """
    found = np.empty((3, len(prompts)))
    for places, logits in _passes(model, prompts, everywhere=False):
        some = [prompts[place] for place in places]
        for row, (place, one) in enumerate(zip(places, some, strict=True)):
            wide = logits[row].double()
            tokens = torch.tensor(one.answer, device=wide.device)[:, None]
            log = float(wide.log_softmax(-1).gather(-1, tokens).sum())
            rest = wide.scatter(-1, tokens, -torch.inf).logsumexp(-1)
            odds = wide.gather(-1, tokens)[:, 0] - rest
            # Of one token exactly, without the digits that 1 - P loses near saturation.
            whole = (
                float(odds[0])
                if len(one.answer) == 1
                else log - float(np.log(max(-np.expm1(log), _TINY)))
            )
            rank = int((wide[0] > wide[0, one.answer[0]]).sum())
            found[:, place] = log, whole, rank
    return Answers(found[0], found[1], found[2].astype(np.int64))


def text_loss(model: Any, prompts: Sequence[Encoded]) -> float:
    """Mean negative log-probability of a token, in nats, of prompts with their answers.

    Every token but the first is predicted from those before it. A model that fills in a mask
    predicts its answer alone.
    """
    total, count = text_losses(model, prompts).sum(axis=0)
    return float(total / count)


def text_losses(model: Any, prompts: Sequence[Encoded]) -> npt.NDArray[np.float64]:
    """Sum of the negative log-probabilities of each prompt's tokens, and their number, (prompt, 2).

    See `text_loss`.
    """
    found = np.empty((len(prompts), 2))
    if any(one.mask is not None for one in prompts):
        return np.stack([-ask(model, prompts).log_probability, np.ones(len(prompts))], axis=1)
    for places, logits in _passes(model, prompts, everywhere=True):
        for row, place in enumerate(places):
            one = prompts[place]
            target = torch.tensor((one.ids + one.answer)[1:], device=logits.device)
            log = logits[row, : len(target)].double().log_softmax(-1)
            found[place] = -float(log.gather(-1, target[:, None]).sum()), len(target)
    return found


def _passes(
    model: Any, prompts: Sequence[Encoded], *, everywhere: bool
) -> Iterator[tuple[list[int], Tensor]]:
    """Run prompts of one length together: their places, and logits (row, token, vocabulary).

    Of all tokens, or of those that predict the answer's.
    """
    device = model.get_input_embeddings().weight.device
    by_length: dict[tuple[int, int], list[int]] = {}
    for place, one in enumerate(prompts):
        by_length.setdefault((len(one.sequence), len(one.answer)), []).append(place)
    for places in by_length.values():
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            ids = torch.tensor([prompts[place].sequence for place in some], device=device)
            with torch.no_grad():
                if everywhere:
                    yield some, model(input_ids=ids, use_cache=False).logits
                    continue
                starts = torch.tensor([prompts[place].position for place in some])
                where = starts[:, None] + torch.arange(len(prompts[some[0]].answer))
                yield some, logits_at(model, ids, where, use_cache=False)
