"""Firing: dead neurons, and neurons that fire at tokens, at sequences or at positions of a text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kntrace.documents import read_text
from kntrace.effects.statistics import jackknife
from kntrace.errors import AnalysisError
from kntrace.figures.style import TEXT, drawing, settle, tidy
from kntrace.views.base import Asked, Found, FromText
from kntrace.views.drawing import shade_unknown, step_axis
from kntrace.views.layout import lay_out
from kntrace.views.lines import SHARE, known_lines, line_table
from kntrace.views.parts import Tables

__all__ = ["Firing"]

# Shares under this are drawn as small as they are.
_LEAST = 0.05

CLASSES: dict[str, tuple[str, str, str]] = {
    "dead": ("never fire", "#6b6b6b", "o"),
    "token": ("fire at 1 to 5 tokens", "#0072B2", "s"),
    "trigram": ("fire at 1 to 50 sequences of three", "#009E73", "^"),
    "positional": ("fire at positions", "#D55E00", "D"),
}
"""Kinds of neurons: how they are called and drawn."""


@dataclass(frozen=True)
class Firing(FromText):
    """The view; see `kntrace.probes.firing`.

    Attributes
    ----------
    corpus
        A text file in UTF-8.
    length
        Tokens in a row; the model reads every row by itself.
    tokens
        How many of the text's tokens are read at most.
    rule
        When a neuron fires: `sign`, above zero; `relative`, above `share` of its own largest
        activation in the text; `auto`, the first where no activation is ever below zero (ReLU),
        else the second.
    share
        See `rule`.
    """

    corpus: str = ""
    length: int = 64
    tokens: int = 20_000
    rule: Literal["auto", "sign", "relative"] = "auto"
    share: float = 0.25
    name: str = "firing"
    title: str = "When neurons fire"
    how_to_read: str = (
        "Shares of all neurons that never fire in the text, that fire at a few tokens or "
        "sequences of three tokens alone, or whose firing hangs on the position in the row (more "
        "than 0.05 nats). Bars are 95 % intervals, from leaving out each fifth of the text. Left "
        "through training, right by layer at the last checkpoint. Dotted: the same when the "
        "places at which a neuron fires are dealt out anew, which is chance; crosses: neurons "
        "that are positional in a text whose tokens are shuffled, where no token tells the "
        "position. Where activations are smooth, firing is relative to a neuron's own largest "
        "value, and the shares of detectors hang on that rule: compare checkpoints under one "
        "rule, and with the first one, which is untrained, and not with numbers of networks with "
        "ReLU."
    )
    needs: tuple[str, ...] = ("probability",)

    def __post_init__(self) -> None:
        if self.length < 4 or self.tokens < 1:
            raise AnalysisError(
                f"length = {self.length}, tokens = {self.tokens}",
                expected="rows of 4 tokens or more, and 1 token or more",
            )
        if self.rule not in ("auto", "sign", "relative"):
            raise AnalysisError(f"rule = {self.rule!r}", expected="auto, sign or relative")
        if not 0 < self.share < 1:
            raise AnalysisError(f"share = {self.share:g}", expected="above 0 and below 1")

    def compute(self, asked: Asked) -> Found:
        """Read the text at every checkpoint; tables `layers` (a row a layer) and `lines`."""
        if not self.corpus:
            raise AnalysisError(
                "no text to read", expected="a file", fix="Give one with --set corpus=TEXT.txt."
            )
        share = {"auto": None, "sign": 0.0, "relative": self.share}[self.rule]
        rules: list[float] = [] if share is None else [share]

        def measure(place: int, opened: Any) -> Tables:
            return self._measure(asked, place, opened, rules)

        parts: list[Tables] = []
        for _, found in asked.measured(self, measure, "all", of=_digest(self.corpus)):
            # One rule for all checkpoints, which is that of the first.
            rules = rules or [float(found["text"]["share"].iloc[0])]
            parts.append(found)
        layers = pd.concat([found["layers"] for found in parts], ignore_index=True)
        text = parts[-1]["text"].iloc[0]
        count, types = int(text["rows"]), int(text["types"])
        used = f"{count} rows of {self.length} tokens, {types} different ones"
        tables = {
            "layers": layers,
            "whole": _whole(parts),
            "lines": line_table(asked, known_lines(asked)),
        }
        facts = _facts(tables["whole"]) | {"text": used, "share": rules[0], "corpus": self.corpus}
        return Found(tables, facts, _say(facts))

    def _measure(
        self, asked: Asked, place: int, opened: Any, rules: list[float]
    ) -> dict[str, pd.DataFrame]:
        how = (self.corpus, self.length, self.tokens)
        read = opened.firing(*how, rules[0] if rules else None, asked.seed)
        share = rules[0] if rules else 0.0 if read.never_negative else self.share
        if not rules:
            read = opened.firing(*how, share, asked.seed)
        rows = [
            {
                "checkpoint": asked.view.checkpoints[place],
                "step": int(asked.scores["step"].values[place]),
                "layer": int(asked.scores["layer"].values[layer]),
                **_shares(one.text),
                **_intervals(one.text, one.less),
                **{f"{name}_chance": value for name, value in _shares(one.chance).items()
                   if name in CLASSES},
                "positional_shuffled": float(one.shuffled.mean()),
            }
            for layer, one in enumerate(read.layers)
        ]  # fmt: skip
        text = pd.DataFrame([{"rows": read.rows, "types": read.types, "share": share}])
        # The mean over layers, with all of the text and less each of its stretches.
        less = [
            pd.DataFrame([_kinds(layer.less[place]) for layer in read.layers]).mean()
            for place in range(len(read.layers[0].less))
        ]
        return {"layers": pd.DataFrame(rows), "less": pd.DataFrame(less), "text": text}

    def draw(self, found: Found) -> Figure:
        """Draw the shares through training, and by layer at the last checkpoint."""
        with drawing():
            laid = lay_out(("ab",), (50.0,), _handles())
            layers = found.main
            left, right = laid.axes["a"], laid.axes["b"]
            drawn = [name for name in layers if str(name).split("_")[0] in CLASSES]
            top = max(float(np.nanmax(layers[drawn].to_numpy())), _LEAST)
            axis = step_axis(found.tables["lines"])
            place = dict(zip(axis.labels, axis.places, strict=True))
            whole = found.tables["whole"]
            _draw(left, np.array([place[str(label)] for label in whole["checkpoint"]]), whole)
            axis.apply(left, laid.widths["a"])
            shade_unknown(left, found.tables["lines"], axis)
            left.set_title("all layers, through training", loc="left", pad=3, size=TEXT)
            last = layers[layers["checkpoint"] == found.facts["last_checkpoint"]]
            _draw(right, last["layer"].to_numpy(dtype=np.float64), last)
            right.set_xlabel("layer", labelpad=2)
            right.set_xticks(sorted(last["layer"])[:: max(1, len(last) // 12)])
            right.set_title(f"by layer at {found.facts['last_checkpoint']}", loc="left", pad=3,
                            size=TEXT)  # fmt: skip
            for ax in (left, right):
                ax.set_ylabel("share of neurons", labelpad=2)
                ax.set_ylim(-0.03 * top, 1.03 * top)
                tidy(ax, grid="y")
            return settle(laid.figure, passes=2)


def _digest(corpus: str) -> str:
    """Of the text's content: parts made from another text are no parts of this one's."""
    text = read_text(corpus, AnalysisError, what="a text file")
    return hashlib.sha256(text.encode()).hexdigest()


def _shares(one: Any) -> dict[str, float]:
    """Shares of a layer's neurons of each kind, and how often and at how much they fire."""
    alive = one.frequency > 0
    return {
        "dead": float((~alive).mean()),
        "token": float(one.token.mean()),
        "trigram": float(one.trigram.mean()),
        "positional": float(one.positional.mean()),
        "frequency": float(one.frequency[alive].mean()) if alive.any() else float("nan"),
        "cover": float(np.median(one.cover[alive])) if alive.any() else float("nan"),
    }


def _kinds(one: Any) -> dict[str, float]:
    return {name: value for name, value in _shares(one).items() if name in CLASSES}


def _intervals(one: Any, less: Sequence[Any]) -> dict[str, float]:
    """Low and high end (95 %) of every kind's share, over stretches of the text."""
    found: dict[str, float] = {}
    rest = [_kinds(part) for part in less]
    for name, value in _kinds(one).items():
        about = jackknife(value, [part[name] for part in rest]).within(*SHARE)
        found |= {f"{name}_low": about.low, f"{name}_high": about.high}
    return found


def _whole(parts: Sequence[Tables]) -> pd.DataFrame:
    """A row a checkpoint: the mean over layers, with its own interval."""
    rows = []
    for found in parts:
        mean = found["layers"].mean(numeric_only=True).drop("layer")
        for name in CLASSES:
            about = jackknife(float(mean[name]), found["less"][name]).within(*SHARE)
            mean[f"{name}_low"], mean[f"{name}_high"] = about.low, about.high
        rows.append({"checkpoint": found["layers"]["checkpoint"].iloc[0], **mean})
    return pd.DataFrame(rows)


def _facts(whole: pd.DataFrame) -> dict[str, Any]:
    names = list(whole["checkpoint"])
    facts: dict[str, Any] = {
        "first_checkpoint": str(names[0]),
        "last_checkpoint": str(names[-1]),
        "checkpoints": len(names),
    }
    for when, place in (("first", 0), ("last", -1)):
        here = whole.iloc[place]
        for name in CLASSES:
            facts[f"{name}_{when}"] = float(here[name])
            for of in ("low", "high", "chance"):
                facts[f"{name}_{of}_{when}"] = float(here.get(f"{name}_{of}", float("nan")))
        for name in ("positional_shuffled", "frequency", "cover"):
            facts[f"{name}_{when}"] = float(here[name])
    return facts


def _say(facts: dict[str, Any]) -> tuple[str, ...]:
    rule = (
        "where its activation is above zero"
        if not facts["share"]
        else f"where its activation is above {facts['share']:g} of its largest in the text"
    )

    def share(kind: str, when: str) -> str:
        value, low, high = (facts[f"{kind}{of}_{when}"] for of in ("", "_low", "_high"))
        return f"{value:.1%}" + (f" [{low:.1%}, {high:.1%}]" if np.isfinite(low) else "")

    def kinds(when: str) -> str:
        return ", ".join(
            f"{share(kind, when)} {name} (by chance {facts[f'{kind}_chance_{when}']:.1%})"
            for kind, (name, _, _) in CLASSES.items()
            if kind != "dead"
        )

    return (
        f"Over {facts['text']}; a neuron fires {rule}. At {facts['last_checkpoint']} "
        f"{share('dead', 'last')} of the neurons never fire; {kinds('last')}. In shuffled text "
        f"{facts['positional_shuffled_last']:.1%} are positional.",
        f"At {facts['first_checkpoint']} {share('dead', 'first')} never fire; {kinds('first')}; "
        f"in shuffled text {facts['positional_shuffled_first']:.1%} are positional.",
        f"Alive ones fire at {facts['frequency_last']:.1%} of the tokens at "
        f"{facts['last_checkpoint']} ({facts['frequency_first']:.1%} at "
        f"{facts['first_checkpoint']}).",
    )


def _handles() -> list[Line2D]:
    shown = [
        Line2D([], [], color=colour, marker=marker, markersize=2.5, label=name)
        for name, colour, marker in CLASSES.values()
    ]
    chance = Line2D([], [], color="#6b6b6b", linestyle=":", label="the same by chance")
    crosses = Line2D([], [], color="#D55E00", marker="x", linestyle="", markersize=3,
                     label="positional in shuffled text")  # fmt: skip
    return [*shown, chance, crosses]


def _draw(ax: Axes, x: Any, table: pd.DataFrame) -> None:
    for kind, (_, colour, marker) in CLASSES.items():
        ax.plot(x, table[kind], color=colour, marker=marker, markersize=2.4, linewidth=1.0)
        ax.vlines(x, table[f"{kind}_low"], table[f"{kind}_high"], color=colour, linewidth=0.7)
        if kind != "dead":
            ax.plot(x, table[f"{kind}_chance"], color=colour, linestyle=":", linewidth=0.9)
    ax.plot(x, table["positional_shuffled"], color="#D55E00", marker="x", linestyle="",
            markersize=3)  # fmt: skip
