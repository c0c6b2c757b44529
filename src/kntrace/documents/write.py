"""Write YAML that `read_document` reads back to the same content."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

__all__ = ["write_yaml"]


def write_yaml(content: dict[str, Any]) -> str:
    """Return `content` (dictionaries, lists and scalars) as block YAML, in its own order."""
    yaml = YAML()
    yaml.width = 2**31  # a question stays in one line
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
