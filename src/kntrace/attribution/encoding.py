"""Whether this model can read this prompt and answer, and as which tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from kntrace.errors import ModelError
from kntrace.models.feedforward import is_masked
from kntrace.models.tokens import AnswerForm, Encoded, encode, prompt_ids
from kntrace.settings import Settings

__all__ = ["Reader"]


class Reader:
    """Tokenises prompts for one model and refuses what the model or the settings cannot take."""

    def __init__(self, model: Any, tokenizer: Any, settings: Settings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._masked = is_masked(model)
        self._rows = model.get_input_embeddings().weight.shape[0]
        self._longest = _longest(model)

    def encode(
        self, prompt: str, answer: str, form: AnswerForm | str, alternatives: Sequence[str]
    ) -> Encoded:
        """Tokenise; see `Engine.encode`."""
        encoded = self._answered(prompt, answer, form)
        if self._settings.objective == "logit_difference":
            others = tuple(self._first_token(prompt, other, form) for other in alternatives)
            encoded = replace(encoded, alternatives=others)
            self._check_alternatives(encoded, prompt, answer)
        self._check_size(encoded, prompt)
        return encoded

    def written_on(self, encoded: Encoded, token: int) -> Encoded:
        """Put the text of `token` after the prompt's, and read the two anew.

        Tokens may melt into others at the joint, as they do in the public code.

        Raises
        ------
        ModelError
            If the prompt is now longer than it may be.
        """
        text = encoded.text + self._tokenizer.decode([token])
        longer = replace(encoded, ids=prompt_ids(self._tokenizer, text), text=text)
        self._check_size(replace(longer, answer=longer.answer[:1]), text)
        return longer

    def fitting(self, tokens: int, answer: int) -> int:
        """The longest prompt of at most so many tokens that fits with such an answer."""
        return tokens if self._longest is None else min(tokens, self._longest - answer + 1)

    def _answered(self, prompt: str, answer: str, form: AnswerForm | str) -> Encoded:
        encoded = encode(self._tokenizer, prompt, answer, form, masked=self._masked)
        policy = self._settings.answer_tokens
        if len(encoded.answer) == 1:
            return encoded
        if policy == "first":
            return replace(encoded, answer=encoded.answer[:1])
        tokens = self._tokenizer.convert_ids_to_tokens(list(encoded.answer))
        found = f"the answer {answer!r} has {len(tokens)} tokens ({' '.join(map(repr, tokens))})"
        where = f"prompt {prompt!r}"
        if policy == "error":
            raise ModelError(
                found,
                where=where,
                expected="an answer of one token",
                fix="Choose another word or answer form, or say by the setting answer_tokens "
                "(first, mean, greedy or joint) what to do with several.",
            )
        if self._masked:
            raise ModelError(
                f"{found}, and one mask holds one token",
                where=where,
                expected="an answer of one token",
                fix="Choose another word, or answer_tokens: first.",
            )
        return replace(encoded, text=prompt) if policy == "greedy" else encoded

    def _first_token(self, prompt: str, other: str, form: AnswerForm | str) -> int:
        return self._answered(prompt, other, form).answer[0]

    def _check_alternatives(self, encoded: Encoded, prompt: str, answer: str) -> None:
        where = f"prompt {prompt!r}"
        if len(encoded.answer) > 1:
            raise ModelError(
                f"a logit difference of the answer {answer!r}, which has several tokens",
                where=where,
                expected="an answer of one token, or answer_tokens: first",
            )
        if not encoded.alternatives:
            raise ModelError(
                f"no alternatives to the answer {answer!r}",
                where=where,
                expected="other answers, against which the objective logit_difference holds it",
                fix="Give the word `alternatives` in the study, or choose another objective.",
            )
        if encoded.answer[0] in encoded.alternatives:
            raise ModelError(
                f"an alternative that begins with the same token as the answer {answer!r}",
                where=where,
                expected="alternatives that the first token tells apart",
            )

    def _check_size(self, encoded: Encoded, prompt: str) -> None:
        length = len(encoded.sequence)
        if self._longest is not None and length > self._longest:
            raise ModelError(
                f"the prompt has {length} tokens",
                where=f"prompt {prompt!r}",
                expected=f"at most the model's {self._longest}",
                fix="Shorten it; kntrace never cuts a prompt.",
            )
        limit = self._settings.longest_prompt
        if limit is not None and len(encoded.ids) > limit:
            raise ModelError(
                f"the prompt has {len(encoded.ids)} tokens",
                where=f"prompt {prompt!r}",
                expected=f"at most the {limit} of the setting longest_prompt",
                fix="Shorten it; the public code cuts off the end of such a prompt and then "
                "scores a token in its middle, which kntrace does not.",
            )
        if (highest := max(encoded.ids + encoded.answer)) >= self._rows:
            raise ModelError(
                f"token {highest}, but the model has embeddings for {self._rows} tokens",
                where=f"prompt {prompt!r}",
                expected="the tokenizer that belongs to the model",
            )


def _longest(model: Any) -> int | None:
    """How many tokens the model can read at once."""
    longest: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is None:
        return None
    # RoBERTa and its kin count positions from after their padding token's id.
    lost = [
        part.padding_idx + 1
        for part in model.modules()
        if isinstance(part, torch.nn.Embedding)
        and part.num_embeddings == longest
        and part.padding_idx is not None
        and part is not model.get_input_embeddings()
    ]
    return longest - max(lost, default=0)
