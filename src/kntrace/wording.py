"""One wording of a run's prompts: which there are, and the means over them.

All analysis reads the scores through this module, one word at one checkpoint after the other,
so that an archive larger than the memory can be analysed, and so that a score that is not a
number is refused by name wherever it is met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from kntrace.errors import AnalysisError

__all__ = [
    "AVERAGINGS",
    "Averaging",
    "Wording",
    "largest",
    "read_wording",
    "scores_of",
    "wordings_of",
]

_Floats = npt.NDArray[np.float64]

Averaging = Literal["every_prompt", "public_code"]
"""How a word's prompts make one score of a neuron; see `AVERAGINGS`."""


def _over_every_prompt(values: npt.NDArray[np.float32]) -> _Floats:
    """Mean over all prompts, of scores (prompt, layer, neuron)."""
    mean: _Floats = values.mean(axis=0, dtype=np.float64)
    return mean


def _as_the_public_code(values: npt.NDArray[np.float32]) -> _Floats:
    """Mean over the prompts in which a neuron's score is above -10 times the largest.

    A neuron of which that holds in fewer than half of the prompts has none: NaN.
    """
    lowest = -10 * values.max(axis=(1, 2))
    kept = values > lowest[:, None, None]
    count = kept.sum(axis=0)
    total = np.where(kept, values, 0).sum(axis=0, dtype=np.float64)
    enough = (count >= len(values) / 2) & (count > 0)
    return np.where(enough, total / np.maximum(count, 1), np.nan)


AVERAGINGS: dict[Averaging, Callable[[npt.NDArray[np.float32]], _Floats]] = {
    "every_prompt": _over_every_prompt,
    "public_code": _as_the_public_code,
}

_NEEDED = ("probability", "rank")
_DIMS = ("checkpoint", "word", "prompt", "layer", "neuron")
_SCORES = ("score", "mean_score", "kept_score")
"""What runs have of scores: those of every prompt, or means, or means of some neurons."""


@dataclass(frozen=True)
class Wording:
    """The prompts of one wording, read from the scores of a run when they are asked for.

    Attributes
    ----------
    name
        Name of the wording.
    scores
        The run's scores, as `Run.scores` gives them, restricted to this wording's prompts.
        Where a run has kept only means over prompts, `mean_score` is this wording's; so are
        `kept_score` and what lies beside it where it has kept only some neurons.
    asked
        (word, prompt) truth values: which prompts a word has.
    averaging
        How a word's prompts make one score of a neuron.
    """

    name: str
    scores: xr.Dataset
    asked: npt.NDArray[np.bool_]
    averaging: Averaging = "every_prompt"

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Labels of the checkpoints, in the order of training."""
        return tuple(str(label) for label in self.scores["checkpoint"].values)

    @property
    def words(self) -> tuple[str, ...]:
        """The words, in the order of the study."""
        return tuple(str(word) for word in self.scores["word"].values)

    @property
    def every_prompt(self) -> bool:
        """Whether there are the scores of every prompt, and not only their means."""
        return "score" in self.scores

    @property
    def top(self) -> int | None:
        """Of a word only neurons among so many strongest are known; None: all of them are."""
        if "kept_score" not in self.scores:
            return None
        return int(self.scores["kept_score"].attrs["top"])

    @cached_property
    def _score(self) -> xr.Variable:
        # Without coordinates, which take longer to cut out than the numbers do.
        return self.scores[scores_of(self.scores)].variable

    @cached_property
    def _neurons(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Of every word, which neurons are known, counted through all layers."""
        most = self.scores.sizes["layer"] * self.scores.sizes["neuron"]
        rows = self.scores["kept_neuron"].transpose("word", "kept").values.astype(np.int64)
        found = tuple(row[row >= 0] for row in rows)
        for word, some in zip(self.words, found, strict=True):
            if len(some) < int(self.top or 0) or (np.diff(some) <= 0).any() or some[-1] >= most:
                raise AnalysisError(
                    "the list of the neurons that were kept is none",
                    where=f"word {word!r}",
                    expected=f"at least {self.top} different ones of {most:,}, in order",
                    fix="Compact the run that this one was made from again.",
                )
        return found

    def mean(self, checkpoint: int, word: int) -> npt.NDArray[np.float64]:
        """Mean score over the word's prompts, (layer, neuron), at one checkpoint.

        Both arguments are positions. Reads one block of the archive. With the averaging
        `public_code` a neuron that it drops is NaN.

        Raises
        ------
        AnalysisError
            If a score is not a finite number, as where the run is not finished, or if the run
            has kept only some neurons.
        """
        if self.top is not None:
            raise AnalysisError(
                "this needs the scores of all neurons, and the run has kept of every word only "
                f"those among its {self.top:,} strongest",
                expected="a run that `kntrace compact` did not make",
                fix="Ask the run that it was made from.",
            )
        return self.known(checkpoint, word)

    def known(self, checkpoint: int, word: int) -> npt.NDArray[np.float64]:
        """The same, NaN for a neuron that the run has not kept, where it has not kept all."""
        block = self._score.isel(checkpoint=checkpoint, word=word)
        if self.every_prompt:
            values = block.transpose("prompt", "layer", "neuron").values[self.asked[word]]
        elif self.top is None:
            values = block.transpose("layer", "neuron").values
        else:
            neurons = self._neurons[word]
            values = block.values[: len(neurons)]
        if not np.isfinite(values).all():
            raise self._unfinished(checkpoint, word, "scores")
        if self.every_prompt:
            return AVERAGINGS[self.averaging](values)
        if self.top is None:
            return np.asarray(values, dtype=np.float64)
        whole = np.full((self.scores.sizes["layer"], self.scores.sizes["neuron"]), np.nan)
        whole.ravel()[neurons] = values
        return whole

    def strongest(
        self, checkpoint: int, word: int, k: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """The neurons with the k largest means, and these, the largest first.

        Neurons are counted through all layers; among equals the lower comes first.

        Raises
        ------
        AnalysisError
            As `mean`, but where the run has kept only some neurons only if k is more than it
            can tell.
        """
        if self.top is not None and k > self.top:
            raise AnalysisError(
                f"{k:,} strongest neurons a word, and the run has kept those among the "
                f"{self.top:,} strongest",
                expected=f"{self.top:,} at most",
                fix="Take fewer, or ask the run that it was made from.",
            )
        flat = self.known(checkpoint, word).ravel()
        places = largest(np.where(np.isnan(flat), -np.inf, flat), k)
        return places, flat[places]

    def distances(self, name: str) -> npt.NDArray[np.float64]:
        """A distance over all neurons, which a run that has kept only some has kept as well.

        Raises
        ------
        AnalysisError
            If it was not kept, or if these are not all words and checkpoints of the run.
        """
        array = self.scores[name].transpose("word", "other_word") if name in self.scores else None
        shape = (len(self.words), len(self.words), len(self.checkpoints))
        if array is None or (*array.shape, array.attrs["checkpoints"]) != shape:
            raise AnalysisError(
                f"the distance {name!r} of these words and checkpoints needs all neurons, and the "
                "run has kept some",
                expected="`identity` or `cosine`, of all words and all checkpoints together",
                fix="Ask the run that it was made from.",
            )
        return np.asarray(array.values, dtype=np.float64)

    def probability(self) -> xr.DataArray:
        """Mean probability of the answer over each word's prompts, (checkpoint, word).

        Raises
        ------
        AnalysisError
            If a probability is not a finite number.
        """
        array = self.scores["probability"].transpose("checkpoint", "word", "prompt")
        values = np.where(self.asked, array.values.astype(np.float64), 0.0)
        mean = values.sum(axis=-1) / self.asked.sum(axis=-1)
        for checkpoint, word in np.argwhere(~np.isfinite(mean)):
            raise self._unfinished(checkpoint, word, "probabilities")
        names = ("checkpoint", "step", "word", "group")
        return xr.DataArray(
            mean,
            dims=("checkpoint", "word"),
            coords={name: self.scores[name] for name in names if name in self.scores.coords},
            name="probability",
            attrs={"wording": self.name, "unit": "probability"},
        )

    def _unfinished(self, checkpoint: int, word: int, what: str) -> AnalysisError:
        return AnalysisError(
            f"the {what} are not all finite numbers",
            where=f"word {self.words[word]!r} at checkpoint {self.checkpoints[checkpoint]!r}",
            expected="a finished run",
            fix="Finish it with `kntrace run`; if it is finished, the checkpoint's weights give "
            "no numbers and it must be left out of the suite.",
        )


def largest(flat: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.intp]:
    """Places of the k largest numbers, the largest first, and among equals the lower place."""
    least = np.partition(flat, -k)[-k]
    above = np.flatnonzero(flat > least)
    places = np.concatenate([above, np.flatnonzero(flat == least)[: k - above.size]])
    return places[np.lexsort((places, -flat[places]))]


def scores_of(scores: xr.Dataset) -> str:
    """Name of the scores that a run has: of every prompt, means, or means of some neurons."""
    return next((name for name in _SCORES if name in scores.data_vars), _SCORES[0])


def wordings_of(scores: xr.Dataset) -> tuple[str, ...]:
    """Names of the wordings in `scores`, the main one first."""
    return tuple(dict.fromkeys(str(name) for name in scores["wording"].values))


def read_wording(
    scores: xr.Dataset, wording: str | None = None, averaging: Averaging = "every_prompt"
) -> Wording:
    """Pick one wording's prompts out of the scores of a run.

    A word has a prompt if the prompt's answer has a rank at any checkpoint. So a block that was
    not computed is not mistaken for a prompt that does not exist.

    Parameters
    ----------
    scores
        As `Run.scores` gives them.
    wording
        Name of the wording; the study's first unless given.
    averaging
        How a word's prompts make one score of a neuron. `every_prompt`: their mean.
        `public_code`: a prompt does not count for a neuron whose score in it is no larger than
        -10 times the largest; one that counts in fewer than half of the prompts is dropped.

    Raises
    ------
    AnalysisError
        If the averaging is unknown or needs every prompt where only means were kept, if these
        are not the scores of a run, if there is no such wording, or if a word has no prompt in
        it.
    """
    if averaging not in AVERAGINGS:
        raise AnalysisError.unknown("averaging", averaging, AVERAGINGS)
    means = scores_of(scores) != "score"
    needed = (scores_of(scores), *_NEEDED)
    absent = [name for name in needed if name not in scores.data_vars]
    absent += [name for name in (*_DIMS, "wording") if name not in scores.coords]
    if absent:
        raise AnalysisError(f"no {absent[0]!r} among the scores", expected="the scores of a run")
    if means and averaging != "every_prompt":
        raise AnalysisError(
            f"the averaging {averaging!r} looks at every prompt, and only means over prompts were "
            "kept",
            expected="a run made without --keep means, or the averaging every_prompt",
        )
    known = wordings_of(scores)
    name = known[0] if wording is None else wording
    if name not in known:
        raise AnalysisError.unknown("wording", name, known)
    chosen = scores.isel(prompt=np.flatnonzero(scores["wording"].values == name))
    if means:
        chosen = chosen.isel(mean_over=int(np.flatnonzero(scores["mean_over"].values == name)[0]))
    ranks = chosen["rank"].transpose("checkpoint", "word", "prompt").values
    asked = np.logical_or.reduce(ranks >= 0, axis=0)
    for place in np.flatnonzero(~asked.any(axis=1)):
        raise AnalysisError(
            "nothing was measured",
            where=f"word {str(chosen['word'].values[place])!r}, wording {name!r}",
            expected="at least one prompt, in a finished run",
        )
    return Wording(name, chosen, asked, averaging)
