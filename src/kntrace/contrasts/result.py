"""What a contrast is: its tables, and how it reads in a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from kntrace.notebook import Card, Shown

__all__ = ["Contrast"]

_WIDEST_NAME = 16
_HEADS = {
    "group": "group",
    "words": "words",
    "share_above": "above",
    "chance": "chance",
    "auc": "AUC",
    "auc_chance": "AUC by chance",
    "p": "p",
    "p_holm": "p (Holm)",
}


@dataclass(frozen=True, repr=False)
class Contrast(Shown):
    """What `contrast` found.

    Shares are fractions from 0 to 1. What a group of a single word leaves undefined is NaN.

    Attributes
    ----------
    distance
        Name of the distance.
    words
        One row a word: `threshold`, its mean same-group distance; `above` of its `others`
        other-group words lie beyond; `share_above` = above / others;
        `share_above_with_self` = above / (others + 1), the paper's percentage, which counts
        the word itself as one that does not; `chance` and `chance_with_self`, their means when
        the word's mates are drawn at random, and `share_p`; `auc` of its same-group against its
        other-group distances, and its `p`. `_holm` and `_bh`: adjusted for the number of words.
    groups
        One row a group: `above`, `others` and the two shares over all its words' rows, with
        `chance`, their means over permutations of the labels, `chance_low` and `chance_high`,
        the middle 95 % there, `share_p`, and the jackknife's `share_se`; `auc` of the pairs
        within the group against the pairs of its words with others, with `auc_chance`,
        `auc_chance_low`, `auc_chance_high`, `p` and `auc_se` likewise, and `auc_low` and
        `auc_high`, its 95 % interval. `_holm` and `_bh`: adjusted for the number of groups.
    overall
        The same over all rows and all pairs, so that large groups count for more.
    macro
        The same as means over the groups, all groups counting alike.
    permutations, seed
        Number of permutations of the labels, and the seed that drew them.
    notes
        What a reader must know beside the numbers.
    """

    WORD_COLUMNS: ClassVar[tuple[str, ...]] = (
        *("word", "group", "threshold", "above", "others"),
        *("share_above", "share_above_with_self", "chance", "chance_with_self"),
        *("share_p", "share_p_holm", "share_p_bh"),
        *("auc", "p", "p_holm", "p_bh"),
    )
    MEASURES: ClassVar[tuple[str, ...]] = (
        *("share_above", "share_above_with_self", "chance", "chance_with_self"),
        *("chance_low", "chance_high", "share_p", "share_se"),
        *("auc", "auc_chance", "auc_chance_low", "auc_chance_high"),
        *("p", "auc_se", "auc_low", "auc_high"),
    )
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = (
        *("group", "words", "above", "others", *MEASURES),
        *("share_p_holm", "share_p_bh", "p_holm", "p_bh"),
    )

    distance: str
    words: pd.DataFrame
    groups: pd.DataFrame
    overall: dict[str, float]
    macro: dict[str, float]
    permutations: int
    seed: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Overall and by group, as what JSON can express; undefined numbers become None."""
        groups = self.groups.set_index("group")
        return {
            "overall": _plain(self.overall),
            "macro": _plain(self.macro),
            "groups": {str(name): _plain(row) for name, row in groups.to_dict("index").items()},
            "permutations": self.permutations,
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def _card(self) -> Card:
        rows = self.groups[list(_HEADS)].rename(columns=_HEADS)
        return Card(
            f"{self.distance}: same group against other groups",
            {head: self.overall[name] for name, head in _HEADS.items() if name in self.overall}
            | {"words": len(self.words), "permutations": self.permutations},
            rows.to_dict("records"),
            (_interval(self.overall), *self.notes),
        )

    def __str__(self) -> str:
        title = f"{self.distance}: same group against other groups"
        heads = ("group", "words", "above", "chance", "with self", "AUC", "chance", "p", "Holm")
        bodies = [_line(row) for row in self.groups.to_dict("records")]
        feet = [
            _line({"group": "all pairs", "words": len(self.words), **self.overall}),
            _line({"group": "mean of groups", **self.macro}),
        ]
        name = min(max(len(row[0]) for row in (heads, *bodies, *feet)), _WIDEST_NAME)
        head, *lines = (_laid_out(row, name) for row in (heads, *bodies, *feet))
        rule = "─" * len(head)
        legend = (
            "above: share of other-group distances above the row's mean same-group distance",
            "with self: the same as the paper counts it, the word itself being a miss",
            f"p and Holm (over the groups): of the AUC; {self.permutations} permutations",
            _interval(self.overall),
        )
        notes = [f"note: {note}" for note in self.notes]
        body, foot = lines[: len(bodies)], lines[len(bodies) :]
        return "\n".join([title, rule, head, rule, *body, rule, *foot, rule, *legend, *notes])


def _interval(row: Mapping[str, float]) -> str:
    if math.isnan(row["auc_se"]):
        return "AUC over all pairs: no interval, since without one word nothing is left to compare"
    return (
        f"AUC over all pairs: 95 % interval {row['auc_low']:.3f} to {row['auc_high']:.3f} "
        "(jackknife over words)"
    )


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
    }


def _laid_out(row: tuple[str, ...], name: int) -> str:
    widths = (6, 7, 7, 10, 6, 7, 6, 6)
    cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True)]
    return f"{row[0][:name]:<{name}} {' '.join(cells)}"


def _line(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Format one row of the table as text."""

    def shown(key: str, form: str) -> str:
        if key not in row:
            return ""
        return "–" if math.isnan(row[key]) else format(row[key], form)

    return (
        *(str(row["group"]), str(row.get("words", ""))),
        *(shown("share_above", ".1%"), shown("chance", ".1%")),
        *(shown("share_above_with_self", ".1%"), shown("auc", ".3f")),
        *(shown("auc_chance", ".3f"), shown("p", ".3f"), shown("p_holm", ".3f")),
    )
