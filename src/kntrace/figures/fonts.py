"""Fonts for words in any script, out of those that the machine has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from kntrace.figures.truetype import has_postscript_outlines, truetype_family

__all__ = ["families"]

# Comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew, Georgian, Armenian and more.
_BASE = "DejaVu Sans"
# Tried first, since a script's plain text face is to be preferred to whatever has its letters.
_PREFERRED = (
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "IPAexGothic",
    "IPAGothic",
    "Hiragino Sans",
    "Yu Gothic",
    "Noto Sans CJK SC",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Sans",
    "Arial Unicode MS",
)
# Drawn by matplotlib's last resort: a box that names the character's script.
_LAST = "Last Resort High-Efficiency"


def families(texts: Iterable[str]) -> list[str]:
    """List font families that between them have the characters of `texts`.

    The first has most scripts of Europe and the Near East, and comes with matplotlib; others
    follow only where they are needed and installed. What no font has is left out.
    """
    needed = {char for text in texts for char in text if _is_drawn(char)}
    needed -= _characters(_installed()[_BASE])
    chosen = [_BASE]
    for name in _others() if needed else ():
        found = needed & _characters(_installed()[name])
        if found:
            file = _installed()[name]
            foreign = has_postscript_outlines(file)
            chosen.append(truetype_family(name, file, frozenset(found)) if foreign else name)
            needed -= found
        if not needed:
            return chosen
    return [*chosen, _LAST] if needed and _LAST in _installed() else chosen


def _is_drawn(char: str) -> bool:
    # Joiners, direction marks and line breaks are no glyphs.
    return not unicodedata.category(char).startswith(("C", "Z"))


@cache
def _installed() -> dict[str, str]:
    """Family -> file of its upright, regular face."""
    found: dict[str, tuple[int, str]] = {}
    for entry in font_manager.fontManager.ttflist:
        plain = entry.style == "normal" and entry.stretch == "normal"
        weight = entry.weight if isinstance(entry.weight, int) else 400
        rank = abs(weight - 400) + (0 if plain else 1000)
        if entry.name not in found or rank < found[entry.name][0]:
            found[entry.name] = (rank, entry.fname)
    return {name: path for name, (_, path) in found.items()}


@cache
def _others() -> Sequence[str]:
    """All families of this machine but those of symbols, plain text first."""
    # Matplotlib keeps the list of fonts that it once made; what was installed since is added.
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - listed):
        # A broken or exotic file is none of our business.
        with suppress(Exception):
            font_manager.fontManager.addfont(path)
    _installed.cache_clear()
    installed = _installed()
    # Fonts of mathematical symbols know letters by other codes.
    others = sorted(name for name in installed if not name.startswith(("cm", "STIX", _LAST)))
    return tuple(dict.fromkeys([name for name in _PREFERRED if name in installed] + others))


@cache
def _characters(path: str) -> frozenset[str]:
    """Characters for which the font file has a glyph; none if it cannot be read."""
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
