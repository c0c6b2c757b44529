"""The small files beside a model's weights, looked at before transformers reads them.

A model folder may come from a stranger. transformers makes whatever its `config.json` asks for:
a list as long as there are layers, tensors of any size for what the weights lack. What no
model has is refused here, in one line, before room is made for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kntrace.errors import SuiteError
from kntrace.models.patterns import fault_of_pattern
from kntrace.suite.weights import size_in_words, weight_files

__all__ = ["check_beside", "check_described", "check_size"]

_MOST_BYTES = 64 * 2**20
"""Of a small file: the largest tokenizers have 35 MB."""
_DEEPEST = 64
_MOST_SIGNS = 8_000_000
"""Commas and brackets in a JSON file, of which each may become an object."""

# Read by name if they are there; the others by what the tokenizer's class asks for.
_CONFIG = "config.json"
_JSON = (
    *(_CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "processor_config.json"),
    *("preprocessor_config.json", "model.safetensors.index.json"),
    "pytorch_model.bin.index.json",
)
_OTHERS = ("*.txt", "*.model", "*.jinja", "*.tiktoken", "*.vocab", "*.bpe", "*.codes")

# Counts of things of which transformers makes one each, by the end of their name.
_COUNTS = (
    (re.compile(r"(^|_)layers?$|(^|_)depth$|^block_count$"), 1000),
    (re.compile(r"(^|_)(labels|experts|blocks|stages|codebooks|heads|groups)$"), 100_000),
)
# Of a tokenizer; what it names by these is only compared with.
_COMPARED = {"model_max_length", "max_length", "max_len"}
_MOST_TOKENS = 1_000_000
_MOST_EXPRESSIONS = 32
_SHOWN, _FAULT = 80, 200
"""Characters of an expression, and of what is wrong with it, in a message."""
_MOST_GROWTH = 10_000
"""How much longer the rules of a tokenizer may make a text."""

# A weight of one byte may be computed with as eight; a packed one of two bits as well.
_TIMES = {"gguf": 32}
_OFTEN = 8
_SPARE = 2**30
"""Bytes of what a model has beside its weights: masks and angles of every position."""


def check_beside(folder: Path, where: str) -> None:
    """Look at the small files of a model's folder.

    Costs about 20 ms a megabyte.

    Raises
    ------
    SuiteError
        If one is over 64 MB, no JSON, nested more than 64 deep, or asks for what no model has;
        if a tokenizer's regular expression may take forever (see `models/patterns.py`).
    """
    for name in _JSON:
        if (folder / name).is_file():
            _check_json(folder / name, where)
    for pattern in _OTHERS:
        for file in folder.glob(pattern):
            if file.is_file():
                _check_bytes(file, where)


def check_described(config: dict[str, Any], where: str) -> None:
    """Refuse a configuration that asks for more of anything than a model has.

    Raises
    ------
    SuiteError
        Naming what there would be too many of.
    """
    for name, value in _numbers(config):
        for pattern, most in _COUNTS:
            if pattern.search(name) and value > most:
                raise SuiteError(
                    f"{name} is {value}",
                    where=where,
                    expected=f"at most {most:,}",
                    fix="No model is of that kind: do not use it.",
                )


def check_size(kind: Any, config: Any, weights: Path, where: str) -> None:
    """Refuse a model that is far larger than its weights.

    It is built without room for its numbers, which takes some tenths of a second.

    Parameters
    ----------
    kind
        The class that makes models of configurations.
    weights
        The folder in which they are, or a GGUF file.

    Raises
    ------
    SuiteError
        If what the configuration describes could not have come from the weights that are
        there, or cannot be built.
    """
    form, files, _ = weight_files(weights) if weights.is_dir() else ("gguf", [weights], ())
    if not files:
        return  # nothing will be made; that they are not there is said by who looks for them
    there = sum(file.stat().st_size for file in files if file.is_file())
    with torch.device("meta"):
        model = kind.from_config(config, dtype=torch.float32)
    tensors = {id(one): one for one in (*model.parameters(), *model.buffers())}.values()
    size = sum(prod(one.shape) * one.element_size() for one in tensors)
    if size > there * _TIMES.get(form, _OFTEN) + _SPARE:
        raise SuiteError(
            f"its configuration describes a model of {size_in_words(size)}, and its weights are "
            f"{size_in_words(there)}",
            where=where,
            expected="a configuration that fits the weights",
        )


def _numbers(value: Any) -> Iterator[tuple[str, int | float]]:
    """Walk through the numbers of a JSON value that have a name."""
    stack = [value]
    while stack:
        held = stack.pop()
        if isinstance(held, dict):
            stack += held.values()
            for name, one in held.items():
                if isinstance(one, int | float) and not isinstance(one, bool):
                    yield str(name), one
        elif isinstance(held, list):
            stack += held


# One file


def _check_bytes(file: Path, where: str) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(min(file.stat().st_size, _MOST_BYTES) + 1)
    if len(content) > _MOST_BYTES:
        raise SuiteError(
            f"{file.name} is larger than {_MOST_BYTES // 2**20} MB",
            where=where,
            expected="the small files that lie beside a model's weights",
        )
    return content


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_OPEN, _CLOSE = (np.frombuffer(signs, np.uint8) for signs in (b"[{", b"]}"))


def _check_json(file: Path, where: str) -> None:
    content = _check_bytes(file, where)
    bare = np.frombuffer(_STRING.sub(b"", content), np.uint8)
    steps = np.isin(bare, _OPEN).astype(np.int32) - np.isin(bare, _CLOSE)
    if int(np.cumsum(steps).max(initial=0)) > _DEEPEST:
        raise SuiteError(
            f"the brackets of {file.name} are nested more than {_DEEPEST} deep", where=where
        )
    if np.count_nonzero(np.isin(bare, np.frombuffer(b"[{,", np.uint8))) > _MOST_SIGNS:
        raise SuiteError(f"{file.name} has millions of entries", where=where)
    try:
        found = json.loads(content)
    except ValueError as error:
        raise SuiteError(f"{file.name} is not valid JSON: {error}", where=where) from None
    if not isinstance(found, dict):
        raise SuiteError(f"{file.name} holds no mapping", where=where, expected="{…}")
    if file.name == _CONFIG:
        check_described(found, where)
    elif file.name == "tokenizer.json":
        _check_rules(found, where)
    elif "token" in file.name:
        _check_tokens(found, file.name, where)


def _check_tokens(found: dict[str, Any], file: str, where: str) -> None:
    for name, value in _numbers(found):
        if value > _MOST_TOKENS and name not in _COMPARED:
            raise SuiteError(
                f"{name} in {file} is {value}", where=where, expected=f"at most {_MOST_TOKENS:,}"
            )


def _check_expression(pattern: str, number: int, where: str) -> None:
    if number > _MOST_EXPRESSIONS:
        raise SuiteError(
            "tokenizer.json has very many regular expressions",
            where=where,
            expected=f"at most {_MOST_EXPRESSIONS}",
        )
    fault = fault_of_pattern(pattern)
    if fault is not None:
        shown = pattern if len(pattern) <= _SHOWN else pattern[: _SHOWN - 1] + "…"
        raise SuiteError(
            f"a regular expression of tokenizer.json may take forever: {fault[:_FAULT]}",
            where=where,
            expected="no repetition of what has several lengths, and at most two in a row, unlike "
            f"{shown!r}",
            fix="If you trust it, write the expression in tokenizer.json in another way.",
        )


def _check_rules(found: dict[str, Any], where: str) -> None:
    """Refuse expressions that may take forever, and replacements that unfold to gigabytes."""
    growth, stack = 1.0, [found.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]
    expressions = 0
    while stack:
        held = stack.pop()
        if isinstance(held, dict):
            stack += held.values()
            if isinstance(held.get("Regex"), str):
                expressions += 1
                _check_expression(held["Regex"], expressions, where)
            content, pattern = held.get("content"), held.get("pattern")
            if held.get("type") == "Replace" and isinstance(content, str):
                text = pattern.get("String") if isinstance(pattern, dict) else None
                # A regular expression may be found beside every character.
                times = len(content) / len(text) if text else 1 + len(content)
                growth *= max(1.0, times)
        elif isinstance(held, list):
            stack += held
    if growth > _MOST_GROWTH:
        raise SuiteError(
            "the replacements in tokenizer.json could make a text more than "
            f"{_MOST_GROWTH:,} times as long",
            where=where,
        )
