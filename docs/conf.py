"""How Sphinx builds the pages of this folder: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import kntrace

# Sphinx runs this file from another folder.
sys.path.insert(0, str(Path(__file__).parent))

from command_pages import pages

project = "kntrace"
author = "The kntrace developers"
project_copyright = author
version = release = kntrace.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.napoleon",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build", "images"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Attributes of one name (`name`, `unit`) in several classes are no mistake.
suppress_warnings = ["ref.python"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "kntrace"
html_static_path: list[str] = []
copybutton_exclude = ".linenos, .gp"

# Single backquotes in our docstrings are code, as in Markdown.
default_role = "code"

_NOTE = re.compile(r"<!-- not run:.*?-->\n", re.DOTALL)
_COMMANDS = Path(__file__).parent / "_build" / "commands.md"


def _without_notes(app: Any, name: str, text: list[str]) -> None:
    """Leave out the notes that tell the tests why an example is not run."""
    text[0] = _NOTE.sub("", text[0])


def _write_commands(app: Any) -> None:
    """Write what `--help` says of every command, for the page that includes it."""
    _COMMANDS.parent.mkdir(exist_ok=True)
    _COMMANDS.write_text(pages(), encoding="utf-8")


def setup(app: Any) -> None:
    """Register what the pages need beyond the extensions."""
    app.connect("source-read", _without_notes)
    app.connect("builder-inited", _write_commands)
