"""The record of how a run was computed: by which versions, where, from what, in what time."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kntrace.archive import folder
from kntrace.documents import parse_json, read_text
from kntrace.errors import RunError, SuiteError
from kntrace.settings import Settings
from kntrace.suite import Checkpoint
from kntrace.suite.model import CONFIG

__all__ = ["Session", "read_record", "source_config", "source_state", "write_record"]

_PACKAGES = (
    "kntrace",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "zarr",
    "numcodecs",
    "xarray",
)
_SECONDS_BETWEEN_RECORDS = 30.0
# Entries of a config.json that change when another version saves the same model, and the
# format of the weights, which is a setting of the run.
_WRITER = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")


class _Session(BaseModel):
    """What is relied on of one session's entry in a record."""

    started: str
    seconds: float


class _Checkpoint(BaseModel):
    """What is relied on of one checkpoint's entry."""

    commit: str | None = None
    config: str | None = None
    files: str | None = None


class _Record(BaseModel):
    """What is relied on of a record, which may hold more."""

    sessions: tuple[_Session, ...] = ()
    checkpoints: dict[str, _Checkpoint] = {}
    versions: dict[str, str] = {}
    tokens: str | None = None
    architecture: dict[str, Any] | None = None


def read_record(run: Path) -> dict[str, Any]:
    """Read the record in the run folder `run`; empty if it was removed."""
    place = run / folder.PROVENANCE
    if not place.exists():
        return {}
    try:
        record = parse_json(read_text(place, RunError, what="a record"), str(place), RunError)
        _Record.model_validate(record)
    except (RunError, ValidationError):
        raise RunError(
            "the record of how the run was computed cannot be read",
            where=place,
            fix="Remove the file: it holds no scores.",
        ) from None
    return dict(record)


def write_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write the record of the run folder `run`."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    folder.write_text(run / folder.PROVENANCE, text + "\n")


@dataclass
class Session:
    """One go at a run, from its start until it ends or is stopped.

    Attributes
    ----------
    device
        The torch device in use.
    threads
        Torch's processor threads, None until torch is loaded.
    blocks
        Blocks computed in this session.
    damaged
        Names of the blocks that were there, found damaged, and computed again.
    workers
        Processes that compute, this one or those it started.
    shard
        Which part of the checkpoints is this session's, `2/8`; None for all.
    """

    device: str
    threads: int | None = None
    workers: int = 1
    shard: str | None = None
    blocks: int = 0
    damaged: list[str] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    # A clock that never goes back, unlike the one that dates the start.
    _start: float = field(default_factory=time.monotonic)
    _recorded: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> bool:
        """Whether the last record is so old that a kill would lose much of it."""
        return time.monotonic() - self._recorded > _SECONDS_BETWEEN_RECORDS

    def entries(self, record: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
        """Entries to put into `record`, which may hold an earlier state of this session."""
        self._recorded = time.monotonic()
        started = self.started.isoformat(timespec="microseconds")
        me = (started, self.shard)
        former = [
            item
            for item in record.get("sessions", [])
            if (item["started"], item.get("shard")) != me
        ]
        mine = {
            "started": started,
            "seconds": round(self._recorded - self._start, 3),
            "blocks": self.blocks,
            "damaged": self.damaged,
            "device": self.device,
            "threads": self.threads,
            "workers": self.workers,
            **({} if self.shard is None else {"shard": self.shard}),
            "versions": _versions(),
        }
        sessions = [*former, mine]
        return {
            "versions": mine["versions"],
            "platform": platform.platform(),
            "device": self.device,
            "dtype": settings.dtype,
            "threads": self.threads,
            "seconds": round(sum(item["seconds"] for item in sessions), 3),
            "sessions": sessions,
        }


def source_state(checkpoint: Checkpoint) -> str | None:
    """Fold names, sizes and times of a checkpoint's files into one SHA-256 (hex).

    Tells cheaply that a folder, or a GGUF file, was not touched since it was read. None for a
    revision on the hub, whose commit says it, and for what is not there.
    """
    if checkpoint.revision is not None:
        return None
    source = Path(checkpoint.source)
    try:
        files = sorted(
            (item.name, item.stat().st_size, item.stat().st_mtime_ns)
            for item in ([source] if checkpoint.gguf else source.iterdir())
            if item.is_file() or checkpoint.gguf
        )
    except OSError:
        return None
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def source_config(checkpoint: Checkpoint) -> str | None:
    """Fold a checkpoint folder's `config.json`, less what says who wrote it, into one SHA-256.

    Two models of equal weights compute different things if their configurations differ. None
    where there is no such file, for a revision on the hub, and for a GGUF file: what its
    configuration says of the arithmetic is in the run's `architecture`, which is compared too.
    """
    try:
        file = Path(checkpoint.source, CONFIG)
        config = parse_json(read_text(file, SuiteError, what=CONFIG), str(file), SuiteError)
    except SuiteError:
        return None
    if checkpoint.revision is not None or not isinstance(config, dict):
        return None
    kept = {name: value for name, value in config.items() if name not in _WRITER}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # Run from a source tree that was never installed.
            found[name] = "not installed"
    return found
