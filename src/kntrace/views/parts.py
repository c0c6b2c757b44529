"""What a view found of each checkpoint, kept as soon as it is known: a kill loses one at most.

Views that load weights take minutes or hours over a long series. Of every checkpoint they make
a few tables, which are written to `analysis/views/parts` at once; the same call reads them back
and loads only what is missing. The tables go with what they were made from: the run, its
weights, the view with its options, and what was asked.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from kntrace.archive.folder import write_failure

__all__ = ["Parts", "Tables"]

# To be raised when the tables of any view are made in another way.
FORMAT = 1

# What a view says of itself, and what it says does not change what it measures.
_WORDS = ("title", "how_to_read", "needs")

Tables = Mapping[str, pd.DataFrame]
"""What a view makes of one checkpoint, by name."""


class Parts:
    """The parts of views in one run's folder.

    Parameters
    ----------
    folder
        Where they are kept.
    identity
        Of the run and its weights.
    asked
        What all views are asked alike, as what JSON can express.
    """

    def __init__(self, folder: Path, identity: str, asked: Mapping[str, Any]) -> None:
        self._folder = folder
        self._of = {
            "format": FORMAT,
            "kntrace": version("kntrace"),
            "run": identity,
            "asked": dict(asked),
        }

    def read(self, view: Any, place: int, of: str = "") -> dict[str, pd.DataFrame] | None:
        """Give the tables of one checkpoint; None if there are none, or if they are damaged."""
        try:
            with zipfile.ZipFile(self._path(view, place, of)) as file:
                return {
                    name.removesuffix(".parquet"): pd.read_parquet(io.BytesIO(file.read(name)))
                    for name in file.namelist()
                }
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def write(self, view: Any, place: int, tables: Tables, of: str = "") -> None:
        """Keep the tables of one checkpoint: whole, or not at all.

        Raises
        ------
        RunError
            If they cannot be written.
        """
        path = self._path(view, place, of)
        partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(partial, "w") as file:
                for name, table in tables.items():
                    file.writestr(f"{name}.parquet", table.to_parquet(index=False))
            partial.replace(path)
        except OSError as error:
            raise write_failure(self._folder, error) from error

    def keep_only(self, view: Any, of: str = "") -> None:
        """Throw away what the view made with other options, or of other weights."""
        kept = self._path(view, 0, of).parent
        for other in kept.parent.glob("*") if kept.parent.is_dir() else ():
            if other != kept:
                shutil.rmtree(other, ignore_errors=True)

    def _path(self, view: Any, place: int, of: str) -> Path:
        options = {name: one for name, one in asdict(view).items() if name not in _WORDS}
        content = {**self._of, "view": options, "of": of}
        key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        name: str = view.name
        return self._folder / name / key[:16] / f"{place:05d}.zip"
