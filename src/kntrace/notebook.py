"""How results show themselves where they are the last line of a cell: in short, and as HTML.

Names of words, groups and files are a stranger's, so all text is escaped. No colour is set, so
that a page's own, dark or light, holds.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

__all__ = ["Card", "Shown"]

_MOST_ROWS = 12
_LONGEST, _LONGEST_NOTE = 200, 2000
_LINE = "border-bottom: 1px solid rgba(128, 128, 128, 0.4)"


@dataclass(frozen=True)
class Card:
    """What a result shows of itself.

    Attributes
    ----------
    title
        What it is about, in a few words.
    facts
        The numbers that sum it up, by name.
    rows
        A table, one mapping a row; the first row's names are the heads.
    notes
        Sentences under it.
    """

    title: str
    facts: Mapping[str, object] = field(default_factory=dict)
    rows: Sequence[Mapping[Any, object]] = ()
    notes: Sequence[str] = ()

    @property
    def line(self) -> str:
        """Title and facts, without line breaks."""
        facts = ", ".join(f"{name} {_cell(value)}" for name, value in self.facts.items())
        return " ".join(_clipped(f"{self.title}: {facts}" if facts else self.title).split())

    @property
    def html(self) -> str:
        """Title, facts, table and notes."""
        parts = [f"<p><b>{_text(self.title)}</b></p>"]
        if self.facts:
            facts = "".join(
                f"<tr>{_tag('th', _text(name))}{_tag('td', _text(_cell(value)))}</tr>"
                for name, value in self.facts.items()
            )
            parts.append(f"<table><tbody>{facts}</tbody></table>")
        if self.rows:
            parts.append(self._table())
        parts += [f"<p>{escape(_clipped(note, _LONGEST_NOTE))}</p>" for note in self.notes]
        return f"<div>{''.join(parts)}</div>"

    def _table(self) -> str:
        names = list(self.rows[0])
        head = "".join(_tag("th", _text(name), _LINE) for name in names)
        body = "".join(
            "<tr>" + "".join(_tag("td", _text(_cell(row.get(name)))) for name in names) + "</tr>"
            for row in self.rows[:_MOST_ROWS]
        )
        left = len(self.rows) - _MOST_ROWS
        more = f"<p>and {left:,} more</p>" if left > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


class Shown:
    """Gives an object a short `repr` and a table in notebooks; it says in `_card` what of it."""

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._card().line})"

    def _repr_html_(self) -> str:
        return self._card().html


def _tag(name: str, content: str, style: str = "") -> str:
    return f'<{name} style="text-align: left; {style}">{content}</{name}>'


def _text(value: object) -> str:
    return escape(_clipped(str(value)))


def _clipped(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _cell(value: object) -> str:
    """A value as a reader wants it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isnan(number):
            return "–"
        return f"{number:.3f}" if 0.01 <= abs(number) < 1000 else f"{number:.4g}"
    return "–" if value is None else str(value)
