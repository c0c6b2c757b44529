"""The check of a study: by itself, against a tokenizer, and against a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kntrace.documents import read_document
from kntrace.errors import SettingsError, StudyError
from kntrace.lint.finding import Checked, Finding, Stage
from kntrace.lint.registry import RULES
from kntrace.lint.views import FileView, ModelView, StudyView, TokenView
from kntrace.progress import Progress, silent
from kntrace.settings import Settings
from kntrace.study import Study, bundled_studies, load_study
from kntrace.suite import Suite

__all__ = ["check_study"]


def check_study(
    source: str | Path | Study,
    suite: Suite | None = None,
    *,
    groups: str | Path | Mapping[str, Sequence[str]] | None = None,
    answer_tokens: str = "error",
    answers: bool = False,
    top: int = 10,
    allow_bin: bool = False,
    progress: Progress = silent,
) -> Checked:
    """Look for what would make a run fail or mislead, before an hour is spent on it.

    Parameters
    ----------
    source
        A study, its file, or the name of a bundled one. A file that cannot be read is a
        finding, not an error.
    suite
        Whose last checkpoint's tokenizer is asked. None: only what needs no tokenizer.
    groups
        As in `load_study`, for the plain form of the paper's public code.
    answer_tokens
        What the run will do with answers of several tokens, as in `Settings`.
    answers
        Also load that checkpoint's weights and ask it every prompt.
    top
        A word counts as known if its answer is among this many likeliest tokens.
    allow_bin
        Read weights that are there only as pickles: their tensors, and no programs.

    Raises
    ------
    SettingsError
        If an option is none of those that exist, or needs a suite and there is none.
    SuiteError
        If the last checkpoint cannot be loaded.

    Notes
    -----
    Cost: about half a millisecond a prompt with a tokenizer; with `answers`, a forward pass more.
    """
    Settings.of(answer_tokens=answer_tokens)  # refuses an unknown one
    if answers and suite is None:
        raise SettingsError(
            "answers without a suite", expected="a suite, whose last checkpoint is asked"
        )
    if top < 1:
        raise SettingsError(f"top = {top}", expected="at least 1")
    study, found = _of_file(source, groups)
    if study is None or suite is None:
        if study is not None:
            found += _apply("study", StudyView(study))
        return Checked(study.name if study else str(source), None, tuple(found))
    found += _apply("study", StudyView(study))

    from kntrace.lint.reader import load_reader

    last = suite.checkpoints[-1]
    tokens = TokenView(study, load_reader(last), answer_tokens)
    found += _apply("tokens", tokens)
    if answers:
        from kntrace.lint.answers import answer_all
        from kntrace.models.load import load_checkpoint

        model = load_checkpoint(last, allow_bin=allow_bin).model
        found += _apply(
            "model", ModelView(study, answer_all(model, tokens.read, progress=progress), top)
        )
    return Checked(study.name, last.label, tuple(found))


def _of_file(
    source: str | Path | Study, groups: str | Path | Mapping[str, Sequence[str]] | None
) -> tuple[Study | None, list[Finding]]:
    """Read the study, and say what is wrong with its file if it cannot be read."""
    if isinstance(source, Study):
        return source, []
    try:
        return load_study(source, groups=groups), []
    except StudyError as error:
        failure = error
    try:
        bundled = str(source) in bundled_studies()
        document = None if bundled else read_document(source, StudyError, what="a study file")
    except StudyError:
        document = None
    return None, _apply("file", FileView(document, failure))


def _apply(stage: Stage, view: Any) -> list[Finding]:
    return [finding for rule in RULES if rule.stage == stage for finding in rule.findings(view)]
