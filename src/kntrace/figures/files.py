"""Figures as the bytes of a file, with what they show in words inside."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_pdf import Op, PdfFile, RendererPdf
from matplotlib.figure import Figure

from kntrace.figures.style import DOTS_PER_INCH, Sheet, drawing

__all__ = ["FORMATS", "render"]

# What would make the bytes of a file depend on when and by what it was drawn.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
FORMATS = tuple(_METADATA)
# Under which names a file of each format says what it shows.
_SAYS = {
    "png": ("Title", "Description"),
    "pdf": ("Title", "Subject"),
    "svg": ("Title", "Description"),
}
_POINTS = 72
# Matplotlib repeats every text in a remark, which a control character in a word would break.
_REMARKS = re.compile(rb"\s*<!--.*?-->", re.DOTALL)


def render(figure: Figure, form: str, *, title: str = "", alt: str = "") -> bytes:
    """Render a figure as the bytes of a file; equal figures give equal bytes.

    Parameters
    ----------
    figure
        The figure, which has the size at which it was drawn.
    form
        One of `FORMATS`. Fonts are embedded in pdf as TrueType. In svg text is drawn as outlines,
        so that words in any script look the same on a machine without their fonts; what it says
        is in the description.
    title, alt
        Heading, and what is to be seen in words: kept in the file's metadata.
    """
    metadata = dict(_METADATA[form])
    for name, text in zip(_SAYS[form], (title, alt), strict=True):
        if text:
            # Words are a stranger's, and files of text allow no control characters.
            metadata[name] = "".join(char if char.isprintable() else " " for char in text)
    scale = figure.scale if isinstance(figure, Sheet) else 1.0
    with drawing():
        if form == "pdf" and scale != 1:
            return _enlarged_pdf(figure, scale, metadata)
        stream = io.BytesIO()
        options: dict[str, Any] = {"dpi": DOTS_PER_INCH}
        if form == "png":
            # More dots, as many to the inch as ever: the picture's own size is the larger one.
            options["pil_kwargs"] = {"dpi": (DOTS_PER_INCH, DOTS_PER_INCH)}
            options["dpi"] = DOTS_PER_INCH * scale
        figure.savefig(stream, format=form, metadata=metadata, **options)
    if form == "svg":
        return _enlarged_svg(_REMARKS.sub(b"", stream.getvalue()), scale)
    return stream.getvalue()


class _EnlargedFile(PdfFile):
    """A pdf file whose pages show everything `scale` times as large."""

    def __init__(self, stream: io.BytesIO, scale: float, metadata: dict[str, Any]) -> None:
        super().__init__(stream, metadata=metadata)  # type: ignore[no-untyped-call]
        self._scale = scale

    def newPage(self, width: float, height: float) -> None:  # noqa: N802 (matplotlib names it)
        super().newPage(width * self._scale, height * self._scale)  # type: ignore[no-untyped-call]
        enlarge = (self._scale, 0, 0, self._scale, 0, 0, Op.concat_matrix)
        self.output(*enlarge)  # type: ignore[no-untyped-call]


def _enlarged_pdf(figure: Figure, scale: float, metadata: dict[str, Any]) -> bytes:
    """Draw onto a page that is larger by `scale`: matplotlib's own canvas knows no such page."""
    stream, dots = io.BytesIO(), figure.dpi
    renderers: Any = (RendererPdf, MixedModeRenderer)
    file: Any = _EnlargedFile(stream, scale, metadata)
    try:
        figure.dpi = _POINTS
        width, height = figure.get_size_inches()
        file.newPage(width, height)
        picture_dots = DOTS_PER_INCH * scale
        page = renderers[0](file, picture_dots, height, width)
        renderer = renderers[1](figure, width, height, picture_dots, page)
        figure.draw(renderer)
        renderer.finalize()
        file.finalize()
        return stream.getvalue()
    finally:
        figure.dpi = dots
        file.close()


def _enlarged_svg(data: bytes, scale: float) -> bytes:
    """Let an svg be shown `scale` times as large; its own coordinates stay."""
    if scale == 1:
        return data

    def larger(found: re.Match[bytes]) -> bytes:
        value = float(found[2]) * scale
        return found[1] + f'"{value:.6f}pt"'.encode("ascii")

    start = data.index(b"<svg ")
    end = data.index(b">", start)
    head = re.sub(rb'((?:width|height)=)"([0-9.]+)pt"', larger, data[start:end])
    return data[:start] + head + data[end:]
