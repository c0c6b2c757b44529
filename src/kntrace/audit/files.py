"""Prints of whole files of weights, for an audit that fetches nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from kntrace.audit.prints import CheckpointPrint, Problem, TensorPrint
from kntrace.suite import Checkpoint, hub
from kntrace.suite.weights import parts_of, weight_files

__all__ = ["print_files"]

_PART = re.compile(r"-(?P<part>[0-9]+)-of-(?P<whole>[0-9]+)\.")


def print_files(
    checkpoint: Checkpoint, place: int, commit: str | None
) -> tuple[CheckpointPrint, int]:
    """Take a checkpoint's files of weights for its tensors; with the bytes that were read."""
    if checkpoint.revision is not None:
        if hub.offline():
            problem = Problem("unread", "the hub cannot be asked without a network")
            return CheckpointPrint(checkpoint.label, place, problem=problem), 0
        listed = hub.look_up(checkpoint.source, commit or checkpoint.revision).files
        # What is named by an index alone has the others' names, and is not listed if absent.
        files = {name: (listed[name].blob, listed[name].size) for name in parts_of(listed).weights}
        read = 0
    else:
        files = _local(Path(checkpoint.source), alone=checkpoint.gguf)
        read = sum(size for _, size in files.values())
    prints = {
        name: TensorPrint(digest, (size,), "bytes", varied=True, file=name)
        for name, (digest, size) in files.items()
    }
    lack = _lack(prints)
    return CheckpointPrint(checkpoint.label, place, prints, complete=True, problem=lack), read


def _lack(names: Iterable[str]) -> Problem | None:
    """Say what is not there, by the numbers in the files' names: `model-00001-of-00003`."""
    found = [match for name in names if (match := _PART.search(name))]
    parts, whole = {int(match["part"]) for match in found}, {int(m["whole"]) for m in found}
    if found and len(whole) == 1 and len(parts) < max(whole):
        absent = next(part for part in range(1, max(whole) + 1) if part not in parts)
        return Problem("missing", f"file {absent} of {max(whole)} is not there")
    return None if [*names] else Problem("missing", "there are no weights")


def _local(source: Path, *, alone: bool) -> dict[str, tuple[str, int]]:
    files = [source] if alone else weight_files(source)[1]
    found = {}
    for file in files:
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            found["" if alone else file.name] = (digest, file.stat().st_size)
        except OSError:
            continue
    return found
