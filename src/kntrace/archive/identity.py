"""What a run was made from, and what has changed since: no result is reused for another input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from kntrace.errors import RunError
from kntrace.settings import Settings
from kntrace.study import Study, Word
from kntrace.suite import Suite

__all__ = ["chosen_of", "identity", "refuse_changes", "remedy", "shortlist", "study_differences"]

_SHOWN = 3


def identity(study: Study, suite: Suite, settings: Settings) -> str:
    """SHA-256 (hex) that names a run: of its study, its suite and its settings together."""
    digests = "\n".join((study.digest, suite.digest, settings.digest))
    return hashlib.sha256(digests.encode()).hexdigest()


def refuse_changes(
    path: Path,
    made: tuple[Study, Suite, Settings],
    given: tuple[Study, Suite, Settings],
) -> None:
    """Raise `RunError`, saying what differs, unless the run in `path` was made from `given`."""
    (study, suite, settings), (new_study, new_suite, new_settings) = made, given
    changes: list[str] = []
    if study.digest != new_study.digest:
        changes += [f"study: {change}" for change in study_differences(study, new_study)]
    if suite.digest != new_suite.digest:
        changes += [f"suite: {change}" for change in suite.differences(new_suite)]
    if settings.digest != new_settings.digest:
        changes += [f"settings: {change}" for change in settings.differences(new_settings)]
    if identity(*made) != identity(*given):
        raise RunError(
            f"this run was made from something else: {shortlist(changes)}",
            where=path,
            fix=_remedy(changes, settings),
        )


def _remedy(changes: Sequence[str], made: Settings) -> str:
    differing = [change.split(":")[1].strip() for change in changes]
    if made.top is not None:
        return "`kntrace compact` made this folder, and it is finished. Give another --out."
    if differing == ["keep"]:
        return f"Go on with --keep {made.keep}, as it was begun, or give another --out."
    if differing == ["activations"]:
        option = "--activations" if made.activations else "--no-activations"
        return f"Go on with {option}, as it was begun, or give another --out for a new run."
    return "Give another --out for the new run, or remove this folder to start it again."


def chosen_of(settings: Settings) -> str:
    """Say which neurons a run keeps, where it does not keep all."""
    if settings.top is None:
        return ""
    return f", of which those ever among a word's {settings.top:,} strongest"


def remedy(top: int | None) -> str:
    """What brings blocks that are missing or damaged back; `top` as the run's settings have it."""
    if top is not None:
        return "`kntrace compact` of the run that it came from makes it again, in another folder."
    return "`kntrace run` with the same study, suite and --out computes them."


def study_differences(mine: Study, theirs: Study) -> list[str]:
    """Name each way in which `theirs` would be scored otherwise than `mine`."""
    return list(_differences(mine, theirs))


def shortlist(items: Sequence[str]) -> str:
    """Join the first few of `items`, and say how many there are beside them."""
    shown = "; ".join(items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown}; and {len(items) - _SHOWN} more"


def _differences(mine: Study, theirs: Study) -> Iterator[str]:
    for field in ("template", "answer_form"):
        before, after = getattr(mine, field), getattr(theirs, field)
        if before != after:
            yield f"{field} {before!r} -> {after!r}"
    old = {word.text: word for word in mine.words}
    new = {word.text: word for word in theirs.words}
    for text in old.keys() - new.keys():
        yield f"word {text!r} is gone"
    for text in new.keys() - old.keys():
        yield f"word {text!r} is new"
    for text in (text for text in old if text in new):
        yield from _word_differences(old[text], new[text])
    if [text for text in old if text in new] != [text for text in new if text in old]:
        yield "the words come in another order"


def _word_differences(mine: Word, theirs: Word) -> Iterator[str]:
    for field in ("group", "answer"):
        before, after = getattr(mine, field), getattr(theirs, field)
        if before != after:
            yield f"{field} of {mine.text!r}: {before!r} -> {after!r}"
    for wording in dict.fromkeys((*mine.prompts, *theirs.prompts)):
        before, after = mine.prompts.get(wording, ()), theirs.prompts.get(wording, ())
        for place in range(max(len(before), len(after))):
            pair = [
                repr(prompts[place]) if place < len(prompts) else "none"
                for prompts in (before, after)
            ]
            if pair[0] != pair[1]:
                yield f"prompt {place + 1} ({wording}) of {mine.text!r}: {pair[0]} -> {pair[1]}"
