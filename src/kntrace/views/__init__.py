"""Other ways to look at the same run: one file a view, and a line in `VIEWS`.

A view is a frozen dataclass. `compute(asked)` makes tables of the arrays of a run, always with
their controls; `draw(found)` draws them; `describe(found)` says what is to be seen. The command
`kntrace view`, the report, and the tests of what every view must do pick it up from `VIEWS`.
Those in `WEIGHT_VIEWS` also ask the checkpoints' weights, through `Asked.weights`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import xarray as xr

from kntrace.analysis.files import run_identity
from kntrace.archive import Run
from kntrace.archive.variables import MEANS
from kntrace.errors import AnalysisError, SettingsError
from kntrace.figures import draw_one, figures_folder, find_size, known_formats
from kntrace.nearest import nearest
from kntrace.progress import Progress, silent
from kntrace.views.acquisition import Acquisition
from kntrace.views.agreement import Agreement
from kntrace.views.base import Asked, Found, View, Weights
from kntrace.views.edit import Edit
from kntrace.views.erase import Erase
from kntrace.views.files import computed, plain, read_view, where_kept, write_view
from kntrace.views.firing import Firing
from kntrace.views.parts import Parts
from kntrace.views.predictivity import Predictivity
from kntrace.views.read_out import ReadOut
from kntrace.views.super_weights import SuperWeights
from kntrace.views.thresholds import Thresholds
from kntrace.views.turnover import Turnover

__all__ = [
    "VIEWS",
    "WEIGHT_VIEWS",
    "Asked",
    "Found",
    "View",
    "Weights",
    "all_views",
    "compute_views",
    "computed",
    "find_views",
    "lacking",
    "listing",
    "plain",
    "read_view",
    "where_kept",
]

_KNOWN: tuple[View, ...] = (
    Acquisition(),
    Turnover(),
    Thresholds(),
    Agreement(),
    Predictivity(),
)
VIEWS: dict[str, View] = {view.name: view for view in _KNOWN}
"""Every view of the arrays by name, in the order in which a reader should look at them."""
_ASKING: tuple[View, ...] = (ReadOut(), SuperWeights(), Erase(), Edit(), Firing())
WEIGHT_VIEWS: dict[str, View] = {view.name: view for view in _ASKING}
"""Every view that needs the checkpoints' weights as well."""


# A run of at most so many bytes is held in memory while its views are computed.
_IN_MEMORY = 2**28


def all_views() -> dict[str, View]:
    """Both kinds of views by name."""
    return VIEWS | WEIGHT_VIEWS


def find_views(names: Iterable[str], options: Mapping[str, str] | None = None) -> list[View]:
    """Find views by name, with options of their own.

    Parameters
    ----------
    names
        Names of views; `all` stands for those in `VIEWS`, which need no weights.
    options
        Values, as text, of fields of the views. Each goes to every view that has such a field.

    Raises
    ------
    SettingsError
        If a name or option is unknown, or a value is not of its kind.
    """
    wanted, known = list(dict.fromkeys(names)), all_views()
    if "all" in wanted:
        wanted = [*VIEWS, *(name for name in wanted if name in WEIGHT_VIEWS)]
    for name in wanted:
        if name not in known:
            raise SettingsError.unknown("view", name, known)
    views = [known[name] for name in wanted]
    for name, text in (options or {}).items():
        having = [view for view in views if name in own_options(view)]
        if not having:
            there = dict.fromkeys(one for view in views for one in own_options(view))
            raise SettingsError(
                f"no option {name!r} of {', '.join(wanted)}",
                expected=f"one of {', '.join(there)}" if there else "none: they have no options",
                fix=nearest(name, there),
            )
        views = [_with(view, name, text) if view in having else view for view in views]
    return views


def own_options(view: View) -> dict[str, Any]:
    """The options of a view with their values."""
    fields = dataclasses.fields(view)  # type: ignore[arg-type]
    fixed = ("name", "title", "how_to_read", "needs")
    return {one.name: getattr(view, one.name) for one in fields if one.name not in fixed}


def lacking(run: Run, view: View) -> tuple[str, ...]:
    """Variables that the view needs and the run has not kept."""
    there = set(run.block_variables)
    return tuple(name for name in view.needs if not there & set(_forms(name)))


def _forms(name: str) -> tuple[str, ...]:
    """A variable, and what says more than it: means of all neurons, and every prompt's."""
    plain = name.removeprefix("kept_").removeprefix("mean_")
    forms = (f"kept_{plain}", f"mean_{plain}", plain)
    return forms[forms.index(name) :]


def listing(run: Run) -> list[dict[str, Any]]:
    """Every view, with what the run lacks for it and whether it is computed, as plain values."""
    return [
        {
            "name": name,
            "title": view.title,
            "options": own_options(view),
            "lacks": list(lacking(run, view)),
            "reads_weights": name in WEIGHT_VIEWS,
            "computed": computed(run, name),
        }
        for name, view in all_views().items()
    ]


def compute_views(
    run: Run,
    views: Sequence[View] | None = None,
    *,
    wording: str | None = None,
    select: str | None = None,
    floor: float = 0.05,
    seed: int = 0,
    weights: Weights | None = None,
    formats: Sequence[str] = ("png", "pdf"),
    size: str = "paper",
    progress: Progress = silent,
) -> dict[str, Found]:
    """Compute views of a finished run; write their tables and figures into its folder.

    Parameters
    ----------
    run
        A finished run.
    views
        Which ones; all of `VIEWS` that the run has the variables for unless given.
    wording, select, floor, seed, weights
        See `Asked`.
    formats
        Of the figures; none if empty.
    size
        Of the figures, one of `kntrace.figures.SIZES`. They go to the run's folder `figures`, or
        `figures-SIZE`, each with a description beside it.
    progress
        Told of the views done, in the stage `views`.

    Raises
    ------
    AnalysisError
        If the run lacks a variable that a view needs, if it is not finished, or if there is no
        such wording or choice of neurons.
    SettingsError
        If a format or the size is unknown.
    RunError
        If a file cannot be written.
    """
    if views is None:
        views = [view for view in VIEWS.values() if not lacking(run, view)]
    for view in views:
        if absent := lacking(run, view):
            raise _not_kept(run, view, absent)
    asked = Asked(_held(run.scores), wording, select, floor, seed, weights, run.study.links)
    asked = dataclasses.replace(
        asked, parts=Parts(where_kept(run) / "parts", run_identity(run), asked.to_dict())
    )
    forms = known_formats(formats) if formats else ()
    folder = figures_folder(run.path, find_size(size).name)
    found: dict[str, Found] = {}
    for done, view in enumerate(views):
        progress("views", done, len(views), view.name)
        found[view.name] = view.compute(asked)
        write_view(run, view, asked, found[view.name])
        if forms:
            draw_one(view, found[view.name], folder, formats=forms, size=size)
    progress("views", len(views), len(views))
    return found


def _not_kept(run: Run, view: View, absent: tuple[str, ...]) -> AnalysisError:
    """Say which of the run's settings left out what the view needs."""
    means = run.settings.keep == "means" and any(name in MEANS for name in absent)
    some = run.settings.top is not None and not means
    without = ["--keep means"] if means else []
    if any("activation" in name for name in absent) and not run.settings.activations:
        without.append("--no-activations")
    if run.settings.top is not None:
        without.append("`kntrace compact`")
    names = " and ".join(name.removeprefix("mean_") for name in absent)
    of = " of every prompt" if means else " of all neurons" if some else ""
    return AnalysisError(
        f"the view {view.name!r} needs {names}{of}, which this run has not kept",
        where=run.path,
        expected=f"a run that was made without {' and '.join(without)}",
        fix="Ask the run that this one was made from, or leave this view out."
        if some
        else "Score anew, with another --out, or leave this view out.",
    )


def _held(scores: xr.Dataset) -> xr.Dataset:
    """What the views share, read once where it fits: each reads it several times."""
    return scores.load() if scores.nbytes <= _IN_MEMORY else scores


def _with(view: View, name: str, text: str) -> View:
    """The view with one option set to what the text says."""
    before = own_options(view)[name]
    kind = type(before)
    try:
        value: Any = kind(text)
    except ValueError:
        # A checkpoint is named by its position or by its label.
        if name != "pivot":
            expected = {int: "a whole number", float: "a number"}.get(kind, "another value")
            raise SettingsError(f"{name} = {text!r}", expected=expected) from None
        value = text
    try:
        changed: View = dataclasses.replace(view, **{name: value})  # type: ignore[type-var]
    except AnalysisError as error:
        raise SettingsError(f"{name} = {text!r}: {error.found}", expected=error.expected) from None
    return changed
