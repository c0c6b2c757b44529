"""Loading checkpoints, and one uniform view of their feed-forward neurons."""

from kntrace.models.bins import read_bin
from kntrace.models.load import LoadedCheckpoint, load_checkpoint

__all__ = ["LoadedCheckpoint", "load_checkpoint", "read_bin"]
