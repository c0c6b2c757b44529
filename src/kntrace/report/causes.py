"""The part of the report on what happens when neurons are suppressed and amplified."""

from __future__ import annotations

from dataclasses import dataclass

from kntrace.archive import Run
from kntrace.effects import SOURCES, Ablation, load_ablation, where_kept
from kntrace.effects.story import dose_name, interval
from kntrace.errors import AnalysisError
from kntrace.report.tables import Table, share

__all__ = ["Causes", "causes"]


@dataclass(frozen=True)
class Causes:
    """What is said of an ablation.

    Attributes
    ----------
    verdict, text
        The answer in a sentence, and the numbers behind it.
    tables
        Every method at the main dose; single neurons, if any were silenced.
    ablation
        What the figure is drawn from; None where it cannot be shown, then `text` says why.
    """

    verdict: str
    text: str
    tables: tuple[Table, ...] = ()
    ablation: Ablation | None = None


def causes(run: Run) -> Causes | None:
    """Read the run's ablation; None if there is none."""
    if not where_kept(run).is_dir():
        return None
    try:
        found = load_ablation(run)
    except AnalysisError as error:
        return Causes("The ablation that is kept with this run is not shown.", f"{error}")
    singles = () if found.correlations.empty else (_singles(found),)
    return Causes(found.verdict, found.text, (_effects(found), *singles), found)


def _effects(found: Ablation) -> Table:
    main, settings = found.main, found.settings
    rows: list[tuple[str, ...]] = []
    marked: set[int] = set()
    for method in settings.methods:
        cell = main | {"method": method}
        paired = found.at(found.contrasts, **cell)
        for row in found.at(found.summary, **cell).to_dict("records"):
            against = paired[(paired["of"] == "own") & (paired["against"] == row["source"])]
            if row["source"] == "own":
                marked.add(len(rows))
            rows.append(
                (
                    *(method, SOURCES[row["source"]], f"{row['neurons']:.0f}"),
                    *(f"{row['shared']:.1f}", share(row["size"], 2)),
                    *(share(row["probability"]), f"{row['percent']:+.1f} %".replace("-", "−")),
                    interval(row, "log_odds").replace("-", "−"),
                    *(
                        interval(one, "log_odds").replace("-", "−")
                        for one in against.to_dict("records")
                    ),
                    *(() if len(against) else ("",)),
                    *(share(row["no_longer_first"], 2),),
                )
            )
    where = "every token" if settings.positions == "all" else "the answer's position alone"
    own = found.at(found.summary, **main, source="own")
    before = share(float(own["probability_before"].iloc[0])) if len(own) else "–"
    return Table(
        f"{dose_name(main['dose'])} neurons by {settings.select} changed together at {where}, "
        f"checkpoint {main['checkpoint']}, {settings.wording} wording; P(answer) as it is: "
        f"{before}. Shared: how many of them are the word's own too. Size: their mean absolute "
        "activation. Intervals: 95 %, over words. No longer first: of the prompts whose answer "
        "came first, the share in which it no longer does.",
        (
            *("method", "whose neurons", "neurons", "shared", "size", "P(answer)", "change"),
            *("change of log-odds", "own minus these", "no longer first"),
        ),
        tuple(rows),
        text=frozenset({0, 1}),
        long=frozenset({1}),
        marked=frozenset(marked),
    )


def _singles(found: Ablation) -> Table:
    rows = [
        (
            *(str(row["checkpoint"]), str(row["kind"]), f"{row['neurons']:.0f}", str(row["words"])),
            *(share(row["probability"], 2), share(row["log_odds"], 2)),
        )
        for row in found.correlations.to_dict("records")
    ]
    return Table(
        "Scores against what the answer loses when one neuron alone is silenced: mean over words "
        "of Spearman's correlation. Where P saturates one neuron is hardly missed, so a low "
        "number says little; joint silencing is the check.",
        (
            *("checkpoint", "neurons", "per word", "words"),
            *("with P lost", "with log-odds lost"),
        ),
        tuple(rows),
        text=frozenset({0, 1}),
    )
