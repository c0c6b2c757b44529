"""The part of the report that shows the views computed for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kntrace.archive import Run
from kntrace.errors import AnalysisError
from kntrace.report.tables import Table, share
from kntrace.views import Found, all_views, computed, read_view

__all__ = ["Section", "sections"]

_STRONGEST = 3


@dataclass(frozen=True)
class Section:
    """One view as the page shows it; without pictures where `text` says why it is not shown."""

    name: str
    title: str
    text: tuple[str, ...]
    pictures: tuple[Any, ...] = ()
    tables: tuple[Table, ...] = ()


def sections(run: Run, picture: Callable[[Any, Any], Any]) -> list[Section]:
    """Read the views that are kept with the run; `picture` makes one of a view and its tables."""
    shown = []
    for name, view in all_views().items():
        if not computed(run, name):
            continue
        try:
            found = read_view(run, name)
        except AnalysisError as error:
            shown.append(Section(name, view.title, (f"Kept, but not shown: {error}",)))
            continue
        tables = (_TABLES[name](found),) if name in _TABLES else ()
        pictures = (picture(view, found),)
        shown.append(Section(name, view.title, tuple(found.text), pictures, tables))
    return shown


def _promoted(found: Found) -> Table:
    """The strongest neurons of every word, and which tokens they promote."""
    table: pd.DataFrame = found.tables["tokens"]
    rows = tuple(
        (
            *(str(row["word"]), str(row["group"])),
            f"{row['layer']:.0f}, {row['neuron']:.0f}",
            f"{row['rank']:.0f}",
            share(row["below"], 2),
            share(row["activation"], 2),
            str(row["promotes"]),
        )
        for row in table.groupby("word", sort=False).head(_STRONGEST).to_dict("records")
    )
    return Table(
        f"The {_STRONGEST} strongest neurons of every word at {found.facts['last_checkpoint']}: "
        "the place of the word's answer among all tokens that the value vector promotes (0: the "
        "first), the share of tokens below it, the neuron's mean activation at the word's "
        "prompts, and the tokens that it promotes most. Lists of tokens invite stories: the "
        "lines above say how much of this other words' neurons do too.",
        (
            *("word", "group", "layer, neuron", "place", "below"),
            *("activation", "promotes"),
        ),
        rows,
        text=frozenset({0, 1, 2, 6}),
        long=frozenset({6}),
    )


_TABLES: dict[str, Callable[[Found], Table]] = {"read_out": _promoted}
