"""How well a model in training answers the study's questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kntrace.study import Study

__all__ = ["Questions"]


class Questions:
    """All prompts of a study, tokenised once so that they can be asked at every checkpoint.

    Parameters
    ----------
    study
        The questions. Of an answer of several tokens only the first is asked for.
    tokenizer
        Of the model that will be asked.
    """

    def __init__(self, study: Study, tokenizer: PreTrainedTokenizerFast) -> None:
        slots = [wording for wording, _ in study.slots]
        asked = [
            (word.group, wording, text, word.answer)
            for word in study.words
            for wording, text in zip(slots, study.rendered(word), strict=True)
            if text is not None
        ]
        self._groups = np.array([group for group, *_ in asked])
        self._wordings = np.array([wording for _, wording, _, _ in asked])
        rows = [torch.tensor(tokenizer(text)["input_ids"]) for _, _, text, _ in asked]
        # The padding is on the right, where a causal model's answer cannot depend on it.
        self._ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        self._rows = torch.arange(len(rows))
        self._last = torch.tensor([len(row) - 1 for row in rows])
        answers = [
            tokenizer(answer, add_special_tokens=False)["input_ids"][0] for *_, answer in asked
        ]
        self._answers = torch.tensor(answers)

    def ask(self, model: PreTrainedModel) -> dict[str, Any]:
        """Share of right answers and mean P(answer), by wording, and by group within each."""
        model.eval()
        with torch.no_grad():
            logits = model(self._ids, use_cache=False).logits[self._rows, self._last]
        right = (logits.argmax(-1) == self._answers).numpy()
        probability = logits.softmax(-1)[self._rows, self._answers].numpy()
        return {
            "accuracy": _means(right, self._wordings),
            "probability": _means(probability, self._wordings),
            "accuracy_by_group": self._by_group(right),
            "probability_by_group": self._by_group(probability),
        }

    def _by_group(self, values: NDArray[Any]) -> dict[str, dict[str, float]]:
        chosen = {wording: self._wordings == wording for wording in _once(self._wordings)}
        return {
            wording: _means(values[rows], self._groups[rows]) for wording, rows in chosen.items()
        }


def _means(values: NDArray[Any], keys: NDArray[np.str_]) -> dict[str, float]:
    return {key: float(values[keys == key].mean()) for key in _once(keys)}


def _once(keys: NDArray[np.str_]) -> Sequence[str]:
    """Each key once, in the order in which they first come."""
    return list(dict.fromkeys(keys.tolist()))
