"""Where a model's weights are: on one device, spread over several, or fetched as they are used.

accelerate spreads a model that is too large for one device (`device_map`). What lies in memory
or on the disk then is represented by tensors without data, and its modules bring the real
ones to the device on which they compute for as long as they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from kntrace.errors import SettingsError

__all__ = ["DEVICES", "SPREAD", "check_spreading", "home", "is_offloaded", "whole_tensors"]

SPREAD = "auto"
"""The name of no device, but of all that there are, with memory and disk for what is left."""

DEVICES = "cpu, cuda, cuda:N, mps or auto"


def check_spreading(dtype: str) -> None:
    """Refuse to spread a model where that cannot be done.

    Raises
    ------
    SettingsError
        If accelerate is not installed, or for formats whose rounding is measured against the
        model in float32, which is taken not to fit.
    """
    if find_spec("accelerate") is None:
        raise SettingsError(
            "device 'auto' needs the package accelerate",
            fix="Install it with: pip install 'kntrace[large]'",
        )
    if dtype not in ("float32", "float64", "tf32"):
        raise SettingsError(
            f"dtype {dtype} with device 'auto'",
            expected="float32, tf32 or float64",
            fix="Coarser formats are measured against float32 on one device first; name one.",
        )


def home(model: Any) -> torch.device:
    """Return the device on which the model takes its input and gives its output."""
    embedding = model.get_input_embeddings()
    here: torch.device = embedding.weight.device
    # Where nothing fetches the numbers that are not there, there are none: a shape alone.
    if here.type != "meta" or not any(hasattr(part, "_hf_hook") for part in model.modules()):
        return here
    device = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return torch.device("cpu") if device is None else torch.device(device)


def is_offloaded(model: Any) -> bool:
    """Say whether some weights are elsewhere than on the device that computes with them."""
    return any(weight.device.type == "meta" for weight in model.parameters())


def whole_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Give every tensor of the model's state by its name, one part of the model at a time.

    Of weights that are offloaded the real ones, each only until the next part is asked for.
    """
    if not is_offloaded(model):
        yield from model.state_dict().items()
        return
    from accelerate.utils import align_module_device

    for place, part in model.named_modules():
        with align_module_device(part):
            for name, tensor in part.state_dict().items():
                if "." not in name:  # the others are its parts' own
                    yield (f"{place}.{name}" if place else name), tensor
