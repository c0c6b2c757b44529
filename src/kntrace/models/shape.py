"""A checkpoint's shape, from its small files alone: no weights are read, and none made room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from kntrace.models.feedforward import find_stack, reads_both_ways
from kntrace.models.load import explained, load_tokenizer
from kntrace.suite import Checkpoint

__all__ = ["Shape", "read_shape"]


@dataclass(frozen=True)
class Shape:
    """What a model of this configuration is made of.

    Attributes
    ----------
    layers, width
        As everywhere: layers, and neurons in each.
    parameters
        Numbers in its weights, those that are used twice counted once.
    layer_operations
        Multiplications and additions that take one token through one layer, the mean of all
        layers; attention's own products of tokens with tokens, which are few beside, left out.
    down_operations
        Those of them from the neurons on.
    head_operations
        Those that make one token's logits.
    masked
        Whether it fills in masks.
    tokenizer
        The Hugging Face object.
    """

    layers: int
    width: int
    parameters: int
    layer_operations: float
    down_operations: float
    head_operations: float
    masked: bool
    tokenizer: Any


def read_shape(checkpoint: Checkpoint) -> Shape:
    """Read the shape of the model that a checkpoint's configuration describes.

    Cost: some tenths of a second, whatever the size; of a repository on the hub the small
    files are fetched.

    Raises
    ------
    SuiteError, HubError
        As `kntrace.models.load_tokenizer`.
    ModelError
        If it is a model whose neurons kntrace does not define.
    """
    config, tokenizer = load_tokenizer(checkpoint)
    masked = reads_both_ways(config)
    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    where = f"checkpoint {checkpoint.label}"
    with explained(where, checkpoint), torch.device("meta"):
        model = kind.from_config(config, dtype=torch.float32).eval()
        stack = find_stack(model)
    layers = len(stack)
    return Shape(
        layers,
        stack.width,
        sum(weight.numel() for weight in model.parameters()),
        sum(_operations(block.layer) for block in stack) / layers,
        sum(_operations(block.down) for block in stack) / layers,
        _operations(model.get_output_embeddings()),
        masked,
        tokenizer,
    )


def _operations(part: nn.Module) -> float:
    """A multiplication and an addition for every number of every matrix."""
    return 2.0 * sum(weight.numel() for weight in part.parameters() if weight.dim() > 1)
