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

__all__ = ["ANSWER_FORMS", "AnswerForm", "Encoded", "encode", "prompt_ids", "token_ids"]

ANSWER_FORMS: tuple[AnswerForm, ...] = get_args(AnswerForm)

# Scripts written without spaces between words: an answer in one of them follows its prompt
# directly. The names are those that begin the Unicode names of their letters.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "YI ")


# How masks are commonly spelt; text of a model that has none should not hold them.
_MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class Encoded:
    """A prompt and its answer as the model reads them.

    Attributes
    ----------
    ids
        Token ids of the prompt, special tokens included.
    answer
        Token ids of the answer as it follows the prompt, or fills its mask.
    mask
        Where in `ids` the mask stands; None where the answer follows the prompt.
    alternatives
        First tokens of other answers, against which this one is held.
    text
        The prompt as it was written, where the model is to write on after it; "" otherwise.
    """

    ids: tuple[int, ...]
    answer: tuple[int, ...]
    mask: int | None = None
    alternatives: tuple[int, ...] = ()
    text: str = ""

    @property
    def position(self) -> int:
        """Where the neurons are scored and the answer's first token is predicted."""
        return len(self.ids) - 1 if self.mask is None else self.mask

    @property
    def sequence(self) -> tuple[int, ...]:
        """All that the model reads: the prompt, and the answer's tokens but the last."""
        return self.ids + self.answer[:-1]


def encode(
    tokenizer: Any,
    prompt: str,
    answer: str,
    form: AnswerForm | str = "as_follows",
    *,
    masked: bool = False,
) -> Encoded:
    """Tokenise `prompt` and `answer`.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    prompt, answer
        The text the model reads, and the text that should come next, or at the mask.
    form
        `as_follows`: the answer as it stands in running text. The two are joined by the
        prompt's closing white space or the answer's leading one, or by one space where there
        is neither (none in scripts written without spaces), and tokenised together; white
        space at the joint belongs to the answer, since that is how tokenizers cut. In a
        masked prompt the answer is what its text becomes when it stands in the mask's place.
        `space`, `no_space`: the answer by itself, with or without one leading space, after
        the prompt exactly as given.
    masked
        Whether the model fills in a mask.

    Raises
    ------
    ModelError
        If the prompt or the answer is empty, holds a token unknown to the tokenizer, or if
        prompt and answer tokenised together do not begin with the prompt's tokens; if a masked
        prompt has not exactly one mask, or one that is to be continued has any.
    SettingsError
        If `form` is none of the three.
    """
    for name, text in (("prompt", prompt), ("answer", answer)):
        if not isinstance(text, str):
            raise ModelError(f"the {name} is {text!r}", expected="a text")
    if not callable(tokenizer):
        raise ModelError(f"the tokenizer is {tokenizer!r}", expected="a Hugging Face tokenizer")
    if form not in ANSWER_FORMS:
        raise SettingsError.unknown("answer form", form, ANSWER_FORMS)
    if not answer.strip():
        raise ModelError("the answer is empty", where=_shorten(prompt))
    if masked:
        encoded = _at_mask(tokenizer, prompt, answer, form)
    else:
        _refuse_mask(tokenizer, prompt)
        encoded = _after(tokenizer, prompt, answer, form)
    _check(tokenizer, encoded, prompt, answer)
    return encoded


def _after(tokenizer: Any, prompt: str, answer: str, form: str) -> Encoded:
    if form == "as_follows":
        return _together(tokenizer, prompt, answer)
    return Encoded(prompt_ids(tokenizer, prompt), _alone(tokenizer, answer, form))


def _alone(tokenizer: Any, answer: str, form: str) -> tuple[int, ...]:
    word = answer.strip()
    return _plain(tokenizer, f" {word}" if form == "space" else word)


def _refuse_mask(tokenizer: Any, prompt: str) -> None:
    mask = getattr(tokenizer, "mask_token", None)
    held = [text for text in {mask, *_MASKS} if text and text in prompt]
    if held:
        raise ModelError(
            f"the prompt holds the mask {held[0]}",
            where=_shorten(prompt),
            expected="a prompt that the answer follows: this model fills in no masks",
        )


def _at_mask(tokenizer: Any, prompt: str, answer: str, form: str) -> Encoded:
    mask = tokenizer.mask_token
    if mask is None:
        raise ModelError(
            "the tokenizer has no mask", where=_shorten(prompt), expected="a masked model's own"
        )
    ids = token_ids(tokenizer, prompt)
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
    if len(places) != 1:
        raise ModelError(
            f"the prompt holds {f'{len(places)} masks' if places else 'no mask'}",
            where=_shorten(prompt),
            expected=f"exactly one {mask}, where the answer goes",
        )
    place = places[0]
    if form != "as_follows":
        return Encoded(ids, _alone(tokenizer, answer, form), place)
    before, after = ids[:place], ids[place + 1 :]
    whole = token_ids(tokenizer, prompt.replace(mask, answer.strip()))
    end = len(whole) - len(after)
    if whole[:place] != before or whole[end:] != after or end <= place:
        raise ModelError(
            f"the answer {answer!r} melts into its neighbours when it stands in the mask's place",
            where=_shorten(prompt),
            fix="Set the mask apart by spaces, or choose the answer form `space` or `no_space`.",
        )
    return Encoded(ids, whole[place:end], place)


def _together(tokenizer: Any, prompt: str, answer: str) -> Encoded:
    head, word = prompt.rstrip(), answer.lstrip()
    joint = prompt[len(head) :] or answer[: len(answer) - len(word)]
    if not joint and head and _written_with_spaces(head[-1], word[0]):
        joint = " "
    # Several blanks would be a token of their own; running text has one.
    joint = " " if joint.strip("\t \u00a0") == "" and joint else joint
    ids = prompt_ids(tokenizer, head)
    whole = prompt_ids(tokenizer, head + joint + word)
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


def token_ids(tokenizer: Any, text: str, **options: Any) -> tuple[int, ...]:
    """Ids of `text`; `options` as the tokenizer takes them.

    Raises
    ------
    ModelError
        If the tokenizer gives up on the text.
    """
    try:
        return tuple(tokenizer(text, **options)["input_ids"])
    except BaseException as failure:
        # What the library written in Rust raises is no `Exception`, and has no name to import.
        if type(failure).__name__ != "PanicException":
            raise
        raise ModelError(
            f"the tokenizer gives up on it ({' '.join(str(failure).split())[:100]})",
            where=_shorten(text),
        ) from None


def _plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    return token_ids(tokenizer, text, add_special_tokens=False)


def prompt_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of `text` with the special tokens the tokenizer puts before it, but none after it."""
    ids = token_ids(tokenizer, text)
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
