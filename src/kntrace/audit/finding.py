"""What an audit finds, and how it names checkpoints and tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["SEVERITIES", "Finding", "Severity", "grouped", "listed", "parts"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_LAYER = re.compile(r"\.([0-9]+)\.")
_NAMED, _PARTS = 4, 3


@dataclass(frozen=True)
class Finding:
    """Something wrong, or odd, with checkpoints of a suite.

    Attributes
    ----------
    kind
        `repeated`, `shared`, `untrained`, `missing`, `unexpected`, `not-finite`, `shape`,
        `dtype`, `order`, `config`, `tokenizer`, `unreadable`, `unread`.
    severity
        `error`: a run refuses it, or its scores would be of other weights than their label
        says. `warning`: it may be right, and should be looked at. `note`: worth knowing.
    checkpoints
        Labels of all that it is about, in the order of training.
    says
        What was found, in sentences.
    tensors
        Names of all tensors that it is about; empty if it is about all, or none.
    """

    kind: str
    severity: Severity
    checkpoints: tuple[str, ...]
    says: str
    tensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Names of tensors and files are a stranger's, and end on a terminal.
        clean = "".join(letter if letter.isprintable() else " " for letter in self.says)
        object.__setattr__(self, "says", clean)

    def __str__(self) -> str:
        return f"{self.severity} ({self.kind}): {self.says}"

    def to_dict(self) -> dict[str, Any]:
        """Everything here as what JSON can express."""
        return asdict(self)


def listed(labels: Sequence[str]) -> str:
    """Name the first few of many, and the last."""
    if len(labels) > _NAMED + 1:
        shown = labels[: _NAMED - 1]
        return f"{', '.join(shown)}, {len(labels) - len(shown) - 1} more and {labels[-1]}"
    return ", ".join(labels)


def parts(names: Iterable[str]) -> str:
    """Say in which layers tensors lie, and name a few that lie in none."""
    found = sorted(names)
    layers = sorted({int(match[1]) for name in found if (match := _LAYER.search(name))})
    others = [name for name in found if not _LAYER.search(name)]
    said = [] if not layers else [f"layer{'s' * (len(layers) > 1)} {_ranges(layers)}"]
    said += others[:_PARTS] + ([f"{len(others) - _PARTS} more"] if len(others) > _PARTS else [])
    return ", ".join(said)


def _ranges(numbers: Sequence[int]) -> str:
    """Write 0, 1, 2, 5 as `0 to 2, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return listed(words)


def grouped(
    pairs: Iterable[tuple[int, Any]], key: Callable[[Any], Any] = lambda value: value
) -> dict[Any, list[int]]:
    """Gather the places of equal things, in order."""
    found: dict[Any, list[int]] = {}
    for place, value in pairs:
        found.setdefault(key(value), []).append(place)
    return found
