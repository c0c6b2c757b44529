"""What an ablation found, in words."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import pandas as pd

from kntrace.effects.settings import SOURCES, AblationSettings, read_method

if TYPE_CHECKING:
    from kntrace.effects.result import Ablation

__all__ = ["as_text", "dose_name", "headline", "how_many", "interval", "method_name", "paragraph"]

_CARRIES = {
    "yes": "Yes: a word's own neurons carry its answer, more than other words' and random ones.",
    "no": "No: a word's own neurons carry its answer no more than others do.",
    "cannot tell": "It cannot be told whether a word's own neurons carry its answer more than "
    "others do.",
}
_AGAINST = ("matched", "other_group")
_KNOWN = 0.5
_WIDTH = 80
_DOSES_IN_A_LINE = 8


def method_name(method: str) -> str:
    """What was done to the neurons, as a verb."""
    if method in ("mean", "resample"):
        return {
            "mean": "Setting to their mean",
            "resample": "Setting to their value at another word's prompt",
        }[method]
    factor = read_method(method)[1]
    return "Silencing" if factor == 0 else f"Multiplying by {factor:g}"


def dose_name(dose: int) -> str:
    """How many neurons: `50`, or `all`."""
    return "all" if dose == 0 else str(dose)


def how_many(dose: int) -> str:
    """Which of its neurons: `its 50 strongest neurons`."""
    if dose == 0:
        return "all of its own neurons"
    return "its strongest neuron" if dose == 1 else f"its {dose} strongest neurons"


def interval(row: Any, name: str, digits: int = 2) -> str:
    """`-1.93 [-2.20, -1.66]`."""
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if math.isnan(low):
        return f"{value:.{digits}f} [–]"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def headline(summary: pd.DataFrame, contrasts: pd.DataFrame) -> tuple[str, str]:
    """The answer, and its sentence.

    Yes: the word's own neurons change its answer's log-odds more than matched random ones and
    than another group's do, in the direction that the method should, both intervals excluding
    zero. No: one of the two excludes it on the other side. Otherwise it cannot be told.
    """
    if contrasts.empty:
        return "cannot tell", _CARRIES["cannot tell"]
    factor = read_method(str(contrasts["method"].iloc[0]))[1]
    up = factor is not None and factor > 1
    found = []
    for against in _AGAINST:
        if ("own", against) not in contrasts.index:
            found.append(0)
            continue
        row = _records(contrasts)["own", against]
        low, high = row["log_odds_low"], row["log_odds_high"]
        side = 1 if low > 0 else -1 if high < 0 else 0
        found.append(side if up else -side)
    answer = "yes" if min(found) > 0 else "no" if min(found) < 0 else "cannot tell"
    return answer, _CARRIES[answer]


def paragraph(summary: pd.DataFrame, contrasts: pd.DataFrame, settings: AblationSettings) -> str:
    """The numbers behind the answer."""
    if "own" not in summary.index:
        return "Nothing was measured."
    own = _records(summary)["own"]
    where = "at every token" if settings.positions == "all" else "at the answer's position"
    said = [
        f"{method_name(str(own['method']))} {how_many(int(own['dose']))} {where} takes a word's "
        f"P(answer) from {own['probability_before']:.3f} to {own['probability']:.3f} "
        f"({own['percent']:+.1f} %; log-odds {interval(own, 'log_odds')})."
    ]
    others = [
        f"{SOURCES[source]} {row['probability']:.3f} ({row['log_odds']:+.2f})"
        for source, row in _records(summary).items()
        if source != "own"
    ]
    if others:
        said.append(f"As many others: {'; '.join(others)}.")
    for (one, other), row in _records(contrasts).items():
        low, high = float(row["log_odds_low"]), float(row["log_odds_high"])
        clear = low > 0 or high < 0
        odds, change = interval(row, "log_odds"), interval(row, "change", 3)
        end = "" if clear else ", not clear"
        said.append(
            f"{_short(one).capitalize()} minus {_short(other)}: log-odds {odds}, P {change}{end}."
        )
    said.append(
        f"Meanwhile the answers of other words of the group take {own['same_group']:+.3f}, those "
        f"of other groups {own['other_groups']:+.3f} of the probability."
    )
    if own["probability_before"] < _KNOWN:
        said.append(
            "Careful: the model hardly knows these answers, so this is not about knowledge."
        )
    return " ".join(said)


def as_text(found: Ablation) -> str:
    """All of it for a terminal: the answer, a table at the main dose, the doses."""
    main = found.main
    lines = [
        textwrap.fill(f"{main['checkpoint']}: {found.verdict}", _WIDTH),
        "",
        f"{method_name(main['method'])} {dose_name(main['dose'])} neurons "
        f"({'every token' if found.settings.positions == 'all' else 'last position'})",
    ]
    summary = found.at(found.summary, **main).set_index("source")
    contrasts = found.at(found.contrasts, **main).set_index(["of", "against"])
    head = f"{'whose':<11} {'P before':>8} {'after':>5} {'percent':>7} {'log-odds':>22} "
    head += f"{'own minus these':>22}"
    rule = "─" * len(head)
    lines += [rule, head, rule]
    paired = _records(contrasts)
    for source, row in _records(summary).items():
        against = interval(paired["own", source], "log_odds") if ("own", source) in paired else ""
        lines.append(
            f"{_short(source):<11} {row['probability_before']:>8.3f} {row['probability']:>5.3f} "
            f"{row['percent']:>+6.1f}% {interval(row, 'log_odds'):>22} {against:>22}".rstrip()
        )
    lines += [rule, *_doses(found), *_singles(found)]
    lines.append("intervals: 95 %, over words; log-odds do not saturate where P does")
    return "\n".join(lines)


def _doses(found: Ablation) -> list[str]:
    """Two lines a method: P after, by dose, own and matched; as many doses a block as fit."""
    last = found.at(found.summary, checkpoint=found.checkpoints[-1])
    after = last.set_index(["method", "dose", "source"])["probability"].to_dict()
    lines = [f"P(answer) at {found.checkpoints[-1]} by number of neurons, own and matched random:"]
    for start in range(0, len(found.settings.doses), _DOSES_IN_A_LINE):
        doses = found.settings.doses[start : start + _DOSES_IN_A_LINE]
        lines.append(" " * 19 + "".join(f"{dose_name(dose):>7}" for dose in doses))
        for method in found.settings.methods:
            for name, source in ((method, "own"), ("", "matched")):
                cells = (_number(after.get((method, dose, source), math.nan), 3) for dose in doses)
                lines.append(f"  {name:<9}{source:<8}" + "".join(f"{cell:>7}" for cell in cells))
    return lines


def _singles(found: Ablation) -> list[str]:
    if found.singles.empty:
        return []
    last = found.at(found.correlations, checkpoint=found.checkpoints[-1])
    return [
        "scores against neurons silenced one at a time, mean Spearman over words:",
        *(
            f"  {row['kind']:<7} {_number(row['probability'])} with P lost, "
            f"{_number(row['log_odds'])} with log-odds lost"
            for row in last.to_dict("records")
        ),
    ]


def _short(source: object) -> str:
    return str(source).replace("_", " ")


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _records(table: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """The rows of a table by what its index calls them."""
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return dict(zip(table.index, rows, strict=True))
