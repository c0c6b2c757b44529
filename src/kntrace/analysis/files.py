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
from typing import Any

import numpy as np

from kntrace.analysis import tables
from kntrace.analysis.result import Analysis
from kntrace.archive import Run, load_array, save_array
from kntrace.archive.folder import ANALYSIS, write_failure
from kntrace.errors import AnalysisError
from kntrace.verdict import MEASURED_ON, VALIDATED, VALIDATED_ON, Verdict, VerdictRule
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
    head = _read_head(run, folder)
    scores = run.scores
    groups = {name: tuple(words) for name, words in run.study.groups.items()}
    words = [word.text for word in run.study.words]
    labels = [word.group for word in run.study.words]
    verdict = _read_json(folder / _VERDICT)
    return Analysis(
        run=run,
        groups=groups,
        wording=head["wording"],
        k=head["k"],
        permutations=head["permutations"],
        seed=head["seed"],
        probability=read_wording(scores, head["wording"]).probability(),
        neurons=tables.read_neurons(folder / _NEURONS, words, labels, head["neurons"]),
        formation=load_array(folder / _FORMATION),
        distances=tables.read_pairs(folder / _DISTANCES, words, labels, head["distances"]),
        contrasts=tables.read_contrasts(folder / _CONTRASTS, _read_json(folder / _CONTRASTS_JSON)),
        overlap=tables.read_overlap(
            folder / _OVERLAP, words, labels, _read_json(folder / _OVERLAP_JSON)
        ),
        verdict=Verdict.from_dict(verdict["verdict"]),
        verdicts={name: Verdict.from_dict(entry) for name, entry in verdict["wordings"].items()},
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
    if head["run"] != run_identity(run):
        raise AnalysisError(
            "an analysis of another run, or of other weights", where=folder, fix=_ANEW
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
        "validated_on": VALIDATED_ON,
        "validated": [asdict(row) for row in (VALIDATED if rule.measured else ())],
        "limits": list(rule.limits),
    }


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)


def _json(content: Mapping[str, Any]) -> Callable[[Path], object]:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return lambda path: path.write_text(text, encoding="utf-8", newline="\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AnalysisError(f"cannot be read: {error}", where=path, fix=_ANEW) from None
    if not isinstance(content, dict):
        raise AnalysisError("no table of entries", where=path, fix=_ANEW)
    return content


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): value.item() if isinstance(value, np.generic) else value
        for name, value in attrs.items()
    }
