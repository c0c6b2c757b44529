"""What a run folder says of its arrays, before anything acts on it.

The folder may come from a stranger, and what describes an array decides how much memory it
takes, which codecs read it and where its chunks lie. So the description is read as plain JSON
and held against the one kntrace itself would write; zarr opens only what is equal to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.metadata import ArrayV3Metadata

from kntrace.archive.bounded import LARGEST_CHUNK
from kntrace.archive.folder import names
from kntrace.archive.plain import read_plain
from kntrace.archive.variables import EVERY_VARIABLE, MEANS
from kntrace.documents import parse_json
from kntrace.errors import RunError
from kntrace.settings import Settings

__all__ = ["differing", "read_attributes", "read_shape", "refuse_large", "refuse_strange"]

_NAME = "zarr.json"
_MOST_BYTES = 2**20
_LARGEST_SIDE = 2**31
_MOST_NUMBERS = 2**28
_CODECS = (("bytes", "zstd", "crc32c"), ("vlen-utf8", "zstd", "crc32c"))
_FORMS = ("string", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
_FORMS = (*_FORMS, "float32", "float64")


def read_attributes(scores: Path) -> dict[str, Any]:
    """Read the attributes of the archive itself."""
    head = _read(scores)
    if head.get("zarr_format") != 3 or head.get("node_type") != "group":
        raise _unreadable(scores, "no group of zarr format 3")
    found = head.get("attributes")
    if not isinstance(found, dict) or "kntrace_format" not in found:
        raise _unreadable(scores, "it has no format of kntrace")
    return found


def read_shape(scores: Path) -> tuple[int, int, int]:
    """Read how many layers the model has, neurons in each, and how many of a word are kept.

    The last is 0 where all of them are.
    """
    # Which arrays it has is in the settings, which are held against the description later.
    if (scores / "kept_neuron").is_dir():
        sides, kept = _sides(scores, "baseline"), _sides(scores, "kept_neuron")["kept"]
    else:
        name = "score" if (scores / "score").is_dir() else MEANS["score"]
        sides, kept = _sides(scores, name), 0
    return sides["layer"], sides["neuron"], kept


def _sides(scores: Path, name: str) -> dict[str, int]:
    shape, dims = _read(scores / name).get("shape"), EVERY_VARIABLE[name].dims
    if (
        not isinstance(shape, list)
        or len(shape) != len(dims)
        or not all(type(side) is int and 0 < side < _LARGEST_SIDE for side in shape)
    ):
        raise _unreadable(scores / name, "it has no shape that scores can have")
    return dict(zip(dims, shape, strict=True))


def refuse_large(where: Path, sizes: Mapping[str, int], settings: Settings) -> None:
    """Raise `RunError` if the scores of one block are more than a chunk may hold."""
    over = "mean_over" if settings.keep == "means" else "prompt"
    numbers = sizes[over] * (sizes["kept"] or sizes["layer"] * sizes["neuron"])
    if 4 * numbers > LARGEST_CHUNK:
        raise RunError(
            f"{numbers:,} scores a word and checkpoint ({sizes[over]:,} "
            f"{'prompts' if over == 'prompt' else 'wordings'}, "
            f"{sizes['layer']:,} layers of {sizes['neuron']:,} neurons)",
            where=where,
            expected=f"at most {LARGEST_CHUNK // 4:,}",
        )


def differing(scores: Path, expected: Mapping[str, ArrayV3Metadata]) -> list[str]:
    """Name the arrays that are absent, too many, or otherwise described than `expected`."""
    there = {name for name in names(scores) if (scores / name).is_dir()}
    return sorted(
        name
        for name in there | expected.keys()
        if name not in there or name not in expected or not _alike(scores / name, expected[name])
    )


def refuse_strange(folder: Path, sizes: Mapping[str, int] | None) -> None:
    """Raise `RunError` unless zarr may open the arrays in `folder`, which `save_array` wrote.

    They have to use its codecs, no more chunks than entries along the first dimension, and the
    `sizes`, or where those are not known a size that fits any memory.
    """
    for name in names(folder):
        array = folder / name
        if not array.is_dir():
            continue
        try:
            why = _strange(ArrayV3Metadata.from_dict(_read(array)), sizes)
        except RunError as error:
            why = error.found
        except Exception as error:
            why = f"it is described in no way that zarr knows: {error}"
        if why:
            raise RunError(
                f"cannot be read: {why}", where=array, fix="Remove it and make it again."
            )


def _strange(said: ArrayV3Metadata, sizes: Mapping[str, int] | None) -> str | None:
    shape, form, grid = said.shape, said.to_dict()["data_type"], said.chunk_grid
    if tuple(codec.to_dict().get("name") for codec in said.codecs) not in _CODECS:
        return "other codecs than kntrace writes"
    if form not in _FORMS:
        return f"numbers of the form {form!r}"
    if prod(shape) > _MOST_NUMBERS:
        return f"{prod(shape):,} numbers"
    if not isinstance(grid, RegularChunkGrid) or 0 in grid.chunk_shape:
        return "chunks of different sizes"
    if prod(grid.chunk_shape) > max(prod(shape), 1):
        return "chunks larger than the array"
    if prod(-(-n // m) for n, m in zip(shape, grid.chunk_shape, strict=True)) > max((1, *shape)):
        return "more chunks than kntrace writes"
    dims = dict(zip(said.dimension_names or (), shape, strict=False))
    if sizes is not None and any(sizes.get(str(dim)) != size for dim, size in dims.items()):
        return f"its size is {dims}, not {dict(sizes)}"
    return None


def _alike(array: Path, expected: ArrayV3Metadata) -> bool:
    try:
        found = ArrayV3Metadata.from_dict(_read(array))
        return _essence(found) == _essence(expected)
    except RunError:
        raise
    except Exception:
        # What is no description at all fails anywhere inside zarr, with any error.
        return False


def _essence(metadata: ArrayV3Metadata) -> dict[str, Any]:
    said = {**metadata.to_dict(), "attributes": {}}
    said["codecs"] = [codec.to_dict() for codec in metadata.codecs]
    return said


def _read(folder: Path) -> dict[str, Any]:
    file = folder / _NAME
    try:
        content = parse_json(read_plain(file, _MOST_BYTES).decode(), str(file), RunError)
    except (OSError, ValueError, RunError) as error:
        why = error.found if isinstance(error, RunError) else str(error)
        raise _unreadable(file, why) from None
    if not isinstance(content, dict):
        raise _unreadable(file, "no set of entries")
    return content


def _unreadable(where: Path, why: str) -> RunError:
    return RunError(
        f"the archive's description cannot be read ({why})",
        where=where,
        fix="Bring the folder back from a copy, or remove it and run again.",
    )
