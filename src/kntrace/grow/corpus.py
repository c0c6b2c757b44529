"""A text as token ids on disk, and the windows of it that are learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from kntrace.errors import SettingsError
from kntrace.grow.folder import partial_of
from kntrace.grow.text import Text
from kntrace.grow.tokenizer import size_of
from kntrace.progress import Progress

__all__ = ["Windows", "id_type", "write_tokens"]

_AT_ONCE = 64
_MOST_HELD_OUT = 512


def id_type(tokenizer: PreTrainedTokenizerFast) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds every token id."""
    return np.dtype(np.uint16 if size_of(tokenizer) <= 2**16 else np.uint32)


def write_tokens(
    text: Text, tokenizer: PreTrainedTokenizerFast, file: Path, progress: Progress
) -> None:
    """Write the token ids of a text to a file, which has its name only once it is whole.

    Between two files of the text stands the tokenizer's end of text, if it has one. Memory: a
    few megabytes, however long the text.
    """
    kind, end = id_type(tokenizer), tokenizer.eos_token_id
    partial = partial_of(file)
    pieces = text.pieces()
    last, done = 0, 0
    with partial.open("wb") as out:
        while batch := list(islice(pieces, _AT_ONCE)):
            encoded = tokenizer.backend_tokenizer.encode_batch_fast(
                [piece for _, piece in batch], add_special_tokens=False
            )
            for (number, piece), tokens in zip(batch, encoded, strict=True):
                if number != last and end is not None:
                    out.write(np.array([end], kind).tobytes())
                last = number
                out.write(np.array(tokens.ids, kind).tobytes())
                done += len(piece.encode())
            progress("tokenise", min(done, text.bytes), text.bytes, text.files[last].name)
    partial.replace(file)


class Windows:
    """The tokens cut in windows of equal length, some of them held out.

    A window is `context` + 1 tokens long, so that `context` are predicted. In each round every
    window that is not held out comes once, in an order of its own. The held-out ones, at most
    512, lie evenly over the whole text.

    Parameters
    ----------
    file
        What `write_tokens` wrote.
    kind
        The type of its ids.
    context
        How many tokens of a window are predicted.
    held_out
        Which share of the windows is held out.
    seed
        Of the order.

    Raises
    ------
    SettingsError
        If the text is shorter than two windows.

    Notes
    -----
    The tokens stay on disk; the order takes 8 bytes a window.
    """

    def __init__(
        self,
        file: Path,
        kind: np.dtype[np.unsignedinteger],
        context: int,
        *,
        held_out: float,
        seed: int,
    ) -> None:
        self.tokens = file.stat().st_size // kind.itemsize
        self._length, self._seed = context + 1, seed
        count = self.tokens // self._length
        if count < 2:
            raise SettingsError(
                f"the text has {self.tokens} tokens",
                expected=f"at least two windows of {self._length}",
                fix="Give more text, or a smaller --context.",
            )
        self._ids = np.memmap(file, kind, "r")
        held = min(max(1, round(held_out * count)), _MOST_HELD_OUT)
        self._held_out = (np.arange(held) * count + count // 2) // held
        self._taught = np.setdiff1d(np.arange(count), self._held_out)
        self._round = -1
        self._order: NDArray[np.int64] = self._taught

    @property
    def taught(self) -> int:
        """How many windows are learnt from."""
        return len(self._taught)

    @property
    def held_out(self) -> int:
        """How many windows are held out."""
        return len(self._held_out)

    def batch(self, step: int, size: int) -> Tensor:
        """The windows of a step: int64 (size, context + 1)."""
        places = range(step * size, (step + 1) * size)
        return self._take([self._window(place) for place in places])

    def held_out_batches(self, size: int) -> Iterator[Tensor]:
        """All held-out windows, up to `size` at a time."""
        for start in range(0, self.held_out, size):
            yield self._take(self._held_out[start : start + size])

    def _window(self, place: int) -> int:
        """Which window comes at a place in the whole of training."""
        turn, place = divmod(place, self.taught)
        if turn != self._round:
            shuffled = np.random.default_rng([self._seed, 2, turn]).permutation(self.taught)
            self._round, self._order = turn, self._taught[shuffled]
        return int(self._order[place])

    def _take(self, windows: list[int] | NDArray[np.int64]) -> Tensor:
        rows = [self._ids[one * self._length : (one + 1) * self._length] for one in windows]
        return torch.from_numpy(np.stack(rows).astype(np.int64))
