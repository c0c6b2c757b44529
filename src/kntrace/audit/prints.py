"""What is kept of a checkpoint to tell it apart from others: a print of every tensor."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kntrace.documents import parse_json
from kntrace.errors import InputError

__all__ = ["CheckpointPrint", "Problem", "TensorPrint", "fold", "print_tensor"]

# Values kept of each tensor, and a large prime that scatters their places.
_SAMPLE, _SCATTER = 12, 2_654_435_761
# Tables that a model carries and does not train, by the names that model families give them.
_TABLES = re.compile(
    r"(^|\.)((original_)?inv_freq|masked_bias|position_ids|(cos|sin)_cached|rope_freqs\.weight"
    r"|embed_positions\.weights)$"
)


@dataclass(frozen=True)
class TensorPrint:
    """One tensor, told apart from any other.

    Attributes
    ----------
    hash
        SHA-256 (hex) of number format, shape and values. Numbers of 16 bits are hashed as the
        float32 numbers that they are, so that another format does not hide equal weights.
    shape
        Its shape.
    dtype
        Format in which it was saved, or in a run loaded: `float16`.
    varied
        Whether it holds floating-point numbers of more than two values. What does not (norms
        at 1, biases at 0, attention masks) is alike in any two checkpoints and tells nothing.
    not_finite
        How many values are NaN or infinite.
    file
        File of weights that it lies in; "" where that is not known.
    sample
        A few of its values, always from the same places, to five digits.
    """

    hash: str
    shape: tuple[int, ...]
    dtype: str
    varied: bool
    not_finite: int = 0
    file: str = ""
    sample: tuple[float, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Why there are no prints of a checkpoint's tensors: a kind of finding, and words for it."""

    kind: str
    says: str


@dataclass(frozen=True)
class CheckpointPrint:
    """One checkpoint of a suite, told apart from any other.

    Attributes
    ----------
    label
        Its name in the suite.
    place
        Its position in the suite, from 0: the order of training.
    tensors
        Prints by name; empty if they are not known.
    whole
        One SHA-256 (hex) for all its weights, where it is known.
    config
        What its `config.json` says, where it has one.
    tokenizer
        SHA-256 (hex) of the parts of its tokenizer; empty where none was found.
    lacking
        Tensors that its index of files names and that are not in them.
    complete
        Whether the model was loaded, and nothing was found missing.
    problem
        Why its tensors are not known.
    """

    label: str
    place: int
    tensors: Mapping[str, TensorPrint] = field(default_factory=dict, repr=False)
    whole: str | None = None
    config: Mapping[str, Any] | None = field(default=None, repr=False)
    tokenizer: Mapping[str, str] = field(default_factory=dict, repr=False)
    lacking: tuple[str, ...] = ()
    complete: bool = False
    problem: Problem | None = None

    def to_json(self) -> str:
        """Write everything down, a tensor a line; equal prints give equal text."""
        lines = [
            f"  {json.dumps(name)}: {json.dumps([*_fields(one)], separators=(',', ':'))}"
            for name, one in sorted(self.tensors.items())
        ]
        head = {
            "label": self.label,
            "place": self.place,
            "whole": self.whole,
            "complete": self.complete,
            "config": self.config,
            "tokenizer": self.tokenizer,
        }
        text = json.dumps(head, ensure_ascii=False, sort_keys=True)
        return text[:-1] + ', "tensors": {\n' + ",\n".join(lines) + "\n}}\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is nothing of the kind.
        """
        try:
            plain = parse_json(text, "prints of weights", InputError)
            tensors = {
                str(name): TensorPrint(
                    str(hash_),
                    tuple(map(int, shape)),
                    str(dtype),
                    bool(varied),
                    int(odd),
                    str(file),
                    tuple(map(float, sample)),
                )
                for name, (hash_, shape, dtype, varied, odd, file, sample) in plain.pop(
                    "tensors"
                ).items()
            }
            return cls(**plain, tensors=tensors)
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise ValueError(f"not a checkpoint's prints: {error}") from error


def _fields(one: TensorPrint) -> Iterable[Any]:
    return (one.hash, one.shape, one.dtype, one.varied, one.not_finite, one.file, one.sample)


def print_tensor(
    pieces: Iterable[npt.NDArray[Any]],
    shape: tuple[int, ...],
    dtype: str,
    *,
    saved: str | None = None,
    file: str = "",
) -> TensorPrint:
    """Take the print of a tensor that comes in pieces.

    Parameters
    ----------
    pieces
        Its values in order, flat.
    shape
        The tensor's.
    dtype
        Format of the pieces.
    saved
        Format in which the tensor was saved, if another one.
    file
        File that it lies in.

    Notes
    -----
    Cost: about a second for 1 GB of float32, nearly all of it SHA-256. Memory: a piece.
    """
    digest = hashlib.sha256(f"torch.{dtype} {shape}".encode())
    places = _places(math.prod(shape))
    values: set[float] = set()
    sample: list[float] = []
    odd = begun = 0
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece).view(np.uint8).data)
        if piece.size and piece.dtype.kind == "f":
            low, high = float(piece.min()), float(piece.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                odd += int(piece.size - np.count_nonzero(np.isfinite(piece)))
            values = _seen(values, piece, low, high)
            here = places[(places >= begun) & (places < begun + piece.size)] - begun
            sample += [float(f"{value:.5g}") for value in piece[here]]
        begun += piece.size
    form = saved or dtype
    return TensorPrint(digest.hexdigest(), shape, form, len(values) > 2, odd, file, tuple(sample))


def _places(size: int) -> npt.NDArray[np.int64]:
    """Choose a few places in a tensor, scattered so that they share no row or column."""
    if size <= _SAMPLE:
        return np.arange(size)
    return np.unique((np.arange(_SAMPLE) * _SCATTER + _SCATTER // 3) % size)


def _seen(values: set[float], piece: npt.NDArray[Any], low: float, high: float) -> set[float]:
    """Add a piece's values to the first few seen; no more than three are needed."""
    if len(values) > 2:
        return values
    values = values | {low, high}
    between = piece[(piece != low) & (piece != high)][:1]
    return values | set(map(float, between))


def is_table(name: str) -> bool:
    """Whether a tensor of this name is a table that no training changes."""
    return _TABLES.search(name) is not None


def fold(hashes: Mapping[str, str]) -> str:
    """Fold the hashes of a model's tensors into one, whatever order they come in."""
    return hashlib.sha256(json.dumps(dict(hashes), sort_keys=True).encode()).hexdigest()
