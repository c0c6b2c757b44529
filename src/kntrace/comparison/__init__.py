"""Several runs side by side: seeds, sizes or suites of the same words.

One training is one case. What is found in it may be about how language models come to know
these words, or about this one seed. So the runs' own analyses are compared: whether their
distances agree, and agree in more than that the groups differ; whether their verdicts do; and
what the groups' AUC is over runs, with how far the runs differ among themselves.
"""

from kntrace.comparison.compute import compare
from kntrace.comparison.files import write_comparison
from kntrace.comparison.result import Comparison

__all__ = ["Comparison", "compare", "write_comparison"]
