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
_LIGHT = 60_000

# Numbers of paths are in points: a hundredth of one is as fine as any screen or printer.
_COORDINATES = re.compile(rb' (d|points)="([^"]*)"')
_LONG = re.compile(rb"-?\d+\.\d{3,}")
_USELESS = re.compile(rb"<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE[^>]*>", re.DOTALL)
_BETWEEN = re.compile(rb">\s+<")


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
    kind, data = "image/svg+xml", shrunk(render(figure, "svg"))
    if len(data) > _LIGHT:
        dots = _in_256_colours(render(figure, "png"))
        kind, data = ("image/png", dots) if len(dots) < len(data) else (kind, data)
    width, height = (round(float(side) * _PIXELS_PER_INCH) for side in figure.get_size_inches())
    return Picture(
        name=drawing.name,
        title=drawing.title,
        how_to_read=drawing.how_to_read,
        alt=drawing.describe(table),
        source=f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}",
        width=width,
        height=height,
        map=drawing.distance if isinstance(drawing, DistanceMap | ContrastMap) else "",
        view="contrast" if isinstance(drawing, ContrastMap) else "distance",
    )


def shrunk(svg: bytes) -> bytes:
    """Leave out of a drawing what nobody sees: notes, spaces, and digits beyond a hundredth."""
    svg = _USELESS.sub(b"", svg)
    svg = _COORDINATES.sub(lambda found: b' %s="%s"' % (found[1], _rounded(found[2])), svg)
    return _BETWEEN.sub(b"><", svg)


def _rounded(numbers: bytes) -> bytes:
    short = _LONG.sub(lambda found: b"%g" % round(float(found[0]), 2), numbers)
    return b" ".join(short.split())


def _in_256_colours(png: bytes) -> bytes:
    """A third of the bytes: a colour map has no more colours, and text needs few."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
