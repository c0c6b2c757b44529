"""The rule that gives the verdict on one wording: thresholds and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import rankdata

from kntrace.errors import AnalysisError
from kntrace.labels import group_codes
from kntrace.verdict.answer import Answer, Verdict
from kntrace.verdict.evidence import LIMITS, MEASURED, Measured

__all__ = ["VerdictRule"]

_Floats = npt.NDArray[np.float64]
_Codes = npt.NDArray[np.intp]

_DISTANCE = "identity"
# Two-sided 90 % interval: its upper end is a one-sided 95 % bound, which is what "no" needs.
_NORMAL = 1.645
_ROUNDING = 1e-12
# Residual ranks equal up to rounding are ties.
_DIGITS = 9
_TINY = 1e-30
_LEAST_LEVERAGE = 1e-9
# Columns of `_covariates`: pairs must outnumber them.
_COVARIATES = 6


@dataclass(frozen=True)
class VerdictRule:
    """Thresholds of the verdict.

    Attributes
    ----------
    block
        Words per block of like learning time, within which labels are shuffled.
    alpha
        Largest p for "yes".
    delta
        Excess of the adjusted AUC over 0.5 that "no" excludes.
    min_leverage
        Leverage below which nothing can be told.
    permutations, seed
        Of the shuffles.

    Notes
    -----
    Cost: permutations x W², about 50 ms for 38 words.
    """

    block: int = 4
    alpha: float = 0.025
    delta: float = 0.10
    min_leverage: float = 0.25
    permutations: int = 999
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "block": (self.block >= 2, "at least 2 words"),
            "alpha": (0 < self.alpha < 1, "between 0 and 1"),
            "delta": (0 < self.delta < 0.5, "between 0 and 0.5"),
            "min_leverage": (0 < self.min_leverage <= 1, "above 0, at most 1"),
            "permutations": (self.permutations >= 1, "at least 1"),
        }
        for name, (right, expected) in ranges.items():
            if not right:
                raise AnalysisError(f"{name} = {getattr(self, name)}", expected=expected)

    @property
    def measured(self) -> tuple[Measured, ...]:
        """How often the rule gave each answer; nothing is known of other thresholds."""
        return MEASURED if self._as_measured else ()

    @property
    def limits(self) -> tuple[str, ...]:
        """What must be said wherever a verdict is printed."""
        if self._as_measured:
            return LIMITS
        return ("No error rate was measured with these thresholds.", *LIMITS)

    @property
    def _as_measured(self) -> bool:
        # A seed, or more permutations, changes no rate.
        default = type(self)()
        return replace(self, seed=0, permutations=999) == default and self.permutations >= 999

    def judge(
        self,
        distance: xr.DataArray,
        probability: xr.DataArray,
        groups: Mapping[str, Sequence[str]],
    ) -> Verdict:
        """Judge one wording.

        Parameters
        ----------
        distance
            (word, other_word), the distance `identity` of `pairwise_distances`.
        probability
            (checkpoint, word), mean P(answer) over the prompts of the same wording.
        groups
            The words of every group.

        Raises
        ------
        AnalysisError
            If the distance is another one, if words and groups do not match or give nothing
            to compare, or if a number is not finite.
        """
        words = [str(word) for word in distance["word"].values]
        values, curves = _checked(distance, probability, words)
        labels, codes = group_codes(words, groups)
        time = curves.mean(axis=0)
        pairs = np.triu_indices(len(words), 1)
        ranks = _residual_ranks(values[pairs], _covariates(curves, pairs))
        same = codes[pairs[0]] == codes[pairs[1]]
        null, kept = self._shuffled(ranks, codes, time, pairs)

        auc = _auc(ranks, same)
        null_mean, null_sd = float(null.mean()), float(null.std())
        chance = float(same.mean())
        leverage = 1 - (float(kept.mean()) - chance) / (1 - chance)
        scale = max(leverage, _LEAST_LEVERAGE)
        adjusted, error = 0.5 + (auc - null_mean) / scale, null_sd / scale
        p = float((1 + (null >= auc - _ROUNDING).sum()) / (1 + null.size))
        low, high = adjusted - _NORMAL * error, adjusted + _NORMAL * error
        answer, reason = self._decide(p, high, leverage, len(words))
        return Verdict(
            answer=answer,
            reason=reason,
            wording=str(probability.attrs.get("wording", distance.attrs.get("wording", "main"))),
            p=p,
            auc=auc,
            null_mean=null_mean,
            null_sd=null_sd,
            adjusted_auc=adjusted,
            standard_error=error,
            low=low,
            high=high,
            leverage=leverage,
            time_share=_share_explained(time, codes),
            words=len(words),
            groups=len(labels),
            permutations=self.permutations,
            seed=self.seed,
        )

    def _shuffled(
        self, ranks: _Floats, codes: _Codes, time: _Floats, pairs: tuple[_Codes, _Codes]
    ) -> tuple[_Floats, _Floats]:
        """AUC, and share of same-group pairs that stay so, under shuffles within blocks."""
        rng = np.random.default_rng(self.seed)
        order = np.argsort(time, kind="stable")
        blocks = np.array_split(order, max(1, round(len(codes) / self.block)))
        same = codes[pairs[0]] == codes[pairs[1]]
        null, kept = np.empty(self.permutations), np.empty(self.permutations)
        for place in range(self.permutations):
            dealt = codes.copy()
            for block in blocks:
                dealt[block] = codes[rng.permutation(block)]
            alike = dealt[pairs[0]] == dealt[pairs[1]]
            null[place] = _auc(ranks, alike)
            kept[place] = (alike & same).sum() / same.sum()
        return null, kept

    def _decide(self, p: float, high: float, leverage: float, words: int) -> tuple[Answer, str]:
        if words * (words - 1) // 2 <= _COVARIATES:
            return "cannot tell", f"{words} words are too few to take learning time out."
        if leverage < self.min_leverage:
            return "cannot tell", (
                "the groups are learnt at such different times that groups and learning time "
                f"cannot be told apart (leverage {leverage:.2f}, needed {self.min_leverage:.2f})."
            )
        if p <= self.alpha:
            return "yes", (
                "words of one group use more of the same neurons, over training, than words of "
                f"different groups that were learnt at like times (p = {p:.3f})."
            )
        if high < 0.5 + self.delta:
            return "no", (
                "no more likeness within groups than learning time explains, and an excess of "
                f"the AUC of {self.delta:.2f} or more is excluded (p = {p:.3f}; upper end "
                f"{high:.3f})."
            )
        return "cannot tell", (
            f"the data are too few to see a likeness within groups (p = {p:.3f}) or to exclude "
            f"one (upper end of the adjusted AUC {high:.3f})."
        )


def _covariates(curves: _Floats, pairs: tuple[_Codes, _Codes]) -> _Floats:
    """What learning time says of a pair: (pair, covariate).

    A constant; ranks of the distance of the two curves, of the difference of learning times and
    of that of the final probabilities; the standardized sum of learning times and its square.
    """
    first, second = pairs
    time, final = curves.mean(axis=0), curves[-1]
    ranked = (
        np.square(curves[:, first] - curves[:, second]).sum(axis=0),
        np.abs(time[first] - time[second]),
        np.abs(final[first] - final[second]),
    )
    total = time[first] + time[second]
    standard = (total - total.mean()) / max(float(total.std()), _TINY)
    columns = [np.ones(len(first)), *(rankdata(column) / len(column) for column in ranked)]
    return np.stack([*columns, standard, np.square(standard)], axis=1)


def _residual_ranks(distances: _Floats, covariates: _Floats) -> _Floats:
    """Ranks of what least squares on the covariates leaves of the distances' ranks."""
    ranks = rankdata(distances)
    fitted = covariates @ np.linalg.lstsq(covariates, ranks, rcond=None)[0]
    residual: _Floats = rankdata(np.round(ranks - fitted, _DIGITS))
    return residual


def _auc(ranks: _Floats, same: npt.NDArray[np.bool_]) -> float:
    """Mann-Whitney's statistic as a share: same-group pairs below the others."""
    inside = int(same.sum())
    outside = same.size - inside
    excess = float(ranks[same].sum()) - inside * (inside + 1) / 2
    return 1 - excess / inside / outside


def _share_explained(time: _Floats, codes: _Codes) -> float:
    means = np.bincount(codes, weights=time) / np.bincount(codes)
    between = np.square(means[codes] - time.mean()).sum()
    return float(between / max(float(np.square(time - time.mean()).sum()), _TINY))


def _checked(
    distance: xr.DataArray, probability: xr.DataArray, words: list[str]
) -> tuple[_Floats, _Floats]:
    name = distance.attrs.get("distance", _DISTANCE)
    if name != _DISTANCE:
        raise AnalysisError(
            f"a verdict on the distance {name!r}",
            expected=f"{_DISTANCE!r}, the one whose error rates were measured",
        )
    if [str(word) for word in probability["word"].values] != words:
        raise AnalysisError("the probabilities are not those of the distances' words")
    values = distance.transpose("word", "other_word").values.astype(np.float64)
    curves = probability.transpose("checkpoint", "word").values.astype(np.float64)
    for what, array in (("distances", values), ("probabilities", curves)):
        if not np.isfinite(array).all():
            raise AnalysisError(f"the {what} are not all finite numbers")
    return values, curves
