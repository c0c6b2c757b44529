"""Rules that need no tokenizer: the file as it is written, and the study read from it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import groupby
from math import factorial, prod

from kntrace.lint.finding import Remark
from kntrace.lint.views import FileView, StudyView

__all__ = [
    "answer_in_its_prompt",
    "blank_at_the_joint",
    "group_of_one",
    "nearly_the_same_prompt",
    "no_contrast",
    "prompt_of_two_words",
    "prompt_twice",
    "same_answer",
    "spaced",
    "too_few_words",
    "unbalanced_prompts",
    "unreadable",
    "word_in_two_groups",
]

ALPHA = 0.025
"""The p-value at which the verdict says yes; see `kntrace.verdict`."""

_MARKS = re.compile(r"""[\s.,;:!?"'‘’“”]+""")


def unreadable(view: FileView) -> Iterator[Remark]:
    """The study cannot be read, and a run would refuse it in the same words."""
    failure = view.failure
    if failure is None:
        return
    told = {remark.where for rule in (word_in_two_groups, prompt_twice) for remark in rule(view)}
    if failure.where is None or failure.where not in told:
        expected = f"; expected {failure.expected}" if failure.expected else ""
        yield Remark(failure.found + expected, where=failure.where, fix=failure.fix)


def word_in_two_groups(view: FileView) -> Iterator[Remark]:
    """A word stands in two groups, so that it would be compared with itself."""
    first: dict[str, str] = {}
    for group, words in view.groups.items():
        for word in words:
            if first.setdefault(word, group) != group:
                yield Remark(
                    f"stands in group {first[word]!r} and again in {group!r}",
                    word=word,
                    where=view.where(("groups", group, word)),
                    fix="Keep one of the two, or name them apart and give both an `answer`.",
                )


def prompt_twice(view: FileView) -> Iterator[Remark]:
    """A word has the same prompt twice in one wording, which would count double in its mean."""
    first: dict[tuple[str, str, str, str], int] = {}
    for written in view.prompts():
        place = int(written.path[-1])
        earlier = first.setdefault(written[:4], place)
        if earlier != place:
            yield Remark(
                f"prompt {place + 1} is the same as prompt {earlier + 1}",
                word=written.word,
                prompt=written.prompt,
                where=view.where(written.path),
                fix="Remove one of the two.",
            )


def nearly_the_same_prompt(view: StudyView) -> Iterator[Remark]:
    """Two prompts of a word differ in nothing but case, blanks and punctuation."""
    for word, prompts in groupby(view.asked, key=lambda asked: asked.word):
        first: dict[str, tuple[str, str]] = {}
        for asked in prompts:
            key = _bare(asked.prompt)
            wording, earlier = first.setdefault(key, (asked.wording, asked.prompt))
            if (wording, earlier) == (asked.wording, asked.prompt):
                continue
            same = "the same prompt stands" if earlier == asked.prompt else "nearly the same stands"
            there = f" in the wording {wording!r}" if wording != asked.wording else " before it"
            yield Remark(
                same + there, word=word.text, prompt=asked.prompt, fix="Ask in other words."
            )


def prompt_of_two_words(view: StudyView) -> Iterator[Remark]:
    """One prompt is asked of two words, and can have only one answer that comes first."""
    first: dict[str, str] = {}
    for asked in view.asked:
        earlier = first.setdefault(_bare(asked.prompt), asked.word.text)
        if earlier != asked.word.text:
            yield Remark(
                f"has a prompt of the word {earlier!r}",
                word=asked.word.text,
                prompt=asked.prompt,
                fix="Ask what only one of the two answers.",
            )


def answer_in_its_prompt(view: StudyView) -> Iterator[Remark]:
    """A prompt holds its own answer, which the model then only has to copy."""
    for word, prompts in groupby(view.asked, key=lambda asked: asked.word):
        pattern = _as_a_word(word.answer)
        for asked in prompts:
            if pattern.search(asked.prompt):
                yield Remark(
                    f"the answer {word.answer.strip()!r} stands in its own prompt",
                    word=word.text,
                    prompt=asked.prompt,
                    fix="Ask without naming it.",
                )


def same_answer(view: StudyView) -> Iterator[Remark]:
    """Two words have one answer, up to upper and lower case."""
    first: dict[str, tuple[str, str]] = {}
    for word in view.study.words:
        earlier, group = first.setdefault(word.answer.strip().casefold(), (word.text, word.group))
        if earlier != word.text:
            says = f"has the answer of {earlier!r}"
            if group != word.group:
                says += f", which is in another group ({group!r})"
            yield Remark(says, word=word.text, fix="Keep one of the two, unless this is meant.")


def no_contrast(view: StudyView) -> Iterator[Remark]:
    """There is nothing to compare: one group only, or none with two words."""
    sizes = [len(words) for words in view.study.groups.values()]
    if len(sizes) < 2:
        yield Remark("all words are in one group", fix="Add words of another group.")
    elif max(sizes) < 2:
        yield Remark("no group has two words", fix="Add words, so that some share a group.")


def group_of_one(view: StudyView) -> Iterator[Remark]:
    """A group has a single word, so that it has no pair of its own."""
    for group, words in view.study.groups.items():
        if len(words) == 1:
            yield Remark(
                f"has only the word {words[0]!r}, and so no same-group pair",
                group=group,
                fix="Add a word, or leave the group out.",
            )


def too_few_words(view: StudyView) -> Iterator[Remark]:
    """So few words that no permutation test can reach the p-value of a verdict."""
    sizes = [len(words) for words in view.study.groups.values()]
    if len(sizes) < 2 or max(sizes) < 2:
        return
    # Groups of one size can change their names without changing who is with whom.
    alike = prod(factorial(times) for times in Counter(sizes).values())
    ways = factorial(sum(sizes)) // (prod(map(factorial, sizes)) * alike)
    if 1 / ways > ALPHA:
        yield Remark(
            f"{sum(sizes)} words can be grouped in {ways} ways, so that no p-value is below "
            f"{1 / ways:.3f}",
            fix="Add words to the groups.",
        )


def unbalanced_prompts(view: StudyView) -> Iterator[Remark]:
    """A word has more or fewer prompts in a wording than most, so that its mean is less sure."""
    for wording in view.study.wordings:
        numbers = {word.text: len(word.prompts.get(wording, ())) for word in view.study.words}
        usual = Counter(numbers.values()).most_common(1)[0][0]
        among = f" in the wording {wording!r}" if len(view.study.wordings) > 1 else ""
        for word, number in numbers.items():
            if number != usual:
                yield Remark(
                    f"has {number} prompt{'' if number == 1 else 's'}{among}, most words {usual}",
                    word=word,
                    fix="Give every word equally many.",
                )


def blank_at_the_joint(view: StudyView) -> Iterator[Remark]:
    """Prompt and answer meet with two blanks or with none, by the answer form that was chosen."""
    form = view.study.answer_form
    if form == "as_follows":
        return
    ends: dict[bool, list[str]] = defaultdict(list)
    for asked in view.asked:
        ends[asked.prompt[-1:].isspace()].append(asked.prompt)
    if form == "space" and (wrong := ends[True]):
        yield Remark(
            f"{len(wrong)} prompts end in a blank, and the answer form `space` adds another",
            prompt=wrong[0],
            fix="Remove the blank, or choose the answer form `as_follows`.",
        )
    if form == "no_space" and (wrong := [prompt for prompt in ends[False] if spaced(prompt)]):
        yield Remark(
            f"{len(wrong)} prompts end without a blank, and the answer form `no_space` adds none",
            prompt=wrong[0],
            fix="Choose the answer form `as_follows`, unless answers shall be glued to prompts.",
        )


def _bare(text: str) -> str:
    """Take case, blanks and the marks of sentences from a text; other signs have a meaning."""
    return _MARKS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _as_a_word(answer: str) -> re.Pattern[str]:
    """Match the answer as a word of its own; anywhere, in scripts written without spaces."""
    word = answer.strip()
    whole = re.escape(word)
    if spaced(word):
        before = r"(?<!\w)" if re.match(r"\w", word) else ""
        after = r"(?!\w)" if re.search(r"\w$", word) else ""
        whole = before + whole + after
    return re.compile(whole, re.IGNORECASE)


def spaced(text: str) -> bool:
    """Whether the last letter belongs to a script that puts spaces between words."""
    unspaced = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "YI ")
    letters = [char for char in text if char.isalnum()]
    return not letters or not unicodedata.name(letters[-1], "").startswith(unspaced)
