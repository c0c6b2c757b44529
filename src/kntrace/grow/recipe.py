"""What decides a grown suite's weights, and the steps at which they are kept."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kntrace.errors import SettingsError
from kntrace.grow.worlds import make_plan

__all__ = ["Recipe", "schedule"]

# Early training changes most, so the first checkpoints lie close together.
_EARLY = (0, 1, 4, 16, 32, 64)

# A quarter of a head's channels tell positions apart, by turning; below four none would.
_LEAST_CHANNELS = 4

_Count = Annotated[int, Field(ge=1)]
_Seed = Annotated[int, Field(ge=0)]


class Recipe(BaseModel):
    """Everything that decides a suite's weights, besides the machine.

    Attributes
    ----------
    world, world_seed
        What is learnt: the world's name, and the seed of its dealing.
    seed
        Of the corpus drawn from the world, and of the initial weights.
    layers, hidden, heads
        Shape of the model; a layer has 4 x hidden neurons.
    steps, batch
        Optimizer steps, and sentences in each.
    checkpoints
        How many states are kept, the first and the last among them; or the steps themselves.
    learning_rate
        At its highest, after a tenth of the steps; it ends at a tenth of that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    world: str
    world_seed: _Seed
    seed: _Seed
    layers: _Count
    hidden: _Count
    heads: _Count
    steps: _Count
    batch: _Count
    checkpoints: int | tuple[int, ...]
    learning_rate: float = Field(gt=0, le=1, allow_inf_nan=False)

    @classmethod
    def of(cls, **values: Any) -> Recipe:
        """Build a recipe; raises `SettingsError` if it could not be grown."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps at which the state is kept, in order."""
        if isinstance(self.checkpoints, int):
            return tuple(schedule(self.steps, self.checkpoints))
        return self.checkpoints

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Name each setting in which a recorded recipe is another, as `name theirs -> mine`."""
        mine = self.model_dump(mode="json")
        return [
            f"{name} {other.get(name)} -> {value}"
            for name, value in mine.items()
            if other.get(name) != value
        ]

    @model_validator(mode="after")
    def _can_be_grown(self) -> Self:
        make_plan(self.world)
        if self.hidden % self.heads or self.hidden // self.heads < _LEAST_CHANNELS:
            raise SettingsError(
                f"hidden = {self.hidden} with heads = {self.heads}",
                expected=f"a multiple of the heads, at least {_LEAST_CHANNELS} channels for each",
            )
        self._check_checkpoints()
        return self

    def _check_checkpoints(self) -> None:
        if isinstance(self.checkpoints, int):
            if not 2 <= self.checkpoints <= self.steps + 1:
                raise SettingsError(
                    f"checkpoints = {self.checkpoints} with steps = {self.steps}",
                    expected="at least 2, and at most one a step and one before the first",
                )
            return
        kept = self.checkpoints
        if len(kept) < 2 or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] > self.steps:
            raise SettingsError(
                f"checkpoints = {list(kept)} with steps = {self.steps}",
                expected=f"two steps or more, rising, from 0 to {self.steps}",
            )


def schedule(steps: int, checkpoints: int) -> list[int]:
    """Steps at which the state is kept: 0, some early ones, then evenly to the last.

    Parameters
    ----------
    steps
        The last step.
    checkpoints
        How many to keep, from 2 to steps + 1.
    """
    early = [step for step in _EARLY if step < steps][: max(1, checkpoints // 3)]
    later = np.linspace(early[-1], steps, checkpoints - len(early) + 1)[1:]
    kept = sorted({*early, *(round(step) for step in later)})
    # Rounding may let two fall together; the gaps are filled from the steps that are left.
    spare = (step for step in range(steps + 1) if step not in kept)
    return sorted([*kept, *(next(spare) for _ in range(checkpoints - len(kept)))])
