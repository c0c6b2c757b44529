"""A tokenizer with one token a word."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

__all__ = ["PAD", "SPECIAL", "START", "word_tokenizer"]

PAD, UNKNOWN, START = "<pad>", "<unk>", "<s>"
SPECIAL = (PAD, UNKNOWN, START)


def word_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """Split at white space; every text begins with `<s>`, as every text of the corpus does."""
    ids = {token: index for index, token in enumerate((*SPECIAL, *vocabulary))}
    plain = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    plain.pre_tokenizer = WhitespaceSplit()
    plain.post_processor = TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, ids[START])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=START,
        clean_up_tokenization_spaces=False,
    )
