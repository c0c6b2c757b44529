"""How much of the noise of the judged distance comes from the prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import mannwhitneyu

from kntrace.analysis.declared import declared
from kntrace.analysis.reliability import MOST_WORDS, evenly_drawn
from kntrace.contrasts import contrast
from kntrace.distance import NeuronIdentity
from kntrace.labels import group_codes
from kntrace.notebook import Card, Shown
from kntrace.progress import Progress, silent
from kntrace.wording import Wording, read_wording

__all__ = ["PromptNoise", "prompt_noise"]

_Floats = npt.NDArray[np.float64]
_STAGE = "prompt noise"


@dataclass(frozen=True, repr=False)
class PromptNoise(Shown):
    """What `prompt_noise` found.

    Attributes
    ----------
    distance
        Name of the distance, which is `identity`.
    words, draws
        Number of words, and how often their prompts were drawn anew.
    word_se
        The jackknife's standard error of the AUC, over words.
    prompt_sd
        Standard deviation of the AUC when every word's prompts are drawn with replacement.
        Never a standard error: it leaves the choice of the words out. NaN where no word has
        two prompts, or only means over them were kept.
    share
        prompt_sd² / word_se²: the prompts' own share of the noise.
    """

    distance: str
    words: int
    draws: int
    word_se: float
    prompt_sd: float
    share: float

    def to_dict(self) -> dict[str, Any]:
        """All fields, as what JSON can express; undefined numbers become None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PromptNoise:
        """Build it from what `to_dict` gave."""
        known: dict[str, Any] = {
            name: math.nan if value is None else value for name, value in values.items()
        }
        return cls(**declared(cls, known))

    def _card(self) -> Card:
        return Card("Noise of the AUC", self.to_dict())

    def __str__(self) -> str:
        if math.isnan(self.share):
            return f"noise of the AUC by {self.distance}: the prompts' share is not known"
        return (
            f"noise of the AUC by {self.distance}: ±{self.word_se:.3f} over words, of which the "
            f"prompts\nby themselves make {self.share:.0%} (drawn anew: ±{self.prompt_sd:.3f}, "
            "which is no standard error)"
        )


def prompt_noise(
    scores: xr.Dataset,
    groups: Mapping[str, Sequence[str]],
    *,
    draws: int = 20,
    seed: int = 0,
    progress: Progress = silent,
) -> PromptNoise:
    """Draw every word's prompts anew and see how far the AUC by neuron identity moves.

    A bootstrap over prompts alone is far too narrow for an interval, since another choice of
    words, or another training, moves the AUC much more. It is given only beside the jackknife
    over words, to say whether more prompts would help.

    Parameters
    ----------
    scores
        As `Run.scores` gives them; the main wording is used.
    groups
        The words of every group.
    draws, seed
        How often, and the seed.
    progress
        Told of the checkpoints read.

    Notes
    -----
    Of more than 40 words, 40 are taken evenly from the groups, and both numbers are of these.
    Holds one checkpoint of all their prompts. Cost: one reading of the archive, and draws x
    (the time that `identity` takes without reading).

    References
    ----------
    Efron 1979.
    """
    view = read_wording(scores)
    used = evenly_drawn(scores["group"].values, MOST_WORDS)
    mine = Wording(view.name, view.scores.isel(word=used), view.asked[used])
    members = {
        name: tuple(word for word in words if word in mine.words) for name, words in groups.items()
    }
    nothing = PromptNoise("identity", len(used), draws, *[math.nan] * 3)
    if (
        not mine.every_prompt
        or (mine.asked.sum(axis=1) < 2).all()
        or max(map(len, members.values())) < 2
    ):
        return nothing
    as_asked = (mine.asked / mine.asked.sum(axis=1, keepdims=True))[None]
    drawn = _weights(mine.asked, draws, np.random.default_rng(seed))
    weights = np.concatenate([as_asked, drawn])
    totals = np.zeros((1 + draws, len(used), len(used)))
    for place, label in enumerate(mine.checkpoints):
        progress(_STAGE, place, len(mine.checkpoints), label)
        totals += _distances(mine, place, weights)
    progress(_STAGE, len(mine.checkpoints), len(mine.checkpoints))
    # Rounding of a product of matrices need not be symmetric.
    symmetric = np.triu(totals[0], 1) + np.triu(totals[0], 1).T
    words = list(mine.words)
    matrix = xr.DataArray(symmetric, {"word": words, "other_word": words}, ("word", "other_word"))
    error = contrast(matrix, members, permutations=1).overall["auc_se"]
    _, codes = group_codes(mine.words, members)
    upper = np.triu_indices(len(used), 1)
    same = codes[upper[0]] == codes[upper[1]]
    spread = float(np.std([_auc(total[upper], same) for total in totals[1:]], ddof=1))
    share = spread**2 / error**2 if error > 0 else math.nan
    return PromptNoise("identity", len(used), draws, error, spread, share)


@dataclass(frozen=True)
class _Drawn(Wording):
    """One checkpoint of a wording whose means are given."""

    means: _Floats = field(kw_only=True)
    label: str = field(kw_only=True)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        return (self.label,)

    def mean(self, checkpoint: int, word: int) -> _Floats:
        mean: _Floats = self.means[word]
        return mean


def _weights(asked: npt.NDArray[np.bool_], draws: int, rng: np.random.Generator) -> _Floats:
    """(draw, word, prompt): how often a prompt was drawn, as a share of the word's prompts."""
    weights = np.zeros((draws, *asked.shape))
    for word, row in enumerate(asked):
        count = int(row.sum())
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        weights[:, word, row] = drawn / count
    return weights


def _distances(view: Wording, checkpoint: int, weights: _Floats) -> _Floats:
    """Neuron identity at one checkpoint for every draw; (draw, word, word)."""
    label = view.checkpoints[checkpoint]
    block = view.scores["score"].isel(checkpoint=checkpoint)
    values = block.transpose("word", "prompt", "layer", "neuron").values
    values = np.where(view.asked[:, :, None, None], values, 0.0).reshape(*view.asked.shape, -1)
    found = []
    for drawn in weights:
        means = np.einsum("wp,wpn->wn", drawn, values)
        one = _Drawn(view.name, view.scores, view.asked, means=means, label=label)
        found.append(NeuronIdentity().pairwise(one, silent))
    return np.stack(found)


def _auc(distances: _Floats, same: npt.NDArray[np.bool_]) -> float:
    near, far = distances[same], distances[~same]
    return float(mannwhitneyu(far, near).statistic / (near.size * far.size))
