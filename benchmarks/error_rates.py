"""Error rates and power of the verdict and of every distance, from the lines of `validate.py`.

Prints the tables of docs/validation.md. With `--write` it puts them there, draws the figure, and
renews the numbers that kntrace prints with every verdict.

    python benchmarks/error_rates.py --write
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import beta, binomtest, bootstrap, kstest

from asked import FURTHER, GROUPED, LATER, NEUTRAL, TESTS, Line
from cases import CASES, FIRST_SEED, FROZEN, RECIPE, SETTINGS, Case
from kntrace.figures.style import INK, PAGE, PALE, drawing, legend, new_figure, settle, tidy

HOME = Path(__file__).parents[1]
RECORDS = HOME / "benchmarks" / "validation"
SUITES, LABELS = "suites.jsonl", "labels.jsonl"
DOCS = HOME / "docs" / "validation.md"
PICTURE = HOME / "docs" / "images" / "null-p-values.png"
NUMBERS = HOME / "src" / "kntrace" / "verdict" / "validated.json"
BEGIN, END = "<!-- from benchmarks/error_rates.py -->", "<!-- end -->"

ALPHA, LEVEL = 0.05, 0.95
# A bootstrap over fewer suites gives too narrow intervals.
FEWEST = 10
# The worlds that were there when the rule was looked for, and in which groups mean nothing.
NULLS = ("flat", "confounded", "strongly_confounded")


@dataclass(frozen=True)
class Rate:
    """So many of so many, with the exact interval of the share (Clopper and Pearson)."""

    hits: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided, 95 %."""
        found = binomtest(self.hits, self.of).proportion_ci(LEVEL, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits}/{self.of} [{100 * low:.0f}, {100 * high:.0f}]"


def read(folder: Path) -> list[Line]:
    """The lines of all suites; refuses what is not of the frozen rule, the plan and fresh seeds."""
    file = folder / SUITES
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    seen: set[tuple[str, int]] = set()
    for line in lines:
        case, key = CASES[line["case"]], (line["case"], line["seed"])
        wrong = {
            "is there twice": key in seen,
            "has a seed that was used before": line["seed"] < FIRST_SEED,
            "is of another rule": line["rule"]["commit"] != FROZEN,
            "was grown otherwise": line["recipe"] != {"world": case.world, **RECIPE, **case.recipe},
            "was scored otherwise": line["settings"] != {**SETTINGS, **case.settings},
        }
        for what, found in wrong.items():
            if found:
                raise SystemExit(f"{file}: {key[0]} {key[1]} {what}")
        seen.add(key)
    return lines


def read_labels(folder: Path) -> list[Line]:
    """What `pseudo_labels.py` found, if it was run."""
    file = folder / LABELS
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def by_case(lines: Sequence[Line]) -> Iterator[tuple[Case, list[Line]]]:
    """The lines of every case that has any, in the order of the plan."""
    for name, case in CASES.items():
        mine = [line for line in lines if line["case"] == name]
        if mine:
            yield case, mine


def counts(lines: Sequence[Line]) -> dict[str, int]:
    """How often each answer was given."""
    answers = [line["verdict"] for line in lines]
    return {answer: answers.count(answer) for answer in ("yes", "no", "cannot tell")}


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def verdicts(lines: Sequence[Line]) -> str:
    """Answers by case, both wordings together, and yes in each wording alone."""
    rows = []
    for case, mine in by_case(lines):
        found = counts(mine)
        single = [
            Rate(sum(line["verdicts"][wording]["answer"] == "yes" for line in mine), len(mine))
            for wording in (GROUPED, NEUTRAL)
        ]
        learnt = np.mean([line["learnt"][GROUPED] for line in mine])
        rows.append(
            (case.title, case.truth, *found.values(), Rate(found["yes"], len(mine)), *single,
             f"{learnt:.2f}")
        )  # fmt: skip
    head = (
        *("world", "a group shares", "yes", "no", "cannot tell", "yes, of all [95 %]"),
        *("yes, grouped wording alone", "yes, neutral wording alone", "P(answer)"),
    )
    return markdown(head, rows)


def rejections(lines: Sequence[Line], wording: str) -> str:
    """How often each test has p <= .05."""
    rows = []
    for case, mine in by_case(lines):
        rates = [
            Rate(sum(test.p(line, wording) <= ALPHA for line in mine), len(mine)) for test in TESTS
        ]
        rows.append((case.title, *rates))
    return markdown(("world", *(test.title for test in TESTS)), rows)


def further(lines: Sequence[Line]) -> str:
    """How often each further test has p <= .05, in the suites that it was recorded in."""
    having = [line for line in lines if any(test.recorded(line) for test in FURTHER)]
    if not having:
        return (
            f"None of these {len(lines)} suites has numbers for {', '.join(LATER.values())}, with "
            "or without correction, nor for any distance with word effects taken out: they were "
            "analysed before these were there, and no scores were kept to do it again. What is "
            "grown from now on has them."
        )
    cases = list(by_case(having))
    rows = []
    for test in FURTHER:
        cells = []
        for _, mine in cases:
            known = [test.p(line, GROUPED) for line in mine if test.recorded(line)]
            hits = sum(p <= ALPHA for p in known)
            cells.append(str(Rate(hits, len(known))) if known else "–")
        rows.append((test.title, *cells))
    without = [case.title for case, _ in by_case(lines) if case not in [one for one, _ in cases]]
    said = (
        f"{len(having)} of the {len(lines)} suites have numbers for these; the others were "
        "analysed before these were there."
    )
    if without:
        said += f" In no suite of: {'; '.join(without)}."
    head = ("test", *(case.title for case, _ in cases))
    return f"{said}\n\n{markdown(head, rows)}"


def uniformity(lines: Sequence[Line]) -> str:
    """Kolmogorov and Smirnov's p for "the p-values are uniform", where groups mean nothing."""
    rows = []
    for case, mine in by_case(lines):
        if case.truth != "nothing":
            continue
        found = [
            kstest([test.p(line, GROUPED) for line in mine], "uniform").pvalue for test in TESTS
        ]
        rows.append(
            (case.title, len(mine), *("< .001" if p < 0.001 else f"{p:.3f}" for p in found))
        )
    return markdown(("world", "suites", *(test.title for test in TESTS)), rows)


def state(lines: Sequence[Line]) -> str:
    """What is shown of the rate of false yes so far, and what is not."""
    said = []
    for case, mine in by_case(lines):
        if case.name in NULLS:
            rate = Rate(counts(mine)["yes"], len(mine))
            high = rate.interval[1]
            shown = "shown to be at most 5 %" if high <= ALPHA else "not shown to be 5 % or less"
            said.append(f"{case.title}: {rate}, {shown} (upper end {100 * high:.1f} %)")
    return (
        "False yes so far, with exact two-sided 95 % intervals in per cent. "
        + "; ".join(said)
        + "."
    )


def clustered(shares: Sequence[float]) -> str:
    """Mean of the suites' shares in per cent; suites, not sets of labels, are what is drawn.

    The interval is a bootstrap over suites, which a handful of them would make too narrow. Where
    no suite differs from another, it is the exact one of so many suites, as if the sets of a
    suite were all alike.
    """
    mean = f"{100 * np.mean(shares):.1f}"
    if len(shares) < FEWEST:
        return mean
    if len(set(shares)) > 1:
        found = bootstrap((shares,), np.mean, method="percentile", rng=np.random.default_rng(0))
        low, high = found.confidence_interval
    else:
        low, high = Rate(round(sum(shares)), len(shares)).interval
    return f"{mean} [{100 * low:.1f}, {100 * high:.1f}]"


def pseudo(lines: Sequence[Line]) -> str:
    """How often labels without meaning are called meaningful."""
    rows = []
    known = [(case.title, mine) for case, mine in by_case(lines) if case.name in NULLS]
    for kind, title in (("random", "random"), ("time", "along learning time")):
        for world, mine in (*known, ("all in which groups mean nothing", lines)):
            sets = [line[kind] for line in mine]
            size = len(sets[0]["p"])
            rows.append(
                (
                    *(title, world, len(mine), size * len(mine)),
                    *(
                        clustered([one[answer] / size for one in sets])
                        for answer in ("yes", "cannot tell")
                    ),
                    *(
                        clustered([float(np.mean(np.array(one["p"]) <= alpha)) for one in sets])
                        for alpha in (0.025, ALPHA)
                    ),
                )
            )
    head = (
        *("labels", "suites", "how many", "sets", "yes, %", "cannot tell, %"),
        *("p <= .025 in grouped wording, %", "p <= .05 in grouped wording, %"),
    )
    return markdown(head, rows)


def page(lines: Sequence[Line], dealt: Sequence[Line] = ()) -> str:
    """All that docs/validation.md takes from here."""
    parts = (
        f"{len(lines)} suites, seeds from {FIRST_SEED} on. Rule of commit {FROZEN}; rules tried on "
        "these seeds: 1, changed after looking: 0.",
        state(lines),
        "**Verdicts**, both wordings together, and the share of yes with its exact interval. "
        "P(answer) is that of the grouped wording at the last checkpoint.",
        verdicts(lines),
        f"**p <= {ALPHA}** by every test, grouped wording: how many suites of how many, with the "
        "exact 95 % interval in per cent.",
        rejections(lines, GROUPED),
        "The same in neutral wording:",
        rejections(lines, NEUTRAL),
        "**Further distances, and word effects taken out**, grouped wording, p <= 0.05 likewise.",
        further(lines),
        "**Are p-values uniform where groups mean nothing?** Kolmogorov-Smirnov's p, grouped "
        "wording.",
        uniformity(lines),
    )
    if dealt:
        parts += (
            "**Labels without meaning**, dealt to the words of the suites in which groups mean "
            "nothing: at random, or in the order of learning time with as much noise added. "
            f"Per cent of sets; 95 % intervals from suites, where there are {FEWEST} or more.",
            pseudo(dealt),
        )
    return "\n\n".join(parts)


def figure(lines: Sequence[Line]) -> Figure:
    """Observed p-values against those of a uniform distribution, one panel a null world."""
    shown = (
        (TESTS[0], "#D55E00", "-"),
        (TESTS[1], "#D55E00", (0, (4, 1.5))),
        (TESTS[5], "#0072B2", "-"),
        (TESTS[6], "#0072B2", (0, (4, 1.5))),
        (TESTS[-1], INK, "-"),
    )
    panels = [(case, mine) for case, mine in by_case(lines) if case.name in NULLS]
    with drawing():
        drawn = new_figure(PAGE, 70, spaced=True)
        axes = np.atleast_1d(drawn.subplots(1, len(panels), sharey=True))
        for ax, (case, mine) in zip(axes, panels, strict=True):
            size = len(mine)
            places = np.arange(1, size + 1)
            expected = (places - 0.5) / size
            low, high = (beta.ppf(q, places, size + 1 - places) for q in (0.025, 0.975))
            band = ax.fill_between(expected, low, high, color=PALE, linewidth=0)
            band.set_label("95 % of uniform p-values")
            for test, colour, dashes in shown:
                observed = np.sort([test.p(line, GROUPED) for line in mine])
                ax.plot(
                    expected, observed, color=colour, linestyle=dashes, marker=".", markersize=3,
                    label=test.title,
                )  # fmt: skip
            ax.set_title(fill(f"{case.title} ({size} suites)", 32))
            ax.set_xlabel("expected p")
            ax.set_xlim(0, 1)
            ax.set_ylim(-0.01, 1.01)
            ax.set_aspect("equal")
            tidy(ax)
        axes[0].set_ylabel("observed p")
        handles, _ = axes[0].get_legend_handles_labels()
        legend(drawn, handles, (0.04, 1.0), columns=6)
        return settle(drawn)


def numbers(lines: Sequence[Line]) -> dict[str, Any]:
    """What the package prints with every verdict."""
    return {
        "rule": FROZEN,
        "suites": [
            {"world": case.title, "shared": case.truth, **counts(mine)}
            for case, mine in by_case(lines)
        ],
    }


def main() -> None:
    """Print the page, and write it where it belongs if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=RECORDS)
    parser.add_argument("--write", action="store_true", help="docs, figure, and kntrace's numbers")
    given = parser.parse_args()
    lines = read(given.folder)
    text = page(lines, read_labels(given.folder))
    print(text)
    if given.write:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
        with drawing():
            figure(lines).savefig(PICTURE, bbox_inches="tight", metadata={"Software": None})
        NUMBERS.write_text(json.dumps(numbers(lines), indent=1) + "\n")


if __name__ == "__main__":
    main()
