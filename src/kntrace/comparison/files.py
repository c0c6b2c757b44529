"""A comparison as files in a folder."""

from __future__ import annotations

import json
from pathlib import Path

from kntrace.archive.folder import SCORES, write_failure
from kntrace.comparison.result import Comparison
from kntrace.errors import RunError

__all__ = ["write_comparison"]

_TABLES = ("runs", "verdicts", "agreement", "estimates", "pooled")
_EVALUATED = ("evaluations", "correlations")
_HEAD = "comparison.json"


def write_comparison(comparison: Comparison, folder: str | Path) -> Path:
    """Write `comparison.json` with all of it, and a csv file of every table.

    Tables of evaluations are written where there are any; those that an earlier comparison
    left in the folder are removed.

    Raises
    ------
    RunError
        If the folder is a run, or cannot be written.
    """
    folder = Path(folder)
    if (folder / SCORES).exists():
        raise RunError("a run folder", where=folder, fix="Give another --out.")
    texts = {
        f"{name}.csv": getattr(comparison, name).to_csv(index=False, lineterminator="\n")
        for name in (*_TABLES, *(_EVALUATED if len(comparison.evaluations) else ()))
    }
    content = json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _EVALUATED:
            (folder / f"{name}.csv").unlink(missing_ok=True)
        for name, text in {**texts, _HEAD: content + "\n"}.items():
            partial = folder / f"{name}.partial"
            partial.write_text(text, encoding="utf-8", newline="\n")
            partial.replace(folder / name)
    except OSError as error:
        raise write_failure(folder, error) from error
    return folder
