"""An input changes one file of many: what the others say is read once, not for every input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import xarray as xr

from kntrace.analysis import load_analysis
from kntrace.archive import Run, open_run
from kntrace.wording import Wording, read_wording

__all__ = ["Unchanged"]

# What reads a file of an analysis, or reckons with nothing but what was read of one.
_READING = ("load_array", "read_wording", "_read_json", "_digest", "run_identity")
_TABLES = ("read_neurons", "read_pairs", "read_contrasts", "read_overlap", "read_early")


class Unchanged:
    """A run whose analysis is read again and again, with one file of it changed.

    The run itself is opened once. What reads one file of the analysis is asked once about the
    file as it is now, and after that only if the file is another, or is to be read otherwise.
    """

    def __init__(self, path: Path) -> None:
        self._run = open_run(path)
        self._scores = self._run.scores.load()
        self._probability = read_wording(self._scores).probability()
        files = sys.modules["kntrace.analysis.files"]
        wanted = [(files, name) for name in _READING]
        wanted += [(files, "formation_times"), (files.tables, "read_table")]
        wanted += [(files.tables, name) for name in _TABLES]
        self._asked = [(home, name, _Remembered(getattr(home, name))) for home, name in wanted]
        self.read(None)
        for *_, function in self._asked:
            function.learning = False

    def read(self, changed: Path | None) -> None:
        """Read the analysis, of which one file is `changed`."""
        for *_, function in self._asked:
            function.changed = changed
        with self._instead():
            load_analysis(self._run)

    @contextmanager
    def _instead(self) -> Iterator[None]:
        before = [(home, name, getattr(home, name)) for home, name, _ in self._asked]
        try:
            for home, name, function in self._asked:
                setattr(home, name, function)
            probability = patch.object(Wording, "probability", lambda _: self._probability)
            with patch.object(Run, "scores", self._scores), probability:
                yield
        finally:
            for home, name, function in before:
                setattr(home, name, function)


class _Remembered:
    """A function with its answers to what it was asked while it learnt."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._answers: dict[Any, Any] = {}
        self.learning = True
        self.changed: Path | None = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        if any(self._is_changed(value) for value in given):
            return self._function(*given, **named)
        key = (*map(_said, given), *((name, _said(value)) for name, value in named.items()))
        if key in self._answers:
            return self._answers[key][0]
        answer = self._function(*given, **named)
        if self.learning:
            # With what it was asked, of which arrays are known by who they are.
            self._answers[key] = answer, given, named
        return answer

    def _is_changed(self, value: Any) -> bool:
        file = self.changed
        if file is None or not isinstance(value, Path):
            return False
        # The head says the checksums of all others.
        return value.name == "analysis.json" or value in (file, *file.parents)


def _said(value: Any) -> Any:
    """What tells one argument from another."""
    if isinstance(value, xr.DataArray | xr.Dataset | np.ndarray):
        return id(value)
    return repr(value)
