"""A verdict as it must be told: with its numbers, thresholds, error rates and limits."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from kntrace.verdict.answer import Verdict
from kntrace.verdict.evidence import MEASURED_ON, VALIDATED, VALIDATED_ON, Measured
from kntrace.verdict.rule import VerdictRule

__all__ = ["account"]

_WIDTH = 80
_NAME = 16
_WORLD = 51


def account(
    verdict: Verdict, verdicts: Mapping[str, Verdict], rule: VerdictRule | None = None
) -> str:
    """Tell a verdict with all that belongs to it, in lines of at most 80 characters.

    Parameters
    ----------
    verdict
        Of all wordings together, from `combine`.
    verdicts
        By wording.
    rule
        The rule that gave them; the default one unless given.
    """
    used = rule or VerdictRule()
    title = "verdict: do words of one group form alike, beyond being learnt at the same time?"
    line = "─" * _WIDTH
    lines = [title, line, *_wrapped(f"{verdict.answer}: {verdict.reason}"), line]
    lines += [*_wordings(verdicts), line, *_wrapped(_thresholds(used))]
    lines += [*_measured(used), "Limits of this verdict:"]
    for limit in used.limits:
        lines += _wrapped(f"- {limit}", indent="  ")
    return "\n".join(lines)


def _wordings(verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    yield (
        f"{'wording':<{_NAME}} {'answer':<11} {'adj. AUC':>8} {'90 % interval':>15} "
        f"{'p':>6} {'leverage':>8} {'time':>5}"
    )
    for name, found in verdicts.items():
        interval = f"{found.low:.3f} to {found.high:.3f}"
        yield (
            f"{name[:_NAME]:<{_NAME}} {found.answer:<11} {found.adjusted_auc:>8.3f} "
            f"{interval:>15} {found.p:>6.3f} {found.leverage:>8.2f} {found.time_share:>5.0%}"
        )


def _thresholds(rule: VerdictRule) -> str:
    return (
        f'Cannot tell with leverage under {rule.min_leverage:g}; else "yes" needs p <= '
        f'{rule.alpha:g} and "no" an interval of the adjusted AUC (0.5: nothing) that ends '
        f"below {0.5 + rule.delta:g}; every wording must agree. time: share of learning time "
        "that groups explain."
    )


def _measured(rule: VerdictRule) -> Iterator[str]:
    if not rule.measured:
        return
    yield from _wrapped(f"How often it said what on {VALIDATED_ON}:")
    yield from _table(VALIDATED)
    yield from _wrapped(f"And on those that its thresholds were set on, {MEASURED_ON}:")
    yield from _table(rule.measured)
    yield '  (?: cannot tell; where groups mean nothing, the interval is of false "yes")'


def _table(measured: Sequence[Measured]) -> Iterator[str]:
    yield f"  {'world':<{_WORLD}} {'yes':>3} {'no':>3} {'?':>3} {'yes, 95 %':>10}"
    for row in measured:
        low, high = row.yes_interval
        interval = f"{100 * low:.0f}-{100 * high:.0f} %"
        yield (
            f"  {row.world[:_WORLD]:<{_WORLD}} {row.yes:>3} {row.no:>3} {row.cannot_tell:>3} "
            f"{interval:>10}"
        )


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
