"""Read the tensors of a checkpoint one by one, and never more than a piece of one at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kntrace.audit.papers import VOCABULARY
from kntrace.audit.prints import CheckpointPrint, Problem, TensorPrint, fold, print_tensor
from kntrace.documents import parse_json, read_text
from kntrace.errors import SuiteError
from kntrace.suite.model import CONFIG
from kntrace.suite.weights import weight_files

__all__ = ["ReadTensors", "print_folder", "print_gguf", "read_papers"]

ReadTensors = Callable[[Path], Iterator[tuple[str, TensorPrint]]]
"""Takes the prints of the tensors in a file."""

_PIECE = 1 << 22
"""Values read at a time: 16 MB of float32."""

_TOKENIZER = "tokenizer.json"
_OLDER_TOKENIZERS = ("vocab.json", "merges.txt", "vocab.txt", "*.model", "*.tiktoken")
_MOST_BYTES = 64 * 2**20
"""Of a tokenizer that is looked into; the largest have 35 MB."""
# What a caller sets for one text, and what is not in the vocabulary.
_CASUAL = ("truncation", "padding", "version")

_Widen = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def _from_bfloat16(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _from_float16(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return raw.astype(np.float32)


def _as_it_is(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return raw


# By the format's name in a file: how it is read, what the file calls it elsewhere, and how it
# becomes what is hashed.
_FORMATS: dict[str, tuple[str, str, _Widen]] = {
    "F64": ("<f8", "float64", _as_it_is),
    "F32": ("<f4", "float32", _as_it_is),
    "F16": ("<f2", "float16", _from_float16),
    "BF16": ("<u2", "bfloat16", _from_bfloat16),
    "BOOL": ("?", "bool", _as_it_is),
    **{
        f"{sign}{bits}": (f"<{kind}{bits // 8}", f"{name}{bits}", _as_it_is)
        for sign, kind, name in (("I", "i", "int"), ("U", "u", "uint"))
        for bits in (8, 16, 32, 64)
    },
}


def print_folder(
    folder: Path, label: str, place: int, *, read_bin: ReadTensors | None = None
) -> CheckpointPrint:
    """Take the prints of a checkpoint that lies in a folder.

    Parameters
    ----------
    folder
        As transformers saves it.
    label, place
        Its name and position in the suite.
    read_bin
        Reads files of PyTorch's own format (.bin); without it they are not read.
    """
    bare = CheckpointPrint(label, place, **read_papers(folder))
    kind, files, named = weight_files(folder)
    absent = [file.name for file in files if not file.is_file()]
    if absent or kind == "none":
        what = f"the file of weights {absent[0]} is not there" if absent else "there are no weights"
        return replace(bare, problem=Problem("missing", what))
    read = {"safetensors": read_safetensors, "bin": read_bin}.get(kind)
    if read is None:
        return replace(bare, problem=Problem("unread", f"weights in files of {kind} are not read"))
    tensors: dict[str, TensorPrint] = {}
    for file in files:
        try:
            tensors |= dict(read(file))
        except Exception as error:  # a damaged file can fail anywhere in its reader
            return replace(bare, problem=_unreadable(file, error))
    lacking = tuple(sorted(set(named) - set(tensors)))
    return replace(bare, tensors=tensors, whole=_whole(tensors), lacking=lacking)


def print_gguf(file: Path, label: str, place: int) -> CheckpointPrint:
    """Take the prints of a checkpoint that is one GGUF file; what is packed gets unpacked."""
    bare = CheckpointPrint(label, place)
    try:
        tensors = dict(_read_gguf(file))
    except ImportError:
        says = "reading GGUF files needs the package gguf (pip install 'kntrace[gguf]')"
        return replace(bare, problem=Problem("unread", says))
    except Exception as error:  # its reader checks little, and fails anywhere
        return replace(bare, problem=_unreadable(file, error))
    return replace(bare, tensors=tensors, whole=_whole(tensors))


def _whole(tensors: dict[str, TensorPrint]) -> str:
    return fold({name: one.hash for name, one in tensors.items()})


def _unreadable(file: Path, error: Exception) -> Problem:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return Problem("unreadable", f"{file.name} cannot be read: {first}")


def read_safetensors(file: Path) -> Iterator[tuple[str, TensorPrint]]:
    """Take the prints of the tensors in a safetensors file, in the order of their names."""
    from safetensors import safe_open

    with safe_open(file, framework="np"):
        pass  # which refuses a file that is cut off or at odds with itself
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        described = json.loads(stream.read(length))
        described.pop("__metadata__", None)
        for name, one in sorted(described.items()):
            begin, end = one["data_offsets"]
            stream.seek(8 + length + begin)
            yield name, _print(stream, file.name, one["dtype"], tuple(one["shape"]), end - begin)


def _print(stream: Any, file: str, kind: str, shape: tuple[int, ...], size: int) -> TensorPrint:
    """Take the print of a tensor whose bytes come next in a stream."""
    # Formats that numpy has nothing like are told apart by their bytes.
    raw, saved, widen = _FORMATS.get(kind, ("u1", kind.lower(), _as_it_is))
    width = np.dtype(raw).itemsize

    def pieces() -> Iterator[npt.NDArray[Any]]:
        for begun in range(0, size // width, _PIECE):
            count = min(_PIECE, size // width - begun)
            yield widen(np.frombuffer(stream.read(count * width), dtype=raw))

    wide = "float32" if saved in ("float16", "bfloat16") else saved
    return print_tensor(pieces(), shape, wide, saved=saved, file=file)


def _read_gguf(file: Path) -> Iterator[tuple[str, TensorPrint]]:
    from gguf import GGUFReader, dequantize

    for tensor in GGUFReader(file).tensors:
        values = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type)).reshape(-1)
        shape = tuple(int(side) for side in reversed(tensor.shape))
        saved = tensor.tensor_type.name.lower()
        name = values.dtype.name
        yield str(tensor.name), print_tensor([values], shape, name, saved=saved, file=file.name)


def read_papers(folder: Path) -> dict[str, Any]:
    """Read what a folder's checkpoint says of itself beside its weights."""
    try:
        text = read_text(folder / CONFIG, SuiteError, what="a configuration")
        config = parse_json(text, CONFIG, SuiteError)
    except SuiteError:
        config = None
    return {
        "config": config if isinstance(config, dict) else None,
        "tokenizer": _read_tokenizer(folder),
    }


def _read_tokenizer(folder: Path) -> dict[str, str]:
    """Hash the parts of a tokenizer: its vocabulary, and the rest of it."""
    file = folder / _TOKENIZER
    try:
        if file.stat().st_size > _MOST_BYTES:
            return {_TOKENIZER: _hashed(file)}
        content = file.read_bytes()
    except OSError:
        older = sorted({path for name in _OLDER_TOKENIZERS for path in folder.glob(name)})
        return {path.name: _hashed(path) for path in older}
    try:
        whole = dict(json.loads(content))
        rest = {name: part for name, part in whole.items() if name not in _CASUAL}
        words = {name: rest.pop(name, None) for name in ("model", "added_tokens")}
        return {VOCABULARY: _digest(words), "its rules": _digest(rest)}
    except (ValueError, TypeError, RecursionError):
        return {_TOKENIZER: hashlib.sha256(content).hexdigest()}


def _hashed(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
