"""What an ablation will compute: its settings filled in, its checkpoints, and how much it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kntrace.archive import Run
from kntrace.effects import AblationSettings
from kntrace.errors import AnalysisError, SettingsError
from kntrace.models.scored import checkpoints_of
from kntrace.selection import TopK, read_selection
from kntrace.suite import Checkpoint, Suite
from kntrace.suite.schedules import Steps
from kntrace.wording import wordings_of

__all__ = ["Plan", "make_plan"]

_DOSES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# A dose is a small part of the network, or it is no longer about a word.
_ONE_IN = 20


@dataclass(frozen=True)
class Plan:
    """What to compute.

    Attributes
    ----------
    settings
        Filled in.
    checkpoints
        Those asked for, by their position in the run's suite, where their weights are now.
    """

    settings: AblationSettings
    checkpoints: dict[int, Checkpoint]

    def describe(self, run: Run, left: int) -> str:
        """One line: what, of how many, how often."""
        settings = self.settings
        columns = {
            place for place, (name, _) in enumerate(run.study.slots) if name == settings.wording
        }
        prompts = sum(
            text is not None
            for word in run.study.words
            for place, text in enumerate(run.study.rendered(word))
            if place in columns
        )
        doses = [str(dose) if dose else "all" for dose in settings.doses]
        where = "at every token" if settings.positions == "all" else "at the last position"
        passes = prompts * self.rows_a_prompt
        done = "" if left == len(self.checkpoints) else f" ({len(self.checkpoints) - left} done)"
        return (
            f"{len(run.study.words)} words, {prompts} prompts, {len(self.checkpoints)} "
            f"checkpoint{'s' if len(self.checkpoints) > 1 else ''}{done}: neurons by "
            f"{settings.select}, {', '.join(doses)} together {where}, "
            f"{', '.join(settings.methods)}; own, {settings.partners} words' of the group and "
            f"of others, {settings.draws} matched and random draws: up to {passes:,} passes of "
            f"{'a prompt' if settings.positions == 'all' else 'one token'} a checkpoint"
        )

    @property
    def rows_a_prompt(self) -> int:
        """Forward passes of a prompt, at most."""
        settings = self.settings
        sources = 1 + 2 * settings.partners + 2 * settings.draws
        return 1 + sources * len(settings.doses) * len(settings.methods) + 2 * settings.singles


def make_plan(
    run: Run,
    suite: Suite | None,
    steps: Steps,
    select_by: str | None,
    doses: Sequence[int] | None,
    wording: str | None,
    others: dict[str, Any],
) -> Plan:
    """Fill in what was not said, and refuse what cannot be.

    Raises
    ------
    SettingsError, AnalysisError
        If a setting is out of range or at odds with another.
    SuiteError
        If there is no such step.
    RunError
        If `suite` is not the run's.
    """
    chosen, counts = _doses(run, select_by, doses)
    known = wordings_of(run.scores)
    if wording is not None and wording not in known:
        raise AnalysisError.unknown("wording", wording, known)
    if len(run.study.words) < 2 and "resample" in others.get("methods", ()):
        raise SettingsError(
            "the method resample with a single word", expected="another word to take values from"
        )
    settings = AblationSettings.of(
        select=chosen, doses=counts, wording=known[0] if wording is None else wording, **others
    )
    return Plan(settings, checkpoints_of(run, suite, steps))


def _doses(
    run: Run, select_by: str | None, doses: Sequence[int] | None
) -> tuple[str, tuple[int, ...]]:
    """How neurons are chosen, and how many are changed."""
    neurons = run.layers * run.width
    there = run.settings.top or neurons
    counts = None if doses is None else tuple(doses)
    if counts is not None and max(counts, default=0) > neurons:
        raise AnalysisError(
            f"a dose of {max(counts)} neurons", expected=f"at most the model's {neurons:,}"
        )
    if counts is not None and max(counts, default=0) > there:
        raise AnalysisError(
            f"a dose of {max(counts)} neurons, and the run has kept those among a word's {there:,} "
            "strongest",
            expected=f"at most {there:,}",
            fix="Take smaller doses, or ask the run that it was made from.",
        )
    most = min(max(1, neurons // _ONE_IN), there)
    if select_by is None:
        counts = counts or tuple(dose for dose in _DOSES if dose <= most)
        if 0 in counts:
            raise SettingsError(
                "a dose of all neurons (0) without a selection",
                expected="how many all are",
                fix="Say it with --select (select=), such as top:50 or threshold:0.2:3.",
            )
        return f"top:{max(counts)}", counts
    selection = read_selection(select_by)
    if not isinstance(selection, TopK):
        return selection.spec, counts or (0,)
    if counts is not None and max(counts) > selection.k:
        raise SettingsError(
            f"a dose of {max(counts)} neurons, but --select {selection.spec}",
            expected="doses within the selection",
        )
    if selection.k > there:
        which = "neurons" if there == neurons else "strongest, which are what the run has kept"
        raise AnalysisError(
            f"k = {selection.k} knowledge neurons",
            expected=f"a whole number from 1 to {there:,}, the number of {which}",
        )
    return selection.spec, counts or (*(d for d in _DOSES if d < selection.k), selection.k)
