"""What was found in a place: checkpoints, and what else is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kntrace.documents import nearest
from kntrace.errors import SuiteError
from kntrace.suite.model import Checkpoint, Suite, order
from kntrace.suite.schedules import Schedule, select

__all__ = ["Found"]


@dataclass(frozen=True)
class Found:
    """The checkpoints of a place, in order, before it is known whether they form a suite.

    Attributes
    ----------
    name
        What the suite would be called.
    checkpoints
        Those that were asked for.
    aside
        Names of what is there too and is not taken for a checkpoint of the series.
    commits
        Commit by label, where a repository was asked.
    notes
        What the reader should know, a sentence each.
    fix
        What can be done about a checkpoint that is not there.
    """

    name: str
    checkpoints: tuple[Checkpoint, ...]
    aside: tuple[str, ...] = ()
    commits: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fix: str | None = None

    @property
    def suite(self) -> Suite:
        """The checkpoints as a suite.

        Raises
        ------
        SuiteError
            If they do not form one: two at one step, or some without a step.
        """
        return Suite(self.name, self.checkpoints)

    def chosen(self, wanted: Schedule, stage: str | None) -> Found:
        """Keep what is wanted of one stage (None: of all).

        Raises
        ------
        SuiteError
            If there is no such stage, or not what is wanted.
        """
        found = sorted(self.checkpoints, key=order)
        if stage is not None:
            stages = dict.fromkeys(item.stage for item in found if item.stage is not None)
            found = [item for item in found if item.stage == stage]
            if not found:
                raise self._no_stage(stage, stages)
        found = list(select(self.name, found, wanted, fix=self.fix))
        return Found(self.name, tuple(found), self.aside, self.commits, self.notes, self.fix)

    def _no_stage(self, stage: str, stages: Iterable[str]) -> SuiteError:
        names = list(stages)
        return SuiteError(
            f"no stage {stage!r}",
            where=f"suite {self.name}",
            expected=", ".join(names) if names else "none: no checkpoint's name says a stage",
            fix=nearest(stage, names),
        )
