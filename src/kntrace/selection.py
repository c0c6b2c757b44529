"""Which neurons count as a word's own: the k strongest, or those that pass a threshold.

The threshold is that of Dai et al. (2022): in every prompt the *coarse* set holds the neurons
whose score is at least a share of the prompt's largest, and the *refined* set those that are in
the coarse sets of enough prompts. Chen et al. (2024) weigh such sets by how few words have a
neuron, and leave out those that many words have.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.errors import AnalysisError
from kntrace.formation import checkpoint_position, knowledge_neurons
from kntrace.wording import Averaging, Wording, read_wording

__all__ = ["Rare", "Selection", "Threshold", "TopK", "default_k", "read_selection"]

_FORMS = "top:K, threshold:T:MIN[:FLOOR] or rare:T:MIN:K[:FLOOR]"


# The paper's number, but never more than one neuron in forty of a small model.
_MOST, _ONE_IN = 1000, 40


def default_k(scores: xr.Dataset) -> int:
    """Knowledge neurons per word where nobody says how many; no more than the run can tell."""
    usual = max(1, min(_MOST, scores.sizes["layer"] * scores.sizes["neuron"] // _ONE_IN))
    return min(usual, read_wording(scores).top or usual)


class Selection(Protocol):
    """A way to choose each word's neurons."""

    @property
    def spec(self) -> str:
        """How it is written, so that `read_selection` reads it back."""

    def choose(
        self, scores: xr.Dataset, *, wording: str | None = None, checkpoint: int | str = -1
    ) -> xr.Dataset:
        """Choose, in the form of `kntrace.knowledge_neurons`.

        A word with fewer neurons than others has layer -1, neuron -1 and a score of NaN in the
        places that it leaves empty.
        """


@dataclass(frozen=True)
class TopK:
    """The k neurons with the largest mean score over a word's prompts: the paper's.

    Attributes
    ----------
    k
        Neurons per word.
    averaging
        How a word's prompts make one score of a neuron; see `kntrace.wording.read_wording`.
    """

    k: int
    averaging: Averaging = "every_prompt"

    @property
    def spec(self) -> str:
        """`top:K`."""
        return f"top:{self.k}"

    def choose(
        self, scores: xr.Dataset, *, wording: str | None = None, checkpoint: int | str = -1
    ) -> xr.Dataset:
        """See `kntrace.knowledge_neurons`."""
        found = knowledge_neurons(
            scores, self.k, wording=wording, checkpoint=checkpoint, averaging=self.averaging
        )
        return found.assign_attrs(selection=self.spec)


@dataclass(frozen=True)
class Threshold:
    """Neurons near the largest score in enough prompts: coarse sets, refined (Dai et al. 2022).

    Attributes
    ----------
    threshold
        Share of a prompt's largest score that a neuron of its coarse set has at least; one
        that has exactly as much is in.
    min_prompts
        In how many of the word's prompts a neuron must be coarse: a whole number. (As a share
        of the prompts, moved in steps of .05, it can come out at 1.0000000000000002 and lose
        every neuron.)
    floor
        Prompts whose answer has a smaller probability give no neurons: what is largest in a
        network that does not know the answer is of nothing.
    """

    threshold: float
    min_prompts: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise AnalysisError(f"a threshold of {self.threshold}", expected="above 0, at most 1")
        whole = isinstance(self.min_prompts, numbers.Integral)
        if not whole or isinstance(self.min_prompts, bool) or self.min_prompts < 1:
            raise AnalysisError(
                f"min_prompts = {self.min_prompts!r}",
                expected="a whole number of prompts, 1 or more, not a share of them",
            )
        if not 0 <= self.floor <= 1:
            raise AnalysisError(f"a floor of {self.floor}", expected="a probability")

    @property
    def spec(self) -> str:
        """`threshold:T:MIN`, with `:FLOOR` if there is one."""
        floor = f":{self.floor:g}" if self.floor else ""
        return f"threshold:{self.threshold:g}:{self.min_prompts}{floor}"

    def choose(
        self, scores: xr.Dataset, *, wording: str | None = None, checkpoint: int | str = -1
    ) -> xr.Dataset:
        """Choose each word's refined set, the largest mean score first.

        Returns
        -------
        xr.Dataset
            As `kntrace.knowledge_neurons` gives it, as wide as the largest set (1 at least);
            attribute `k` is that width. A word may have no neuron at all.

        Raises
        ------
        AnalysisError
            If a word has fewer prompts than `min_prompts`, if only means over prompts were
            kept, if there is no such wording or checkpoint, or if a score is not a finite number.
        """
        view = read_wording(scores, wording)
        if not view.every_prompt:
            raise AnalysisError(
                f"the selection {self.spec!r} looks at every prompt, and this run has kept only "
                "means over them",
                expected="a run made without --keep means, or top:K",
            )
        place = checkpoint_position(view, checkpoint)
        sets = [self._refined(view, place, word) for word in range(len(view.words))]
        widest = max(1, *(len(flat) for flat, _ in sets))
        flat = np.full((len(sets), widest), -1, dtype=np.int64)
        values = np.full(flat.shape, np.nan)
        for word, (some, mean) in enumerate(sets):
            flat[word, : len(some)], values[word, : len(some)] = some, mean
        width = scores.sizes["neuron"]
        dims, empty = ("word", "rank"), flat < 0
        layer, neuron = (
            np.where(empty, -1, labels[np.where(empty, 0, part)])
            for labels, part in zip(
                (scores["layer"].values, scores["neuron"].values),
                np.divmod(flat, width),
                strict=True,
            )
        )
        return xr.Dataset(
            {"layer": (dims, layer), "neuron": (dims, neuron), "score": (dims, values)},
            coords={
                "word": scores["word"],
                "group": scores["group"],
                "rank": np.arange(widest, dtype=np.int64),
            },
            attrs={
                "k": widest,
                "selection": self.spec,
                "wording": view.name,
                "checkpoint": view.checkpoints[place],
                "layers": scores.sizes["layer"],
                "width": width,
            },
        )

    def _refined(
        self, view: Wording, checkpoint: int, word: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Neurons, counted through all layers, and their mean scores."""
        asked = view.asked[word]
        if asked.sum() < self.min_prompts:
            raise AnalysisError(
                f"{asked.sum()} prompts in the wording {view.name!r}",
                where=f"word {view.words[word]!r}",
                expected=f"at least min_prompts = {self.min_prompts}",
            )
        mean = view.mean(checkpoint, word).ravel()
        cell = view.scores[["score", "probability"]].isel(checkpoint=checkpoint, word=word).load()
        values = cell["score"].transpose("prompt", "layer", "neuron").values[asked]
        values = values.reshape(len(values), -1)
        most = values.max(axis=1, keepdims=True)
        known = cell["probability"].values[asked, None] >= self.floor
        coarse = (values >= self.threshold * most) & (most > 0) & known
        refined = np.flatnonzero(coarse.sum(axis=0) >= self.min_prompts)
        refined = refined[np.argsort(-mean[refined], kind="stable")]
        return refined.astype(np.int64), mean[refined]


@dataclass(frozen=True)
class Rare:
    """Neurons of a threshold set that are not anyone's: query-relevant ones (Chen et al. 2024).

    Every neuron of a word's set is weighed by log(words / (1 + words whose sets have it)); the
    `k` with the largest mean score times weight are taken, none whose weight is not above zero,
    and of them those left out that more than `common` of the words have. A word may come out
    with fewer, or with none.

    Attributes
    ----------
    sets
        How the sets are made. The published ones take every prompt's neurons (`min_prompts` 1).
    k
        Neurons per word at most.
    common
        Share of the words.
    """

    sets: Threshold
    k: int
    common: float = 0.3

    def __post_init__(self) -> None:
        if self.k < 1:
            raise AnalysisError(f"k = {self.k} knowledge neurons", expected="1 or more")

    @property
    def min_prompts(self) -> int:
        """As the sets ask."""
        return self.sets.min_prompts

    @property
    def spec(self) -> str:
        """`rare:T:MIN:K`, with `:FLOOR` if there is one."""
        floor = f":{self.sets.floor:g}" if self.sets.floor else ""
        return f"rare:{self.sets.threshold:g}:{self.sets.min_prompts}:{self.k}{floor}"

    def choose(
        self, scores: xr.Dataset, *, wording: str | None = None, checkpoint: int | str = -1
    ) -> xr.Dataset:
        """Choose each word's neurons, the largest weighted score first; see `Threshold.choose`.

        The scores that are given are the words' mean scores, not the weighted ones.
        """
        found = self.sets.choose(scores, wording=wording, checkpoint=checkpoint)
        layer, neuron = (
            found[name].transpose("word", "rank").values for name in ("layer", "neuron")
        )
        score = found["score"].transpose("word", "rank").values
        flat = np.where(layer < 0, -1, layer * found.attrs["width"] + neuron)
        having = np.bincount(
            flat[flat >= 0], minlength=found.attrs["layers"] * found.attrs["width"]
        )
        words = len(flat)
        weight = np.where(flat < 0, 0.0, np.log(words / (1 + having[flat])))
        # Places that a word leaves empty have no score.
        weighted = np.where(weight > 0, np.nan_to_num(score) * weight, 0.0)
        order = np.argsort(-weighted, axis=1, kind="stable")[:, : self.k]
        kept = np.take_along_axis(weighted, order, axis=1) > 0
        kept &= np.take_along_axis(having[flat], order, axis=1) <= int(self.common * words)
        # Those that are kept come first, still in their order.
        order = np.take_along_axis(order, np.argsort(~kept, axis=1, kind="stable"), axis=1)
        counts = kept.sum(axis=1)
        width = max(1, int(counts.max()))
        empty = np.arange(width) >= counts[:, None]

        def placed(values: npt.NDArray[np.generic], nothing: float) -> npt.NDArray[np.generic]:
            some = np.take_along_axis(values, order[:, :width], axis=1)
            return np.where(empty, nothing, some).astype(values.dtype)

        dims = ("word", "rank")
        return xr.Dataset(
            {
                "layer": (dims, placed(layer, -1)),
                "neuron": (dims, placed(neuron, -1)),
                "score": (dims, placed(score, np.nan)),
            },
            coords={
                "word": scores["word"],
                "group": scores["group"],
                "rank": np.arange(width, dtype=np.int64),
            },
            attrs=found.attrs | {"k": width, "selection": self.spec},
        )


def read_selection(text: str) -> Selection:
    """Read `top:K`, `threshold:T:MIN[:FLOOR]` or `rare:T:MIN:K[:FLOOR]`.

    Raises
    ------
    AnalysisError
        If it is none of these, or a number in it is out of range.
    """
    kind, *parts = text.strip().split(":")
    try:
        if kind == "top" and len(parts) == 1:
            k = int(parts[0])
            if k < 1:
                raise AnalysisError(f"k = {k} knowledge neurons", expected="1 or more")
            return TopK(k)
        if kind == "threshold" and len(parts) in (2, 3):
            floor = float(parts[2]) if len(parts) == 3 else 0.0
            return Threshold(float(parts[0]), _count(parts[1]), floor)
        if kind == "rare" and len(parts) in (3, 4):
            floor = float(parts[3]) if len(parts) == 4 else 0.0
            return Rare(Threshold(float(parts[0]), _count(parts[1]), floor), int(parts[2]))
    except ValueError:
        pass
    raise AnalysisError(f"the selection {text!r}", expected=_FORMS)


def _count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise AnalysisError(
            f"min_prompts = {text}",
            expected="a whole number of prompts, 1 or more, not a share of them",
        ) from None
