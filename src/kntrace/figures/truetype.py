"""Fonts with TrueType outlines, made of those whose outlines are of another kind.

Matplotlib puts every font into a pdf file as if it were TrueType. Fonts for Chinese, Japanese
and Korean often are not: their outlines are PostScript's (CFF). Some readers show such a file
all the same and some warn; others refuse the font. So a small copy with the outlines of the
characters at hand turned into TrueType's is used instead.
"""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import font_manager

__all__ = ["has_postscript_outlines", "truetype_family"]

# How far a turned outline may lie from the original, as a share of the font's size.
_ERROR = 0.001


@cache
def has_postscript_outlines(file: str) -> bool:
    """Whether the font file has outlines of PostScript's kind; of a collection, its first."""
    with Path(file).open("rb") as stream:
        head = stream.read(16)
        if head.startswith(b"ttcf"):
            stream.seek(int.from_bytes(head[12:16], "big"))
            head = stream.read(4)
    return head.startswith(b"OTTO")


@cache
def truetype_family(family: str, file: str, characters: frozenset[str]) -> str:
    """Make a font of these characters alone, with TrueType outlines, and return its family.

    Parameters
    ----------
    family, file
        Of the font with outlines of PostScript's kind.
    characters
        What is to be written in it.

    Notes
    -----
    Cost: 1 to 2 s for a font of 65,000 glyphs, once for the same characters. The copy lies in a
    temporary folder that goes with the process.
    """
    from fontTools.pens.cu2quPen import Cu2QuPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import newTable

    font = _face(family, file)
    options = Options()
    options.notdef_outline = True
    # Names of characters in other scripts' layouts are of no use to a few words.
    options.drop_tables += ["VORG", "vhea", "vmtx", "GSUB", "GPOS", "BASE", "DSIG"]
    subsetter = Subsetter(options)
    subsetter.populate(text="".join(sorted(characters)))
    subsetter.subset(font)
    order, drawn = font.getGlyphOrder(), font.getGlyphSet()
    outlines: dict[str, Any] = {}
    for name in order:
        pen = TTGlyphPen(None)
        drawn[name].draw(Cu2QuPen(pen, _ERROR * font["head"].unitsPerEm, reverse_direction=True))
        outlines[name] = pen.glyph()
    font["loca"], font["glyf"] = newTable("loca"), newTable("glyf")
    font["glyf"].glyphOrder, font["glyf"].glyphs = order, outlines
    del font["CFF "]
    largest = font["maxp"]
    largest.tableVersion = 0x00010000
    for name in _LIMITS:
        setattr(largest, name, 0)
    largest.maxZones = 1
    font["post"].formatType = 3.0
    font.sfntVersion = "\x00\x01\x00\x00"
    # What a file is made of must not depend on when it was made.
    font.recalcTimestamp = False
    of = hashlib.sha256("".join(sorted(characters)).encode()).hexdigest()[:12]
    named = f"{family} {of}"
    for kind in (1, 4, 16):
        font["name"].setName(named, kind, 3, 1, 0x409)
        font["name"].removeNames(nameID=kind, platformID=1)
    path = Path(_temporary().name) / f"{family} {of}.ttf"
    font.save(path)
    font.close()
    font_manager.fontManager.addfont(path)
    return named


# Of instructions, which the copy has none of, and of composites, which it has none of either.
_LIMITS = (
    *("maxTwilightPoints", "maxStorage", "maxFunctionDefs", "maxInstructionDefs"),
    *("maxStackElements", "maxSizeOfInstructions", "maxComponentElements", "maxComponentDepth"),
    *("maxPoints", "maxContours", "maxCompositePoints", "maxCompositeContours"),
)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kntrace-fonts-", ignore_cleanup_errors=True)


def _face(family: str, file: str) -> Any:
    """The font of this family in a file that may be a collection."""
    from fontTools.ttLib import TTCollection, TTFont

    if Path(file).read_bytes()[:4] != b"ttcf":
        return TTFont(file, lazy=True)
    collection = TTCollection(file, lazy=True)
    for font in collection:
        # Its fonts share one open file, which whoever gets one of them closes.
        if family in (font["name"].getDebugName(1), font["name"].getDebugName(16)):
            return font
    collection.close()
    return TTFont(file, fontNumber=0, lazy=True)
