"""The page's script, which is the only one that the page lets run."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

__all__ = ["policy", "script"]

# In this order; together they are one script, whose names are its own.
_PARTS = ("basics.js", "data.js", "charts.js", "map.js", "word.js", "tables.js", "main.js")


def script() -> str:
    """Put the parts together."""
    folder = files(__name__)
    parts = [folder.joinpath(name).read_text(encoding="utf-8") for name in _PARTS]
    return "\n".join(['(() => {\n"use strict";', *parts, "})();\n"])


def policy() -> str:
    """Say what the page may do: run this very script, show what it carries, and nothing else."""
    digest = hashlib.sha256(script().encode("utf-8")).digest()
    known = base64.b64encode(digest).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{known}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
