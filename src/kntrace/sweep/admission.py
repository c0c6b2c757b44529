"""Whether a loaded checkpoint belongs to a run, which the first one brings into being.

Several processes may load checkpoints of one run at once, on several machines. What they have
in common, the run itself and its record, is made and changed by one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kntrace.archive import (
    Run,
    changing,
    create_run,
    resume_run,
    source_config,
    source_state,
    write_print,
)
from kntrace.errors import ModelError, RunError
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Checkpoint, Suite
from kntrace.sweep.loading import Ready

__all__ = ["Job", "admit", "start_paths"]


@dataclass(frozen=True)
class Job:
    """What all blocks of a run are computed from, as it travels to other processes.

    Attributes
    ----------
    path
        The run folder.
    study, suite
        With words and checkpoints in the run's order, checkpoints where they lie now.
    baseline
        Where the paths start, (layer, neuron), if it came with the run.
    commits
        Of the checkpoints on the hub, by label.
    allow_bin
        Whether weights may be pickles.
    sync
        Whether every block is forced to the disk.
    memory
        Bytes that one pass of the engine may take beside the weights, if not its own choice.
    """

    path: Path
    study: Study
    suite: Suite
    settings: Settings
    baseline: NDArray[np.float32] | None = None
    commits: Mapping[str, str] | None = None
    allow_bin: bool = False
    sync: bool = False
    memory: int | None = None

    @classmethod
    def of(cls, opened: Run | None, path: Path, study: Study, suite: Suite, **others: Any) -> Job:
        """Put words and checkpoints into the order of the run, if it was made already."""
        if opened is None:
            return cls(path, study, suite, **others)
        given = {checkpoint.label: checkpoint for checkpoint in suite}
        places = tuple(given[checkpoint.label] for checkpoint in opened.suite)
        return cls(path, opened.study, Suite(suite.name, places), **others)


def admit(job: Job, place: int, ready: Ready, run: Run | None = None) -> Run:
    """Check a loaded checkpoint against the run, record it, and return the run, opened.

    Parameters
    ----------
    run
        The run, if it is open already.

    Raises
    ------
    ModelError, RunError
        If the checkpoint is of another kind than the others, or not the one that the blocks
        that are there were computed from.
    """
    opened = _open(job, ready) if run is None else run
    if job.sync:
        opened.sync()

    def entries(record: dict[str, Any]) -> dict[str, Any]:
        checkpoint = job.suite.checkpoints[place]
        config = source_config(checkpoint)
        _refuse_others(job, checkpoint, ready, config, record)
        opened.write_fingerprint(place, ready.loaded.fingerprint)
        write_print(opened, ready.loaded.printed(place))
        mine = {
            "source": checkpoint.source,
            "revision": checkpoint.revision,
            "commit": ready.loaded.commit,
            "fingerprint": ready.loaded.fingerprint,
            "config": config,
            "files": source_state(checkpoint),
            "replay": ready.engine.replay,
        } | ({} if ready.rounding is None else {"rounding": ready.rounding})
        return {
            "tokens": ready.tokens,
            "answers": ready.answers,
            "architecture": ready.loaded.architecture,
            "commits": dict(job.commits or {}),
            "checkpoints": record.get("checkpoints", {}) | {checkpoint.label: mine},
        }

    opened.update_provenance(entries)
    return opened


def _open(job: Job, ready: Ready) -> Run:
    """Open the run, which another process may have made meanwhile, or make it."""
    with changing(job.path):
        run = resume_run(job.path, job.study, job.suite, job.settings, alone=False)
        if run is None:
            engine = ready.engine
            run = create_run(
                job.path,
                job.study,
                job.suite,
                job.settings,
                layers=engine.layers,
                width=engine.width,
            )
    same = [item.label for item in run.suite] == [item.label for item in job.suite]
    if not same or [w.text for w in run.study.words] != [w.text for w in job.study.words]:
        raise RunError(
            "another process has made this run with words or checkpoints in another order",
            where=job.path,
            fix="Give the same command again.",
        )
    return run


def _refuse_others(
    job: Job, checkpoint: Checkpoint, ready: Ready, config: str | None, record: Mapping[str, Any]
) -> None:
    if record.get("tokens", ready.tokens) != ready.tokens:
        raise ModelError(
            "its tokenizer reads the study's prompts otherwise than the run's other checkpoints do",
            where=f"checkpoint {checkpoint.label}",
            fix="Give all checkpoints of the suite the same tokenizer.",
        )
    seen = record.get("checkpoints", {})
    if seen.get(checkpoint.label, {}).get("config", config) != config:
        raise RunError(
            f"the configuration of {checkpoint.label!r} has changed since its blocks were computed",
            where=job.path,
            fix="Bring the former config.json back, or give another --out for a new run.",
        )
    agreed, commit = record.get("commits", {}).get(checkpoint.label), ready.loaded.commit
    if agreed is not None and commit is not None and agreed != commit:
        raise RunError(
            f"{checkpoint.label!r} is of commit {commit[:12]}, the run's of {agreed[:12]}",
            where=job.path,
            fix="Give --pin (pin=True) to go on with the commits that the run began with.",
        )
    ready.loaded.check_architecture(record.get("architecture"))


def start_paths(job: Job, place: int, run: Run, ready: Ready) -> None:
    """Tell the engine where paths start, and keep it where that is not at nothing."""
    if job.settings.baseline == "zero":
        return
    # Measured again it might differ in its last bit from what finished blocks started at.
    baseline = _recorded(run, place)
    if baseline is None:
        given = job.baseline
        measured = ready.engine.mean_activation(ready.encoded) if given is None else given
        with changing(job.path):
            # Another process at this checkpoint may have been faster.
            baseline = _recorded(run, place)
            if baseline is None:
                run.write_baseline(place, measured)
                baseline = np.asarray(measured, dtype=np.float32)
    ready.engine.baseline = baseline


def _recorded(run: Run, place: int) -> NDArray[np.float32] | None:
    try:
        return run.baseline(place)
    except RunError:  # damaged; the blocks that hung on it are computed again
        return None
