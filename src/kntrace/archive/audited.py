"""Prints of the weights that a run was computed from, kept in its folder."""

from __future__ import annotations

from contextlib import suppress

from kntrace.archive import folder
from kntrace.archive.runs import Run
from kntrace.audit import CheckpointPrint, Finding, find
from kntrace.documents import read_text
from kntrace.errors import RunError

__all__ = ["audit_run", "read_prints", "write_print"]


def write_print(run: Run, taken: CheckpointPrint) -> None:
    """Keep the prints of a checkpoint's tensors: a file of its own, the same for equal weights.

    About 250 bytes a tensor.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    home = run.path / folder.AUDIT
    try:
        home.mkdir(exist_ok=True)
    except OSError as error:
        raise folder.write_failure(home, error) from error
    folder.write_text(home / _name(taken.place), taken.to_json())


def read_prints(run: Run) -> list[CheckpointPrint]:
    """Read what is kept, one a checkpoint, in the suite's order.

    Of a checkpoint whose file is lost or damaged, or that was scored by a version of kntrace
    that kept none, there is only the fingerprint of the whole; of one that was not loaded yet
    there is nothing.
    """
    found = []
    for place, checkpoint in enumerate(run.suite):
        whole = run.fingerprint(place)
        kept = CheckpointPrint(checkpoint.label, place, whole=whole)
        with suppress(RunError, ValueError):
            file = run.path / folder.AUDIT / _name(place)
            read = CheckpointPrint.from_json(read_text(file, RunError, what="prints of weights"))
            same = (read.label, read.place, read.whole) == (checkpoint.label, place, whole)
            if same and whole is not None:
                kept = read
        found.append(kept)
    return found


def audit_run(run: Run) -> tuple[Finding, ...]:
    """Say what is wrong with the checkpoints that were scored so far; see `kntrace.audit.find`."""
    return find(read_prints(run))


def _name(place: int) -> str:
    return f"{place:05d}.json"
