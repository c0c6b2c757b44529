"""From a prompt and an answer to token ids.

The position whose neurons are scored is the last token of the prompt, and the answer is what
follows it. How the two meet is the commonest trap of such studies (a prompt that ends in a
space, an answer whose natural token begins with one), so it is decided here, once, by name.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, get_args

from kntrace.errors import ModelError, SettingsError
from kntrace.study import AnswerForm

__all__ = ["ANSWER_FORMS", "AnswerForm", "Encoded", "encode"]

ANSWER_FORMS: tuple[AnswerForm, ...] = get_args(AnswerForm)

# Scripts written without spaces between words: an answer in one of them follows its prompt
# directly. The names are those that begin the Unicode names of their letters.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "YI ")


@dataclass(frozen=True)
class Encoded:
    """A prompt and its answer as the model reads them.

    Attributes
    ----------
    ids
        Token ids of the prompt, leading special tokens included; the last one is the scored
        position.
    answer
        Token ids of the answer as it follows the prompt.
    """

    ids: tuple[int, ...]
    answer: tuple[int, ...]


def encode(
    tokenizer: Any, prompt: str, answer: str, form: AnswerForm | str = "as_follows"
) -> Encoded:
    """Tokenise `prompt` and `answer`.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    prompt, answer
        The text the model reads, and the text that should come next.
    form
        `as_follows`: the answer as it stands in running text. The two are joined by the
        prompt's closing white space or the answer's leading one, or by one space where there
        is neither (none in scripts written without spaces), and tokenised together; white
        space at the joint belongs to the answer, since that is how tokenizers cut.
        `space`, `no_space`: the answer by itself, with or without one leading space, after
        the prompt exactly as given.

    Raises
    ------
    ModelError
        If the prompt or the answer is empty, holds a token unknown to the tokenizer, or if
        prompt and answer tokenised together do not begin with the prompt's tokens.
    SettingsError
        If `form` is none of the three.
    """
    for name, text in (("prompt", prompt), ("answer", answer)):
        if not isinstance(text, str):
            raise ModelError(f"the {name} is {text!r}", expected="a text")
    if not callable(tokenizer):
        raise ModelError(f"the tokenizer is {tokenizer!r}", expected="a Hugging Face tokenizer")
    if form not in ANSWER_FORMS:
        raise SettingsError(f"answer form {form!r}", expected=f"one of {', '.join(ANSWER_FORMS)}")
    if not answer.strip():
        raise ModelError("the answer is empty", where=_shorten(prompt))
    if form == "as_follows":
        encoded = _together(tokenizer, prompt, answer)
    else:
        word = answer.strip()
        answer_ids = _plain(tokenizer, f" {word}" if form == "space" else word)
        encoded = Encoded(_with_prefix(tokenizer, prompt), answer_ids)
    _check(tokenizer, encoded, prompt, answer)
    return encoded


def _together(tokenizer: Any, prompt: str, answer: str) -> Encoded:
    head, word = prompt.rstrip(), answer.lstrip()
    joint = prompt[len(head) :] or answer[: len(answer) - len(word)]
    if not joint and head and _written_with_spaces(head[-1], word[0]):
        joint = " "
    # Several blanks would be a token of their own; running text has one.
    joint = " " if joint.strip("\t \u00a0") == "" and joint else joint
    ids = _with_prefix(tokenizer, head)
    whole = _with_prefix(tokenizer, head + joint + word)
    if whole[: len(ids)] != ids or len(whole) == len(ids):
        raise ModelError(
            f"the answer {answer!r} melts into the prompt's last token when the two are "
            "tokenised together",
            where=_shorten(prompt),
            fix="Give the answer with its leading space, or choose the answer form `space` or "
            "`no_space`.",
        )
    return Encoded(ids, whole[len(ids) :])


def _written_with_spaces(before: str, after: str) -> bool:
    return not any(unicodedata.name(char, "").startswith(_UNSPACED) for char in (before, after))


def _plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _with_prefix(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of `text` with the special tokens the tokenizer puts before it, but none after it."""
    ids = tuple(tokenizer(text)["input_ids"])
    plain = _plain(tokenizer, text)
    for start in range(len(ids) - len(plain) + 1):
        if ids[start : start + len(plain)] == plain:
            return ids[: start + len(plain)]
    return ids


def _check(tokenizer: Any, encoded: Encoded, prompt: str, answer: str) -> None:
    if not encoded.ids:
        raise ModelError(
            "the prompt has no token", where=repr(prompt), expected="at least one", fix="Write one."
        )
    if not encoded.answer:
        raise ModelError(f"the answer {answer!r} has no token", where=_shorten(prompt))
    unknown = getattr(tokenizer, "unk_token_id", None)
    ends = {tokenizer.eos_token_id, tokenizer.bos_token_id}
    # Some tokenizers reuse their unknown token as end of text; that one may stand in a prompt.
    if unknown is not None and unknown in encoded.answer:
        raise ModelError(
            f"the answer {answer!r} is unknown to the tokenizer",
            where=_shorten(prompt),
            expected="a word of its vocabulary",
        )
    if unknown is not None and unknown not in ends and unknown in encoded.ids:
        raise ModelError(
            f"the prompt holds a word that is unknown to the tokenizer (token {unknown})",
            where=_shorten(prompt),
            expected="words of its vocabulary",
        )


def _shorten(prompt: str, length: int = 60) -> str:
    text = " ".join(prompt.split())
    return repr(text if len(text) <= length else text[: length - 1] + "…")
