"""A suite: the checkpoints of one training run, in the order of training.

`load_suite` finds them in a folder, in a suite file, or in a repository on the hub.
"""

from kntrace.suite.model import Checkpoint, Suite
from kntrace.suite.names import PAPER_STEPS
from kntrace.suite.sources import load_suite

__all__ = ["PAPER_STEPS", "Checkpoint", "Suite", "load_suite"]
