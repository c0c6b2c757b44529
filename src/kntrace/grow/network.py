"""The models that are grown: ordinary transformers classes with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

__all__ = ["ARCHITECTURES", "Shape", "new_model"]


@dataclass(frozen=True)
class Shape:
    """What decides how a model looks.

    Attributes
    ----------
    layers, hidden, heads
        A layer has 4 x hidden neurons.
    vocabulary
        How many tokens there are.
    context
        The longest text, in tokens.
    special
        Token ids by the names that the configuration has for them (`bos_token_id` ...).
    """

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    context: int
    special: Mapping[str, int | None]

    def _entries(self) -> dict[str, Any]:
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": 4 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": False,
            **self.special,
        }


def _gpt_neox(entries: dict[str, Any]) -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**entries, use_parallel_residual=True))


def _llama(entries: dict[str, Any]) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**entries))


ARCHITECTURES: dict[str, Callable[[dict[str, Any]], PreTrainedModel]] = {
    "gpt_neox": _gpt_neox,
    "llama": _llama,
}
"""What can be grown, by the name transformers has for it."""


def new_model(architecture: str, shape: Shape) -> PreTrainedModel:
    """Build a model whose weights are drawn from torch's random numbers as they stand."""
    return ARCHITECTURES[architecture](shape._entries())
