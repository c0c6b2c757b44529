"""Checkpoints that hold another one's weights, all of them or some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kntrace.audit.finding import Finding, Severity, grouped, listed, parts
from kntrace.audit.prints import CheckpointPrint, is_table

__all__ = ["Weights"]


class Weights:
    """What checkpoints hold, compared.

    Parameters
    ----------
    prints
        Of one suite, in the order of training.
    things
        What their tensors are called.

    Attributes
    ----------
    trained
        Names of the tensors that tell checkpoints apart: in some checkpoint they are more than
        ones and zeros, and no table is among them.
    """

    def __init__(self, prints: Sequence[CheckpointPrint], things: str) -> None:
        self.things = things
        self.labels = [item.label for item in prints]
        self.prints = prints
        self.trained = sorted(
            {
                name
                for item in prints
                for name, one in item.tensors.items()
                if one.varied and not is_table(name)
            }
        )
        # The checkpoints that can be compared, gathered by what they hold.
        self.alike = list(self._alike().values())

    def _alike(self) -> dict[object, list[int]]:
        known = [(at, item) for at, item in enumerate(self.prints) if item.whole or item.tensors]
        if all(item.whole for _, item in known) and not all(item.tensors for _, item in known):
            # Of some there is nothing but one print of the whole: in older runs, for one.
            return grouped(known, lambda item: item.whole)
        if not self.trained:  # nothing but ones and zeros: then these count
            return grouped(known, lambda item: item.whole or item.label)
        return grouped(known, lambda item: tuple(self._hash(item, name) for name in self.trained))

    @staticmethod
    def _hash(item: CheckpointPrint, name: str) -> str | None:
        one = item.tensors.get(name)
        return None if one is None else one.hash

    def repeated(self) -> Iterator[Finding]:
        """Find checkpoints that hold equal weights."""
        for places in self.alike:
            if len(places) == 1:
                continue
            names = self._named(places)
            severity: Severity = "warning" if self._may_be(places, whole=True) else "error"
            why = (
                "Training may not have moved between them, or one was saved twice."
                if severity == "warning"
                else "Training does not come back to where it was: names and weights do not "
                "belong together."
            )
            what = "both hold" if len(places) == 2 else "hold"
            yield Finding(
                "repeated",
                severity,
                tuple(self.labels[place] for place in places),
                f"{names} {what} equal weights, bit for bit{self._final(places)}. {why}",
            )

    def shared(self) -> Iterator[Finding]:
        """Find checkpoints that hold some tensors of another one, and tensors never trained."""
        # Of checkpoints that are alike as a whole, one stands for all.
        members = {places[0]: places for places in self.alike if self.prints[places[0]].tensors}
        found: dict[tuple[int, ...], list[str]] = {}
        for name in self.trained:
            there = [(at, one) for at in members if (one := self.prints[at].tensors.get(name))]
            for same in grouped(there, lambda one: (one.hash, one.varied)).values():
                if len(same) > 1 and self.prints[same[0]].tensors[name].varied:
                    found.setdefault(tuple(same), []).append(name)
        for firsts, names in sorted(found.items()):
            places = sorted(place for first in firsts for place in members[first])
            if len(firsts) == len(members) > 2:
                yield self._untrained(places, names)
            else:
                yield self._part(places, names)

    def _part(self, places: list[int], names: list[str]) -> Finding:
        vectors = not self._matrices(places[0], names)
        together = self._together(places)
        severity: Severity = "warning"
        if vectors and together:
            severity = "note"
        elif not vectors and not self._may_be(places, whole=False):
            severity = "error"
        why = {
            "note": "They are vectors, and a coarse number format can hide what training changed.",
            "warning": "They may not have been trained between them, or have been mixed up.",
            "error": "Files of weights have been mixed up: at most one of these names is right.",
        }[severity]
        says = (
            f"{self._named(places)} share {len(names)} of {len(self.trained)} {self.things} "
            f"({parts(names)}){self._files(places[0], names)}{self._final(places)}. {why}"
        )
        labels = tuple(self.labels[place] for place in places)
        return Finding("shared", severity, labels, says, tuple(names))

    def _untrained(self, places: list[int], names: list[str]) -> Finding:
        matrices = self._matrices(places[0], names)
        says = (
            f"{len(names)} of {len(self.trained)} {self.things} are the same in all checkpoints "
            f"({parts(names)}). They were never trained, or a file of weights was copied to all."
        )
        labels = tuple(self.labels[place] for place in places)
        return Finding("untrained", "warning" if matrices else "note", labels, says, tuple(names))

    def _matrices(self, place: int, names: Sequence[str]) -> bool:
        """Whether any of these is more than a vector; a file is."""
        tensors = self.prints[place].tensors
        return any(len(tensors[n].shape) > 1 or tensors[n].dtype == "bytes" for n in names)

    def _named(self, places: Sequence[int]) -> str:
        names = [self.labels[place] for place in places]
        return " and ".join(names) if len(names) == 2 else listed(names)

    def _final(self, places: Sequence[int]) -> str:
        """Say that the last checkpoint is among them, if others are that are not beside it."""
        if places[-1] != len(self.prints) - 1 or len(places) < 2:
            return ""
        return ": those of the last checkpoint"

    def _files(self, place: int, names: Sequence[str]) -> str:
        """Name the files of weights of which tensors are just the trained ones."""
        tensors = self.prints[place].tensors
        if any(tensors[name].file == name for name in names):
            return ""  # they are files
        files = {tensors[name].file for name in self.trained if name in tensors}
        whole = [
            file
            for file in sorted(files)
            if {name for name in self.trained if name in tensors and tensors[name].file == file}
            <= set(names)
        ]
        if len(files) < 2 or not whole:
            return ""
        return f", the whole of {listed(whole)}"

    def _together(self, places: Sequence[int]) -> bool:
        return places[-1] - places[0] == len(places) - 1

    def _may_be(self, places: Sequence[int], *, whole: bool) -> bool:
        """Whether training can have left it so.

        The first checkpoints may be the same before an optimizer takes its first step that is
        not skipped, and one state may have been saved under two names, one after the other.
        """
        last = len(self.prints) - 1
        begins = places[0] == 0 and places[-1] < last
        twice = whole and len(places) == 2 < len(self.prints)
        return self._together(places) and (begins or twice)
