"""Predictivity: does one neuron's activation tell a group's words from all others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from kntrace.errors import AnalysisError
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import LOOKS, draw_lines
from kntrace.views.lines import SHARE, known_lines, line_table, over_prompts

__all__ = [
    "Predictivity",
    "balanced_accuracy",
    "separation",
    "split_by_prompts",
    "split_by_words",
]

_Floats = npt.NDArray[np.float32]
_Places = npt.NDArray[np.intp]

_BAND = (0.05, 0.95)
_ROUNDING = np.float32(1e-5)


def separation(
    train: _Floats, kinds: npt.NDArray[np.bool_]
) -> tuple[_Floats, _Floats, npt.NDArray[np.bool_]]:
    """How far apart two kinds of samples lie on each neuron, and a threshold between them.

    Parameters
    ----------
    train
        (sample, neuron) activations.
    kinds
        (label, sample) which samples are of the one kind; both kinds must be there.

    Returns
    -------
    distance, threshold, above
        (label, neuron): the difference of the means over the root of the summed variances, to
        which a trifle is added; the point half-way between the means; and whether the one kind
        lies above it.
    """
    centre = train.mean(axis=0)
    offset = train - centre
    squares = offset**2
    one = kinds.astype(np.float32)
    weights = [part / part.sum(axis=1, keepdims=True) for part in (one, 1 - one)]
    inside, outside = (weight @ offset for weight in weights)
    spread = sum(
        np.maximum(weight @ squares - mean**2, 0)
        for weight, mean in zip(weights, (inside, outside), strict=True)
    )
    apart = np.abs(inside - outside)
    # A neuron that is the same at all samples must not be told apart by its rounding.
    scale = np.sqrt(spread) + _ROUNDING * np.sqrt((train**2).mean(axis=0))
    distance = np.divide(apart, scale, out=np.zeros_like(apart), where=scale > 0)
    return distance, centre + (inside + outside) / 2, inside >= outside


def balanced_accuracy(
    test: _Floats,
    kind: npt.NDArray[np.bool_],
    threshold: _Floats,
    above: npt.NDArray[np.bool_],
) -> _Floats:
    """Mean of the shares of either kind that fall on their side of the threshold, (neuron,).

    It is .5 for guessing, however many samples there are of each kind; plain accuracy would be
    .79 for a group of 8 in 38 words by always saying no.

    Parameters
    ----------
    test
        (sample, neuron) activations.
    kind
        (sample,) which samples are of the one kind.
    threshold, above
        (neuron,) from other samples, see `separation`.
    """
    said = (test > threshold) == above
    found = (said[kind].mean(axis=0) + 1 - said[~kind].mean(axis=0)) / 2
    return np.asarray(found, dtype=np.float32)


def split_by_prompts(asked: npt.NDArray[np.bool_]) -> list[tuple[_Places, _Places]]:
    """Every other prompt of each word to train on, the rest to test, and the reverse.

    The same words are on both sides: a neuron may know the words one by one.
    """
    turn = np.concatenate([np.arange(count) for count in asked.sum(axis=1)]) % 2
    halves = np.flatnonzero(turn == 0), np.flatnonzero(turn == 1)
    return [halves, halves[::-1]] if len(halves[1]) else []


def split_by_words(
    asked: npt.NDArray[np.bool_], codes: npt.NDArray[np.intp]
) -> list[tuple[_Places, _Places]]:
    """Every other word of each group to train on, the rest to test, and the reverse.

    What is tested are words that were never seen.
    """
    turn = np.zeros(len(codes), dtype=np.int64)
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        turn[members] = np.arange(len(members)) % 2
    sample = np.repeat(turn, asked.sum(axis=1))
    halves = np.flatnonzero(sample == 0), np.flatnonzero(sample == 1)
    return [halves, halves[::-1]] if len(halves[1]) else []


@dataclass(frozen=True)
class Predictivity(FromText):
    """The view; see `separation` and `balanced_accuracy`.

    Attributes
    ----------
    top
        How many neurons, the best in training, are averaged.
    null
        How often groups are dealt out anew to the words, at every checkpoint.
    """

    top: int = 20
    null: int = 40
    name: str = "predictivity"
    title: str = "Predictivity: one neuron's activation for a group"
    how_to_read: str = (
        "How well single neurons tell a group's words from all others by a threshold on their "
        "activation (balanced accuracy, 0.5 is guessing): mean over groups of the neurons that "
        "separate best in one half, tested on the other. Left halves are prompts, right they are "
        "words, so that words are tested that were never seen. The grey band holds 90 % of what "
        "groups dealt at random give, which is far above 0.5 on the left, where a neuron that "
        "knows words one by one will do; the dotted line is random neurons of the same layers; "
        "the pink line is what the first checkpoint reaches; bars are 95 % intervals over "
        "prompts. An untrained network can tell groups apart by the wording of their prompts "
        "alone: only what rises above band and pink line has been learnt."
    )
    needs: tuple[str, ...] = ("activation", "probability")

    def __post_init__(self) -> None:
        if self.top < 1 or self.null < 1:
            raise AnalysisError(f"top = {self.top}, null = {self.null}", expected="1 or more each")

    def compute(self, asked: Asked) -> Found:
        """Test every neuron at every checkpoint; the tables are `lines` and `groups`.

        Notes
        -----
        Holds the activations of one checkpoint, all words and prompts.
        """
        view, codes = asked.view, asked.codes
        sizes = np.bincount(codes)
        groups = [code for code in range(len(sizes)) if len(sizes) > 1 and sizes[code] > 1]
        splits = {"by_prompts": split_by_prompts(view.asked)}
        rng = np.random.default_rng(asked.seed)
        dealt = [codes, *(rng.permutation(codes) for _ in range(self.null))]
        rows: list[dict[str, Any]] = []
        by_group: list[dict[str, Any]] = []
        names = list(dict.fromkeys(asked.groups))
        counts = view.asked.sum(axis=1)
        turns = asked.turns[view.asked]
        for place, label in enumerate(view.checkpoints):
            values = _activations(asked, place)
            for turn, dealt_codes in enumerate(dealt if groups else []):
                # Halves of words depend on the groups.
                splits["by_words"] = split_by_words(view.asked, dealt_codes)
                kinds = np.stack([np.repeat(dealt_codes == code, counts) for code in groups])
                for panel, halves in splits.items():
                    if not halves:
                        continue
                    found = self._test(values, halves, kinds, rng)
                    best, matched = found.mean(axis=1)
                    rows.append(
                        {"panel": panel, "place": place, "turn": turn, "best": best, "m": matched}
                    )
                    if not turn:
                        rest = [
                            self._less(
                                values,
                                turns != out,
                                view.asked & (asked.turns != out),
                                panel,
                                codes,
                                groups,
                            )
                            for out in range(asked.left_out)
                        ]
                        rows[-1] |= over_prompts(float(best), rest, SHARE)
                        by_group += [
                            {"checkpoint": label, "split": panel, "group": names[code], "own": own}
                            for code, own in zip(groups, found[0].tolist(), strict=True)
                        ]
        lines = line_table(asked, (*_lines(pd.DataFrame(rows)), *known_lines(asked)))
        facts = _facts(lines, view.checkpoints) | {"top": self.top, "groups": len(groups)}
        columns = ("checkpoint", "split", "group", "own")
        tables = {"lines": lines, "groups": pd.DataFrame(by_group, columns=columns)}
        return Found(tables, facts, _say(facts))

    def _less(
        self,
        values: _Floats,
        kept: npt.NDArray[np.bool_],
        asked: npt.NDArray[np.bool_],
        panel: str,
        codes: npt.NDArray[np.intp],
        groups: list[int],
    ) -> float:
        """What the best neurons reach with a part of the prompts."""
        halves = split_by_prompts(asked) if panel == "by_prompts" else split_by_words(asked, codes)
        of = np.repeat(codes, asked.sum(axis=1))
        kinds = np.stack([of == code for code in groups])
        found = self._test(values[kept], halves, kinds, np.random.default_rng(0))
        return float(found[0].mean())

    def _test(
        self,
        values: _Floats,
        halves: Sequence[tuple[_Places, _Places]],
        kinds: npt.NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.float64]:
        """For each kind the best neurons, and random ones of the same layers, (2, kind)."""
        width = values.shape[2]
        flat = values.reshape(len(values), -1)
        found = np.empty((2, len(halves), len(kinds)))
        for turn, (train, test) in enumerate(halves):
            distance, threshold, above = separation(flat[train], kinds[:, train])
            for place, kind in enumerate(kinds):
                top = np.argsort(-distance[place], kind="stable")[: self.top]
                like = top // width * width + rng.integers(width, size=len(top))
                for which, some in enumerate((top, like)):
                    right = balanced_accuracy(
                        *(flat[np.ix_(test, some)], kind[test]),
                        *(threshold[place, some], above[place, some]),
                    )
                    found[which, turn, place] = right.mean()
        return np.asarray(found.mean(axis=1))

    def draw(self, found: Found) -> Figure:
        """Draw both splits with band, random neurons and the first checkpoint."""
        looks = {
            **{name: LOOKS[name] for name in ("own", "matched")},
            "first": ("at the first checkpoint", LOOKS["first"][1]),
            "chance": ("groups at random (90 %)", LOOKS["chance"][1]),
        }
        looks["own"] = ("the groups", LOOKS["own"][1])
        titles = {
            "by_prompts": "balanced accuracy, other prompts",
            "by_words": "balanced accuracy, unseen words",
        }
        present = {
            name: title for name, title in titles.items() if name in set(found.main["panel"])
        }
        return draw_lines(found.main, present or titles, looks=looks)


def _activations(asked: Asked, checkpoint: int) -> _Floats:
    """Of all words' prompts at one checkpoint, (sample, layer, neuron)."""
    parts = [
        asked.values("activation", checkpoint, word).astype(np.float32)
        for word in range(len(asked.view.words))
    ]
    return np.concatenate(parts)


def _lines(rows: pd.DataFrame) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    if not len(rows):
        return lines
    for panel, part in rows.groupby("panel", sort=False):
        start = float(part[(part["turn"] == 0) & (part["place"] == 0)]["best"].iloc[0])
        for place, here in part.groupby("place", sort=False):
            own, chance = here[here["turn"] == 0].iloc[0], here[here["turn"] > 0]["best"]
            nothing = {"low": float("nan"), "high": float("nan")}
            head = {"panel": panel, "place": place}
            bars = {name: own[name] for name in ("prompts_low", "prompts_high")}
            lines += [
                {**head, "line": "own", "value": own["best"], **nothing, **bars},
                {**head, "line": "matched", "value": own["m"], **nothing},
                {**head, "line": "first", "value": start, **nothing},
                {
                    **head,
                    "line": "chance",
                    "value": chance.mean(),
                    "low": chance.quantile(_BAND[0]),
                    "high": chance.quantile(_BAND[1]),
                },
            ]
    return lines


def _facts(lines: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    facts: dict[str, Any] = {"first_checkpoint": labels[0], "last_checkpoint": labels[-1]}
    for panel in ("by_prompts", "by_words"):
        part = lines[lines["panel"] == panel].set_index("checkpoint")
        if not len(part):
            continue
        own, band = part[part["line"] == "own"]["value"], part[part["line"] == "chance"]["high"]
        matched = part[part["line"] == "matched"]["value"]
        ends = part[part["line"] == "own"].iloc[-1]
        facts[panel] = {
            "first": float(own.iloc[0]),
            "last": float(own.iloc[-1]),
            "best": float(own.max()),
            "best_checkpoint": str(own.idxmax()),
            "chance_first": float(band.iloc[0]),
            "chance_last": float(band.iloc[-1]),
            "matched_last": float(matched.iloc[-1]),
            "prompts_low_last": float(ends["prompts_low"]),
            "prompts_high_last": float(ends["prompts_high"]),
            "learnt_at_last": bool(own.iloc[-1] > max(own.iloc[0], band.iloc[-1])),
        }
    return facts


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    said = []
    for panel, what in (("by_prompts", "other prompts"), ("by_words", "unseen words")):
        if panel not in facts:
            said.append(f"Nothing can be tested on {what}: there are too few.")
            continue
        one = facts[panel]
        verdict = "above both" if one["learnt_at_last"] else "not above both"
        low, high = one["prompts_low_last"], one["prompts_high_last"]
        bars = "" if np.isnan(low) else f" (over prompts [{low:.2f}, {high:.2f}])"
        said.append(
            f"The best {facts['top']} neurons tell groups apart on {what} with balanced accuracy "
            f"{one['last']:.2f}{bars} at {facts['last_checkpoint']} (most: {one['best']:.2f} at "
            f"{one['best_checkpoint']}); random neurons of the same layers "
            f"{one['matched_last']:.2f}, groups at random up to {one['chance_last']:.2f}, the "
            f"network at {facts['first_checkpoint']} {one['first']:.2f}: {verdict}."
        )
    return tuple(said)
