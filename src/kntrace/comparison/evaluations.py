"""What else was measured at each checkpoint (a csv of step, task and value), beside formation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import permutation_test, rankdata

from kntrace.comparison.members import Member, Shared
from kntrace.documents import nearest, read_csv
from kntrace.errors import AnalysisError

__all__ = [
    "CORRELATION_COLUMNS",
    "CURVES",
    "EVALUATION_COLUMNS",
    "Evaluations",
    "correlations",
    "join",
    "read_evaluations",
]

CURVES = {
    "probability": "mean P(answer) over words",
    "formation": "mean score of the words' knowledge neurons",
    "half_risen": "share of these neurons whose half-rise has come",
}
"""What evaluations are held against, all of them at the checkpoints of the run."""

EVALUATION_COLUMNS = ("run", "task", "checkpoint", "step", "value", *CURVES)
CORRELATION_COLUMNS = (
    *("run", "task", "curve", "checkpoints"),
    *("levels", "changes", "changes_p", "given_gaps", "given_gaps_p"),
)

_FORM = "a header with the columns step, task, value and perhaps run"
_NAMED = 8

_Floats = npt.NDArray[np.float64]
_Values = dict[str | None, dict[str, dict[int, float]]]


@dataclass(frozen=True)
class Evaluations:
    """What the file says: by run (None: it names no run) and task, a value a step."""

    path: Path
    values: _Values


def read_evaluations(path: str | Path) -> Evaluations:
    """Read a csv file (UTF-8, comma, a header) with the columns `step`, `task`, `value`.

    A column `run` says which run a row is of; other columns are passed over.

    Raises
    ------
    AnalysisError
        If it cannot be read or lacks a column, if a step is no whole number or a value no
        finite one, or if a step stands there twice with different values.
    """
    path = Path(path)
    header, rows = read_csv(path, AnalysisError, _FORM)
    missing = [name for name in ("step", "task", "value") if name not in header]
    if missing:
        raise AnalysisError(f"no column {missing[0]!r}", where=path, expected=_FORM)
    if not rows:
        raise AnalysisError("no rows below the header", where=path, expected=_FORM)
    values: _Values = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, row {number}"
        run, task = row["run"] if "run" in header else None, row["task"]
        if not task or run == "":
            lacking = "run" if task else "task"
            raise AnalysisError(f"no {lacking}", where=where, expected="one in every row")
        step, value = _step(row["step"], where), _number(row["value"], where)
        known = values.setdefault(run, {}).setdefault(task, {})
        if known.setdefault(step, value) != value:
            raise AnalysisError(
                f"{value:g} for {task!r} at step {step}, which has {known[step]:g} further up",
                where=where,
                expected="one value",
            )
    return Evaluations(path, values)


def join(
    evaluations: Evaluations, members: Sequence[Member], shared: Shared
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Set every checkpoint's values beside the formation of the common words there.

    A step is joined to the very same step and never to one near it, since a model changes most
    where checkpoints lie far apart.

    Returns
    -------
    table
        One row a run, task and checkpoint: `value`, and the curves of `CURVES`.
    notes
        Which steps of the file were not used.

    Raises
    ------
    AnalysisError
        If the file has no value at a checkpoint of a run, if it names a run that there is not,
        or if it names no runs where these are not of one suite.
    """
    given = _by_member(evaluations, members)
    parts, unused = [], set()
    for member in members:
        if member.label not in given:
            continue
        curves = _curves(member, shared)
        steps = [int(step) for step in curves["step"]]
        for task, values in given[member.label].items():
            missing = [step for step in steps if step not in values]
            if missing:
                raise AnalysisError(
                    f"{task!r} has no value at {_named(missing)}, checkpoints of {member.label!r}",
                    where=evaluations.path,
                    expected="a value at every checkpoint of the run, at exactly its step",
                    fix="Evaluate those checkpoints too, or compare a run of the evaluated ones.",
                )
            unused |= set(values) - set(steps)
            column = [values[step] for step in steps]
            parts.append(curves.assign(run=member.label, task=task, value=column))
    table = pd.concat(parts, ignore_index=True)[list(EVALUATION_COLUMNS)]
    notes = [f"evaluations that are no checkpoint's: {_named(sorted(unused))}"] * bool(unused)
    notes += [
        f"no evaluations of {member.label}" for member in members if member.label not in given
    ]
    return table, tuple(notes)


def correlations(table: pd.DataFrame, *, permutations: int, seed: int) -> pd.DataFrame:
    """Correlate every task with every curve over the checkpoints of each run.

    Returns
    -------
    pd.DataFrame
        One row a run, task and curve. `levels`: Spearman's correlation of the values
        themselves. Two curves that rise always agree, so this is no finding. `changes`: that
        of the differences from one checkpoint to the next, with `changes_p`, two-sided, by
        permutation of the changes. `given_gaps`: the same with the number of steps between the
        checkpoints regressed out of the ranks, since where more time passes everything changes
        more. NaN where there are fewer than four changes, or where a curve does not change.

    Notes
    -----
    Both curves change fast early and little late, and changes that are near in time are alike:
    even the last column can be about training having phases. Other tasks that have nothing to
    do with the words are the control to look at.
    """
    rows: list[tuple[object, ...]] = []
    for (run, task), part in table.groupby(["run", "task"], sort=False):
        value = part["value"].to_numpy(dtype=np.float64)
        gaps = np.diff(part["step"].to_numpy(dtype=np.float64))
        for curve in CURVES:
            other = part[curve].to_numpy(dtype=np.float64)
            levels = _correlation(value, other, None, 0, seed)[0]
            changes = np.diff(value), np.diff(other)
            found = _correlation(*changes, None, permutations, seed)
            given = _correlation(*changes, gaps, permutations, seed)
            rows.append((run, task, curve, len(value), levels, *found, *given))
    return pd.DataFrame(rows, columns=list(CORRELATION_COLUMNS))


def _correlation(
    one: _Floats, two: _Floats, given: _Floats | None, permutations: int, seed: int
) -> tuple[float, float]:
    """Spearman's correlation and its p-value, the ranks of `given` regressed out of both."""
    if len(one) < 4 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return math.nan, math.nan
    columns = [np.ones(len(one))] + ([] if given is None else [rankdata(given)])
    design = np.stack(columns, axis=1)
    left = [_residual(rankdata(values), design) for values in (one, two)]
    sizes = [float(np.linalg.norm(values)) for values in left]
    if min(sizes) < 1e-9 * len(one):
        return math.nan, math.nan
    first, second = (values / size for values, size in zip(left, sizes, strict=True))
    if not permutations:
        return float(first @ second), math.nan
    test = permutation_test(
        (first,),
        lambda dealt, axis=-1: np.asarray((dealt * second).sum(axis=axis)),
        permutation_type="pairings",
        n_resamples=permutations,
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    return float(test.statistic), float(test.pvalue)


def _residual(values: _Floats, design: _Floats) -> _Floats:
    left: _Floats = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return left


def _by_member(
    evaluations: Evaluations, members: Sequence[Member]
) -> Mapping[str, Mapping[str, Mapping[int, float]]]:
    """By run's label and task, a value a step."""
    labels = [member.label for member in members]
    given: dict[str, dict[str, dict[int, float]]] = {}
    for run, tasks in evaluations.values.items():
        if run is None:
            if len({member.run.suite.digest for member in members}) > 1 or _weights_differ(members):
                raise AnalysisError(
                    "no column `run`, and the runs are not of the same checkpoints",
                    where=evaluations.path,
                    expected=f"a column `run` with the names {', '.join(labels[:_NAMED])}",
                )
            given |= dict.fromkeys(labels, tasks)
        elif run not in labels:
            raise AnalysisError(
                f"no run {run!r} among those compared",
                where=evaluations.path,
                expected=f"one of {', '.join(labels[:_NAMED])}",
                fix=nearest(run, labels),
            )
        else:
            given[run] = tasks
    return given


def _weights_differ(members: Sequence[Member]) -> bool:
    """Two seeds grown into folders have checkpoints of the same names."""
    prints = [
        tuple(member.run.fingerprint(place) for place in range(len(member.run.suite)))
        for member in members
    ]
    return len(set(prints)) > 1


def _curves(member: Member, shared: Shared) -> pd.DataFrame:
    """One row a checkpoint."""
    analysis, words = member.analysis, list(shared.words)
    steps = [checkpoint.step for checkpoint in member.run.suite]
    if any(step is None for step in steps) or len(set(steps)) < len(steps):
        raise AnalysisError(
            f"the checkpoints of {member.label!r} have no steps of their own, and evaluations "
            "are joined by step",
            where=member.run.path,
            expected="a suite whose steps are known, of one stage",
        )
    formation = analysis.formation.sel(word=words)
    half = analysis.times.neurons.sel(word=words).values
    known = half[~np.isnan(half)]
    places = np.arange(len(steps))
    return pd.DataFrame(
        {
            "checkpoint": [checkpoint.label for checkpoint in member.run.suite],
            "step": steps,
            "probability": analysis.probability.sel(word=words).mean("word").values,
            "formation": formation.mean(["word", "rank"]).values,
            "half_risen": (known[None] <= places[:, None]).sum(axis=1) / max(len(half.ravel()), 1),
        }
    )


def _step(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise AnalysisError(f"step {text[:40]!r}", where=where, expected="a whole number of steps")
    return int(text)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AnalysisError(f"value {text[:40]!r}", where=where, expected="a finite number")
    return value


def _named(steps: Sequence[int]) -> str:
    shown = ", ".join(f"{step}" for step in steps[:_NAMED])
    return f"step {shown}" + (f" and {len(steps) - _NAMED} more" if len(steps) > _NAMED else "")
