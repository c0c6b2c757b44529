"""Weights in files of PyTorch's own format (.bin), for an audit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from kntrace.audit import TensorPrint, print_tensor

__all__ = ["read_bin"]

_NARROW = (torch.float16, torch.bfloat16)


def read_bin(file: Path) -> Iterator[tuple[str, TensorPrint]]:
    """Take the prints of the tensors in a .bin file, as those of safetensors files are taken.

    Nothing in the file is executed: what is more than tensors is refused. The file stays on the
    disk, and is read a tensor at a time, unless it is of the format before PyTorch 1.6.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        state = torch.load(file, map_location="cpu", weights_only=True)
    for name, tensor in sorted(state.items()):
        saved = str(tensor.dtype).removeprefix("torch.")
        wide = tensor.float() if tensor.dtype in _NARROW else tensor
        flat = wide.detach().contiguous().view(-1)
        dtype = str(wide.dtype).removeprefix("torch.")
        if not hasattr(np, dtype):
            flat = flat.view(torch.uint8)
        shape = tuple(tensor.shape)
        yield name, print_tensor([flat.numpy()], shape, dtype, saved=saved, file=file.name)
