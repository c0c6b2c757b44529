"""How a model answers a study's prompts: one ordinary forward pass each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from kntrace.lint.reader import Read
from kntrace.lint.views import Answered
from kntrace.models.head import logits_at
from kntrace.progress import Progress, silent

__all__ = ["answer_all"]

_TOKENS_AT_ONCE = 4096


@torch.no_grad()
def answer_all(
    model: Any, reads: Sequence[Read], *, progress: Progress = silent
) -> tuple[Answered, ...]:
    """Ask the model all prompts that could be read, in their order.

    Returns
    -------
    tuple of Answered
        The probability of the whole answer, each token after those before it or at the mask,
        and the rank of its first token.

    Notes
    -----
    Cost: one forward pass a prompt. Prompts of equal length share one, so that nothing is
    padded and no number depends on what else is asked.
    """
    by_length: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, read in enumerate(reads):
        encoded = read.encoded
        # Several tokens at one mask are an error that another rule names.
        if encoded is not None and (encoded.mask is None or len(encoded.answer) == 1):
            by_length[len(encoded.ids), len(encoded.answer)].append(place)
    total = sum(map(len, by_length.values()))
    found: dict[int, Answered] = {}
    for (length, tokens), places in sorted(by_length.items()):
        at_once = max(1, _TOKENS_AT_ONCE // (length + tokens))
        for start in range(0, len(places), at_once):
            some = places[start : start + at_once]
            found |= dict(zip(some, _answer(model, [reads[place] for place in some]), strict=True))
            progress("answers", len(found), total)
    return tuple(found[place] for place in sorted(found))


def _answer(model: Any, reads: Sequence[Read]) -> list[Answered]:
    device = next(model.parameters()).device
    encoded = [read.encoded for read in reads if read.encoded is not None]
    answers = torch.tensor([one.answer for one in encoded], device=device)
    ids = torch.tensor([one.sequence for one in encoded], device=device)
    starts = torch.tensor([one.position for one in encoded], device=device)
    places = starts[:, None] + torch.arange(answers.shape[1], device=device)
    logits = logits_at(model, ids, places).float()
    log_p = logits.log_softmax(-1).gather(2, answers[..., None]).sum((1, 2))
    first = logits[:, 0]
    ranks = (first > first.gather(1, answers[:, :1])).sum(1)
    return [
        Answered(read.asked, float(p), int(rank))
        for read, p, rank in zip(reads, log_p.exp(), ranks, strict=True)
    ]
