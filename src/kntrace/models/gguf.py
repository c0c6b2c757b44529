"""GGUF files: one file with configuration, tokenizer and weights, these as a rule quantised.

transformers reads them. What it would leave out without a word is refused here, since the
model would then compute something else than the file's author meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import transformers
from transformers.utils import is_accelerate_available, is_gguf_available

from kntrace.errors import SuiteError

__all__ = ["check_packages", "counted", "quiet_unpacking", "refuse_unread", "unpacking"]


def check_packages(path: Path, where: str) -> None:
    """Raise `SuiteError` unless the packages that read GGUF files are installed."""
    available = {"gguf": is_gguf_available, "accelerate": is_accelerate_available}
    absent = [name for name, there in available.items() if not there()]
    if absent:
        raise SuiteError(
            f"to read {path.name}, {' and '.join(absent)} must be installed, and not too old",
            where=where,
            fix="Run: pip install 'kntrace[gguf]'",
        )


def unpacking() -> dict[str, Any]:
    """Options of `from_pretrained` that make every weight an ordinary tensor."""
    # Of some architectures newer versions would keep the weights in their packed blocks.
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


@contextmanager
def quiet_unpacking() -> Iterator[None]:
    """Switch off the one bar of transformers that its own settings do not reach."""
    try:
        from transformers import modeling_gguf_pytorch_utils as module

        hidden = patch.object(module, "tqdm", partial(module.tqdm, disable=True))
    except (ImportError, AttributeError):  # no public name: another version may have none
        yield
        return
    with hidden:
        yield


def counted(path: Path) -> dict[str, Any]:
    """How many layers the file says there are, by the end of the name that it has for that."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    return {
        name.rpartition(".")[2]: field.contents()
        for name, field in fields.items()
        if name.endswith(".block_count")
    }


def refuse_unread(path: Path, model: Any, where: str) -> None:
    """Raise `SuiteError` if the file says anything of how `model` computes that was not read.

    Two things are looked at: tensors that the model has no place for, and a scaling of rotary
    positions, which transformers reads for no plain family (Llama 3.1 has one).
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    names = {tensor.name for tensor in reader.tensors}
    kind = next(
        (str(field.contents()) for name, field in reader.fields.items()
         if name.endswith(".rope.scaling.type")),
        "none",
    )  # fmt: skip
    scaled = kind != "none" or "rope_freqs.weight" in names
    if scaled and not _scales_positions(model.config):
        raise SuiteError(
            "the file scales its rotary positions, which transformers does not read from GGUF",
            where=where,
            fix="Take the model in the form that transformers saves.",
        )
    names.discard("rope_freqs.weight")
    if model.config.tie_word_embeddings:
        names.discard("output.weight")
    filled = len({tensor.data_ptr() for tensor in model.state_dict().values()})
    if len(names) > filled:
        raise SuiteError(
            f"the file holds {len(names)} tensors, of which {type(model).__name__} takes {filled}",
            where=where,
            expected="a model that transformers reads whole from GGUF",
            fix="Take the model in the form that transformers saves.",
        )


def _scales_positions(config: Any) -> bool:
    """Whether the configuration names any rotary positions but the plain ones."""
    given = getattr(config, "rope_parameters", None) or {}
    # Models with several kinds of attention have one entry a kind.
    each = [given, *(part for part in given.values() if isinstance(part, dict))]
    return any(part.get("rope_type", "default") != "default" for part in each)
