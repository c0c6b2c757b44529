"""The run folder: made once, filled block by block, opened as labelled arrays.

Nothing else in kntrace imports zarr, and nothing here imports torch.
"""

from kntrace.archive.audited import audit_run, read_prints, write_print
from kntrace.archive.convergence import Convergence, convergence
from kntrace.archive.identity import shortlist
from kntrace.archive.labelled import load_array, save_array
from kntrace.archive.locks import changing, holder, sharing, writing
from kntrace.archive.mirror import is_url, mirrored, url_of
from kntrace.archive.opening import create_run, open_run, resume_run
from kntrace.archive.provenance import Session, source_config, source_state
from kntrace.archive.runs import Run
from kntrace.archive.sessions import Computing, Seen, clear_killed, read_computing
from kntrace.archive.state import CheckpointStatus, Status, status
from kntrace.archive.variables import VARIABLES, Block, Variable

__all__ = [
    "VARIABLES",
    "Block",
    "CheckpointStatus",
    "Computing",
    "Convergence",
    "Run",
    "Seen",
    "Session",
    "Status",
    "Variable",
    "audit_run",
    "changing",
    "clear_killed",
    "convergence",
    "create_run",
    "holder",
    "is_url",
    "load_array",
    "mirrored",
    "open_run",
    "read_computing",
    "read_prints",
    "resume_run",
    "save_array",
    "sharing",
    "shortlist",
    "source_config",
    "source_state",
    "status",
    "url_of",
    "write_print",
    "writing",
]
