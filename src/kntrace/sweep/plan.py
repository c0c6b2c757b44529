"""Which blocks a session has to compute: those that lack, and what of them is its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from kntrace.archive import Run, source_state
from kntrace.errors import SettingsError
from kntrace.progress import Progress
from kntrace.suite import Checkpoint

__all__ = ["Plan", "Shard", "parts_of", "plan_blocks"]


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a run's checkpoints, `number` of `of`, counted from 1.

    Checkpoints are dealt out like cards, so that the parts do not depend on what is done, and
    late checkpoints, whose paths take more nodes, do not all come to one.
    """

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `2/8`.

        Raises
        ------
        SettingsError
            If it is anything else.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        number, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= of:
            raise SettingsError(
                f"shard {text[:40]!r}",
                expected="I/N with I from 1 to N, such as 2/8",
                fix="A Slurm job array counts so with --array=1-N and "
                '--shard "$SLURM_ARRAY_TASK_ID/N".',
            )
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def takes(self, place: int) -> bool:
        """Whether the checkpoint at this place of the suite belongs to it."""
        return place % self.of == self.number - 1


@dataclass(frozen=True)
class Plan:
    """What a session has to do.

    Attributes
    ----------
    blocks
        Words to score, by checkpoint; checkpoints that only have to be looked at have none.
    total
        Blocks of the run, or of the session's shard.
    damaged
        Those that are there and are computed again, by name.
    """

    blocks: dict[int, list[int]]
    total: int
    damaged: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """How many of the blocks need not be computed."""
        return self.total - sum(map(len, self.blocks.values()))


def plan_blocks(
    checkpoints: Sequence[Checkpoint],
    words: int,
    opened: Run | None,
    *,
    verify: bool,
    shard: Shard | None = None,
    progress: Progress,
) -> Plan:
    """List for each checkpoint that must be loaded the words to score, maybe none.

    Parameters
    ----------
    checkpoints
        Of the run, where they lie now.
    words
        How many there are.
    opened
        The run, if it was made already.
    verify
        Read all finished blocks to find the damaged ones.
    """
    mine = [place for place in range(len(checkpoints)) if shard is None or shard.takes(place)]
    total = len(mine) * words
    if opened is None:
        return Plan({place: list(range(words)) for place in mine}, total)
    blocks = set(opened.missing())
    if verify:
        damaged = opened.damaged(progress, None if shard is None else mine)
    else:
        damaged = opened.unproven()
    blocks.update(damaged)
    plan: dict[int, list[int]] = {place: [] for place in _suspects(opened, checkpoints)}
    for place, word in sorted(blocks):
        plan.setdefault(place, []).append(word)
    own = set(mine)
    return Plan(
        {place: chosen for place, chosen in sorted(plan.items()) if place in own},
        total,
        tuple(opened.describe(*pair) for pair in damaged if pair[0] in own),
    )


def parts_of(
    blocks: Mapping[int, Sequence[int]], workers: int
) -> Iterator[tuple[int, Sequence[int]]]:
    """Cut the work into tasks, words of one checkpoint each, for so many workers.

    A checkpoint is one task unless there are more workers than checkpoints. The parts of one
    come far from each other, so that they come to different workers.
    """
    parts = -(-workers // max(len(blocks), 1))
    for part in range(parts):
        for place, words in blocks.items():
            chosen = words[part::parts]
            if chosen or not part:
                yield place, chosen


def _suspects(opened: Run, checkpoints: Sequence[Checkpoint]) -> list[int]:
    """List the checkpoints whose files are not those that were read, to look at again."""
    known = opened.provenance.get("checkpoints", {})
    return [
        place
        for place, item in enumerate(checkpoints)
        if source_state(item) not in (None, known.get(item.label, {}).get("files"))
    ]
