"""Whose neurons are changed while a word is asked for: its own, other words', random ones.

Every source is a ranking: a dose of k neurons are its first k, so that the larger dose always
contains the smaller one. All that is drawn hangs on the seed and on the word alone, so that
neither the order of work nor the choice of checkpoints changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.effects import AblationSettings
from kntrace.errors import SettingsError

__all__ = ["Ranking", "Rankings", "rankings_of"]

_Ints = npt.NDArray[np.int64]

# A matched neuron is drawn among so many whose activation is nearest.
_NEAREST = 4


@dataclass(frozen=True)
class Ranking:
    """Neurons to change, in order.

    Attributes
    ----------
    source
        One of `kntrace.effects.SOURCES`.
    of
        The word whose neurons they are, "" for random ones.
    draw
        Number of the draw, 0 for a word's.
    neurons
        (neuron,), counted through all layers: layer * width + neuron.
    """

    source: str
    of: str
    draw: int
    neurons: _Ints

    def dose(self, count: int) -> _Ints:
        """The first `count`, or all there are; 0: all."""
        return self.neurons[:count] if count else self.neurons


@dataclass(frozen=True)
class Rankings:
    """The words' own neurons, and what is drawn beside them.

    Attributes
    ----------
    words, groups
        Every word and its group.
    own
        Every word's own neurons, the strongest first.
    layers, width
        Of the model.
    """

    words: tuple[str, ...]
    groups: tuple[str, ...]
    own: tuple[_Ints, ...]
    layers: int
    width: int

    def own_of(self, word: int, settings: AblationSettings) -> _Ints:
        """A word's own neurons as far as the largest dose reaches."""
        return self.own[word] if 0 in settings.doses else self.own[word][: max(settings.doses)]

    def sources(
        self, word: int, size: npt.NDArray[np.float64], settings: AblationSettings
    ) -> list[Ranking]:
        """All rankings for one word.

        Parameters
        ----------
        size
            Mean absolute activation at the word's prompts, (neuron,) through all layers.

        Raises
        ------
        SettingsError
            If a layer has too few other neurons to match the word's own.
        """
        own = self.own_of(word, settings)
        found = [Ranking("own", self.words[word], 0, own)]
        for source, others in self._partners(word, settings):
            found += [Ranking(source, self.words[u], 0, self.own_of(u, settings)) for u in others]
        for draw in range(settings.draws):
            rng = self._rng(settings, word, 1 + draw)
            found.append(Ranking("matched", "", draw, self._matched(word, own, size, rng)))
            rest = np.setdiff1d(np.arange(self.layers * self.width), own)
            found.append(Ranking("random", "", draw, rng.permutation(rest)[: len(own)]))
        return found

    def donor(self, word: int, prompt: int, settings: AblationSettings) -> tuple[int, float]:
        """Another word for `resample`, and a number from 0 to 1 that picks one of its prompts."""
        rng = np.random.default_rng([settings.seed, word, prompt, 2])
        others = [u for u in range(len(self.words)) if u != word]
        return int(rng.choice(others)), float(rng.random())

    def singles(self, word: int, settings: AblationSettings) -> dict[str, _Ints]:
        """Neurons to silence one at a time: the strongest, and random ones of their layers."""
        own = self.own[word][: settings.singles]
        rng = self._rng(settings, word, 0)
        layers, counts = np.unique(own // self.width, return_counts=True)
        drawn = [
            rng.permutation(self._others(int(layer), self.own[word]))[:count]
            for layer, count in zip(layers, counts, strict=True)
        ]
        return {"own": own, "random": np.concatenate([*drawn, own[:0]])}

    def _partners(self, word: int, settings: AblationSettings) -> list[tuple[str, list[int]]]:
        """Other words, as many of the same group and of others as asked for, in their order."""
        rng = np.random.default_rng([settings.seed, word, 1])
        found = []
        for source, same in (("same_group", True), ("other_group", False)):
            there = [
                u
                for u in range(len(self.words))
                if u != word and (self.groups[u] == self.groups[word]) == same
            ]
            chosen = rng.permutation(there)[: settings.partners]
            found.append((source, sorted(int(u) for u in chosen)))
        return found

    def _matched(
        self, word: int, own: _Ints, size: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> _Ints:
        """For every own neuron, in turn, one of its layer of about its size, none twice."""
        rest = {}
        for layer, count in zip(*np.unique(own // self.width, return_counts=True), strict=True):
            there = self._others(int(layer), own)
            if len(there) < count:
                raise SettingsError(
                    f"{count} of the neurons of {self.words[word]!r} lie in layer {layer}, "
                    f"which has {self.width}",
                    expected="at least as many others, to match them",
                    fix="Take smaller doses, or no random neurons (--draws 0).",
                )
            rest[layer] = there[np.argsort(size[there], kind="stable")]
        found = np.empty_like(own)
        for place, neuron in enumerate(own):
            there = rest[neuron // self.width]
            near = np.searchsorted(size[there], size[neuron])
            low = int(np.clip(near - _NEAREST // 2, 0, max(len(there) - _NEAREST, 0)))
            pick = low + int(rng.integers(min(_NEAREST, len(there))))
            found[place] = there[pick]
            rest[neuron // self.width] = np.delete(there, pick)
        return found

    def _others(self, layer: int, own: _Ints) -> _Ints:
        return np.setdiff1d(np.arange(layer * self.width, (layer + 1) * self.width), own)

    def _rng(self, settings: AblationSettings, word: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, word, 0, purpose])


def rankings_of(chosen: xr.Dataset) -> Rankings:
    """From what a selection chose."""
    layer = chosen["layer"].transpose("word", "rank").values
    flat = layer * chosen.attrs["width"] + chosen["neuron"].transpose("word", "rank").values
    return Rankings(
        tuple(str(word) for word in chosen["word"].values),
        tuple(str(group) for group in chosen["group"].values),
        tuple(flat[word][layer[word] >= 0] for word in range(len(layer))),
        int(chosen.attrs["layers"]),
        int(chosen.attrs["width"]),
    )


def shared(first: Sequence[int] | _Ints, second: Sequence[int] | _Ints) -> int:
    """How many neurons two sets have in common."""
    return len(np.intersect1d(first, second))
