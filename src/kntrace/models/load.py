"""Load one checkpoint and tell its weights apart from any other's."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from kntrace.audit import HARMLESS, CheckpointPrint, TensorPrint, fold, print_tensor, read_papers
from kntrace.errors import KntraceError, ModelError, SettingsError, SuiteError
from kntrace.models.beside import check_beside, check_described, check_size
from kntrace.models.feedforward import reads_both_ways
from kntrace.models.gguf import check_packages, counted, quiet_unpacking, refuse_unread, unpacking
from kntrace.models.placement import DEVICES, SPREAD, check_spreading, whole_tensors
from kntrace.suite import Checkpoint, fetch, format_in, refuse_format
from kntrace.suite.cache import snapshot

__all__ = [
    "DTYPES",
    "LoadedCheckpoint",
    "explained",
    "fingerprint",
    "load_checkpoint",
    "load_tokenizer",
]

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "tf32": torch.float32,
}


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint in memory.

    Attributes
    ----------
    checkpoint
        Where it came from.
    model, tokenizer
        The Hugging Face objects; the model is in evaluation mode.
    prints
        What tells each tensor in the model's state apart, by name.
    fingerprint
        One SHA-256 (hex) of all of them: equal for equal weights, wherever they lie.
    architecture
        What the configuration says of how the model computes, as plain data.
    commit
        The commit of the hub repository that the weights came from; None for a folder or file.
    """

    checkpoint: Checkpoint
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    prints: dict[str, TensorPrint] = field(repr=False)
    fingerprint: str
    architecture: dict[str, Any] = field(repr=False)
    commit: str | None
    # Holds what was written to the disk for as long as the model is held.
    spill: TemporaryDirectory[str] | None = field(default=None, repr=False)

    def round_to(self, dtype: str) -> None:
        """Bring the weights to a coarser format of `DTYPES`; they are loaded in float32."""
        self.model.to(DTYPES[dtype])

    def printed(self, place: int) -> CheckpointPrint:
        """What tells it apart, as the checkpoint at this place of its suite."""
        return CheckpointPrint(
            self.checkpoint.label,
            place,
            self.prints,
            whole=self.fingerprint,
            complete=True,
            **({} if self._folder is None else read_papers(self._folder)),
        )

    @property
    def _folder(self) -> Path | None:
        """Where its files lie; None for a GGUF file, which is one, or if that is not known."""
        if self.checkpoint.revision is None:
            return None if self.checkpoint.gguf else Path(self.checkpoint.source)
        return None if self.commit is None else snapshot(self.checkpoint.source, self.commit)

    def check_architecture(self, expected: dict[str, Any] | None) -> None:
        """Raise `ModelError` if another checkpoint's `architecture` differs from this one's."""
        if expected is None:
            return
        names = sorted({*expected, *self.architecture})
        differing = [
            f"{name} {expected.get(name)!r} -> {self.architecture.get(name)!r}"
            for name in names
            if expected.get(name) != self.architecture.get(name)
        ]
        if differing:
            raise ModelError(
                f"its config.json differs from the other checkpoints' ({'; '.join(differing[:3])})",
                where=f"checkpoint {self.checkpoint.label}",
                expected="one architecture in all checkpoints of a suite",
            )


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    allow_bin: bool = False,
) -> LoadedCheckpoint:
    """Load model and tokenizer of one revision, and hash every tensor.

    What lies on the hub is fetched first, all of one commit, and read from the cache's folder.

    The quantised tensors of a GGUF file are unpacked: what is computed with are the numbers
    that they stand for.

    Parameters
    ----------
    device
        A torch device; the weights are hashed before they go there. Or `auto`: accelerate
        spreads them over the GPUs, this machine's memory and its disk, in that order, and
        fetches what is not on a device whenever it is needed.
    dtype
        One of `DTYPES`, whatever format the checkpoint was saved in (Pythia's is float16,
        which a CPU computes slowly and coarsely). Formats coarser than float32 are loaded as
        float32; `LoadedCheckpoint.round_to` brings them down.
    allow_bin
        Read weights that are there only as pickles (`pytorch_model.bin`): their tensors, and
        no programs.

    Raises
    ------
    SuiteError
        If the folder, file, repository or revision is absent, unreadable or gated, if the
        weights are pickles, or of no format that is read, if weights
        are missing (a head tied to the embeddings excepted), or if some are not finite; for a
        GGUF file also if the packages that read it are not installed.
    HubError
        If the hub cannot be reached.
    SettingsError
        If device or dtype are not to be had.
    """
    torch_device = None if device == SPREAD else _device(device)
    if dtype not in DTYPES:
        raise SettingsError.unknown("dtype", dtype, DTYPES)
    if torch_device is None:
        check_spreading(dtype)
    else:
        _refuse_format(torch_device, dtype)
    where = f"checkpoint {checkpoint.label}"
    # Weights are hashed, and their rounding measured, before they are rounded.
    wide = torch.float64 if dtype == "float64" else torch.float32
    here = _here(checkpoint, where, allow_bin=allow_bin)
    bar = quiet_unpacking() if checkpoint.gguf else nullcontext()
    config, tokenizer = _load_words(checkpoint, here)
    source, options = here
    if config.is_encoder_decoder:
        raise ModelError(
            "an encoder-decoder model: its answer depends on two stacks of neurons",
            where=where,
            expected="a decoder-only or a masked language model",
        )
    with _quiet(), bar, explained(where, checkpoint):
        if checkpoint.gguf:
            options |= unpacking()
        else:
            # Left to choose, transformers asks the hub to convert what is not safetensors.
            options |= {"use_safetensors": None if allow_bin else True, "weights_only": True}
        # What safetensors do not hold as it is computed with has to be written to the disk anew.
        spill = TemporaryDirectory(prefix="kntrace-") if torch_device is None else None
        if spill is not None:
            options |= {"device_map": "auto", "offload_folder": spill.name}
        kind = AutoModelForMaskedLM if reads_both_ways(config) else AutoModelForCausalLM
        check_size(kind, config, Path(checkpoint.source if checkpoint.gguf else source), where)
        model, report = kind.from_pretrained(
            source, dtype=wide, output_loading_info=True, **options
        )
    _check_complete(report, where)
    if checkpoint.gguf:
        refuse_unread(Path(checkpoint.source), model, where)
    prints = {name: _print(name, tensor, where) for name, tensor in whole_tensors(model)}
    return LoadedCheckpoint(
        checkpoint,
        model.eval() if torch_device is None else model.eval().to(torch_device),
        tokenizer,
        prints,
        fingerprint({name: one.hash for name, one in prints.items()}),
        _architecture(config),
        None if checkpoint.revision is None else Path(source).name,
        spill,
    )


def load_tokenizer(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Load configuration and tokenizer of one revision, and no weights.

    Raises
    ------
    SuiteError
        If the folder, file, repository or revision is absent, unreadable or gated.
    """
    where = f"checkpoint {checkpoint.label}"
    return _load_words(checkpoint, _here(checkpoint, where, weights=False))


def _load_words(checkpoint: Checkpoint, here: tuple[str, dict[str, Any]]) -> tuple[Any, Any]:
    source, options = here
    where = f"checkpoint {checkpoint.label}"
    bar = quiet_unpacking() if checkpoint.gguf else nullcontext()
    if not checkpoint.gguf:
        check_beside(Path(source), where)
    with _quiet(), bar, explained(where, checkpoint):
        if checkpoint.gguf:
            check_described(counted(Path(checkpoint.source)), where)
        config = AutoConfig.from_pretrained(source, **options)
        check_described(config.to_dict(), where)
        return config, AutoTokenizer.from_pretrained(source, **options)


def _here(
    checkpoint: Checkpoint, where: str, *, weights: bool = True, allow_bin: bool = False
) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` is to be given, always a folder, and with which options.

    Given the id of a repository it would ask the hub for more than it is told to load, and of
    whatever commit the revision means at that moment.
    """
    options: dict[str, Any] = {"trust_remote_code": False}
    if checkpoint.revision is not None:
        path = fetch(checkpoint, weights=weights, allow_bin=allow_bin)
    else:
        path = Path(checkpoint.source)
    if not checkpoint.gguf:
        if not (path / "config.json").is_file():
            raise SuiteError(
                f"no config.json in {path}", where=where, expected="a Hugging Face model folder"
            )
        if weights and format_in(path) == "bin":
            refuse_format(checkpoint, "bin", allow_bin=allow_bin)
        return str(path), options
    if not path.is_file():
        raise SuiteError(f"there is no file {path}", where=where, expected="a GGUF file")
    check_packages(path, where)
    return str(path.parent), options | {"gguf_file": path.name}


def _architecture(config: Any) -> dict[str, Any]:
    """The configuration without what says nothing of how the model computes."""
    plain: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=str))
    return {name: value for name, value in plain.items() if name not in HARMLESS}


def fingerprint(tensor_hashes: dict[str, str]) -> str:
    """Fold the hashes of a model's tensors into one, whatever order they come in."""
    return fold(tensor_hashes)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device {name!r}", expected=DEVICES) from None
    absent = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if absent:
        raise SettingsError(f"device {name!r}, but this machine has none", expected="cpu")
    return device


def _refuse_format(device: torch.device, dtype: str) -> None:
    if device.type == "cpu" and dtype in ("bfloat16", "float16", "tf32"):
        raise SettingsError(
            f"dtype {dtype} on a CPU",
            expected="float32 or float64",
            fix="CPUs compute in it slowly and coarsely, or not at all; load it as float32.",
        )
    if device.type == "mps" and dtype == "float64":
        raise SettingsError("dtype float64 on mps, which has none", expected="float32")


def _print(name: str, tensor: Tensor, where: str) -> TensorPrint:
    flat = tensor.detach().cpu().contiguous().view(-1)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if not hasattr(np, dtype):  # formats that numpy has nothing like: by their bytes
        flat = flat.view(torch.uint8)
    print_ = print_tensor([flat.numpy()], tuple(tensor.shape), dtype)
    if print_.not_finite:
        raise SuiteError(
            f"the weights {name} hold values that are not finite",
            where=where,
            fix="Take this checkpoint out of the suite, or load it in the format it was saved in.",
        )
    return print_


def _check_complete(report: dict[str, Any], where: str) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise SuiteError(
            f"{len(missing)} tensors are missing from the weights ({', '.join(missing[:3])})",
            where=where,
            expected="every weight of the model",
            fix="transformers would fill them with random numbers; get a complete checkpoint.",
        )
    mismatched = sorted(str(key[0]) for key in report["mismatched_keys"])
    if mismatched:
        raise SuiteError(
            f"tensors of another shape than the config says ({', '.join(mismatched[:3])})",
            where=where,
        )


@contextmanager
def explained(where: str, checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what the libraries raise for bad sources into one line each."""
    place = checkpoint.source
    if checkpoint.revision is not None:
        place += f" at revision {checkpoint.revision}"
    try:
        yield
    except pickle.UnpicklingError:
        raise SuiteError(
            f"the .bin files of {place} hold more than tensors, or are damaged",
            where=where,
            expected="weights and nothing else",
            fix="Take the checkpoint in safetensors: programs in weights are never run.",
        ) from None
    except (KntraceError, MemoryError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        if "mismatch" in str(error):
            raise SuiteError(f"{place}: weights do not fit the config", where=where) from error
        raise _unreadable(place, error, where) from error
    except Exception as error:
        # The readers of configurations, tokenizers and GGUF files check little: what a stranger
        # wrote makes them fail anywhere, and in any way.
        raise _unreadable(place, error, where) from error
    except BaseException as error:
        # The library of tokenizers is written in Rust, of which this is a fault.
        if type(error).__name__ != "PanicException":
            raise
        raise _unreadable(place, error, where) from error


def _unreadable(place: str, error: BaseException, where: str) -> SuiteError:
    lines = str(error).splitlines() or [""]
    # Some say in the first line only of which name the second tells.
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    known = isinstance(error, OSError | ValueError)
    said = first if known and first else f"{type(error).__name__}: {first}".removesuffix(": ")
    return SuiteError(f"{place} cannot be loaded: {said}", where=where)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' own bars and reports; what they say is checked and said here."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
