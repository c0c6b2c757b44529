"""Figures as the page shows them: drawings or pictures, whichever is lighter."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image

from kntrace.figures import ContrastMap, DistanceMap, DoseCurves, Drawing, render
from kntrace.views import View

__all__ = ["Picture", "picture", "shrunk"]

# An inch of a figure in CSS pixels: larger than life, for reading on a screen.
_PIXELS_PER_INCH = 155
# A drawing up to this size is taken even if a picture were smaller, since it stays sharp.
_LIGHT = 80_000
# A picture above this size, which is one of hundreds of words, has a quarter of the colours.
_HEAVY = 150_000

# Numbers of paths are in points: a hundredth of one is as fine as any screen or printer.
_COORDINATES = re.compile(rb' (d|points)="([^"]*)"')
_LONG = re.compile(rb"-?\d+\.\d{3,}")
_USELESS = re.compile(rb"<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE[^>]*>", re.DOTALL)
_BETWEEN = re.compile(rb">\s+<")
_INSIDE = re.compile(rb"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
# A map of more words than this has cells of about a dot, and so many colours.
_MANY, _FEW = 250, 16
# What must not stand in an address as it is.
_ESCAPED = str.maketrans({char: f"%{ord(char):02X}" for char in '%#<>"'})


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it; `map` and `view` where the page's script can show it too."""

    name: str
    title: str
    how_to_read: str
    alt: str
    source: str
    width: int
    height: int
    map: str = ""
    view: str = ""


def picture(drawing: Drawing | DoseCurves | View, subject: Any) -> Picture:
    """Draw a figure of `subject`, which is an analysis, an ablation or what a view found."""
    table: Any = drawing.prepare(subject)
    figure = drawing.draw(table)
    for image in (image for ax in figure.axes for image in ax.images):
        # One dot a cell, to be enlarged by the browser: nothing is lighter, or sharper.
        image.set_interpolation("none")
    source = _as_text(shrunk(render(figure, "svg")))
    if len(source) > _LIGHT:
        png = render(figure, "png")
        dots = _in_base64(_in_colours(png, 256))
        dots = dots if len(dots) <= _HEAVY else _in_base64(_in_colours(png, 64))
        source = min(source, dots, key=len)
    width, height = (round(float(side) * _PIXELS_PER_INCH) for side in figure.get_size_inches())
    return Picture(
        name=drawing.name,
        title=drawing.title,
        how_to_read=drawing.how_to_read,
        alt=drawing.describe(table),
        source=source,
        width=width,
        height=height,
        map=drawing.distance if isinstance(drawing, DistanceMap | ContrastMap) else "",
        view="contrast" if isinstance(drawing, ContrastMap) else "distance",
    )


def shrunk(svg: bytes) -> bytes:
    """Leave out of a drawing what nobody sees: notes, spaces, and digits beyond a hundredth."""
    svg = _INSIDE.sub(_lighter, _USELESS.sub(b"", svg))
    svg = _COORDINATES.sub(lambda found: b' %s="%s"' % (found[1], _rounded(found[2])), svg)
    return _BETWEEN.sub(b"><", svg)


def _rounded(numbers: bytes) -> bytes:
    short = _LONG.sub(lambda found: b"%g" % round(float(found[0]), 2), numbers)
    return b" ".join(short.split())


def _as_text(svg: bytes) -> str:
    """Put a drawing into an address as the text that it is, which is shorter than base64."""
    return "data:image/svg+xml," + svg.decode("utf-8").translate(_ESCAPED)


def _in_base64(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _lighter(found: re.Match[bytes]) -> bytes:
    """Give a map inside a drawing as few colours as a reader of so many cells tells apart."""
    data = base64.b64decode(re.sub(rb"\s", b"", found[1]))
    with Image.open(io.BytesIO(data)) as image:
        opaque = image.mode != "RGBA" or image.getchannel("A").getextrema()[0] == 255
        cells = max(image.size)
    if not opaque:
        return found[0]
    few = _in_colours(data, _FEW if cells > _MANY else 256)
    return found[0] if len(few) >= len(data) else _in_base64(few).encode("ascii")


def _in_colours(png: bytes, colours: int) -> bytes:
    """A third of the bytes: a colour map has no more than 256 colours, and text needs few."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
