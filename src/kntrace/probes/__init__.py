"""What only the weights can tell: they are loaded again, and read or changed for a while.

Here are the measurements; what is made of them, with their controls, is in `kntrace.views`,
which needs no torch and is given a `Weights` object to ask.
"""

from kntrace.probes.opened import OpenedCheckpoint, Weights

__all__ = ["OpenedCheckpoint", "Weights"]
