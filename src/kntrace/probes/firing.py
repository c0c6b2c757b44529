"""When neurons fire over a text: never, at a few tokens, after a few n-grams, at some positions.

The classes are those of Voita et al. 2024, for networks with ReLU, where a neuron that does not
fire is exactly zero. Smooth activations have no such zero, and there whatever is said depends on
where one is drawn: a neuron fires where it has more than a share of its own largest value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from kntrace.errors import AnalysisError
from kntrace.models.feedforward import Stack
from kntrace.models.tokens import token_ids

__all__ = [
    "Corpus",
    "LayerFiring",
    "LayerRead",
    "TextRead",
    "corpus_of",
    "firing",
    "judge",
    "judge_less",
    "position_information",
    "read_corpus",
]

_Bools = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 16
_FEWEST_ROWS, _FEWEST_TYPES, _COMMON_TYPES = 100, 50, 30
# Of a token's entropy, how much the position may tell before the text is no text.
_TOLD = 0.1
# A token or n-gram that occurs less often is covered by accident.
_FEWEST = 5
_COVERED = 0.95
_POSITIONAL = 0.05
# Stretches of the text that are left out in turn, for an interval.
_STRETCHES = 5


@dataclass(frozen=True)
class Corpus:
    """A text as rows of tokens, all equally long, (row, token)."""

    rows: _Ints

    @property
    def tokens(self) -> _Ints:
        """All tokens, row after row."""
        return self.rows.reshape(-1)

    def shuffled(self, rng: np.random.Generator) -> Corpus:
        """The same tokens, dealt anew to all places: no token tells a position, nor a neighbour."""
        return Corpus(rng.permutation(self.tokens).reshape(self.rows.shape))


def corpus_of(tokenizer: Any, text: str, length: int, most: int) -> Corpus:
    """Cut a text into rows of `length` tokens, at most `most` tokens in all.

    Raises
    ------
    AnalysisError
        If the text is too short, has too few different tokens, or is so regular that a place
        in a row tells which token stands there: then neurons that know tokens would look like
        neurons that know positions.
    """
    ids = np.array(token_ids(tokenizer, text, add_special_tokens=False), dtype=np.int64)[:most]
    count = len(ids) // length
    if count < _FEWEST_ROWS:
        raise AnalysisError(
            f"a text of {len(ids):,} tokens, which makes {count} rows of {length}",
            expected=f"{_FEWEST_ROWS} rows or more",
            fix="Give a longer text, or shorter rows (length).",
        )
    corpus = Corpus(ids[: count * length].reshape(count, length))
    _refuse_narrow(corpus)
    return corpus


def _refuse_narrow(corpus: Corpus) -> None:
    types, counts = np.unique(corpus.tokens, return_counts=True)
    if len(types) < _FEWEST_TYPES:
        raise AnalysisError(
            f"a text of {len(types)} different tokens",
            expected=f"{_FEWEST_TYPES} or more",
            fix="Give a text with more words.",
        )
    common = types[np.argsort(-counts, kind="stable")[:_COMMON_TYPES]]
    there = corpus.tokens[:, None] == common
    share = there.mean(axis=0)
    entropy = -share * np.log(share) - (1 - share) * np.log1p(-share)
    told = float(np.median(position_information(there, corpus.rows.shape[1]) / entropy))
    if told > _TOLD:
        raise AnalysisError(
            f"a text in which the place in a row tells {told:.0%} of which token stands there",
            expected=f"at most {_TOLD:.0%}: text that is not all of one pattern",
            fix="Give running text; from a pattern, neurons of an untrained network look "
            "positional.",
        )


def position_information(fires: _Bools, length: int) -> _Floats:
    """How much the position in the row tells of whether a neuron fires, in nats.

    Parameters
    ----------
    fires
        (token, neuron), row after row of `length` tokens.

    Returns
    -------
    numpy.ndarray
        (neuron,): the mean over positions of the Kullback-Leibler divergence of the frequency
        there from the mean frequency, less what chance adds to that in so short a text (Miller
        and Madow).
    """
    at = fires.reshape(-1, length, fires.shape[1]).mean(axis=0)
    mean = at.mean(axis=0)

    def term(share: _Floats, whole: _Floats) -> _Floats:
        ratio = np.divide(share, whole, out=np.ones_like(share), where=share > 0)
        return np.asarray(share * np.log(ratio))

    found = (term(at, np.broadcast_to(mean, at.shape)) + term(1 - at, 1 - mean + 0 * at)).mean(0)
    varies = (mean > 0) & (mean < 1)
    return np.asarray(np.where(varies, found - (length - 1) / (2 * len(fires)), 0.0))


@dataclass(frozen=True)
class LayerFiring:
    """What the neurons of a layer do, (neuron,) each.

    Attributes
    ----------
    frequency
        Share of tokens at which the neuron fires; 0 is dead.
    cover
        The fewest tokens of the vocabulary that stand at 95 % of the places where it fires; 0
        if dead.
    token, trigram
        Whether it detects tokens (1 to 5 of them), or sequences of three (1 to 50): of those at
        whose occurrences it fires in 95 % of the cases, these make 95 % of the places where it
        does. Only what occurs five times or more counts.
    position
        See `position_information`.
    """

    frequency: _Floats
    cover: _Ints
    token: _Bools
    trigram: _Bools
    position: _Floats

    @property
    def positional(self) -> _Bools:
        """Whether the position tells more than 0.05 nats."""
        return np.asarray(self.position > _POSITIONAL)


def judge(fires: _Bools, corpus: Corpus) -> LayerFiring:
    """Say what the neurons of a layer do, from when they fire, (token, neuron)."""
    length = corpus.rows.shape[1]
    _, types = np.unique(corpus.tokens, return_inverse=True)
    inside = (np.arange(len(fires)) % length) >= 2
    triples = np.stack([np.roll(corpus.tokens, back) for back in (2, 1, 0)], axis=1)[inside]
    _, sequences = np.unique(triples, axis=0, return_inverse=True)
    token = _detects(fires, types, 5)
    trigram = _detects(fires[inside], sequences.ravel(), 50)
    return LayerFiring(
        fires.mean(axis=0),
        _cover(fires, types),
        token,
        trigram & ~token,
        position_information(fires, length),
    )


def judge_less(fires: _Bools, corpus: Corpus) -> list[LayerFiring]:
    """`judge` without each fifth of the rows in turn; consecutive rows go together."""
    rows = np.arange(len(corpus.rows))
    found = []
    for out in np.array_split(rows, _STRETCHES):
        kept = np.isin(rows, out, invert=True)
        places = np.repeat(kept, corpus.rows.shape[1])
        found.append(judge(fires[places], Corpus(corpus.rows[kept])))
    return found


def _detects(fires: _Bools, kinds: _Ints, most: int) -> _Bools:
    """Whether a few kinds of token or sequence are all that each neuron fires at."""
    total = fires.sum(axis=0)
    occurs = np.bincount(kinds)
    where = csr_array(
        (np.ones(len(kinds), dtype=np.float32), (kinds, np.arange(len(kinds)))),
        shape=(len(occurs), len(kinds)),
    )
    often = occurs >= _FEWEST
    counts = np.asarray(where[often] @ fires.astype(np.float32), dtype=np.float64)
    of_covered = np.where(counts >= _COVERED * occurs[often, None], counts, 0.0)
    best = np.sort(of_covered, axis=0)[-most:]
    return np.asarray((total > 0) & (best.sum(axis=0) >= _COVERED * total))


def _cover(fires: _Bools, types: _Ints) -> _Ints:
    ones = np.ones(len(types), dtype=np.float32)
    where = csr_array((ones, (types, np.arange(len(types)))))
    counts = np.asarray(where @ fires.astype(np.float32), dtype=np.float64)
    total = counts.sum(axis=0)
    reached = np.cumsum(np.sort(counts, axis=0)[::-1], axis=0) >= _COVERED * total - 1e-9
    return np.asarray(np.where(total > 0, reached.argmax(axis=0) + 1, 0), dtype=np.int64)


def firing(model: Any, stack: Stack, corpus: Corpus, share: float) -> Iterator[_Bools]:
    """When the neurons fire, layer after layer, (token, neuron).

    Parameters
    ----------
    share
        0: where the activation is above zero, which is exact for ReLU. Else where it is above
        this share of the neuron's largest activation in the text.

    Notes
    -----
    Cost: one pass over the text, or two with a share; a bit for every token and neuron.
    """
    width = stack.width
    most = np.zeros((len(stack), width))
    if share:
        for _, values in _activations(model, stack, corpus):
            for layer, value in enumerate(values):
                np.maximum(most[layer], value.max(axis=0), out=most[layer])
    packed = [np.empty((corpus.rows.size, -(-width // 8)), dtype=np.uint8) for _ in stack]
    for place, values in _activations(model, stack, corpus):
        for layer, value in enumerate(values):
            fires = value > share * most[layer]
            packed[layer][place : place + len(value)] = np.packbits(fires, axis=1)
    for bits in packed:
        yield np.unpackbits(bits, axis=1, count=width).astype(np.bool_)


def _activations(
    model: Any, stack: Stack, corpus: Corpus
) -> Iterator[tuple[int, list[npt.NDArray[np.float32]]]]:
    """Some rows at a time: the place of their first token, and every layer's activations."""
    device = model.get_input_embeddings().weight.device
    seen: dict[int, Tensor] = {}

    def note(layer: int) -> Any:
        def keep(_: nn.Module, entered: tuple[Any, ...]) -> None:
            seen[layer] = entered[0].reshape(-1, entered[0].shape[-1])

        return keep

    with ExitStack() as hooks:
        for layer, block in enumerate(stack):
            hooks.callback(block.down.register_forward_pre_hook(note(layer)).remove)
        for start in range(0, len(corpus.rows), _ROWS_AT_ONCE):
            ids = torch.as_tensor(corpus.rows[start : start + _ROWS_AT_ONCE], device=device)
            with torch.no_grad():
                model(input_ids=ids, use_cache=False)
            values = [seen[layer].float().cpu().numpy() for layer in range(len(stack))]
            yield start * corpus.rows.shape[1], values


@dataclass(frozen=True)
class LayerRead:
    """What the neurons of a layer do in the text, and in its controls.

    Attributes
    ----------
    text
        In the text.
    less
        In the text without each fifth of its rows in turn: rows that follow each other are
        alike, and so are left out together.
    chance
        With firing dealt anew.
    shuffled
        Which are positional where the text's tokens are shuffled, (neuron,).
    """

    text: LayerFiring
    less: list[LayerFiring]
    chance: LayerFiring
    shuffled: _Bools


@dataclass(frozen=True)
class TextRead:
    """What `read_corpus` found.

    Attributes
    ----------
    rows, types
        Of the text: rows, and different tokens.
    never_negative
        Whether no activation is ever below zero, as with ReLU.
    layers
        One entry a layer.
    """

    rows: int
    types: int
    never_negative: bool
    layers: list[LayerRead]


def read_corpus(
    model: Any, stack: Stack, corpus: Corpus, share: float | None, seed: int
) -> TextRead:
    """Judge every neuron from a text, and from its two controls.

    Parameters
    ----------
    share
        See `firing`; None: only `never_negative` is found.

    Notes
    -----
    Cost: up to four passes over the text, each neuron judged from it six times, and in memory
    a bit for every token and neuron.
    """
    some = Corpus(corpus.rows[:_ROWS_AT_ONCE])
    lowest = [
        min(float(one.min()) for one in values) for _, values in _activations(model, stack, some)
    ]
    never_negative = min(lowest) >= 0
    found = TextRead(len(corpus.rows), len(np.unique(corpus.tokens)), never_negative, [])
    if share is None:
        return found
    rng = np.random.default_rng((seed, 6))
    shuffled = corpus.shuffled(rng)
    pairs = zip(
        firing(model, stack, corpus, share), firing(model, stack, shuffled, share), strict=True
    )
    for fires, in_shuffled in pairs:
        found.layers.append(
            LayerRead(
                judge(fires, corpus),
                judge_less(fires, corpus),
                judge(fires[rng.permutation(len(fires))], corpus),
                position_information(in_shuffled, corpus.rows.shape[1]) > _POSITIONAL,
            )
        )
    return found
