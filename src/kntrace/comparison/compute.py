"""Compare runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kntrace.archive import Run
from kntrace.comparison.agreement import agreement
from kntrace.comparison.evaluations import (
    CORRELATION_COLUMNS,
    EVALUATION_COLUMNS,
    correlations,
    join,
    read_evaluations,
)
from kntrace.comparison.members import Member, Shared, find_runs, load_members, share_words
from kntrace.comparison.pooled import FEW, estimates, pooled
from kntrace.comparison.result import RUN_COLUMNS, VERDICT_COLUMNS, Comparison
from kntrace.errors import AnalysisError
from kntrace.progress import Progress, silent

__all__ = ["compare"]

_ALL = "all"
_NAMED = 6


def compare(
    runs: Iterable[str | Path | Run] | str | Path | Run,
    *,
    evaluations: str | Path | None = None,
    permutations: int = 999,
    seed: int = 0,
    progress: Progress = silent,
) -> Comparison:
    """Set the analyses of several runs side by side: seeds, sizes or suites of the same words.

    Parameters
    ----------
    runs
        Finished runs that `kntrace analyse` was called on: run folders, opened runs, or folders
        that hold run folders.
    evaluations
        A csv file of what else was measured at the checkpoints: columns `step`, `task`,
        `value`, and `run` where the runs are not of the same checkpoints.
    permutations, seed
        Of Mantel's tests and the other permutation tests made here.
    progress
        Told of the pairs of runs compared, in the stage `agreement`.

    Returns
    -------
    Comparison

    Raises
    ------
    RunError
        If a folder is no run and holds none, or if a run is given twice.
    AnalysisError
        If there are fewer than two runs, if one was not analysed, if they have fewer than four
        words in common, or a word in different groups, or no distance in common; or if the
        evaluations cannot be read or joined, see `kntrace.comparison.evaluations`.

    Notes
    -----
    Words are matched by their text; those that not all runs have are left out and named. Reads
    the saved analyses and no scores. Cost: for every distance and every two of R runs, twice
    permutations x W² for W words: about 0.05 s for 38 words.
    """
    if permutations < 1:
        raise AnalysisError(f"{permutations} permutations", expected="at least one")
    members = load_members(find_runs(runs))
    return compare_members(members, evaluations, permutations, seed, progress)


def compare_members(
    members: Sequence[Member],
    evaluations: str | Path | None = None,
    permutations: int = 999,
    seed: int = 0,
    progress: Progress = silent,
) -> Comparison:
    """Compare runs whose analyses are loaded; see `compare`."""
    shared = share_words(members)
    names, notes = _common_distances(members)
    notes += _differences(members, shared)
    joined = pd.DataFrame(columns=list(EVALUATION_COLUMNS))
    correlated = pd.DataFrame(columns=list(CORRELATION_COLUMNS))
    if evaluations is not None:
        # What is wrong with it is said before anything is computed.
        joined, unused = join(read_evaluations(evaluations), members, shared)
        correlated = correlations(joined, permutations=permutations, seed=seed)
        notes += list(unused)
    of_runs = estimates(members, shared, names)
    over_runs, left_out = pooled(of_runs)
    notes += list(left_out)
    if len(members) < FEW:
        notes.append(f"{len(members)} runs are few: how far runs differ (tau, I²) is hardly known")
    return Comparison(
        labels=tuple(member.label for member in members),
        groups=shared.groups,
        left_out=shared.left_out,
        runs=_run_table(members, shared),
        verdicts=_verdict_table(members),
        agreement=agreement(
            members, shared, names, permutations=permutations, seed=seed, progress=progress
        ),
        estimates=of_runs,
        pooled=over_runs,
        evaluations=joined,
        correlations=correlated,
        permutations=int(permutations),
        seed=int(seed),
        notes=tuple(notes),
    )


def _common_distances(members: Sequence[Member]) -> tuple[list[str], list[str]]:
    """Names of the distances that all runs have, corrected ones included; and notes."""
    have = [list(member.analysis.contrasts) for member in members]
    common = [name for name in have[0] if all(name in names for names in have)]
    only = dict.fromkeys(name for names in have for name in names if name not in common)
    if not common:
        raise AnalysisError(
            f"no distance that all runs were analysed by ({', '.join(only)})",
            fix="Analyse them with the same --distance options.",
        )
    notes = [f"only some runs have the distances {', '.join(only)}: left out"] * bool(only)
    return common, notes


def _differences(members: Sequence[Member], shared: Shared) -> list[str]:
    """What a reader must know of runs that were not made or analysed alike."""
    notes = []
    lost = {label: words for label, words in shared.left_out.items() if words}
    if lost:
        notes += [
            f"words of {label} that another run lacks, left out: {_few(words)}"
            for label, words in lost.items()
        ]
        notes.append(
            "verdicts, distances corrected by regression, and reliabilities are of all words of "
            "a run, those left out included"
        )
    if len({member.run.study.digest for member in members}) > 1 and not lost:
        notes.append("the studies have the same words but differ in prompts, answers or order")
    if len({member.run.settings.digest for member in members}) > 1:
        notes.append("the runs were scored with different settings")
    for what, values in {
        "the main wording": [member.analysis.wording for member in members],
        "the choice of knowledge neurons": [member.analysis.selection for member in members],
    }.items():
        if len(set(values)) > 1:
            each = zip((member.label for member in members), values, strict=True)
            notes.append(f"{what} differs: {_few([f'{label} {value}' for label, value in each])}")
    return notes


def _run_table(members: Sequence[Member], shared: Shared) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    words = list(shared.words)
    for member in members:
        run, analysis = member.run, member.analysis
        times = analysis.times.words.set_index("word").loc[words]
        rows.append(
            (
                *(member.label, str(run.path), run.suite.name),
                *(len(run.study.words), len(run.suite), run.layers, run.width, analysis.k),
                float(analysis.probability.sel(word=words).isel(checkpoint=-1).mean()),
                float(times["probability_step"].median()),
                float(times["neurons_step"].median()),
            )
        )
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def _verdict_table(members: Sequence[Member]) -> pd.DataFrame:
    rows = []
    for member in members:
        verdicts = {_ALL: member.analysis.verdict, **member.analysis.verdicts}
        for wording, verdict in verdicts.items():
            numbers = {name: getattr(verdict, name) for name in VERDICT_COLUMNS[2:]}
            rows.append({"run": member.label, "wording": wording, **numbers})
    table = pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
    return table.astype({"words": np.int64, "groups": np.int64})


def _few(items: Sequence[str]) -> str:
    shown = ", ".join(items[:_NAMED])
    return shown + (f" and {len(items) - _NAMED} more" if len(items) > _NAMED else "")
