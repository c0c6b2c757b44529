"""Answers of several tokens as the paper's public code takes them.

Every token of the answer is scored after the prompt and as many tokens as stand before it, but
these are the model's own: at each place the most probable one, whether it is the answer's or
not. Its text is put after the prompt's, and the whole is tokenised anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from kntrace.attribution.encoding import Reader
from kntrace.errors import ModelError
from kntrace.models.head import logits_at
from kntrace.models.placement import home
from kntrace.models.tokens import Encoded

__all__ = ["written_by"]


def written_by(model: Any, reader: Reader, encoded: Encoded) -> list[Encoded]:
    """One prompt for each token of the answer, longer each time by what the model writes.

    Cost: one ordinary forward pass for each of the answer's tokens but the last.

    Raises
    ------
    ModelError
        If a prompt grows longer than it may be, or has no text.
    """
    if not encoded.text:
        raise ModelError(
            "a prompt of token ids alone, after whose text the model is to write on",
            expected="one that Engine.encode read",
        )
    device = home(model)
    parts = [encoded]
    for _ in encoded.answer[1:]:
        ids = torch.tensor([parts[-1].ids], device=device)
        with torch.no_grad():
            last = torch.tensor([ids.shape[1] - 1])
            likeliest = logits_at(model, ids, last, use_cache=False).argmax()
        parts.append(reader.written_on(parts[-1], int(likeliest)))
    return [
        replace(part, answer=(token,), text="")
        for part, token in zip(parts, encoded.answer, strict=True)
    ]
