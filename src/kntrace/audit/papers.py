"""Configurations and tokenizers that change along a series."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kntrace.audit.finding import Finding, Severity, grouped, listed
from kntrace.audit.prints import CheckpointPrint

__all__ = ["HARMLESS", "configs", "tokenizers"]

HARMLESS = frozenset(
    {
        "_name_or_path",
        "_model_name_or_path",
        "_commit_hash",
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Entries of a `config.json` that say nothing of how the model computes."""

VOCABULARY = "vocabulary"
"""The part of a tokenizer without which its tokens mean something else."""

_SHOWN = 3


def configs(prints: Sequence[CheckpointPrint]) -> Iterator[Finding]:
    """Find configurations that differ from those of most checkpoints."""
    known = [(at, _plain(item.config)) for at, item in enumerate(prints) if item.config is not None]
    for harmless in (False, True):
        parts = [
            (place, {name: text for name, text in config.items() if (name in HARMLESS) is harmless})
            for place, config in known
        ]
        yield from _differing(prints, parts, harmless)


def _plain(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, sort_keys=True) for name, value in config.items()}


def _differing(
    prints: Sequence[CheckpointPrint], parts: Sequence[tuple[int, dict[str, str]]], harmless: bool
) -> Iterator[Finding]:
    alike = grouped(parts, lambda part: tuple(sorted(part.items())))
    if len(alike) < 2:
        return
    usual = dict(max(reversed([*alike]), key=lambda part: len(alike[part])))
    for part, places in alike.items():
        mine = dict(part)
        if mine == usual:
            continue
        labels = tuple(prints[place].label for place in places)
        names = [name for name in sorted({*mine, *usual}) if mine.get(name) != usual.get(name)]
        changed = [name for name in names if name in mine and name in usual]
        severity: Severity = "note" if harmless else "error" if changed else "warning"
        shown = "; ".join(_change(name, usual, mine) for name in (changed or names)[:_SHOWN])
        more = f"; {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        meaning = {
            "note": "It changes nothing that is computed.",
            "warning": "What is not said has a default; it may be the same.",
            "error": "It is another model, to which the others' scores do not compare.",
        }[severity]
        says = f"{listed(labels)}: config.json is not the others' ({shown}{more}). {meaning}"
        yield Finding("config", severity, labels, says)


def _change(name: str, usual: Mapping[str, str], mine: Mapping[str, str]) -> str:
    before, after = (_short(part.get(name, "nothing")) for part in (usual, mine))
    return f"{name} {before} -> {after}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def tokenizers(prints: Sequence[CheckpointPrint]) -> Iterator[Finding]:
    """Find tokenizers that differ from those of most checkpoints, or are not there."""
    known = [(place, dict(item.tokenizer)) for place, item in enumerate(prints) if item.tokenizer]
    none = [
        place
        for place, item in enumerate(prints)
        if not item.tokenizer and (item.tensors or item.config)
    ]
    if known and none:
        labels = tuple(prints[place].label for place in none)
        says = f"{listed(labels)}: no tokenizer was found, while the others have one."
        yield Finding("tokenizer", "error", labels, says)
    alike = grouped(known, lambda parts: tuple(sorted(parts.items())))
    if len(alike) < 2:
        return
    usual = dict(max(reversed([*alike]), key=lambda parts: len(alike[parts])))
    for parts, places in alike.items():
        mine = dict(parts)
        if mine != usual:
            labels = tuple(prints[place].label for place in places)
            yield _other_tokenizer(labels, mine, usual)


def _other_tokenizer(
    labels: tuple[str, ...], mine: Mapping[str, str], usual: Mapping[str, str]
) -> Finding:
    words = VOCABULARY in mine and VOCABULARY in usual
    if words and mine[VOCABULARY] != usual[VOCABULARY]:
        says = "the vocabulary is not the others': the same text may become other tokens."
        return Finding("tokenizer", "error", labels, f"{listed(labels)}: {says}")
    names = sorted(name for name in {*mine, *usual} if mine.get(name) != usual.get(name))
    says = (
        f"the tokenizer is not the others' in {', '.join(names)}; `kntrace check` and a run read "
        "the study's prompts with it, and a run refuses other tokens."
    )
    return Finding("tokenizer", "warning", labels, f"{listed(labels)}: {says}")
