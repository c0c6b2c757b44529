"""Score a study over a suite: plan the blocks that are missing, compute them, commit them."""

from kntrace.archive import Status, status
from kntrace.sweep.block import compute_block
from kntrace.sweep.work import run

__all__ = ["Status", "compute_block", "run", "status"]
