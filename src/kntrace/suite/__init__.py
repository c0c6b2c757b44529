"""A suite: the checkpoints of one training run, in the order of training.

`load_suite` finds them in a folder, in a suite file, or in a repository on the hub.
"""

from kntrace.suite.found import Found
from kntrace.suite.known import KnownSuite, known_suites
from kntrace.suite.model import Checkpoint, Suite
from kntrace.suite.revisions import check_revisions
from kntrace.suite.schedules import PAPER_STEPS
from kntrace.suite.sources import find_suite, load_suite
from kntrace.suite.weights import Weights, find_weights

__all__ = [
    "PAPER_STEPS",
    "Checkpoint",
    "Found",
    "KnownSuite",
    "Suite",
    "Weights",
    "check_revisions",
    "find_suite",
    "find_weights",
    "known_suites",
    "load_suite",
]
