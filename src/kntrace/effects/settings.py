"""What an ablation computes, frozen with its results."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kntrace.errors import SettingsError
from kntrace.nearest import nearest
from kntrace.selection import read_selection

__all__ = ["SOURCES", "AblationSettings", "read_method"]

SOURCES: dict[str, str] = {
    "own": "the word's own neurons",
    "same_group": "those of other words of its group",
    "other_group": "those of words of other groups",
    "matched": "random ones, matched by layer and by size of activation",
    "random": "random ones",
}
"""Whose neurons are changed while a word is asked for, and how to say it."""


def read_method(text: str) -> tuple[str, float | None]:
    """Read `zero`, `mean`, `resample`, or a factor such as `x0.5`.

    Returns
    -------
    name, factor
        The canonical name (`x0` is `zero`), and the factor; None where neurons are set to
        something else.

    Raises
    ------
    SettingsError
        If it is none of these, or a factor that is not a finite number or is one.
    """
    name = text.strip().lower()
    if name in ("mean", "resample"):
        return name, None
    if name == "zero":
        return name, 0.0
    try:
        factor = float(name.removeprefix("x"))
    except ValueError:
        factor = float("nan")
    if not abs(factor) < 1e6:
        raise SettingsError(
            f"the method {text!r}",
            expected="zero, mean, resample, or a factor such as x0.5 or x2",
            fix=nearest(name, ("zero", "mean", "resample")),
        )
    if factor == 1:
        raise SettingsError("the method x1, which changes nothing", expected="another factor")
    return ("zero", 0.0) if factor == 0 else (f"x{factor:g}", factor)


class AblationSettings(BaseModel):
    """Which neurons are changed, how, and how many.

    Attributes
    ----------
    select
        Which neurons are a word's own (`kntrace.selection.read_selection`).
    chosen_at
        `last`: as they are at the run's last checkpoint (the paper's); `each`: as they are at
        the checkpoint whose weights are changed.
    methods
        What becomes of a neuron: `zero`, a factor (`x0.5`, `x2`), `mean` (its mean over the
        study's prompts of the wording), `resample` (its value at a prompt of another word,
        drawn once per prompt).
    doses
        Numbers of neurons changed together, the strongest first; 0 stands for all that the
        selection gives a word.
    partners
        Words of the same group, and as many of other groups, whose neurons are changed in turn
        while a word is asked for; where there are more they are drawn.
    draws
        Sets of random neurons, of each kind.
    singles
        Strongest neurons of a word that are also silenced one at a time, beside as many random
        ones of the same layers; 0: none.
    positions
        `last`: neurons are changed at the scored position alone, as they are attributed;
        `all`: at every token.
    wording
        Name of the wording of the prompts.
    seed
        Of all that is drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    select: str
    chosen_at: Literal["last", "each"] = "last"
    methods: tuple[str, ...] = ("zero", "x0.5", "x1.5", "x2", "mean", "resample")
    doses: tuple[int, ...] = Field(min_length=1)
    partners: int = Field(default=4, ge=0, le=10_000)
    draws: int = Field(default=4, ge=0, le=10_000)
    singles: int = Field(default=50, ge=0, le=1_000_000)
    positions: Literal["last", "all"] = "last"
    wording: str
    seed: int = Field(default=0, ge=0)

    @field_validator("select")
    @classmethod
    def _readable(cls, text: str) -> str:
        return read_selection(text).spec

    @field_validator("methods")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(read_method(name)[0] for name in names))
        if not found:
            raise SettingsError("no methods", expected="zero, mean, resample, or a factor")
        return found

    @field_validator("doses")
    @classmethod
    def _ascending(cls, doses: tuple[int, ...]) -> tuple[int, ...]:
        if min(doses) < 0:
            raise SettingsError(
                f"a dose of {min(doses)} neurons", expected="1 or more, or 0 for a word's all"
            )
        # All that there are is the largest dose.
        return tuple(sorted(set(doses), key=lambda dose: (dose == 0, dose)))

    @classmethod
    def of(cls, **values: Any) -> AblationSettings:
        """Build settings, turning a validation failure into one clear error."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            choices = str(first.get("ctx", {}).get("expected", ""))
            raise SettingsError(
                f"{name} = {first['input']!r}: {first['msg']}",
                fix=nearest(str(first["input"]), re.findall(r"'([^']+)'", choices)),
            ) from None

    @property
    def main_dose(self) -> int:
        """The dose that summaries speak of: the largest up to 50, or the smallest."""
        counts = [dose for dose in self.doses if 0 < dose <= 50]
        return max(counts) if counts else self.doses[0]

    @property
    def main_method(self) -> str:
        """The method that summaries speak of: `zero` if it is there."""
        return "zero" if "zero" in self.methods else self.methods[0]

    def differences(self, other: AblationSettings) -> list[str]:
        """Name each setting in which `other` differs, as `name: mine -> theirs`."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [
            f"{name}: {mine[name]} -> {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]
