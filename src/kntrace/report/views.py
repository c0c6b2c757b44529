"""The part of the report that shows the views computed for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kntrace.archive import Run
from kntrace.errors import AnalysisError
from kntrace.views import VIEWS, computed, read_view

__all__ = ["Section", "sections"]


@dataclass(frozen=True)
class Section:
    """One view as the page shows it; without pictures where `text` says why it is not shown."""

    name: str
    title: str
    text: tuple[str, ...]
    pictures: tuple[Any, ...] = ()


def sections(run: Run, picture: Callable[[Any, Any], Any]) -> list[Section]:
    """Read the views that are kept with the run; `picture` makes one of a view and its tables."""
    shown = []
    for name, view in VIEWS.items():
        if not computed(run, name):
            continue
        try:
            found = read_view(run, name)
        except AnalysisError as error:
            shown.append(Section(name, view.title, (f"Kept, but not shown: {error}",)))
            continue
        shown.append(Section(name, view.title, tuple(found.text), (picture(view, found),)))
    return shown
