"""What is done, what is missing and what is damaged in a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kntrace.archive.audited import audit_run
from kntrace.archive.convergence import Convergence, convergence
from kntrace.archive.identity import remedy
from kntrace.archive.opening import open_run
from kntrace.archive.runs import Run
from kntrace.archive.sessions import Seen, read_computing
from kntrace.audit import Finding
from kntrace.notebook import Card, Shown
from kntrace.progress import Progress, silent

__all__ = ["CheckpointStatus", "Status", "status"]

_SHOWN = 20


@dataclass(frozen=True)
class CheckpointStatus:
    """Numbers of blocks of one checkpoint, and the fingerprint of its weights ("" if none)."""

    label: str
    step: int | None
    done: int
    missing: int
    damaged: int
    fingerprint: str


@dataclass(frozen=True, repr=False)
class Status(Shown):
    """The state of a run.

    Attributes
    ----------
    path
        The run folder.
    total, done
        Numbers of blocks: of all, and of those that are there and pass their checksum.
    missing, damaged
        The other blocks, as (checkpoint label, word), in order.
    checkpoints
        The same as numbers, one entry per checkpoint in the suite's order.
    convergence
        Nodes spent on the blocks that are done and which paths missed the tolerance; None
        where nothing was verified.
    findings
        What is wrong with the weights of the checkpoints that were loaded so far.
    computing
        The processes that compute blocks at this moment, wherever they are, and those that were
        killed since the run was last begun.
    top
        Of a run that `kntrace.compact` made: see `kntrace.settings.Settings`.
    """

    path: Path
    total: int
    done: int
    missing: tuple[tuple[str, str], ...]
    damaged: tuple[tuple[str, str], ...]
    checkpoints: tuple[CheckpointStatus, ...]
    convergence: Convergence | None = None
    findings: tuple[Finding, ...] = ()
    computing: tuple[Seen, ...] = ()
    top: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return self.done == self.total

    def to_dict(self) -> dict[str, Any]:
        """Everything here as what JSON can express."""
        counted = None if self.convergence is None else self.convergence.to_dict()
        plain = asdict(replace(self, convergence=None))
        return plain | {"path": str(self.path), "convergence": counted}

    def _card(self) -> Card:
        return Card(
            f"Run {self.path}",
            {
                "blocks": self.total,
                "done": self.done,
                "missing": len(self.missing),
                "damaged": len(self.damaged),
            },
            [
                {
                    "checkpoint": row.label,
                    "done": row.done,
                    "missing": row.missing,
                    "damaged": row.damaged,
                }
                for row in self.checkpoints
            ],
            [f"audit: {finding}" for finding in self.findings],
        )

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.done} of {self.total} blocks done"]
        for row in self.checkpoints:
            parts = [f"{row.done} done"]
            parts += [f"{row.missing} missing"] if row.missing else []
            parts += [f"{row.damaged} damaged"] if row.damaged else []
            lines.append(f"  {row.label}: {', '.join(parts)}")
        shown = self.damaged[:_SHOWN]
        lines += [f"damaged: {label} · {word}" for label, word in shown]
        if len(self.damaged) > len(shown):
            lines.append(f"damaged: {len(self.damaged) - len(shown)} more")
        if self.convergence is not None and self.done:
            lines.append(str(self.convergence))
        lines += [f"audit: {finding}" for finding in self.findings]
        lines += [f"computing: {seen}" if seen.alive else str(seen) for seen in self.computing]
        if not self.complete and not any(seen.alive for seen in self.computing):
            lines.append(remedy(self.top))
        return "\n".join(lines)


def status(path: str | Path | Run, *, verify: bool = True, progress: Progress = silent) -> Status:
    """Find out what is done, what is missing and what is damaged in the run folder `path`.

    Writes nothing, and may be asked while the run is being written.

    Parameters
    ----------
    path
        The run folder, or the opened run.
    verify
        Read every chunk and check it, and count nodes and paths; without, only look which
        chunks exist, which takes seconds for 300,000 blocks.
    progress
        Told of the blocks read, in the stage `verify`, and of the checkpoints whose paths were
        counted, in the stage `paths`.

    Raises
    ------
    RunError
        If `path` is no run, or cannot be read.
    """
    run = path if isinstance(path, Run) else open_run(path)
    missing = run.missing()
    damaged = run.damaged(progress) if verify else []
    labels = [checkpoint.label for checkpoint in run.suite.checkpoints]
    words = [word.text for word in run.study.words]
    lacking = Counter(pair[0] for pair in missing)
    broken = Counter(pair[0] for pair in damaged)
    rows = [
        CheckpointStatus(
            label=checkpoint.label,
            step=checkpoint.step,
            done=len(words) - lacking[place] - broken[place],
            missing=lacking[place],
            damaged=broken[place],
            fingerprint=run.fingerprint(place) or "",
        )
        for place, checkpoint in enumerate(run.suite.checkpoints)
    ]
    return Status(
        path=run.path,
        total=len(labels) * len(words),
        done=len(labels) * len(words) - len(missing) - len(damaged),
        missing=tuple((labels[checkpoint], words[word]) for checkpoint, word in missing),
        damaged=tuple((labels[checkpoint], words[word]) for checkpoint, word in damaged),
        checkpoints=tuple(rows),
        convergence=convergence(run, leave_out=damaged, progress=progress) if verify else None,
        findings=audit_run(run),
        computing=read_computing(run.path),
        top=run.settings.top,
    )
