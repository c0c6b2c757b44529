"""Compute an analysis, from a run or from scores alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from kntrace.analysis.ahead import long_distances
from kntrace.analysis.corrected import corrected_distances
from kntrace.analysis.covariates import find_covariates
from kntrace.analysis.files import read_analysis, write_analysis
from kntrace.analysis.matrices import BASELINE, bound_errors, distance_matrices
from kntrace.analysis.prompt_noise import prompt_noise
from kntrace.analysis.reliability import split_half
from kntrace.analysis.result import Analysis
from kntrace.archive import Run, writing
from kntrace.contrasts import Contrast, contrast, matrix_tests
from kntrace.distance import Correction, find_distance, pairwise_distances
from kntrace.emergence import early_neurons, formation_times
from kntrace.errors import AnalysisError
from kntrace.formation import formation_processes
from kntrace.overlap import neuron_overlap, overlap_by_layer
from kntrace.progress import Progress, silent
from kntrace.selection import Selection, TopK, default_k, read_selection
from kntrace.verdict import Verdict, VerdictRule, combine
from kntrace.wording import Averaging, read_wording, scores_of, wordings_of

__all__ = ["DEFAULT_DISTANCES", "analyse", "analyse_scores", "load_analysis"]

DEFAULT_DISTANCES = ("emd", "emd_euclidean", "identity", "probability_curve")
_JUDGED = "identity"

# Scores are read eight times and more: where they are small they are read once, and held.
_HELD = 256 * 2**20


def analyse(
    run: Run,
    *,
    k: int | None = None,
    select: Selection | str | None = None,
    distances: Sequence[str] | None = None,
    averaging: Averaging = "every_prompt",
    covariates: Sequence[str | Path | Correction] = (),
    permutations: int = 999,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = silent,
    tell: Callable[[str], None] | None = None,
) -> Analysis:
    """Analyse a finished run and write what was found into its folder `analysis`.

    Parameters
    ----------
    run
        A finished run.
    k
        Knowledge neurons per word; 1,000, or one in forty of a model with fewer than 40,000
        neurons, unless given.
    select
        Another way to choose them than the k strongest, such as `threshold:0.2:3`; see
        `kntrace.selection`.
    distances
        Names in `kntrace.distance.DISTANCES`; `DEFAULT_DISTANCES` unless given. The baseline
        `probability_curve` is added in any case.
    averaging
        How a word's prompts make one score of a neuron, for the knowledge neurons and their
        formation processes; see `kntrace.wording.read_wording`.
    covariates
        What is known of words, or of pairs of words, and to be taken out of the distances:
        names in `kntrace.analysis.COVARIATES`, csv files ("FILE:column" where a file has
        several; see `kntrace.distance.read_covariate`), or corrections.
    permutations, seed
        Of every permutation test.
    workers
        Processes for the earth mover's distances; they change no number.
    progress
        Told of the work done, in stages named after the distances and others.
    tell
        Told in a sentence of each distance that will take long, and about how long.

    Returns
    -------
    Analysis

    Raises
    ------
    AnalysisError
        If an argument is out of range, or if a score is not a finite number.
    RunError
        If the run is not finished or is damaged, or if its folder cannot be written.

    Notes
    -----
    Writes `neurons.parquet`, `formation.zarr`, `formation_times.parquet`, `distances.csv`,
    `contrast.csv`, `contrast.json`, `tests.csv`, `reliability.csv`, `overlap.csv`,
    `overlap.json`, `overlap_by_layer.csv`, `early.csv`, `times.csv`, `statistics.json`,
    `verdict.json` and, last of all, `analysis.json`, which says from which run and with which
    arguments the others were made.

    With W words, time goes with W² for the distances, and with permutations x W² for every
    test; reliability and prompt noise take 40 words at most.
    """
    run.require_complete()
    found = analyse_scores(
        run.scores,
        run.study.groups,
        k=k,
        select=select,
        distances=distances,
        averaging=averaging,
        covariates=find_covariates(covariates, run.scores, run),
        permutations=permutations,
        seed=seed,
        workers=workers,
        progress=progress,
        tell=tell,
    )
    found = replace(found, run=run)
    with writing(run.path):
        write_analysis(run, found)
    return found


def analyse_scores(
    scores: xr.Dataset,
    groups: Mapping[str, Sequence[str]] | None = None,
    *,
    k: int | None = None,
    select: Selection | str | None = None,
    distances: Sequence[str] | None = None,
    averaging: Averaging = "every_prompt",
    covariates: Sequence[str | Path | Correction] = (),
    permutations: int = 999,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = silent,
    tell: Callable[[str], None] | None = None,
) -> Analysis:
    """Analyse scores that need not belong to a run folder; nothing is written.

    Parameters
    ----------
    scores
        In the form of `Run.scores`.
    groups
        The words of every group; as the scores' coordinate `group` has it unless given.
    k, select, distances, averaging, covariates, permutations, seed, workers, progress, tell
        As for `analyse`.

    Raises
    ------
    AnalysisError
        If an argument is out of range, or if a score is not a finite number.
    """
    names, given = _wanted(distances), find_covariates(covariates, scores)
    members = {name: tuple(words) for name, words in (groups or _groups_of(scores)).items()}
    size = scores[scores_of(scores)].nbytes
    # What is small is read once in any case: nearly everything asks for it.
    small = {name: scores[name].compute() for name in ("rank", "probability")}
    scores = scores.compute() if size <= _HELD else scores.assign(small)
    neurons = scores.sizes["layer"] * scores.sizes["neuron"]
    selection = _selection(k, select, averaging, scores)
    tests = {"permutations": permutations, "seed": seed}

    chosen = selection.choose(scores)
    _refuse_empty(chosen)
    formation = formation_processes(scores, chosen, progress=progress)
    if tell is not None:
        for line in long_distances(formation, names, workers):
            tell(line)
    matrices = distance_matrices(scores, formation, names, progress, workers)
    corrected, uncorrected = corrected_distances(matrices, given)
    verdicts, notes = _verdicts(scores, members, matrices, progress)
    compared = matrices | corrected
    probability = read_wording(scores).probability()
    reliability, left_out = split_half(scores, names, int(chosen.attrs["k"]), progress=progress)
    return Analysis(
        run=None,
        groups=members,
        wording=wordings_of(scores)[0],
        k=int(chosen.attrs["k"]),
        selection=selection.spec,
        permutations=permutations,
        seed=seed,
        probability=probability,
        neurons=chosen,
        formation=formation,
        distances=matrices,
        corrected=corrected,
        contrasts=_contrasts(compared, members, tests, progress),
        tests=_matrix_tests(compared, members, tests, progress),
        reliability=reliability,
        prompt_noise=prompt_noise(scores, members, seed=seed, progress=progress),
        overlap=neuron_overlap(chosen, members, total_neurons=neurons, **tests),
        overlap_by_layer=overlap_by_layer(chosen, members, **tests),
        early=early_neurons(scores, chosen, progress=progress, **tests),
        times=formation_times(formation, probability, **tests),
        verdict=combine(verdicts),
        verdicts=verdicts,
        notes=(*notes, *uncorrected, *left_out, *bound_errors(matrices)),
    )


def load_analysis(run: Run) -> Analysis:
    """Read back what `analyse` wrote into the folder of `run`.

    Raises
    ------
    AnalysisError
        If there is none, if it was made from another run or from other weights, or if one of
        its files was changed.
    """
    return read_analysis(run)


def _selection(
    k: int | None, select: Selection | str | None, averaging: Averaging, scores: xr.Dataset
) -> Selection:
    """How to choose neurons, from either way of saying it."""
    if select is None:
        return TopK(default_k(scores) if k is None else k, averaging)
    selection = read_selection(select) if isinstance(select, str) else select
    if averaging != "every_prompt":
        raise AnalysisError(
            f"the averaging {averaging!r} beside the selection {selection.spec}",
            expected="one of them: a selection looks at every prompt",
        )
    if k is not None:
        raise AnalysisError(
            f"k = {k} beside the selection {selection.spec}", expected="one of them"
        )
    return selection


def _refuse_empty(chosen: xr.Dataset) -> None:
    for word in np.flatnonzero((chosen["layer"].values < 0).all(axis=1)):
        raise AnalysisError(
            f"no neuron of {str(chosen['word'].values[word])!r} is chosen by "
            f"{chosen.attrs['selection']}",
            expected="at least one of every word",
            fix="Take a lower threshold, fewer prompts or a lower floor.",
        )


def _wanted(distances: Sequence[str] | None) -> list[str]:
    """Names of the distances asked for, the baseline among them, each once."""
    if isinstance(distances, str):
        distances = [distances]
    names = DEFAULT_DISTANCES if distances is None else (*distances, BASELINE)
    return list(dict.fromkeys(find_distance(name).name for name in names))


def _groups_of(scores: xr.Dataset) -> dict[str, tuple[str, ...]]:
    if "group" not in scores.coords:
        raise AnalysisError("no groups among the scores", expected="a coordinate `group`")
    groups: dict[str, tuple[str, ...]] = {}
    for word, group in zip(scores["word"].values, scores["group"].values, strict=True):
        groups[str(group)] = (*groups.get(str(group), ()), str(word))
    return groups


def _contrasts(
    matrices: Mapping[str, xr.DataArray],
    groups: Mapping[str, Sequence[str]],
    tests: Mapping[str, int],
    progress: Progress,
) -> dict[str, Contrast]:
    """Contrast every distance as it is, and corrected."""
    contrasts = {}
    for done, (name, matrix) in enumerate(matrices.items()):
        progress("contrast", done, len(matrices), name)
        contrasts[name] = contrast(matrix, groups, **tests)
    progress("contrast", len(matrices), len(matrices))
    return contrasts


def _matrix_tests(
    matrices: Mapping[str, xr.DataArray],
    groups: Mapping[str, Sequence[str]],
    tests: Mapping[str, int],
    progress: Progress,
) -> pd.DataFrame:
    """The tests of ecology on every distance, each beside the baseline."""
    parts = []
    for done, (name, matrix) in enumerate(matrices.items()):
        progress("matrix tests", done, len(matrices), name)
        found = matrix_tests(matrix, groups, matrices[BASELINE], **tests)
        parts.append(found.assign(distance=name)[["distance", *found]])
    progress("matrix tests", len(matrices), len(matrices))
    return pd.concat(parts, ignore_index=True)


def _verdicts(
    scores: xr.Dataset,
    groups: Mapping[str, Sequence[str]],
    matrices: Mapping[str, xr.DataArray],
    progress: Progress,
) -> tuple[dict[str, Verdict], tuple[str, ...]]:
    """Judge every wording in which every word has a prompt."""
    rule = VerdictRule()
    verdicts, notes = {}, []
    wordings = wordings_of(scores)
    for wording in wordings:
        if wording != wordings[0] and not _all_asked(scores, wording):
            notes.append(f"wording {wording!r} was not judged: some words have no prompt in it")
            continue
        distance = matrices.get(_JUDGED) if wording == wordings[0] else None
        if distance is None:
            distance = pairwise_distances(scores, _JUDGED, wording=wording, progress=progress)
        probability = read_wording(scores, wording).probability()
        verdicts[wording] = rule.judge(distance, probability, groups)
    return verdicts, tuple(notes)


def _all_asked(scores: xr.Dataset, wording: str) -> bool:
    ranks = scores["rank"].isel(prompt=np.flatnonzero(scores["wording"].values == wording))
    return bool((ranks >= 0).any(["checkpoint", "prompt"]).all())
