"""What a file says of an object, held against what the object's class declares."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

__all__ = ["declared"]


def declared(kind: type, entries: Mapping[str, Any], *elsewhere: str) -> dict[str, Any]:
    """Return `entries` if they are what the dataclass `kind` declares, number for number.

    Parameters
    ----------
    elsewhere
        Fields that do not come from the file.

    Raises
    ------
    ValueError
        If one is missing, unknown or of another type.
    """
    return _model(kind, elsewhere).model_validate(dict(entries)).model_dump()


@cache
def _model(kind: type, elsewhere: tuple[str, ...]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (hint, ...) for name, hint in get_type_hints(kind).items() if name not in elsewhere
    }
    config = ConfigDict(strict=True, extra="forbid")
    return create_model(kind.__name__, __config__=config, **fields)
