"""Same group against other groups: are the distances within groups the smaller ones?

Two statistics answer. The *share above* is the paper's (figure 4 and table 2): every word's row
of distances has its own threshold, the mean distance to the other words of its group, and what
counts is the share of other-group words beyond it. The *area under the curve* (AUC) asks only
for order: how often a same-group pair is closer than an other-group pair, ties counting half;
0.5 is nothing. For both, labels dealt out anew to the words say what chance gives.
"""

from kntrace.contrasts.compute import contrast
from kntrace.contrasts.matrix_tests import MATRIX_TESTS, TEST_COLUMNS, mantel, matrix_tests
from kntrace.contrasts.result import Contrast

__all__ = ["MATRIX_TESTS", "TEST_COLUMNS", "Contrast", "contrast", "mantel", "matrix_tests"]
