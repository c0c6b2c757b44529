"""Covariates by name or file: what is known of words that no distance should answer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import xarray as xr

from kntrace.archive import Run
from kntrace.distance import Correction, WordCovariate, read_covariate
from kntrace.errors import AnalysisError
from kntrace.nearest import nearest
from kntrace.wording import read_wording

__all__ = ["COVARIATES", "find_covariates"]


def _word_length(scores: xr.Dataset, run: Run | None) -> WordCovariate:
    words = _words(scores)
    lengths = {word: float(len(word)) for word in words}
    return WordCovariate("word_length", lengths, "difference in the words' length in characters")


def _learning_time(scores: xr.Dataset, run: Run | None) -> WordCovariate:
    times = read_wording(scores).probability().mean("checkpoint")
    values = dict(zip(_words(scores), times.values.tolist(), strict=True))
    return WordCovariate("learning_time", values, "difference in mean P(answer) over checkpoints")


def _answer_tokens(scores: xr.Dataset, run: Run | None) -> WordCovariate:
    counts = {word: float(len(ids)) for word, ids in _answers("answer_tokens", run).items()}
    return WordCovariate("answer_tokens", counts, "difference in the number of answer tokens")


def _token_id(scores: xr.Dataset, run: Run | None) -> WordCovariate:
    ids = {word: float(ids[0]) for word, ids in _answers("token_id", run).items()}
    return WordCovariate("token_id", ids, "difference in the id of the answer's first token")


COVARIATES: dict[str, Callable[[xr.Dataset, Run | None], WordCovariate]] = {
    "word_length": _word_length,
    "answer_tokens": _answer_tokens,
    "token_id": _token_id,
    "learning_time": _learning_time,
}
"""Covariates that need no file, by name: made of a run's scores, and of the run."""


def find_covariates(
    asked: Sequence[str | Path | Correction], scores: xr.Dataset, run: Run | None = None
) -> tuple[Correction, ...]:
    """Turn what was asked for into corrections.

    Parameters
    ----------
    asked
        Names in `COVARIATES`; csv files, with the name of a column after a colon where the
        file has several (see `kntrace.distance.read_covariate`); or corrections, kept as they
        are.
    scores
        In the form of `Run.scores`.
    run
        The run they are of, if there is one; only it knows the answers' tokens.

    Raises
    ------
    AnalysisError
        If there is no such name or file, if the file or the run has not what is needed, or if
        two covariates have the same name.
    """
    if isinstance(asked, str | Path):
        asked = [asked]
    found = [
        _find(str(item), scores, run) if isinstance(item, str | Path) else item for item in asked
    ]
    names = [covariate.name for covariate in found]
    for name in names:
        if names.count(name) > 1 or name in _TAKEN:
            raise AnalysisError(
                f"two corrections of the name {name!r}", expected="each name once",
                fix="Give the column another name.",
            )  # fmt: skip
    for covariate in found:
        # What is wrong with it is said now, and not after the distances were computed.
        covariate.columns(tuple(_words(scores)))
    return tuple(found)


# Corrections that every analysis makes.
_TAKEN = ("hub", "probability_curve")


def _find(asked: str, scores: xr.Dataset, run: Run | None) -> Correction:
    if asked in COVARIATES:
        return COVARIATES[asked](scores, run)
    file, colon, column = asked.rpartition(":")
    words = _words(scores)
    if Path(asked).exists():
        return read_covariate(asked, words)
    if colon and Path(file).exists():
        return read_covariate(file, words, column)
    raise AnalysisError(
        f"no covariate {asked!r}, and no such file",
        expected=f"one of {', '.join(COVARIATES)}, or FILE.csv[:column]",
        fix=nearest(asked, COVARIATES),
    )


def _answers(name: str, run: Run | None) -> Mapping[str, Sequence[int]]:
    """Token ids of every word's answer."""
    answers = None if run is None else run.provenance.get("answers")
    if not isinstance(answers, dict) or not all(answers.values()):
        raise AnalysisError(
            f"{name!r} is not known: the answers' tokens are not recorded",
            where=None if run is None else run.path,
            expected="a run scored by a version that records them",
            fix="Give them in a csv file, one row a word.",
        )
    return answers


def _words(scores: xr.Dataset) -> list[str]:
    return [str(word) for word in scores["word"].values]
