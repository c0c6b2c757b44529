"""Named sets of options that reproduce what other code computes.

A preset gives every option by name, so that what it stands for is written down with the run
and its analysis like any other choice; nothing but the options themselves has an effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kntrace.errors import SettingsError
from kntrace.settings import Settings
from kntrace.study import Study

if TYPE_CHECKING:
    from kntrace.archive import Run

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True)
class Preset:
    """Options for a run and for its analysis.

    Attributes
    ----------
    name
        By which it is asked for.
    description
        What it reproduces, in one line.
    scored
        Settings of the run: values of `Settings` by name.
    asked
        What becomes of the study: its `template` and `answer_form`.
    analysed
        Arguments of `kntrace.analysis.analyse` that may not be others.
    distances
        Distances that are computed in any case, in this order.
    k
        Knowledge neurons per word unless another number is given.
    """

    name: str
    description: str
    scored: Mapping[str, Any]
    asked: Mapping[str, Any]
    analysed: Mapping[str, Any]
    distances: tuple[str, ...]
    k: int

    @property
    def told(self) -> str:
        """Every option of a run that it sets, in one line."""
        options = {**self.scored, **self.asked}
        return ", ".join(
            f"{name} {'none' if value is None else value}" for name, value in options.items()
        )

    def settings(self, **own: Any) -> Settings:
        """Settings of the run, with `own` values for those that the preset leaves open.

        Raises
        ------
        SettingsError
            If a value is out of range, or is another than the preset's.
        """
        for name, value in own.items():
            spelt = value.replace("-", "_") if isinstance(value, str) else value
            self._refuse_other(name, self.scored.get(name, spelt), spelt)
        return Settings.of(**{**self.scored, **own})

    def study(self, study: Study) -> Study:
        """Return the study as the preset asks it; the run keeps it in that form."""
        # Made anew rather than copied: a copy would keep the digest of what it was copied from.
        return Study(name=study.name, words=study.words, **self.asked)

    def analysis(self, run: Run, **own: Any) -> dict[str, Any]:
        """Arguments of `kntrace.analysis.analyse`, with `own` ones.

        Parameters
        ----------
        run
            A run that was made with this preset.
        **own
            Arguments of `analyse`. `distances` are computed beside the preset's, and `k` is
            taken in place of its own.

        Raises
        ------
        SettingsError
            If the run was made with other options, or if one of `own` is another than the
            preset's.
        """
        self._refuse_other_run(run)
        for name, mine in self.analysed.items():
            self._refuse_other(name, mine, own.get(name, mine))
        further: str | Sequence[str] = own.pop("distances", None) or ()
        further = (further,) if isinstance(further, str) else tuple(further)
        k = own.pop("k", None)
        return {
            **own,
            **self.analysed,
            "k": self.k if k is None else k,
            "distances": tuple(dict.fromkeys((*self.distances, *further))),
        }

    def _refuse_other_run(self, run: Run) -> None:
        mine, found = Settings.of(**self.scored), run.settings
        pairs = [(name, getattr(mine, name), getattr(found, name)) for name in self.scored]
        pairs += [(name, value, getattr(run.study, name)) for name, value in self.asked.items()]
        other = [
            f"{name} {there!r}, not {value!r}" for name, value, there in pairs if there != value
        ]
        if other:
            raise SettingsError(
                f"a run made with other options than those of the preset {self.name!r}: "
                f"{'; '.join(other)}",
                where=run.path,
                fix=f"Score anew with --preset {self.name}, or analyse without it.",
            )

    def _refuse_other(self, name: str, mine: Any, given: Any) -> None:
        if given != mine:
            raise SettingsError(
                f"{name} = {given!r}, but the preset {self.name!r} has {mine!r}",
                fix="Leave out one of the two.",
            )


_PUBLIC_CODE = Preset(
    name="public-code",
    description="the paper's public code, GitHub tomokiariyama/knowledge-neuron-sim",
    scored=MappingProxyType(
        {
            "rule": "public_code",
            "nodes": 20,
            "site": "pre_activation",
            "objective": "probability",
            "baseline": "zero",
            "answer_tokens": "greedy",
            "longest_prompt": 128,
            "dtype": "float32",
        }
    ),
    asked=MappingProxyType({"template": None, "answer_form": "no_space"}),
    analysed=MappingProxyType({"averaging": "public_code"}),
    # Beside its own distance those that figures and the verdict are made from.
    distances=("emd_public_code", "emd", "identity", "probability_curve"),
    k=1000,
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (_PUBLIC_CODE,)}


def find_preset(name: str) -> Preset:
    """Look up a set of options that reproduces what other code computes.

    Parameters
    ----------
    name
        `public-code`: the paper's public code; underscores count as hyphens.

    Returns
    -------
    Preset
        With `.study(study)`, `.settings(**own)` and `.analysis(run, **own)`.

    Raises
    ------
    SettingsError
        If there is no such preset.
    """
    wanted = name.replace("_", "-")
    if wanted in PRESETS:
        return PRESETS[wanted]
    raise SettingsError.unknown("preset", name, PRESETS)
