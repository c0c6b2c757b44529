"""The folder `causal` of a run: one pair of tables a checkpoint, and a head that names them.

A checkpoint is done when the head lists it; the head is written after the tables, by renaming.
So a call that is killed loses the checkpoint in hand, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from kntrace.archive import Run
from kntrace.archive.folder import CAUSAL, write_failure
from kntrace.archive.identity import identity, shortlist
from kntrace.documents import parse_json, read_text
from kntrace.effects.result import Ablation
from kntrace.effects.settings import AblationSettings
from kntrace.errors import AnalysisError, KntraceError, RunError

__all__ = [
    "Recorded",
    "begin",
    "commit",
    "load_ablation",
    "read_recorded",
    "where_kept",
    "write_summaries",
]

FORMAT = 1

_HEAD = "ablation.json"
_SUMMARY, _CONTRASTS = "summary.csv", "contrasts.csv"
_LEAKS, _SINGLES = "leaks.csv", "singles.csv"
_ANEW = "Compute it again with `kntrace ablate --anew`."


@dataclass(frozen=True)
class Recorded:
    """What the folder holds.

    Attributes
    ----------
    settings
        Of all its checkpoints.
    checkpoints
        By label, those that are done: their `fingerprint`, `files` with checksums, and how
        they were computed.
    fresh
        Whether nothing of it is on the disk yet, whatever else may be.
    """

    settings: AblationSettings
    checkpoints: Mapping[str, Mapping[str, Any]]
    fresh: bool = False


def where_kept(run: Run) -> Path:
    """The folder of the run's ablation."""
    return run.path / CAUSAL


def read_recorded(run: Run) -> Recorded | None:
    """Read what is done; None if nothing was begun.

    Checkpoints whose tables were lost or changed, or whose weights are other ones now, count
    as not done.

    Raises
    ------
    AnalysisError
        If it was made from another run or cannot be read.
    """
    path = where_kept(run) / _HEAD
    if not path.is_file():
        return None
    try:
        text = read_text(path, AnalysisError, what="the record of an ablation")
        head = parse_json(text, path.name, AnalysisError)
        made_by, of_run = head["format"], head["run"]
        settings = AblationSettings.of(**head["settings"])
        checkpoints = dict(head["checkpoints"])
    except (OSError, ValueError, KeyError, TypeError, KntraceError) as error:
        raise AnalysisError(f"cannot be read ({error})", where=path, fix=_ANEW) from None
    if made_by != FORMAT:
        raise AnalysisError(
            f"an ablation of format {made_by}", where=path, expected=f"format {FORMAT}", fix=_ANEW
        )
    if of_run != _identity(run):
        raise AnalysisError(
            "an ablation of another study, suite or settings", where=path.parent, fix=_ANEW
        )
    prints = {item.label: run.fingerprint(place) for place, item in enumerate(run.suite)}
    return Recorded(
        settings,
        {
            label: entry
            for label, entry in checkpoints.items()
            if entry["fingerprint"] == prints.get(label) and _intact(path.parent, entry["files"])
        },
    )


def begin(run: Run, settings: AblationSettings, *, anew: bool = False) -> Recorded:
    """Go on with the ablation in the run's folder, or begin one; nothing is written yet.

    Raises
    ------
    RunError
        If the one that is there was made with other settings, saying which, unless `anew`.
    AnalysisError
        If it was made from another run or cannot be read, unless `anew`.
    """
    found = None if anew else read_recorded(run)
    if found is not None and found.settings != settings:
        raise RunError(
            f"made with other settings: {shortlist(found.settings.differences(settings))}",
            where=where_kept(run),
            fix="Give the former settings, or --anew (anew=True) to begin it again with these.",
        )
    return found or Recorded(settings, {}, fresh=True)


def commit(
    run: Run,
    recorded: Recorded,
    place: int,
    table: pd.DataFrame,
    singles: pd.DataFrame,
    how: Mapping[str, Any],
) -> Recorded:
    """Keep one checkpoint's tables, and list it as done; the first one clears the folder.

    Parameters
    ----------
    place
        The checkpoint's position in the run's suite.
    how
        What else to note of it: time, device, versions.

    Raises
    ------
    RunError
        If it cannot be written; then the checkpoint is not done.
    """
    folder, label = where_kept(run), run.suite.checkpoints[place].label
    files = {}
    try:
        folder.mkdir(exist_ok=True)
        if recorded.fresh:
            _clear(folder)
        for name, part in (("effects", table), ("singles", singles)):
            file = folder / f"{name}-{place:04}.parquet"
            _replace(file, partial(part.to_parquet, index=False))
            files[file.name] = _digest(file)
    except OSError as error:
        raise write_failure(folder, error) from error
    entry = {"fingerprint": run.fingerprint(place), "files": files, **how}
    found = Recorded(recorded.settings, {**recorded.checkpoints, label: entry})
    _write_head(run, found)
    return found


def load_ablation(run: Run) -> Ablation:
    """Read back what `kntrace.ablate` left in the folder of `run`.

    Raises
    ------
    AnalysisError
        If there is none, or if it was made from another run.
    """
    recorded, folder = read_recorded(run), where_kept(run)
    if recorded is None or not recorded.checkpoints:
        raise AnalysisError(
            "no finished checkpoint", where=folder, fix="Make one with `kntrace ablate`."
        )
    tables: dict[str, list[pd.DataFrame]] = {"effects": [], "singles": []}
    for place, item in enumerate(run.suite):
        if item.label not in recorded.checkpoints:
            continue
        for name, parts in tables.items():
            part = pd.read_parquet(folder / f"{name}-{place:04}.parquet")
            step = -1 if item.step is None else item.step
            parts.append(part.assign(checkpoint=item.label, step=step))
    return Ablation(
        folder,
        recorded.settings,
        {name: tuple(words) for name, words in run.study.groups.items()},
        pd.concat(tables["effects"], ignore_index=True),
        pd.concat(tables["singles"], ignore_index=True),
    )


def write_summaries(found: Ablation) -> None:
    """Write the summaries as csv beside the tables.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    try:
        for name, table in (
            (_SUMMARY, found.summary),
            (_CONTRASTS, found.contrasts),
            (_LEAKS, found.leaks),
            (_SINGLES, found.correlations),
        ):
            write = partial(table.to_csv, index=False, lineterminator="\n")
            _replace(found.path / name, write)
    except OSError as error:
        raise write_failure(found.path, error) from error


def _identity(run: Run) -> str:
    return identity(run.study, run.suite, run.settings)


def _write_head(run: Run, recorded: Recorded) -> None:
    head = {
        "format": FORMAT,
        "kntrace": version("kntrace"),
        "run": _identity(run),
        "settings": recorded.settings.model_dump(mode="json"),
        "checkpoints": recorded.checkpoints,
    }
    text = json.dumps(head, indent=2, ensure_ascii=False) + "\n"
    try:
        _replace(where_kept(run) / _HEAD, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise write_failure(where_kept(run), error) from error


def _clear(folder: Path) -> None:
    """Remove what a former ablation left, its head first."""
    (folder / _HEAD).unlink(missing_ok=True)
    for file in folder.iterdir():
        if file.suffix in (".parquet", ".csv", ".partial"):
            file.unlink()


def _intact(folder: Path, files: Mapping[str, str]) -> bool:
    return all(
        (folder / name).is_file() and _digest(folder / name) == digest
        for name, digest in files.items()
    )


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    unfinished = path.with_name(path.name + ".partial")
    write(unfinished)
    unfinished.replace(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
