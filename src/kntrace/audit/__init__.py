"""Public checkpoints are often wrong: repeated, mixed up, incomplete. This says which.

`audit_suite` reads a suite's weights, tensor by tensor; a run takes the same prints of what it
loads. `find` compares them. Nothing here imports torch.
"""

from kntrace.audit.finding import Finding
from kntrace.audit.findings import find
from kntrace.audit.papers import HARMLESS
from kntrace.audit.prints import CheckpointPrint, Problem, TensorPrint, fold, print_tensor
from kntrace.audit.reading import read_papers
from kntrace.audit.scan import Audit, audit_suite

__all__ = [
    "HARMLESS",
    "Audit",
    "CheckpointPrint",
    "Finding",
    "Problem",
    "TensorPrint",
    "audit_suite",
    "find",
    "fold",
    "print_tensor",
    "read_papers",
]
