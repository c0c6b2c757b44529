"""Changing many neurons at once, in several layers, and reading what becomes of the answer.

Every set of changes is one row of a forward pass. Rows share the prompt's recorded prefix where
the replay can; each runs from the lowest layer that it changes upward, all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kntrace.attribution.ablation import check_neurons
from kntrace.attribution.full_forward import FullForward
from kntrace.attribution.memory import Memory, piece_by_piece
from kntrace.attribution.objectives import widened
from kntrace.attribution.precision import exact_dtype
from kntrace.attribution.replays import Changes, Recording, Replay
from kntrace.models.tokens import Encoded

__all__ = ["Answered", "Intervention", "intervene", "mean_over_tokens", "token_by_token"]

# Rows of logits in the works at once.
_AT_ONCE = 32


@dataclass(frozen=True)
class Intervention:
    """A joint change of some neurons, each of which becomes factor times itself plus offset.

    Attributes
    ----------
    layer, neuron
        Which ones, (neuron,) each; none of them twice.
    factor
        0 silences them, 2 doubles what they are in the very pass in which the others are
        changed too.
    offset
        (neuron,), or one number for all: with factor 0, what they are set to.
    """

    layer: NDArray[np.int64]
    neuron: NDArray[np.int64]
    factor: float = 0.0
    offset: NDArray[np.float32] | float = 0.0


@dataclass(frozen=True)
class Answered:
    """What rows say of the answer.

    Attributes
    ----------
    probability, log_odds
        Of the answer, (row,). The log-odds are computed from the logits, so that they keep
        their digits where the probability has none left.
    rank
        How many tokens are more probable than the answer's first, (row,).
    elsewhere
        Sum of the probabilities of other tokens in the answer's first place, (row, set).
    """

    probability: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    rank: NDArray[np.int64]
    elsewhere: NDArray[np.float64]


def intervene(
    replay: Replay,
    recording: Recording,
    interventions: Sequence[Intervention],
    memory: Memory,
    *,
    elsewhere: Sequence[Sequence[int]] = (),
    everywhere: bool = False,
) -> Answered:
    """Run the only prompt of a recording once for every intervention.

    Parameters
    ----------
    elsewhere
        Sets of tokens whose probability is summed up.
    everywhere
        Change the neurons at every token instead of the scored one alone; only
        `FullForward` can.

    Notes
    -----
    Cost: one forward pass a row, of one token from the lowest changed layer upward, or of the
    whole sequence where `replay` is the full forward pass.
    """
    layers = recording.activation.shape[1]
    changes, order = _changes(interventions, recording.activation[0])
    (prompt,) = recording.prompts
    answer = torch.tensor(prompt.answer, device=recording.activation.device)

    def read(logits: Tensor) -> Tensor:
        return torch.cat([_read(some, answer, elsewhere) for some in torch.split(logits, _AT_ONCE)])

    def run(piece: slice) -> Tensor:
        some = changes.rows(piece.start, piece.stop)
        if everywhere:
            if not isinstance(replay, FullForward):
                raise TypeError("only a full forward pass changes neurons at every token")
            return replay.change(recording, some, read, everywhere=True)
        return replay.change(recording, some, read)

    parts = [found for _, found in piece_by_piece(run, changes.first, layers, memory)]
    found = torch.cat(parts)[torch.argsort(order)].double().cpu().numpy()
    probability, log_odds = _combined(found[:, 1 + len(elsewhere) :])
    return Answered(
        probability, log_odds, found[:, 0].astype(np.int64), found[:, 1 : 1 + len(elsewhere)]
    )


def mean_over_tokens(found: Iterable[Answered]) -> Answered:
    """The mean over an answer's tokens, each after those before it; ranks are the first's."""
    parts = list(found)
    if len(parts) == 1:
        return parts[0]
    # log of 1 - P, without the digits that 1 - P would lose near saturation
    odds = np.stack([part.log_odds for part in parts])
    right = np.logaddexp.reduce(-np.logaddexp(0, -odds), axis=0)
    wrong = np.logaddexp.reduce(-np.logaddexp(0, odds), axis=0)
    return Answered(
        np.mean([part.probability for part in parts], axis=0),
        right - wrong,
        parts[0].rank,
        parts[0].elsewhere,
    )


def token_by_token(one: Encoded) -> list[Encoded]:
    """Every token of an answer as an answer of its own, after those before it."""
    return [
        replace(one, ids=one.ids + one.answer[:place], answer=one.answer[place : place + 1])
        for place in range(len(one.answer))
    ]


def _changes(interventions: Sequence[Intervention], activation: Tensor) -> tuple[Changes, Tensor]:
    """All interventions as rows in order of the layer they start in, and which row is which."""
    layers, width = activation.shape
    sizes = [len(one.layer) for one in interventions]
    first = [int(one.layer.min()) if len(one.layer) else layers - 1 for one in interventions]
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))

    def joined(name: str) -> NDArray[np.int64]:
        parts = [np.asarray(getattr(one, name), dtype=np.int64) for one in interventions]
        return np.concatenate(parts)

    factor = np.repeat([one.factor for one in interventions], sizes)
    offset = np.concatenate(
        [np.broadcast_to(one.offset, size) for one, size in zip(interventions, sizes, strict=True)]
    )
    layer, neuron = joined("layer"), joined("neuron")
    check_neurons(torch.as_tensor(np.stack([layer, neuron], 1)), layers, width)
    whole = [np.repeat(rank, sizes), layer, neuron]
    device = activation.device
    changes = Changes(
        torch.as_tensor(np.asarray(first, dtype=np.int64)[order], device=device),
        *(torch.as_tensor(part, device=device) for part in whole),
        *(torch.as_tensor(part, device=device).to(activation.dtype) for part in (factor, offset)),
    )
    return changes, torch.as_tensor(order)


def _read(logits: Tensor, answer: Tensor, elsewhere: Sequence[Sequence[int]]) -> Tensor:
    """Rank, probabilities of the sets, and the log-odds of each of the answer's tokens."""
    exact = widened(logits)
    tokens = answer[None, :, None].expand(len(exact), -1, -1)
    chosen = exact.gather(-1, tokens)
    odds = chosen.squeeze(-1) - exact.scatter(-1, tokens, -torch.inf).logsumexp(-1)
    rank = (exact[:, 0] > chosen[:, 0]).sum(-1)
    total = exact[:, 0].logsumexp(-1)
    sets = [
        (exact[:, 0, list(tokens)] - total[:, None]).exp().sum(-1)
        if len(tokens)
        else torch.zeros_like(total)
        for tokens in elsewhere
    ]
    columns = [rank[:, None], *(one[:, None] for one in sets), odds]
    return torch.cat([column.to(exact_dtype(logits.device)) for column in columns], 1)


def _combined(odds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability and log-odds of a whole answer from the log-odds of each of its tokens."""
    log = -np.logaddexp(0, -odds).sum(1)
    if odds.shape[1] == 1:
        return np.exp(log), odds[:, 0]
    return np.exp(log), log - np.log(-np.expm1(log))
