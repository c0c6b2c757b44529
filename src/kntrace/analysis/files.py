"""The files of an analysis: written so that a reader finds all of them, of one make, or none.

Each file appears whole, by renaming; `analysis.json` goes first and comes back last, with the
checksums of the others, so that an analysis which was cut short does not pass for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from kntrace.analysis import tables
from kntrace.analysis.result import Analysis
from kntrace.archive import Run, load_array, save_array
from kntrace.archive.folder import ANALYSIS, write_failure
from kntrace.documents import parse_json, read_text
from kntrace.errors import AnalysisError, KntraceError
from kntrace.verdict import MEASURED_ON, Verdict, VerdictRule
from kntrace.wording import read_wording

__all__ = ["read_analysis", "run_identity", "write_analysis"]

FORMAT = 1

_HEAD = "analysis.json"
_NEURONS, _FORMATION = "neurons.parquet", "formation.zarr"
_DISTANCES, _OVERLAP = "distances.csv", "overlap.csv"
_CONTRASTS, _CONTRASTS_JSON = "contrast.csv", "contrast.json"
_OVERLAP_JSON, _VERDICT = "overlap.json", "verdict.json"
_FILES = (
    *(_NEURONS, _DISTANCES, _CONTRASTS, _CONTRASTS_JSON),
    *(_OVERLAP, _OVERLAP_JSON, _VERDICT),
)

_VERDICTS = TypeAdapter(Verdict)

_ANEW = "Analyse the run again with `kntrace analyse`."


def run_identity(run: Run) -> str:
    """SHA-256 (hex) of what the run's scores come from: study, suite, settings and weights."""
    weights = [run.fingerprint(place) or "" for place in range(len(run.suite))]
    parts = (run.study.digest, run.suite.digest, run.settings.digest, *weights)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write_analysis(run: Run, analysis: Analysis) -> Path:
    """Write all files into the run's folder `analysis`, replacing former ones.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    folder = run.path / ANALYSIS
    pairs, overlap = tables.pair_table(analysis.distances), tables.overlap_table(analysis.overlap)
    writers: dict[str, Callable[[Path], object]] = {
        _NEURONS: lambda path: tables.neuron_table(analysis.neurons).to_parquet(path, index=False),
        _DISTANCES: lambda path: pairs.to_csv(path, index=False, lineterminator="\n"),
        _CONTRASTS: lambda path: tables.contrast_table(analysis.contrasts).to_csv(
            path, index=False, lineterminator="\n"
        ),
        _CONTRASTS_JSON: _json(
            {name: found.to_dict() for name, found in analysis.contrasts.items()}
        ),
        _OVERLAP: lambda path: overlap.to_csv(path, index=False, lineterminator="\n"),
        _OVERLAP_JSON: _json(analysis.overlap.to_dict()),
        _VERDICT: _json(_verdict_entries(analysis)),
    }
    try:
        folder.mkdir(exist_ok=True)
        (folder / _HEAD).unlink(missing_ok=True)
        for name, write in writers.items():
            _replace(folder / name, write)
        save_array(folder / _FORMATION, analysis.formation)
        _replace(folder / _HEAD, _json(_head(run, analysis, folder)))
    except OSError as error:
        raise write_failure(folder, error) from error
    return folder


def read_analysis(run: Run) -> Analysis:
    """Read what `write_analysis` wrote; see `load_analysis`."""
    folder = run.path / ANALYSIS
    try:
        return _read_all(run, folder)
    except KntraceError:
        raise
    except Exception as error:
        # Files that say the right checksums of one another, and are of some other make.
        raise AnalysisError(
            f"not what `kntrace analyse` writes ({type(error).__name__}: {error})",
            where=folder,
            fix=_ANEW,
        ) from error


def _read_all(run: Run, folder: Path) -> Analysis:
    head = _read_head(run, folder)
    scores = run.scores
    groups = {name: tuple(words) for name, words in run.study.groups.items()}
    words = [word.text for word in run.study.words]
    labels = [word.group for word in run.study.words]
    verdict = _read_json(folder / _VERDICT)
    sizes = {"word": len(words), "rank": head["k"], "checkpoint": len(run.suite)}
    return Analysis(
        run=run,
        groups=groups,
        wording=head["wording"],
        k=head["k"],
        permutations=head["permutations"],
        seed=head["seed"],
        probability=read_wording(scores, head["wording"]).probability(),
        neurons=tables.read_neurons(folder / _NEURONS, words, labels, head["k"], head["neurons"]),
        formation=load_array(folder / _FORMATION, sizes),
        distances=tables.read_pairs(folder / _DISTANCES, words, labels, head["distances"]),
        contrasts=tables.read_contrasts(folder / _CONTRASTS, _read_json(folder / _CONTRASTS_JSON)),
        overlap=tables.read_overlap(
            folder / _OVERLAP, words, labels, _read_json(folder / _OVERLAP_JSON)
        ),
        verdict=_read_verdict(verdict["verdict"]),
        verdicts={name: _read_verdict(entry) for name, entry in verdict["wordings"].items()},
        notes=tuple(head["notes"]),
    )


def _read_head(run: Run, folder: Path) -> dict[str, Any]:
    path = folder / _HEAD
    if not path.is_file():
        raise AnalysisError(
            "no finished analysis", where=folder, fix="Make one with `kntrace analyse`."
        )
    head = _read_json(path)
    if head.get("format") != FORMAT:
        raise AnalysisError(
            f"an analysis of format {head.get('format')}",
            where=path,
            expected=f"format {FORMAT}",
            fix=_ANEW,
        )
    if head.get("run") != run_identity(run):
        raise AnalysisError(
            "an analysis of another run, or of other weights", where=folder, fix=_ANEW
        )
    _Head.model_validate(head)
    if head["k"] > run.layers * run.width:
        raise AnalysisError(
            f"{head['k']:,} knowledge neurons a word, of {run.layers * run.width:,}",
            where=path,
            fix=_ANEW,
        )
    for name in _FILES:
        if not (folder / name).is_file() or _digest(folder / name) != head["files"][name]:
            raise AnalysisError(
                "missing, or changed since it was written", where=folder / name, fix=_ANEW
            )
    return head


def _head(run: Run, analysis: Analysis, folder: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kntrace": version("kntrace"),
        "run": run_identity(run),
        "wording": analysis.wording,
        "k": analysis.k,
        "permutations": analysis.permutations,
        "seed": analysis.seed,
        "distances": {name: _plain(matrix.attrs) for name, matrix in analysis.distances.items()},
        "neurons": _plain(analysis.neurons.attrs),
        "notes": list(analysis.notes),
        "files": {name: _digest(folder / name) for name in _FILES},
    }


def _verdict_entries(analysis: Analysis) -> dict[str, Any]:
    rule = VerdictRule()
    return {
        "verdict": analysis.verdict.to_dict(),
        "wordings": {name: found.to_dict() for name, found in analysis.verdicts.items()},
        "rule": asdict(rule),
        "measured_on": MEASURED_ON,
        "measured": [asdict(row) for row in rule.measured],
        "limits": list(rule.limits),
    }


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)


def _json(content: Mapping[str, Any]) -> Callable[[Path], object]:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return lambda path: path.write_text(text, encoding="utf-8", newline="\n")


class _Head(BaseModel):
    """What is relied on of `analysis.json`."""

    model_config = ConfigDict(strict=True)

    wording: str
    k: Annotated[int, Field(gt=0)]
    permutations: int
    seed: int
    distances: dict[str, dict[str, Any]]
    neurons: dict[str, Any]
    notes: list[str]
    files: dict[str, str]


def _read_verdict(entries: Mapping[str, Any]) -> Verdict:
    # A number that is none is noticed here, not where it is printed.
    return _VERDICTS.validate_python(Verdict.from_dict(entries).to_dict())


def _read_json(path: Path) -> dict[str, Any]:
    text = read_text(path, AnalysisError, what="a file of an analysis")
    content = parse_json(text, str(path), AnalysisError)
    if not isinstance(content, dict):
        raise AnalysisError("no table of entries", where=path, fix=_ANEW)
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): value.item() if isinstance(value, np.generic) else value
        for name, value in attrs.items()
    }
