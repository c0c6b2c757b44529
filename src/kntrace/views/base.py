"""What a view is: a small frozen object that computes tables, draws them and describes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from kntrace.errors import AnalysisError
from kntrace.notebook import Card, Shown
from kntrace.selection import Selection, TopK, default_k, read_selection
from kntrace.views.parts import Parts, Tables
from kntrace.wording import Wording, read_wording

__all__ = ["Asked", "Found", "FromText", "View", "Weights"]


class Weights(Protocol):
    """The checkpoints whose weights may be read: a `kntrace.probes.Weights`, which needs torch."""

    def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        """One checkpoint after the other: its position in the run, and what can be asked.

        `otherwise` says which where nobody else did: `all`, or `ends`, the first and the last.
        Weights are loaded when something is asked of them.
        """


@dataclass(frozen=True)
class Asked:
    """Scores, and what all views ask of them alike.

    Attributes
    ----------
    scores
        As `Run.scores` gives them.
    wording
        The prompts to use; the study's first wording unless given.
    select
        Which neurons are a word's own, as `kntrace.selection.read_selection` reads it; unless
        given, the strongest 1,000, or one in forty of a smaller model.
    floor
        Below this P(answer) a word does not count as known: that part of training is shaded.
    seed
        Of everything that is drawn at random.
    weights
        The checkpoints, for views that read more than the archive holds.
    links
        Pairs of words by what the first is to the second, as `Study.links` has them.
    parts
        Where views keep what they found of each checkpoint; nowhere unless given.
    """

    scores: xr.Dataset
    wording: str | None = None
    select: str | None = None
    floor: float = 0.05
    seed: int = 0
    weights: Weights | None = None
    links: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    parts: Parts | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise AnalysisError(f"a floor of {self.floor}", expected="a probability below 1")

    @cached_property
    def view(self) -> Wording:
        """The wording's prompts."""
        return read_wording(self.scores, self.wording)

    @cached_property
    def selection(self) -> Selection:
        """How a word's own neurons are chosen."""
        if self.select is None:
            return TopK(default_k(self.scores))
        return read_selection(self.select)

    @property
    def groups(self) -> list[str]:
        """Group of every word."""
        return [str(group) for group in self.scores["group"].values]

    @cached_property
    def codes(self) -> npt.NDArray[np.intp]:
        """Group of every word as a number, in the order in which groups come."""
        numbers = {name: place for place, name in enumerate(dict.fromkeys(self.groups))}
        return np.array([numbers[name] for name in self.groups], dtype=np.intp)

    @cached_property
    def turns(self) -> npt.NDArray[np.int64]:
        """(word, prompt): which of the word's prompts it is, from 0; -1 where it has none."""
        return np.where(self.view.asked, np.cumsum(self.view.asked, axis=1) - 1, -1)

    @cached_property
    def left_out(self) -> int:
        """How often prompts can be left out for an interval over prompts; 0: too few of them.

        One of every word is left out at a time: the first, the second, and so on (a jackknife
        with groups; words share no prompts, so that it does not matter which go together). Every
        word needs three, and the selection as many as it needs without one of them.
        """
        fewest = int(self.view.asked.sum(axis=1).min())
        needed = max(2, getattr(self.selection, "min_prompts", 1))
        return int(self.turns.max()) + 1 if fewest > needed else 0

    def less_prompts(self) -> list[Asked]:
        """The same asked without one prompt of every word, as often as `left_out` says.

        Never where a run has kept only means over prompts.
        """
        if not self.view.every_prompt:
            return []
        columns = np.flatnonzero(self.scores["wording"].values == self.view.name)
        ranks = self.scores["rank"].transpose("checkpoint", "word", "prompt")
        found = []
        for turn in range(self.left_out):
            gone = np.zeros(ranks.shape[1:], dtype=np.bool_)
            gone[:, columns] = self.turns == turn
            less = ranks.copy(data=np.where(gone, -1, ranks.values))
            found.append(replace(self, scores=self.scores.assign(rank=less)))
        return found

    def values(self, variable: str, checkpoint: int, word: int) -> npt.NDArray[np.float64]:
        """A variable of one block, (prompt, layer, neuron), of the prompts that the word has.

        Raises
        ------
        AnalysisError
            If it holds something else than finite numbers, as where the run is not finished.
        """
        block = self.view.scores[variable].isel(checkpoint=checkpoint, word=word)
        found = block.transpose("prompt", "layer", "neuron").values[self.view.asked[word]]
        self._refuse_infinite(found, variable, checkpoint, word)
        return np.asarray(found, dtype=np.float64)

    def mean(self, variable: str, checkpoint: int, word: int) -> npt.NDArray[np.float64]:
        """Mean of a variable over the prompts that the word has, (layer, neuron).

        Raises
        ------
        AnalysisError
            As `values`.
        """
        if variable in self.view.scores:
            mean: npt.NDArray[np.float64] = self.values(variable, checkpoint, word).mean(axis=0)
            return mean
        block = self.view.scores[f"mean_{variable}"].isel(checkpoint=checkpoint, word=word)
        found = block.transpose("layer", "neuron").values
        self._refuse_infinite(found, variable, checkpoint, word)
        return np.asarray(found, dtype=np.float64)

    def _refuse_infinite(
        self, found: npt.NDArray[np.float32], variable: str, checkpoint: int, word: int
    ) -> None:
        if not np.isfinite(found).all():
            raise AnalysisError(
                f"{variable}s that are not finite numbers",
                where=f"word {self.view.words[word]!r} at {self.view.checkpoints[checkpoint]!r}",
                expected="a finished run",
                fix="Finish it with `kntrace run`.",
            )

    def opened(self, otherwise: str, *, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        """The checkpoints with their weights, see `Weights`.

        Raises
        ------
        AnalysisError
            If there are none.
        """
        if self.weights is None:
            raise AnalysisError(
                "a view that reads the weights, and no weights",
                expected="the checkpoints of the run",
                fix="Say where they are: `kntrace view`, or weights=kntrace.probes.Weights(run).",
            )
        return self.weights.opened(otherwise, backwards=backwards)

    def measured(
        self,
        view: View,
        measure: Callable[[int, Any], Tables],
        otherwise: str,
        *,
        backwards: bool = False,
        of: str = "",
        fits: Callable[[Tables], bool] = lambda _: True,
    ) -> Iterator[tuple[int, Tables]]:
        """What a view makes of each checkpoint: kept ones are read back, others measured.

        Parameters
        ----------
        view
            The view, whose options tell its parts from those of others.
        measure
            Makes tables of a checkpoint's position and its weights.
        otherwise, backwards
            See `opened`.
        of
            What else the tables are made from, such as a text.
        fits
            Whether tables that were kept are what is wanted now.

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C, saying what is done.
        """
        done = 0
        try:
            for place, opened in self.opened(otherwise, backwards=backwards):
                tables: Tables | None = self.parts.read(view, place, of) if self.parts else None
                if tables is None or not fits(tables):
                    tables = measure(place, opened)
                    if self.parts:
                        self.parts.write(view, place, tables, of)
                done += 1
                yield place, tables
        except KeyboardInterrupt:
            kept = "done and kept; give the same command again" if self.parts else "lost"
            raise KeyboardInterrupt(
                f"Stopped. Of the view {view.name!r} {done} checkpoint{'s' * (done != 1)} {kept}."
            ) from None
        if self.parts:
            self.parts.keep_only(view, of)

    def to_dict(self) -> dict[str, Any]:
        """All but the scores and the weights, as what JSON can express."""
        given = {"floor": self.floor, "seed": self.seed}
        return {"wording": self.view.name, "select": self.selection.spec, **given}


@dataclass(frozen=True, repr=False)
class Found(Shown):
    """What a view found.

    Attributes
    ----------
    tables
        All numbers, by name; what is drawn is drawn from them. The first one is `main`.
    facts
        The numbers that sum it up, as what JSON can express; None where undefined.
    text
        Sentences that say what was found, against which controls.
    """

    tables: Mapping[str, pd.DataFrame]
    facts: Mapping[str, Any] = field(default_factory=dict)
    text: Sequence[str] = ()

    @property
    def main(self) -> pd.DataFrame:
        """The first table."""
        return next(iter(self.tables.values()))

    def _card(self) -> Card:
        plain = (str, int, float, type(None))
        facts = {name: one for name, one in self.facts.items() if isinstance(one, plain)}
        return Card("A view", facts, self.main.to_dict("records"), self.text)

    def __str__(self) -> str:
        return "\n".join(self.text)


class View(Protocol):
    """One way to look at a run: a frozen dataclass whose other fields are its options."""

    @property
    def name(self) -> str:
        """Name in the registry and of its files."""

    @property
    def title(self) -> str:
        """What it is, as a heading."""

    @property
    def how_to_read(self) -> str:
        """What the marks mean, what to look for, and what it does not say."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Variables of the archive without which it cannot be computed.

        `mean_score` and `mean_activation` where means over prompts will do, `kept_score` where
        those of a word's strongest neurons will: every run has them in one form or the other
        that has such a variable at all.
        """

    def compute(self, asked: Asked) -> Found:
        """Compute all tables from the arrays of a run."""

    def prepare(self, found: Found) -> Found:
        """Return what `draw` draws; a report asks every figure for that."""

    def draw(self, found: Found) -> Figure:
        """Draw the figure from the tables."""

    def describe(self, found: Found) -> str:
        """Say in one or two sentences what is to be seen, for those who cannot see it."""


class FromText:
    """Of a view that draws its tables as they are, and whose description is what it says."""

    def prepare(self, found: Found) -> Found:
        """Return it as it is."""
        return found

    def describe(self, found: Found) -> str:
        """The sentences that say what was found."""
        return " ".join(found.text)
