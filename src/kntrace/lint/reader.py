"""A checkpoint's tokenizer, without its weights, and what it makes of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kntrace.errors import ModelError
from kntrace.lint.views import Asked
from kntrace.models.feedforward import reads_both_ways
from kntrace.models.load import load_tokenizer
from kntrace.models.tokens import Encoded, encode, token_ids
from kntrace.suite import Checkpoint

__all__ = ["Read", "Reader", "load_reader"]

# Above this, a tokenizer's longest input is a way of saying that it knows none.
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Read:
    """A prompt as the model reads it.

    Attributes
    ----------
    asked
        The prompt in words.
    encoded
        Its tokens and the answer's; None if they cannot be made out.
    failure
        Why they cannot.
    """

    asked: Asked
    encoded: Encoded | None
    failure: ModelError | None = None


@dataclass(frozen=True)
class Reader:
    """A tokenizer and what is known of its model.

    Attributes
    ----------
    tokenizer
        The Hugging Face tokenizer.
    longest
        Tokens that the model can read at once; None if it does not say.
    masked
        Whether the model fills in a masked token, instead of going on with a text.
    """

    tokenizer: Any
    longest: int | None
    masked: bool

    def read(self, asked: Asked, form: str) -> Read:
        """Tokenise a prompt with its answer, at the mask where the model has one."""
        try:
            prompt, answer = asked.prompt, asked.word.answer
            return Read(asked, encode(self.tokenizer, prompt, answer, form, masked=self.masked))
        except ModelError as failure:
            return Read(asked, None, failure)

    def plain(self, text: str) -> tuple[int, ...]:
        """Tokens of a text by itself, without special ones around it."""
        return token_ids(self.tokenizer, text, add_special_tokens=False)

    def around(self) -> tuple[str, ...]:
        """The special tokens that the tokenizer puts around a text of its own accord."""
        text = "a"
        ids, plain = list(token_ids(self.tokenizer, text)), list(self.plain(text))
        for start in range(len(ids) - len(plain) + 1):
            if ids[start : start + len(plain)] == plain:
                del ids[start : start + len(plain)]
                return tuple(self.tokenizer.convert_ids_to_tokens(ids))
        return ()

    def shown(self, ids: tuple[int, ...]) -> str:
        """Show tokens as the text each of them stands for, blanks included."""
        return " + ".join(repr(self.tokenizer.decode([token])) for token in ids)


def load_reader(checkpoint: Checkpoint) -> Reader:
    """Load tokenizer and configuration of one checkpoint, and no weights.

    Raises
    ------
    SuiteError
        If the folder, repository or revision is absent, unreadable or gated.
    """
    config, tokenizer = load_tokenizer(checkpoint)
    masked = reads_both_ways(config)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if masked and tokenizer.model_max_length < _NO_LIMIT:
        # Some masked models keep position embeddings that no token may use.
        longest = min(longest or _NO_LIMIT, tokenizer.model_max_length)
    return Reader(tokenizer, longest, masked)
