"""What decides a grown suite's weights, and the steps at which they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kntrace.errors import SettingsError, SuiteError
from kntrace.grow.network import ARCHITECTURES
from kntrace.grow.tokenizer import SMALLEST
from kntrace.grow.worlds import make_plan
from kntrace.suite.schedules import Steps, read_steps

__all__ = ["Recipe", "TextRecipe", "marks_of", "schedule"]

# Early training changes most, so the first checkpoints lie close together.
_EARLY = (0, 1, 4, 16, 32, 64)

# A quarter of a head's channels tell positions apart, by turning; below four none would.
_LEAST_CHANNELS = 4

_Count = Annotated[int, Field(ge=1)]
_Seed = Annotated[int, Field(ge=0)]


class _Recorded(BaseModel):
    """Settings that are written down with what was grown from them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build a recipe; raises `SettingsError` if it could not be grown."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Name each setting in which a recorded recipe is another, as `name theirs -> mine`."""
        mine = self.model_dump(mode="json")
        # What older records do not speak of had its default.
        known = {
            name: field.default
            for name, field in type(self).model_fields.items()
            if not field.is_required()
        } | other
        return [
            f"{name} {known.get(name)} -> {value}"
            for name, value in mine.items()
            if known.get(name) != value
        ]


class Recipe(_Recorded):
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
    architecture
        A key of `kntrace.grow.network.ARCHITECTURES`.
    """

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
    architecture: str = "gpt_neox"

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps at which the state is kept, in order."""
        if isinstance(self.checkpoints, int):
            return tuple(schedule(self.steps, self.checkpoints))
        return self.checkpoints

    @model_validator(mode="after")
    def _can_be_grown(self) -> Self:
        make_plan(self.world)
        _check_architecture(self.architecture)
        _check_shape(self.hidden, self.heads)
        if isinstance(self.checkpoints, int):
            _check_count(self.checkpoints, self.steps)
        else:
            _check_marks(self.checkpoints, self.steps)
        return self


class TextRecipe(_Recorded):
    """Everything that decides the weights of a suite grown on a text, besides the machine.

    Attributes
    ----------
    text
        SHA-256 (hex) of the files' own, in order.
    tokenizer
        Folder or hub id of the one that is used; None if one is trained on the text.
    vocabulary
        Tokens of the one that is trained; None if there is one already.
    architecture
        A key of `kntrace.grow.network.ARCHITECTURES`.
    layers, hidden, heads
        Shape of the model; a layer has 4 x hidden neurons.
    context
        Tokens that are predicted in one window of text.
    seed
        Of the initial weights and of the order of the windows.
    steps, batch
        Optimizer steps, and windows in each.
    checkpoints
        The steps at which the state is kept.
    learning_rate
        At its highest, after a tenth of the steps; it ends at a tenth of that.
    held_out
        Share of the text that is not learnt from.
    """

    text: str
    tokenizer: str | None
    vocabulary: Annotated[int, Field(ge=SMALLEST)] | None
    architecture: str
    layers: _Count
    hidden: _Count
    heads: _Count
    context: _Count
    seed: _Seed
    steps: _Count
    batch: _Count
    checkpoints: tuple[int, ...]
    learning_rate: float = Field(gt=0, le=1, allow_inf_nan=False)
    held_out: float = Field(gt=0, le=0.5, allow_inf_nan=False)

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps at which the state is kept, in order."""
        return self.checkpoints

    @model_validator(mode="after")
    def _can_be_grown(self) -> Self:
        _check_architecture(self.architecture)
        if (self.tokenizer is None) == (self.vocabulary is None):
            both = "neither" if self.tokenizer is None else "both"
            raise SettingsError(
                f"{both} of tokenizer and vocabulary",
                expected="a tokenizer to use, or the size of the one to train",
            )
        _check_shape(self.hidden, self.heads)
        _check_marks(self.checkpoints, self.steps)
        return self


def _check_architecture(name: str) -> None:
    if name not in ARCHITECTURES:
        raise SettingsError.unknown("architecture", name, ARCHITECTURES)


def _check_shape(hidden: int, heads: int) -> None:
    if hidden % heads or hidden // heads < _LEAST_CHANNELS:
        raise SettingsError(
            f"hidden = {hidden} with heads = {heads}",
            expected=f"a multiple of the heads, at least {_LEAST_CHANNELS} channels for each",
        )


def _check_count(count: int, steps: int) -> None:
    if not 2 <= count <= steps + 1:
        raise SettingsError(
            f"checkpoints = {count} with steps = {steps}",
            expected="at least 2, and at most one a step and one before the first",
        )


def _check_marks(kept: Sequence[int], steps: int) -> None:
    if len(kept) < 2 or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] > steps:
        raise SettingsError(
            f"checkpoints = {list(kept)} with steps = {steps}",
            expected=f"two steps or more, rising, from 0 to {steps}",
        )


def marks_of(checkpoints: Steps | int, steps: int) -> tuple[int, ...]:
    """Steps at which the state is kept, from what was asked for.

    Parameters
    ----------
    checkpoints
        `log:N` or `linear:N` (N of them, from 0 to the last, evenly spaced by the logarithm of
        step + 1 or by step), `every:K` (0, K, 2 K ... and the last), `all`, or the steps
        themselves; a number N means what `schedule` makes of it.
    steps
        The last step.

    Raises
    ------
    SettingsError
        If there are not so many steps, or if it cannot be read.
    """
    if isinstance(checkpoints, int):
        _check_count(checkpoints, steps)
        return tuple(schedule(steps, checkpoints))
    try:
        wanted = read_steps(checkpoints)
    except SuiteError as error:
        raise SettingsError(
            f"checkpoints: {error.found.removeprefix('steps: ')}",
            expected=error.expected,
            fix=error.fix,
        ) from None
    if wanted.kind == "steps":
        _check_marks(wanted.steps, steps)
        return wanted.steps
    if wanted.kind in ("all", "every"):
        return tuple(sorted({*range(0, steps + 1, wanted.count or 1), steps}))
    _check_count(wanted.count, steps)
    if wanted.kind == "log":
        places = np.expm1(np.linspace(0, np.log1p(steps), wanted.count))
    else:
        places = np.linspace(0, steps, wanted.count)
    return tuple(_apart([round(place) for place in places], steps))


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
    return _apart([*early, *(round(step) for step in later)], steps)


def _apart(wanted: Sequence[int], steps: int) -> list[int]:
    """As many steps as are wanted; where rounding let two fall together, the first spare ones."""
    kept = set(wanted)
    spare = (step for step in range(steps + 1) if step not in kept)
    return sorted([*kept, *(next(spare) for _ in range(len(wanted) - len(kept)))])
