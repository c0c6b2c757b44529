"""A checkpoint made ready to be scored, and what is found out about it on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kntrace.archive import shortlist
from kntrace.errors import ModelError
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Checkpoint

if TYPE_CHECKING:
    from kntrace.attribution import Engine
    from kntrace.models import LoadedCheckpoint
    from kntrace.models.tokens import Encoded

__all__ = ["Ready", "made_ready"]

_ROUNDED = ("bfloat16", "float16", "tf32")
_SAMPLE = 4


@dataclass(frozen=True)
class Ready:
    """A checkpoint in memory with its engine entered.

    Attributes
    ----------
    encoded
        All prompts of the study, word by word.
    tokens
        SHA-256 (hex) of all their token ids.
    answers
        Word -> token ids of its answer, as it joins the first of its prompts.
    rounding
        How far scores are off for the number format, where it is coarser than float32:
        relative errors (L2, of a layer) over a few prompts, against float32. None otherwise.
    """

    loaded: LoadedCheckpoint
    engine: Engine
    encoded: list[Encoded]
    tokens: str
    answers: dict[str, tuple[int, ...]]
    rounding: dict[str, Any] | None


@contextmanager
def made_ready(
    checkpoint: Checkpoint,
    study: Study,
    settings: Settings,
    device: str,
    *,
    allow_bin: bool = False,
    memory: int | None = None,
) -> Iterator[Ready]:
    """Load a checkpoint and enter its engine; both are let go of at the end.

    A format coarser than float32 is first held against it: the weights come as float32, score
    a few prompts, are rounded, and score them again.
    """
    # Here, so that `status` and a run with nothing to do need not wait for torch.
    from kntrace.attribution import Engine
    from kntrace.models import load_checkpoint

    exact = settings.model_copy(update={"dtype": "float32"})
    rounded = settings.dtype in _ROUNDED
    loaded = load_checkpoint(checkpoint, device=device, dtype=settings.dtype, allow_bin=allow_bin)
    reference: list[Any] = []
    if rounded:
        with Engine(loaded.model, loaded.tokenizer, exact, memory=memory) as engine:
            sample = _read_all(engine, study, checkpoint.label)[:_SAMPLE]
            reference = engine.attribute_many(sample)
        loaded.round_to(settings.dtype)
    with Engine(loaded.model, loaded.tokenizer, settings, memory=memory) as engine:
        encoded = _read_all(engine, study, checkpoint.label)
        rounding = _rounding(engine, encoded[:_SAMPLE], reference) if rounded else None
        answers = _answers(study, encoded)
        yield Ready(loaded, engine, encoded, _digest(encoded), answers, rounding)


def _rounding(engine: Engine, sample: list[Encoded], reference: list[Any]) -> dict[str, Any]:
    found = engine.attribute_many(sample)
    errors = np.array(
        [
            np.linalg.norm(mine.score - true.score, axis=1) / np.linalg.norm(true.score, axis=1)
            for mine, true in zip(found, reference, strict=True)
        ]
    )
    return {
        "prompts": len(sample),
        "median": float(np.median(errors)),
        "worst": float(errors.max()),
        "worst_layer": int(errors.max(0).argmax()),
        "probability": max(
            abs(mine.probability - true.probability)
            for mine, true in zip(found, reference, strict=True)
        ),
    }


def _read_all(engine: Engine, study: Study, label: str) -> list[Encoded]:
    """Tokenise the whole study.

    Raises
    ------
    ModelError
        If any prompt or answer does not fit, naming the first few words.
    """
    encoded: list[Encoded] = []
    failed: dict[str, ModelError] = {}
    for word in study.words:
        for prompt in study.rendered(word):
            if prompt is None:
                continue
            try:
                one = engine.encode(prompt, word.answer, study.answer_form, word.alternatives)
            except ModelError as error:
                failed.setdefault(word.text, error)
                continue
            encoded.append(one)
    if failed:
        first = next(iter(failed.values()))
        named = [f"{text}: {error.found}" for text, error in failed.items()]
        raise ModelError(
            f"{len(failed)} of {len(study.words)} words do not fit its tokenizer: "
            f"{shortlist(named)}",
            where=f"checkpoint {label}",
            expected=first.expected,
            fix=first.fix,
        )
    return encoded


def _answers(study: Study, encoded: list[Encoded]) -> dict[str, tuple[int, ...]]:
    answers: dict[str, tuple[int, ...]] = {}
    # Prompts were encoded word by word, those that a word lacks left out.
    words = (word for word in study.words for text in study.rendered(word) if text is not None)
    for word, one in zip(words, encoded, strict=True):
        answers.setdefault(word.text, one.answer)
    return answers


def _digest(encoded: list[Encoded]) -> str:
    digest = hashlib.sha256()
    for one in encoded:
        digest.update(json.dumps([one.ids, one.answer, one.mask, one.alternatives]).encode())
    return digest.hexdigest()
