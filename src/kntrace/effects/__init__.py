"""What suppressing and amplifying neurons did: settings, files, tables and summaries.

How the numbers come about lies in `kntrace.causal`; reading them needs no model.
"""

from kntrace.effects.files import (
    Recorded,
    begin,
    commit,
    load_ablation,
    read_recorded,
    where_kept,
    write_summaries,
)
from kntrace.effects.result import Ablation
from kntrace.effects.settings import SOURCES, AblationSettings, read_method

__all__ = [
    "SOURCES",
    "Ablation",
    "AblationSettings",
    "Recorded",
    "begin",
    "commit",
    "load_ablation",
    "read_method",
    "read_recorded",
    "where_kept",
    "write_summaries",
]
