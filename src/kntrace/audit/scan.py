"""Go through the checkpoints of a suite, wherever they lie, and compare their prints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kntrace.audit.files import print_files
from kntrace.audit.finding import SEVERITIES, Finding, Severity
from kntrace.audit.findings import find
from kntrace.audit.prints import CheckpointPrint, Problem
from kntrace.audit.reading import ReadTensors, print_folder, print_gguf
from kntrace.notebook import Card, Shown
from kntrace.progress import Progress, silent
from kntrace.suite import Checkpoint, cache, fetch, hub
from kntrace.suite.weights import cached_whole, parts_of, weight_files

__all__ = ["Audit", "audit_suite"]


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """What an audit of a suite found.

    Attributes
    ----------
    checkpoints
        How many were looked at.
    tensors
        How many tensors they have; in an audit by file, how many files.
    bytes
        Size of the weights that were read.
    seconds
        How long it took.
    by_file
        Whether files were compared by the SHA-256 that the hub lists, and not their tensors.
    findings
        Errors first.
    """

    checkpoints: int
    tensors: int
    bytes: int
    seconds: float
    by_file: bool
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Count the findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything here as what JSON can express."""
        return {
            "checkpoints": self.checkpoints,
            "tensors": self.tensors,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "by_file": self.by_file,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def _card(self) -> Card:
        rows = [
            {"severity": one.severity, "kind": one.kind, "finding": one.says}
            for one in self.findings
        ]
        return Card(str(self), rows=rows)

    def __str__(self) -> str:
        what = "files" if self.by_file else "tensors"
        counted = [(self.count(kind), kind) for kind in SEVERITIES]
        said = [f"{count} {kind}{'s' * (count > 1)}" for count, kind in counted if count]
        read = f", {self.bytes / 1e6:,.1f} MB in {self.seconds:.1f} s" if self.bytes else ""
        series = "1 checkpoint" if self.checkpoints == 1 else f"{self.checkpoints} checkpoints"
        outcome = ", ".join(said) or "nothing found"
        return f"audit ({series}, {self.tensors:,} {what}{read}): {outcome}"


def audit_suite(
    checkpoints: Sequence[Checkpoint],
    commits: Mapping[str, str] | None = None,
    *,
    by_file: bool = False,
    read_bin: ReadTensors | None = None,
    progress: Progress = silent,
) -> Audit:
    """Read every tensor of every checkpoint, and say what is wrong with the series.

    Parameters
    ----------
    checkpoints
        In the order of training, of any source. What a repository has and the cache has not is
        fetched, a checkpoint at a time, and stays in the cache.
    commits
        Commit of revisions by label, where it is known.
    by_file
        Compare files of weights and not their tensors: in repositories by the SHA-256 that the
        hub lists for each, a request a checkpoint, and nothing is fetched; others are read.
    read_bin
        Reads files of PyTorch's own format; `kntrace.models.read_bin`. Without it such
        checkpoints are told of and not read.
    progress
        Told of the checkpoints read, in the stage `audit`.

    Raises
    ------
    SuiteError, HubError
        If a repository cannot be asked, or files not be fetched.

    Notes
    -----
    Cost: every byte of the weights is read once and hashed, as float32 where it is saved in 16
    bits: about a second for 0.9 GB of float32 or 0.4 GB of 16 bits. Memory: some tens of MB,
    whatever the size of the model; with files of before PyTorch 1.6 one file, with GGUF one
    tensor.
    """
    begun = time.monotonic()
    prints, size = [], 0
    for place, item in enumerate(checkpoints):
        progress("audit", place, len(checkpoints), item.label)
        commit = (commits or {}).get(item.label)
        if by_file:
            taken, read = print_files(item, place, commit)
        else:
            taken, read = _print(item, place, commit, read_bin)
        prints.append(taken)
        size += read
    progress("audit", len(checkpoints), len(checkpoints))
    tensors = sum(len(item.tensors) for item in prints)
    found = find(prints, by_file=by_file)
    return Audit(len(prints), tensors, size, time.monotonic() - begun, by_file, found)


def _print(
    item: Checkpoint, place: int, commit: str | None, read_bin: ReadTensors | None
) -> tuple[CheckpointPrint, int]:
    """Take the prints of a checkpoint's tensors, and say how many bytes that took."""
    if item.gguf:
        file = Path(item.source)
        return print_gguf(file, item.label, place), _size([file])
    folder = _folder(item, commit)
    if folder is None:
        problem = Problem("unread", "not in the cache, and there is no network")
        return CheckpointPrint(item.label, place, problem=problem), 0
    taken = print_folder(folder, item.label, place, read_bin=read_bin)
    return taken, _size(weight_files(folder)[1]) if taken.tensors else 0


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _folder(checkpoint: Checkpoint, commit: str | None) -> Path | None:
    """Where the files of a checkpoint are, once they are here; None if they cannot be had."""
    if checkpoint.revision is None:
        return Path(checkpoint.source)
    if hub.offline():
        refs = cache.branches_and_tags(checkpoint.source)
        known = commit or refs.get(checkpoint.revision, checkpoint.revision)
        whole = cached_whole(checkpoint.source, known)
        return cache.snapshot(checkpoint.source, known) if whole else None
    look = hub.look_up(checkpoint.source, commit or checkpoint.revision)
    readable = parts_of(look.files).format in ("safetensors", "bin")
    # Pickles are read by a reader that takes nothing but tensors from them, or not at all.
    return fetch(checkpoint, commit=look.commit, weights=readable, allow_bin=True)
