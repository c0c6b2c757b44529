"""Which p-values the tables of `error_rates.py` are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GROUPED, NEUTRAL = "grouped", "neutral"
Line = dict[str, Any]
"""What `validate.py` keeps of a suite."""


@dataclass(frozen=True)
class Test:
    """One way to ask for a p-value.

    Attributes
    ----------
    title
        Of its column.
    distance
        As the lines call it; None: the verdict's own p.
    key
        Which of the distance's p-values.
    """

    title: str
    distance: str | None
    key: str = "p"

    def p(self, line: Line, wording: str) -> float:
        """Its p-value in one suite."""
        if self.distance is None:
            return float(line["verdicts"][wording]["p"])
        return float(line["overall"][wording][self.distance][self.key])

    def recorded(self, line: Line) -> bool:
        """Whether the suite was analysed by it."""
        return self.distance is None or self.distance in line["overall"][GROUPED]


TESTS = (
    Test("emd", "emd"),
    Test("emd, curves regressed out", "emd | probability_curve"),
    Test("emd, the paper's share", "emd", "share_p"),
    Test("W1", "emd_euclidean"),
    Test("W1, curves regressed out", "emd_euclidean | probability_curve"),
    Test("identity", "identity"),
    Test("identity, curves regressed out", "identity | probability_curve"),
    Test("curves alone", "probability_curve"),
    Test("identity, the rule's test", None),
)

_KNOWN = {"emd": "emd", "emd_euclidean": "W1", "identity": "identity"}
LATER = {
    "w2": "W2",
    "emd_over_probability": "emd of scores / P(answer)",
    "sliced": "sliced Wasserstein",
    "jaccard": "Jaccard",
    "cosine": "plain cosine",
}
# What kntrace had later than the first suites, whose lines have no numbers for it.
FURTHER = (
    *(Test(f"{title}, word effects out", f"{name} | hub") for name, title in _KNOWN.items()),
    *(
        Test(f"{title}{said}", f"{name}{correction}")
        for name, title in LATER.items()
        for correction, said in (
            ("", ""),
            (" | probability_curve", ", curves regressed out"),
            (" | hub", ", word effects out"),
        )
    ),
)
