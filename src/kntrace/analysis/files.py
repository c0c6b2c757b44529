"""The files of an analysis: written so that a reader finds all of them, of one make, or none.

Each file appears whole, by renaming; `analysis.json` goes first and comes back last, with the
checksums of the others, so that an analysis which was cut short does not pass for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from kntrace.analysis import tables
from kntrace.analysis.prompt_noise import PromptNoise
from kntrace.analysis.reliability import RELIABILITY_COLUMNS
from kntrace.analysis.result import Analysis
from kntrace.archive import Run, load_array, save_array
from kntrace.archive.folder import ANALYSIS, write_failure
from kntrace.contrasts import TEST_COLUMNS
from kntrace.documents import parse_json, read_text
from kntrace.emergence import formation_times
from kntrace.errors import AnalysisError, KntraceError
from kntrace.overlap import LAYER_COLUMNS
from kntrace.verdict import MEASURED_ON, VALIDATED, VALIDATED_ON, Measured, Verdict, VerdictRule
from kntrace.wording import read_wording

__all__ = ["read_analysis", "run_identity", "write_analysis"]

FORMAT = 2

_HEAD = "analysis.json"
_NEURONS, _FORMATION = "neurons.parquet", "formation.zarr"
_DISTANCES, _OVERLAP = "distances.csv", "overlap.csv"
_CONTRASTS, _CONTRASTS_JSON = "contrast.csv", "contrast.json"
_OVERLAP_JSON, _VERDICT = "overlap.json", "verdict.json"
_TESTS, _RELIABILITY, _STATISTICS = "tests.csv", "reliability.csv", "statistics.json"
_BY_LAYER, _EARLY = "overlap_by_layer.csv", "early.csv"
_TIMES, _NEURON_TIMES = "times.csv", "formation_times.parquet"
_FILES = (
    *(_NEURONS, _DISTANCES, _CONTRASTS, _CONTRASTS_JSON, _TESTS, _RELIABILITY),
    *(_OVERLAP, _OVERLAP_JSON, _BY_LAYER, _EARLY, _TIMES, _NEURON_TIMES),
    *(_STATISTICS, _VERDICT),
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
    writers: dict[str, Callable[[Path], object]] = {
        _NEURONS: _parquet(tables.neuron_table(analysis.neurons)),
        _DISTANCES: lambda path: tables.write_pairs(path, analysis.distances | analysis.corrected),
        _CONTRASTS: _csv(tables.contrast_table(analysis.contrasts)),
        _TESTS: _csv(analysis.tests),
        _RELIABILITY: _csv(analysis.reliability),
        _BY_LAYER: _csv(analysis.overlap_by_layer),
        _EARLY: _csv(tables.early_table(analysis.early)),
        _TIMES: _csv(analysis.times.words),
        _NEURON_TIMES: _parquet(tables.neuron_times(analysis.neurons, analysis.times)),
        _STATISTICS: _json(
            {
                "early": analysis.early.to_dict(),
                "times": analysis.times.to_dict(),
                "prompt_noise": analysis.prompt_noise.to_dict(),
            }
        ),
        _CONTRASTS_JSON: _json(
            {name: found.to_dict() for name, found in analysis.contrasts.items()}
        ),
        _OVERLAP: lambda path: tables.write_overlap(path, analysis.overlap),
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
        found = _read_all(run, folder)
        str(found)  # what cannot be shown was not written by `write_analysis` either
    except KntraceError:
        raise
    except Exception as error:
        # Files that say the right checksums of one another, and are of some other make.
        raise AnalysisError(
            f"not what `kntrace analyse` writes ({type(error).__name__}: {error})",
            where=folder,
            fix=_ANEW,
        ) from error
    return found


def _read_all(run: Run, folder: Path) -> Analysis:
    head = _read_head(run, folder)
    scores = run.scores
    groups = {name: tuple(words) for name, words in run.study.groups.items()}
    words = [word.text for word in run.study.words]
    labels = [word.group for word in run.study.words]
    verdict, statistics = _read_json(folder / _VERDICT), _read_json(folder / _STATISTICS)
    sizes = {"word": len(words), "rank": head["k"], "checkpoint": len(run.suite)}
    probability = read_wording(scores, head["wording"]).probability()
    formation = load_array(folder / _FORMATION, sizes)
    corrected = head.get("corrected", {})
    matrices = tables.read_pairs(folder / _DISTANCES, words, labels, head["distances"] | corrected)
    tests = {name: head[name] for name in ("permutations", "seed")}
    return Analysis(
        run=run,
        groups=groups,
        wording=head["wording"],
        k=head["k"],
        **tests,
        probability=probability,
        neurons=tables.read_neurons(folder / _NEURONS, words, labels, head["k"], head["neurons"]),
        formation=formation,
        distances={name: matrices[name] for name in head["distances"]},
        corrected={name: matrices[name] for name in corrected},
        contrasts=tables.read_contrasts(folder / _CONTRASTS, _read_json(folder / _CONTRASTS_JSON)),
        tests=tables.read_table(
            folder / _TESTS, ("distance", *TEST_COLUMNS), counts=("permutations",)
        ),
        reliability=tables.read_table(
            folder / _RELIABILITY, RELIABILITY_COLUMNS, counts=("words", "pairs")
        ),
        prompt_noise=PromptNoise.from_dict(statistics["prompt_noise"]),
        overlap=tables.read_overlap(
            folder / _OVERLAP, words, labels, _read_json(folder / _OVERLAP_JSON)
        ),
        overlap_by_layer=tables.read_table(folder / _BY_LAYER, LAYER_COLUMNS, counts=("layer",)),
        early=tables.read_early(folder / _EARLY, statistics["early"]),
        times=formation_times(formation, probability, **tests),
        verdict=_read_verdict(verdict["verdict"]),
        verdicts={name: _read_verdict(entry) for name, entry in verdict["wordings"].items()},
        notes=tuple(head["notes"]),
        # Analyses written before there were selections took the k strongest.
        selection=head.get("selection", f"top:{head['k']}"),
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
        "selection": analysis.selection,
        "permutations": analysis.permutations,
        "seed": analysis.seed,
        "distances": {name: _plain(matrix.attrs) for name, matrix in analysis.distances.items()},
        "corrected": {name: _plain(matrix.attrs) for name, matrix in analysis.corrected.items()},
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
        "measured": _rates(rule.measured),
        "validated_on": VALIDATED_ON,
        "validated": _rates(VALIDATED if rule.measured else ()),
        "limits": list(rule.limits),
    }


def _rates(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    return [{**asdict(row), "yes_interval": row.yes_interval} for row in measured]


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)


def _csv(table: pd.DataFrame) -> Callable[[Path], object]:
    return lambda path: table.to_csv(path, index=False, lineterminator="\n")


def _parquet(table: pd.DataFrame) -> Callable[[Path], object]:
    return lambda path: table.to_parquet(path, index=False)


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
