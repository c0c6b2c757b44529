"""Weights that are not there, not numbers, or not of the kind that the others are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kntrace.audit.finding import Finding, Severity, grouped, listed, parts
from kntrace.audit.prints import CheckpointPrint, TensorPrint, is_table

__all__ = ["absent", "formats", "not_finite", "problems", "shapes"]

_STACK = re.compile(r"(?P<stack>.*?)\.(?P<layer>[0-9]+)\.(?P<rest>.*)")
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def problems(prints: Sequence[CheckpointPrint]) -> Iterator[Finding]:
    """Find checkpoints whose weights are not there, or could not be read."""
    found = [(place, item.problem) for place, item in enumerate(prints) if item.problem]
    for problem, places in grouped(found).items():
        labels = tuple(prints[place].label for place in places)
        severity: Severity = "note" if problem.kind == "unread" else "error"
        yield Finding(problem.kind, severity, labels, f"{listed(labels)}: {problem.says}.")


def absent(prints: Sequence[CheckpointPrint], trained: Sequence[str]) -> Iterator[Finding]:
    """Find weights that some checkpoints lack, and weights that only a few have."""
    known = [place for place, item in enumerate(prints) if item.tensors]
    lacking: dict[int, set[str]] = {place: set(prints[place].lacking) for place in known}
    extra: dict[int, set[str]] = {place: set() for place in known}
    for name in trained:
        having = [place for place in known if name in prints[place].tensors]
        without = [place for place in known if name not in prints[place].tensors]
        if not without or _tied(name, [prints[at] for at in having]):
            continue
        if len(without) <= len(having):
            for place in without:
                lacking[place].add(name)
        else:
            for place in having:
                extra[place].add(name)
    for place in known:
        if not prints[place].complete:
            lacking[place] |= _gaps(prints[place])
    yield from _counted(
        prints, lacking, "missing", "lacks", "A model would be given random numbers in their place."
    )
    yield from _counted(
        prints, extra, "unexpected", "has", "Most other checkpoints have no such weights."
    )


def _counted(
    prints: Sequence[CheckpointPrint],
    found: Mapping[int, set[str]],
    kind: str,
    has: str,
    meaning: str,
) -> Iterator[Finding]:
    sets = [(place, tuple(sorted(names))) for place, names in found.items() if names]
    for names, places in grouped(sets).items():
        labels = tuple(prints[place].label for place in places)
        each = "" if len(labels) == 1 else " each"
        says = f"{listed(labels)}: {has} {len(names)} tensors{each} ({parts(names)}). {meaning}"
        if len(names) == 1:
            says = f"{listed(labels)}: {has} the tensor {names[0]}. {meaning}"
        yield Finding(kind, "error" if kind == "missing" else "warning", labels, says, names)


def _tied(name: str, having: Sequence[CheckpointPrint]) -> bool:
    """Whether a tensor is, wherever it was saved, a copy of another: a head tied to embeddings."""

    def copied(item: CheckpointPrint) -> bool:
        mine = item.tensors[name].hash
        return any(one.hash == mine for other, one in item.tensors.items() if other != name)

    return all(
        (item.config or {}).get("tie_word_embeddings", True) and copied(item) for item in having
    )


def _gaps(item: CheckpointPrint) -> set[str]:
    """Find layers that lack what the layers of their kind have.

    Layers may be of several kinds, each with weights of its own; a layer that has a part of
    another's and nothing else is not whole, unless there are many such.
    """
    layers = _layers(item.tensors)
    if not layers:
        return set()
    stack, owned = max(layers.items(), key=lambda pair: (len(pair[1]), pair[0]))
    config = item.config or {}
    said = next((config[name] for name in _COUNTS if name in config), None)
    count = max(max(owned) + 1, said if isinstance(said, int) else 0)
    kinds = Counter(frozenset(owned.get(layer, ())) for layer in range(count))
    missing = set()
    for layer in range(count):
        mine = frozenset(owned.get(layer, ()))
        fuller = [kind for kind in kinds if mine < kind]
        if fuller:
            whole = max(fuller, key=lambda kind: (kinds[kind], sorted(kind)))
            if kinds[mine] <= max(1, kinds[whole] // 4):
                missing |= {f"{stack}.{layer}.{rest}" for rest in whole - mine}
    return missing


def _layers(names: Mapping[str, Any]) -> dict[str, dict[int, set[str]]]:
    """Gather the names of layers' tensors: by stack, by layer, without both."""
    found: dict[str, dict[int, set[str]]] = {}
    for name in names:
        match = _STACK.fullmatch(name)
        if match and not is_table(name):
            layer = found.setdefault(match["stack"], {}).setdefault(int(match["layer"]), set())
            layer.add(match["rest"])
    return found


def not_finite(prints: Sequence[CheckpointPrint]) -> Iterator[Finding]:
    """Find weights that are NaN or infinite."""
    for item in prints:
        odd = {name: one.not_finite for name, one in item.tensors.items() if one.not_finite}
        if odd:
            says = (
                f"{item.label}: {sum(odd.values()):,} weights in {len(odd)} tensors are not "
                f"finite ({parts(odd)})."
            )
            yield Finding("not-finite", "error", (item.label,), says, tuple(sorted(odd)))


def shapes(prints: Sequence[CheckpointPrint], trained: Sequence[str]) -> Iterator[Finding]:
    """Find tensors that have another shape than in most checkpoints."""
    changed: dict[int, dict[str, str]] = {}
    for name in trained:
        having = [
            (at, item.tensors[name]) for at, item in enumerate(prints) if name in item.tensors
        ]
        usual = _most([one.shape for _, one in having])
        for place, one in having:
            if one.shape != usual:
                changed.setdefault(place, {})[name] = f"{name} {usual} -> {one.shape}"
    for says, places in grouped(
        (place, "; ".join([*names.values()][:2]) + (" and more" if len(names) > 2 else ""))
        for place, names in sorted(changed.items())
    ).items():
        labels = tuple(prints[place].label for place in places)
        text = f"{listed(labels)}: {len(changed[places[0]])} tensors of another shape ({says})."
        yield Finding("shape", "error", labels, text, tuple(sorted(changed[places[0]])))


def formats(prints: Sequence[CheckpointPrint], trained: Sequence[str]) -> Iterator[Finding]:
    """Find checkpoints saved in another number format than most."""
    wanted = set(trained)
    each = [(place, _dtypes(item.tensors, wanted)) for place, item in enumerate(prints)]
    known = [(place, dtypes) for place, dtypes in each if dtypes]
    if not known:
        return
    usual = _most([dtypes for _, dtypes in known])
    for dtypes, places in grouped(known).items():
        if dtypes != usual:
            labels = tuple(prints[place].label for place in places)
            says = (
                f"{listed(labels)}: saved in {dtypes}, the others in {usual}. Their weights "
                "are rounded otherwise."
            )
            yield Finding("dtype", "warning", labels, says)


def _dtypes(tensors: Mapping[str, TensorPrint], wanted: set[str]) -> str:
    """Name the formats of a checkpoint's tensors."""
    return " and ".join(sorted({one.dtype for name, one in tensors.items() if name in wanted}))


def _most(values: Sequence[Any]) -> Any:
    """Return what occurs most often; of equals the later one."""
    counts = Counter(values)
    return max(reversed([*counts]), key=lambda value: counts[value])
