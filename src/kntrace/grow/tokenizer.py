"""Tokenizers: one token a word for the worlds; for texts, trained on them or taken as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as JoinBytes
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kntrace.errors import ModelError

__all__ = [
    "PAD",
    "SMALLEST",
    "SPECIAL",
    "START",
    "load_tokenizer",
    "size_of",
    "train_tokenizer",
    "word_tokenizer",
]

PAD, UNKNOWN, START = "<pad>", "<unk>", "<s>"
SPECIAL = (PAD, UNKNOWN, START)

SMALLEST = 257
"""The smallest vocabulary of a byte-level tokenizer: every byte, and the end of a text."""

_END = "<|endoftext|>"


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


def train_tokenizer(pieces: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer by byte-pair encoding.

    Parameters
    ----------
    pieces
        The text, which is read once.
    vocabulary
        How many tokens there shall be, at least `SMALLEST`; fewer if the text has no more
        pairs that come twice.

    Notes
    -----
    Any text can be written in its tokens, and a word has other tokens with a space before it
    than without. Nothing is put before a text. Memory grows with the number of different words.
    """
    plain = Tokenizer(BPE())
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False)
    plain.decoder = JoinBytes()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[_END],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    plain.train_from_iterator(pieces, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token=_END,
        eos_token=_END,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a folder or the hub.

    Raises
    ------
    ModelError
        If there is none, or if it is not one of the `tokenizers` library.
    """
    try:
        found = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as failure:
        first = next(iter(str(failure).splitlines()), type(failure).__name__)
        raise ModelError(
            f"no tokenizer can be loaded ({first})",
            where=name,
            expected="a folder with a tokenizer.json, or the id of a hub repository",
        ) from failure
    if not getattr(found, "is_fast", False):
        raise ModelError(
            "its tokenizer has no tokenizer.json", where=name, expected="a fast tokenizer"
        )
    return found


def size_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """How many rows a model's embeddings need; ids may have gaps."""
    return int(max(tokenizer.get_vocab().values())) + 1
