"""One uniform view of the feed-forward neurons of any decoder.

Nothing here knows a family by name. The decoder's layers are run once on two tokens; of the
linear maps that are not part of attention, the last one to run in a layer is the
down-projection, and those before it are the up-projection and, in gated layers, the gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from kntrace.errors import ModelError, SettingsError
from kntrace.models.placement import home

__all__ = [
    "SITES",
    "FeedForward",
    "SitePoint",
    "Stack",
    "decoder_layers",
    "find_stack",
    "is_masked",
    "reads_both_ways",
    "refuse_unsupported",
]

SITES: dict[str, str] = {
    "post_activation": "what enters the down-projection; in gated layers, the product",
    "pre_activation": "what enters the nonlinearity: the output of the first linear map, "
    "in gated layers of the gate",
    "gate_activation": "gated layers only: the gate after the nonlinearity",
    "up_projection": "gated layers only: the output of the linear map that is not gated",
}


@dataclass(frozen=True)
class SitePoint:
    """Where one layer's neurons can be read and replaced.

    Attributes
    ----------
    module, end
        The tensor is the input or the output of this module.
    columns
        Which of its columns are the neurons.
    """

    module: nn.Module
    end: Literal["input", "output"]
    columns: slice


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward block of one layer.

    `gate` is None for a plain block; `fused` says that `up` holds gate and up-projection
    together, in that order; `activation` is None where the nonlinearity is not a module.
    """

    layer: nn.Module
    down: nn.Module
    up: nn.Module
    gate: nn.Module | None
    activation: nn.Module | None
    fused: bool
    width: int

    def site(self, name: str) -> SitePoint:
        """Find the tensor that `name` (a key of `SITES`) means in this layer.

        Raises
        ------
        SettingsError
            If the name is unknown or the layer has no such tensor.
        """
        every = slice(0, self.width)
        if name == "post_activation":
            return SitePoint(self.down, "input", every)
        gated = self.gate is not None or self.fused
        if name == "pre_activation":
            return SitePoint(self.up if self.gate is None else self.gate, "output", every)
        if name not in SITES:
            raise SettingsError.unknown("site", name, SITES)
        if not gated:
            raise SettingsError(
                f"site {name!r}, but this model's feed-forward layers have no gate",
                expected="post_activation or pre_activation",
            )
        if name == "up_projection":
            upper = slice(self.width, 2 * self.width) if self.fused else every
            return SitePoint(self.up, "output", upper)
        if self.activation is None:
            raise SettingsError(
                "site 'gate_activation', but this model applies its nonlinearity outside any "
                "module, where it cannot be reached",
                expected="another site",
            )
        return SitePoint(self.activation, "output", every)


@dataclass(frozen=True)
class Stack:
    """A model's layers from bottom to top, all of one width."""

    layers: tuple[FeedForward, ...]
    width: int

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[FeedForward]:
        return iter(self.layers)


def find_stack(model: Any) -> Stack:
    """Find the feed-forward blocks of `model` by running it once on two tokens.

    Raises
    ------
    ModelError
        For encoder-decoder and mixture-of-experts models, for layers shared between
        positions of the stack, and for blocks that are neither plain nor gated.
    """
    refuse_unsupported(model)
    layers = decoder_layers(model)
    runs = _run_order(model, layers)
    blocks = tuple(
        _block(model, index, layer, run)
        for index, (layer, run) in enumerate(zip(layers, runs, strict=True))
    )
    _refuse_shared(blocks, type(model).__name__)
    widths = {block.width for block in blocks}
    if len(widths) != 1:
        raise ModelError(
            f"its feed-forward layers have different widths ({_listed(widths)})",
            where=type(model).__name__,
            expected="one width",
        )
    return Stack(blocks, widths.pop())


def _refuse_shared(blocks: tuple[FeedForward, ...], name: str) -> None:
    """A map that runs in two layers has neurons that belong to neither."""
    used: dict[int, int] = {}
    for index, block in enumerate(blocks):
        for part in {block.up, block.down, block.gate} - {None}:
            if (first := used.setdefault(id(part), index)) != index:
                raise ModelError(
                    f"layers {first} and {index} use one and the same feed-forward map",
                    where=name,
                    expected="weights of its own for every layer",
                )


def refuse_unsupported(model: Any) -> None:
    """Raise `ModelError` for a model whose neurons kntrace does not define."""
    name = type(model).__name__
    if not hasattr(model, "config") or not hasattr(model, "get_output_embeddings"):
        raise ModelError(
            f"a {name} object", expected="a Hugging Face language model (PreTrainedModel)"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            "an encoder-decoder model: its answer depends on two stacks of neurons",
            where=name,
            expected="a decoder-only or a masked language model",
        )
    kind = getattr(model.config, "model_type", "")
    if reads_both_ways(model.config) and not is_masked(model):
        raise ModelError(
            f"a masked language model ({kind}) loaded as one that answers after its prompt",
            where=name,
            expected=f"{MODEL_FOR_MASKED_LM_MAPPING_NAMES[kind]}",
            fix="Load it with transformers.AutoModelForMaskedLM.",
        )
    experts = [
        kind
        for kind in sorted({type(part).__name__ for part in model.modules()})
        if "Experts" in kind or "Moe" in kind.replace("MoE", "Moe") or "Router" in kind
    ]
    if experts:
        raise ModelError(
            f"a mixture-of-experts model ({experts[0]}): which neurons exist depends on the token",
            where=name,
            expected="plain feed-forward layers",
        )
    if model.get_output_embeddings() is None:
        raise ModelError("the model has no language-model head", where=name)


def is_masked(model: Any) -> bool:
    """Whether a model fills in a mask, reading what comes before and after it."""
    return reads_both_ways(model.config) and (
        type(model).__name__ == MODEL_FOR_MASKED_LM_MAPPING_NAMES[model.config.model_type]
    )


def reads_both_ways(config: Any) -> bool:
    """Whether a configuration is that of a masked model rather than of a decoder."""
    kind = getattr(config, "model_type", "")
    return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def decoder_layers(model: Any) -> list[nn.Module]:
    """Find the layers of `model` from bottom to top.

    Raises
    ------
    ModelError
        If there is no stack of them, if some are one and the same, or have no attention.
    """
    count = model.config.get_text_config().num_hidden_layers
    stacks = [
        part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == count
    ]
    if not stacks:
        raise ModelError(
            f"no stack of {count} layers found in the model",
            where=type(model).__name__,
            expected="a transformer whose layers lie in one torch.nn.ModuleList",
        )
    # With one layer, other lists may have length one too: the stack is the heaviest.
    stack = max(stacks, key=lambda part: sum(weight.numel() for weight in part.parameters()))
    layers = list(stack)
    if len({id(layer) for layer in layers}) != count:
        raise ModelError(
            "some layers of the stack are one and the same module",
            where=type(model).__name__,
            expected="weights of its own for every layer",
        )
    for index, layer in enumerate(layers):
        if not any("attention" in type(part).__name__.lower() for part in layer.modules()):
            raise ModelError(
                f"layer {index} ({type(layer).__name__}) has no attention",
                where=type(model).__name__,
                expected="a transformer, each of whose layers has attention and a feed-forward "
                "block",
            )
    return layers


@dataclass(frozen=True)
class _Run:
    """One call of a part of a layer, with the first tensor that went in and came out."""

    module: nn.Module
    entered: Tensor
    left: Tensor


def _run_order(model: Any, layers: list[nn.Module]) -> list[list[_Run]]:
    """Run the model on two tokens; list, per layer, the parts outside attention as they ran."""
    order: list[list[_Run]] = [[] for _ in layers]
    device = home(model)
    ids = torch.tensor([[0, 1]], device=device)

    def watch(part: nn.Module, runs: list[_Run]) -> Any:
        def note(module: nn.Module, entered: tuple[Any, ...], left: Any) -> None:
            if entered and isinstance(entered[0], Tensor) and isinstance(left, Tensor):
                runs.append(_Run(module, entered[0], left))

        return part.register_forward_hook(note)

    with ExitStack() as hooks, torch.no_grad():
        for layer, runs in zip(layers, order, strict=True):
            for part in _outside_attention(layer):
                if not any(part.children()):
                    hooks.callback(watch(part, runs).remove)
        model(input_ids=ids)
    return order


def _outside_attention(part: nn.Module) -> Iterator[nn.Module]:
    for child in part.children():
        if "attention" in type(child).__name__.lower():
            continue
        yield child
        yield from _outside_attention(child)


def _block(model: Any, index: int, layer: nn.Module, runs: list[_Run]) -> FeedForward:
    linear = [run for run in runs if isinstance(run.module, nn.Linear | Conv1D)]
    where = f"layer {index} of {type(model).__name__}"
    if len(linear) < 2:
        raise ModelError(
            f"{len(linear)} linear maps outside attention",
            where=where,
            expected="a feed-forward block of two, or of three with a gate",
        )
    *before, down = linear
    width = down.entered.shape[-1]
    reached = [run for run in before if run.left.shape[-1] in (width, 2 * width)]
    # A nonlinearity has no weights and keeps the width. Its own input tells which map it gates.
    shaped = [run for run in runs if not list(run.module.parameters()) and run is not down]
    feeding = {id(run.left): run for run in reached}
    activation = next((run for run in shaped if id(run.entered) in feeding), None)
    found = (activation.module if activation else None, width)
    if len(reached) == 1 and reached[0].left.shape[-1] == width:
        return FeedForward(layer, down.module, reached[0].module, None, found[0], False, width)
    if len(reached) == 1:
        fused = next((run.module for run in shaped if run.left.shape[-1] == width), None)
        return FeedForward(layer, down.module, reached[0].module, None, fused, True, width)
    if len(reached) == 2 and activation is not None:
        gate = feeding[id(activation.entered)]
        up = next(run for run in reached if run is not gate)
        return FeedForward(layer, down.module, up.module, gate.module, found[0], False, width)
    raise ModelError(
        f"a feed-forward block whose {len(linear)} linear maps give widths "
        f"{[run.left.shape[-1] for run in linear]}",
        where=where,
        expected="up- and down-projection, with or without a gate",
    )


def _listed(values: set[int]) -> str:
    return ", ".join(str(value) for value in sorted(values))
