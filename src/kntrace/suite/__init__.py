"""A suite: the checkpoints of one training run, in the order of training.

`load_suite` finds them in a folder, in a suite file, or in a repository on the hub.
"""

from kntrace.suite.download import fetch, refuse_format
from kntrace.suite.found import Found
from kntrace.suite.known import KnownSuite, known_suites
from kntrace.suite.model import Checkpoint, Suite
from kntrace.suite.preflight import Fetch, Preflight, preflight
from kntrace.suite.revisions import cached_commits, check_revisions
from kntrace.suite.schedules import PAPER_STEPS
from kntrace.suite.sources import find_suite, load_suite
from kntrace.suite.weights import Weights, find_weights, format_in

__all__ = [
    "PAPER_STEPS",
    "Checkpoint",
    "Fetch",
    "Found",
    "KnownSuite",
    "Preflight",
    "Suite",
    "Weights",
    "cached_commits",
    "check_revisions",
    "fetch",
    "find_suite",
    "find_weights",
    "format_in",
    "known_suites",
    "load_suite",
    "preflight",
    "refuse_format",
]
