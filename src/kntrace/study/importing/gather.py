"""From rows to a study: which word is in which group, and how many prompts it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kntrace.errors import SettingsError, StudyError
from kntrace.study.importing.rows import Row
from kntrace.study.model import AnswerForm, Study, Word

__all__ = ["SHARED", "Shared", "gather"]

Shared = Literal["refuse", "drop", "rename"]
SHARED: tuple[Shared, ...] = get_args(Shared)

MOST_PROMPTS = 1_000_000
_NAMED = 5


@dataclass
class _Entry:
    """What was read of one word in one group."""

    where: str
    answer: str | None
    prompts: dict[str, dict[str, str]]  # wording -> prompt -> where


def gather(
    rows: Iterable[Row],
    notes: list[str],
    *,
    name: str,
    template: str | None = None,
    answer_form: AnswerForm = "as_follows",
    shared: Shared = "refuse",
    repeats: bool = False,
    prompts: int | None = None,
    min_prompts: int = 1,
) -> Study:
    """Put rows together, in the order in which groups and their words first appear.

    Parameters
    ----------
    notes
        Takes in what was left out.
    shared
        What to do with a word of two groups: `refuse` it, `drop` it from both, or `rename` it,
        to `word (group)` with the word as its answer.
    repeats
        Whether a prompt may be given twice; it then counts once. Otherwise it is refused.
    prompts
        Prompts of a word to keep in each wording, the first ones; all unless given.
    min_prompts
        Words with fewer prompts in their first wording are left out.

    Raises
    ------
    StudyError
        Where rows contradict each other, or if nothing is left of them.
    """
    _check_options(shared, prompts, min_prompts)
    entries = _merged(rows, repeats, notes)
    if not entries:
        raise StudyError("there is nothing to import", where=name, expected="prompts of words")
    entries = _settled(entries, shared, notes)
    words = [_word(text, group, entry, prompts) for (group, text), entry in entries.items()]
    few = [word.text for word in words if _first(word.prompts) < min_prompts]
    _note(notes, few, f"with fewer than {min_prompts} prompts")
    cut = sum(
        len(asked) > prompts
        for entry in entries.values()
        for asked in entry.prompts.values()
        if prompts is not None
    )
    if cut:
        notes.append(f"kept the first {prompts} prompts of {cut} words that have more")
    kept = [word for word in words if _first(word.prompts) >= min_prompts]
    if not kept:
        raise StudyError(
            f"no word has {min_prompts} prompts", where=name, fix="Ask for fewer (--min-prompts)."
        )
    order = {group: place for place, group in enumerate(dict.fromkeys(w.group for w in kept))}
    kept.sort(key=lambda word: order[word.group])
    return Study(name=name, template=template, answer_form=answer_form, words=tuple(kept))


def _word(text: str, group: str, entry: _Entry, prompts: int | None) -> Word:
    asked = {wording: tuple(found)[:prompts] for wording, found in entry.prompts.items()}
    try:
        return Word(text=text, group=group, answer=entry.answer or text, prompts=asked)
    except StudyError as error:
        raise StudyError(
            error.found, where=entry.where, expected=error.expected, fix=error.fix
        ) from None


def _first(prompts: dict[str, tuple[str, ...]]) -> int:
    return len(next(iter(prompts.values())))


def _check_options(shared: str, prompts: int | None, min_prompts: int) -> None:
    if shared not in SHARED:
        raise SettingsError.unknown("treatment of shared words", shared, SHARED)
    if min_prompts < 1 or (prompts is not None and prompts < min_prompts):
        raise SettingsError(
            f"at least {min_prompts} prompts and at most {prompts}",
            expected="at least 1, and no more at least than at most",
        )


def _merged(rows: Iterable[Row], repeats: bool, notes: list[str]) -> dict[tuple[str, str], _Entry]:
    entries: dict[tuple[str, str], _Entry] = {}
    twice = 0
    for number, row in enumerate(rows):
        if number >= MOST_PROMPTS:
            raise StudyError(
                f"more than {MOST_PROMPTS:,} prompts", where=row.where, fix="Import a part of it."
            )
        entry = entries.get((row.group, row.word))
        if entry is None:
            entry = entries[row.group, row.word] = _Entry(row.where, row.answer, {})
        elif row.answer != entry.answer:
            raise StudyError(
                f"the answer of {row.word!r} is {row.answer or row.word!r}, but "
                f"{entry.answer or row.word!r} in {entry.where}",
                where=row.where,
                expected="one answer a word",
            )
        asked = entry.prompts.setdefault(row.wording, {})
        if row.prompt in asked and not repeats:
            raise StudyError(
                f"the prompt of {row.word!r} is the same as in {asked[row.prompt]}",
                where=row.where,
                expected="each prompt once, since their mean is taken",
            )
        twice += row.prompt in asked
        asked.setdefault(row.prompt, row.where)
    if twice:
        notes.append(f"counted once {twice} prompts that stand there twice")
    return entries


def _settled(
    entries: dict[tuple[str, str], _Entry], shared: Shared, notes: list[str]
) -> dict[tuple[str, str], _Entry]:
    """See to the words that are in two groups."""
    groups: dict[str, list[str]] = {}
    for group, word in entries:
        groups.setdefault(word, []).append(group)
    in_two = {word: found for word, found in groups.items() if len(found) > 1}
    if in_two and shared == "refuse":
        word, (first, second, *_) = next(iter(in_two.items()))
        raise StudyError(
            f"the word {word!r} is in group {second!r}, but in {first!r} in "
            f"{entries[first, word].where}" + _more(len(in_two) - 1),
            where=entries[second, word].where,
            expected="each word in one group",
            fix="Mend it, or choose to drop or rename such words (--shared drop, --shared rename).",
        )
    if shared == "drop":
        _note(notes, list(in_two), "that are in two groups")
        left = {key: entry for key, entry in entries.items() if key[1] not in in_two}
        if not left:
            raise StudyError(
                "every word is in two groups", fix="Rename them instead (--shared rename)."
            )
        return left
    renamed: dict[tuple[str, str], _Entry] = {}
    for (group, word), entry in entries.items():
        if word in in_two:
            entry.answer = entry.answer or word
            word = f"{word} ({group})"
        renamed[group, word] = entry
    if in_two:
        notes.append(
            f"renamed {len(in_two)} words that are in two groups, as in {word_list(in_two)}"
        )
    return renamed


def word_list(words: Iterable[str]) -> str:
    """Name the first few of them."""
    named = list(words)
    rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + rest


def _note(notes: list[str], words: Sequence[str], why: str) -> None:
    if words:
        notes.append(f"left out {len(words)} words {why}: {word_list(words)}")


def _more(count: int) -> str:
    return f" (and {count} more words likewise)" if count else ""
