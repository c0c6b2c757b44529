"""Tables that people bring along: csv files with a header."""

from __future__ import annotations

import csv
from pathlib import Path

from kntrace.errors import InputError

__all__ = ["Rows", "read_csv"]

Rows = list[dict[str, str]]

# A larger file is something else than a table by hand.
_LARGEST = 200_000_000


def read_csv(path: Path, error: type[InputError], expected: str) -> tuple[list[str], Rows]:
    """Read the header and the rows of a csv file (UTF-8, comma), all cells as text.

    Raises
    ------
    InputError
        `error`, saying what was `expected`: if the file cannot be read or is larger than 200
        MB, if a column stands there twice, or if a row has more or fewer cells than the header.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise error("too large for a table of its kind", where=path, expected=expected)
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file, strict=True)
            header = [name.strip() for name in next(table, [])]
            lines = [row for row in table if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as problem:
        said = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise error(f"cannot be read: {said}", where=path, expected=expected) from None
    for name in header:
        if header.count(name) > 1:
            raise error(f"two columns {name!r}", where=path, expected="each column once")
    for number, row in enumerate(lines, start=2):
        if len(row) != len(header):
            raise error(
                f"row {number} has {len(row)} cells",
                where=path,
                expected=f"{len(header)}, as the header has",
            )
    return header, [
        {name: cell.strip() for name, cell in zip(header, row, strict=True)} for row in lines
    ]
