"""Rules that need a tokenizer: what the model will read, and what it is to answer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from kntrace.lint.finding import Remark
from kntrace.lint.views import TokenView

if TYPE_CHECKING:
    from kntrace.lint.reader import Read

__all__ = [
    "answer_as_read",
    "answer_of_several_tokens",
    "apart_unlike_together",
    "cannot_be_read",
    "mask_for_a_causal_model",
    "number_of_masks",
    "prompt_too_long",
    "same_answer_tokens",
    "special_token_in_the_answer",
    "special_tokens_around",
]

MASKS = ("[MASK]", "<mask>", "<|mask|>")
"""How masks are written in the prompts of masked language models."""


def cannot_be_read(view: TokenView) -> Iterator[Remark]:
    """Prompt and answer cannot be turned into tokens, and a run would refuse them."""
    for read in view.read:
        if read.failure is None or (view.reader.masked and _masks(view, read) != 1):
            continue
        failure = read.failure
        expected = f"; expected {failure.expected}" if failure.expected else ""
        word, prompt = read.asked.word.text, read.asked.prompt
        yield Remark(failure.found + expected, word=word, prompt=prompt, fix=failure.fix)


def answer_as_read(view: TokenView) -> Iterator[Remark]:
    """The answer's tokens as they follow the prompt."""
    for word, reads in groupby(view.read, key=lambda read: read.asked.word):
        told: set[tuple[int, ...]] = set()
        for read in reads:
            if read.encoded is None or read.encoded.answer in told:
                continue
            told.add(read.encoded.answer)
            ids = ", ".join(map(str, read.encoded.answer))
            shown = view.reader.shown(read.encoded.answer)
            place = "read in place of the mask" if view.reader.masked else "read next"
            yield Remark(f"{shown} ({ids}) is {place}", word=word.text, prompt=read.asked.prompt)


def answer_of_several_tokens(view: TokenView) -> Iterator[Remark]:
    """An answer has several tokens: an error unless the run says what to do with them."""
    refused = view.answer_tokens == "error"
    for word, reads in groupby(view.read, key=lambda read: read.asked.word):
        for read in reads:
            if read.encoded is not None and len(read.encoded.answer) > 1:
                yield Remark(
                    f"the answer has {len(read.encoded.answer)} tokens, "
                    f"{view.reader.shown(read.encoded.answer)}",
                    word=word.text,
                    prompt=read.asked.prompt,
                    fix="Choose another word or answer form, or `--answer-tokens` first, mean or "
                    "joint."
                    if refused
                    else None,
                    severity="error" if refused else "warning",
                )
                break  # once a word


def apart_unlike_together(view: TokenView) -> Iterator[Remark]:
    """Prompt and answer tokenised together, as in any text, differ from the two put together."""
    if view.reader.masked or view.study.answer_form == "as_follows":
        return  # the answer form `as_follows` tokenises the two together
    joint = " " if view.study.answer_form == "space" else ""
    for word, reads in groupby(view.read, key=lambda read: read.asked.word):
        differing = [
            (read.asked.prompt, apart, together)
            for read in reads
            for apart, together in [_both_ways(view, read, joint + word.answer.strip())]
            if apart != together
        ]
        if differing:
            prompt, apart, together = differing[0]
            same = _begin_alike(apart, together)
            more = f" (so do {len(differing)} prompts)" if len(differing) > 1 else ""
            blank = ", since the prompt ends in a blank" if prompt[-1:].isspace() else ""
            yield Remark(
                f"the model would read {view.reader.shown(apart[same:])} where running text has "
                f"{view.reader.shown(together[same:])}{blank}{more}",
                word=word.text,
                prompt=prompt,
                fix="Choose the answer form `as_follows`.",
            )


def _both_ways(view: TokenView, read: Read, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokenise prompt and answer apart and together; nothing where a run would refuse them."""
    if read.encoded is None:
        return (), ()
    apart = view.reader.plain(read.asked.prompt) + read.encoded.answer
    return apart, view.reader.plain(read.asked.prompt + answer)


def _begin_alike(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Count the tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def special_token_in_the_answer(view: TokenView) -> Iterator[Remark]:
    """An answer holds a special token, which no text contains."""
    special = set(view.reader.tokenizer.all_special_ids)
    for read in view.read:
        found = [
            token for token in (read.encoded.answer if read.encoded else ()) if token in special
        ]
        if found:
            names = ", ".join(view.reader.tokenizer.convert_ids_to_tokens(found))
            yield Remark(
                f"the answer holds {names}",
                word=read.asked.word.text,
                prompt=read.asked.prompt,
                fix="Write the answer as plain text.",
            )


def special_tokens_around(view: TokenView) -> Iterator[Remark]:
    """The tokenizer puts special tokens around every text, which are kept from the answer."""
    around = view.reader.around()
    if around:
        rest = (
            "kept around the prompt"
            if view.reader.masked
            else "those before a prompt are kept, the answer has none"
        )
        yield Remark(f"the tokenizer adds {', '.join(around)} to a text: {rest}")


def prompt_too_long(view: TokenView) -> Iterator[Remark]:
    """A prompt has more tokens than the model can read."""
    longest = view.reader.longest
    for read in view.read:
        if read.encoded is None or longest is None:
            continue
        answer = 0 if view.reader.masked else len(read.encoded.answer) - 1
        length = len(read.encoded.ids) + answer
        if length > longest:
            yield Remark(
                f"the prompt has {length} tokens, the model reads {longest}",
                word=read.asked.word.text,
                prompt=read.asked.prompt,
                fix="Shorten it; kntrace never cuts a prompt.",
            )


def number_of_masks(view: TokenView) -> Iterator[Remark]:
    """A prompt for a masked model has not exactly one mask, in whose place the answer stands."""
    if not view.reader.masked:
        return
    mask = view.reader.tokenizer.mask_token
    for read in view.read:
        masks = _masks(view, read)
        if masks != 1:
            others = [other for other in MASKS if other != mask and other in read.asked.prompt]
            yield Remark(
                f"the prompt has {masks or 'no'} mask{'' if masks == 1 else 's'}",
                word=read.asked.word.text,
                prompt=read.asked.prompt,
                fix=f"This model's mask is written {mask}, not {others[0]}."
                if others
                else f"Write {mask} once, where the answer stands.",
            )


def mask_for_a_causal_model(view: TokenView) -> Iterator[Remark]:
    """A prompt holds a mask, but the model goes on with a text and fills in nothing."""
    if view.reader.masked:
        return
    own = view.reader.tokenizer.mask_token
    masks = (own, *MASKS) if own else MASKS
    for read in view.read:
        found = next((mask for mask in masks if mask in read.asked.prompt), None)
        if found is not None:
            yield Remark(
                f"{found} means nothing to a model that predicts the next token",
                word=read.asked.word.text,
                prompt=read.asked.prompt,
                fix="End the prompt where the answer stands.",
            )


def same_answer_tokens(view: TokenView) -> Iterator[Remark]:
    """Two words have the same tokens to be scored, so that the model cannot tell them apart."""
    first: dict[tuple[int, ...], str] = {}
    for word, reads in groupby(view.read, key=lambda read: read.asked.word):
        for read in reads:
            if read.encoded is None:
                continue
            answer = read.encoded.answer
            if view.answer_tokens == "first":
                answer = answer[:1]
            earlier = first.setdefault(answer, word.text)
            if earlier != word.text:
                yield Remark(
                    f"is scored by the same tokens as {earlier!r}: {view.reader.shown(answer)}",
                    word=word.text,
                    fix="Keep one of the two, unless this is meant.",
                )
                break


def _masks(view: TokenView, read: Read) -> int:
    return read.asked.prompt.count(view.reader.tokenizer.mask_token)
