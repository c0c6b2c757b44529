"""The files of views, in the run's folder `analysis/views`: `NAME.csv`, and `NAME.json` about it.

The head is written last and holds the checksums of the tables, so that a view which was cut
short, or whose tables were changed, does not pass for one.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from kntrace.analysis.files import run_identity
from kntrace.archive import Run
from kntrace.archive.folder import ANALYSIS, write_failure
from kntrace.documents import parse_json, read_text
from kntrace.errors import AnalysisError
from kntrace.views.base import Asked, Found, View

__all__ = ["computed", "plain", "read_view", "where_kept", "write_view"]

FORMAT = 4


def where_kept(run: Run) -> Path:
    """The folder of the run's views."""
    return run.path / ANALYSIS / "views"


def write_view(run: Run, view: View, asked: Asked, found: Found) -> Path:
    """Write a view's tables and its head, replacing former ones; return the main table's path.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    folder, head = where_kept(run), where_kept(run) / f"{view.name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        head.unlink(missing_ok=True)
        tables = {}
        for place, (part, table) in enumerate(found.tables.items()):
            path = folder / (f"{view.name}.{part}.csv" if place else f"{view.name}.csv")
            _replace(path, table.to_csv(index=False, lineterminator="\n"))
            tables[part] = {
                "file": path.name,
                "sha256": _digest(path),
                "text": [str(name) for name in table if table[name].dtype.kind in "OUT"],
            }
        content = {
            "format": FORMAT,
            "kntrace": version("kntrace"),
            "run": run_identity(run),
            "view": asdict(view),  # type: ignore[call-overload]
            "asked": asked.to_dict(),
            "facts": found.facts,
            "text": list(found.text),
            "tables": tables,
        }
        _replace(head, json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise write_failure(folder, error) from error
    return folder / f"{view.name}.csv"


def computed(run: Run, name: str) -> bool:
    """Whether something is kept of the view, fresh or not."""
    return (where_kept(run) / f"{name}.json").is_file()


def read_view(run: Run, name: str) -> Found:
    """Read back what `write_view` wrote.

    Raises
    ------
    AnalysisError
        If there is nothing, if it was made from another run or other weights, or if a file was
        changed.
    """
    folder = where_kept(run)
    path = folder / f"{name}.json"
    anew = f"Compute it again with `kntrace view {run.path} {name}`."
    try:
        content = read_text(path, AnalysisError, what="the record of a view")
        head = parse_json(content, path.name, AnalysisError)
        made_by, of_run, tables = head["format"], head["run"], head["tables"]
        facts, text = head["facts"], tuple(head["text"])
        places = {part: (folder / one["file"], one) for part, one in tables.items()}
    except (ValueError, KeyError, TypeError, AttributeError, AnalysisError) as error:
        raise AnalysisError(f"cannot be read ({error})", where=path, fix=anew) from None
    if made_by != FORMAT:
        raise AnalysisError(
            f"a view of format {made_by}", where=path, expected=f"format {FORMAT}", fix=anew
        )
    if of_run != run_identity(run):
        raise AnalysisError("a view of another run, or of other weights", where=path, fix=anew)
    for file, one in places.values():
        if not file.is_file() or _digest(file) != one["sha256"]:
            raise AnalysisError("missing, or changed since it was written", where=file, fix=anew)
    return Found(
        {part: _read(file, one["text"]) for part, (file, one) in places.items()}, facts, text
    )


def _read(path: Path, text: list[str]) -> pd.DataFrame:
    """Text as it was ("NA" is a word, 010 a pattern), and numbers to the last bit."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in table:
        if name not in text:
            table[name] = [float(value) if value else math.nan for value in table[name]]
    return table


def plain(value: Any) -> Any:
    """What JSON can express: None for numbers that are none, or that have no end."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
