"""A page in a headless Chromium without a network, and what it complained of or asked for."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "<script>alert(1)</script>"
# The first of these that is installed is driven; continuous integration sees to it that one is.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NEEDED = "KNTRACE_BROWSER"


def browser_path() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing = f"none of {', '.join(BROWSERS)} is installed"
        if os.environ.get(NEEDED) == "needed":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class Opened:
    """A page, with everything that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        shape = {"viewport": {"width": 1200, "height": 900}}
        self.context = browser.new_context(offline=True, **(shape | options))
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        # Reading the canvas, which Chromium remarks on, is this test's doing and not the page's.
        self.page.on(
            "console",
            lambda message: "Canvas2D" in message.text or self.complaints.append(message.text),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            self.page.wait_for_selector("html[data-ready]", state="attached")
        self.own = path.as_uri()

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def text(self, selector: str) -> str:
        return bare(self.page.locator(selector).inner_text())

    def cells(self, table: str, column: int) -> list[str]:
        rows = self.page.locator(f"{table} tbody tr:visible")
        return rows.locator(f":scope > :nth-child({column})").all_inner_texts()

    def over_cell(self, row: int, column: int, words: int) -> None:
        """Put the mouse on a cell, found by what is drawn: the diagonal alone is grey."""
        box = self.page.evaluate(GREY_DIAGONAL)
        side = (box["right"] - box["left"]) / words
        canvas = self.page.locator("#map-cursor")
        x, y = box["left"] + (column + 0.5) * side, box["top"] + (row + 0.5) * side
        canvas.hover(position={"x": x, "y": y})

    def quiet(self) -> None:
        """Fail if the page complained, asked for anything, or let a stranger's script run."""
        assert self.complaints == []
        assert self.dialogs == []
        assert [url for url in self.requests if not url.startswith("data:")] == [self.own]


# Where the matrix lies on the canvas, in CSS pixels.
GREY_DIAGONAL = """() => {
  const canvas = document.getElementById('map-cells');
  const ratio = canvas.width / canvas.clientWidth;
  const { data, width, height } = canvas.getContext('2d').getImageData(
    0, 0, canvas.width, canvas.height);
  let [left, top, right] = [width, height, 0];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = 4 * (y * width + x);
      if ([201, 201, 201, 255].every((part, place) => data[at + place] === part)) {
        left = Math.min(left, x); top = Math.min(top, y); right = Math.max(right, x + 1);
      }
    }
  }
  return { left: left / ratio, top: top / ratio, right: right / ratio };
}"""


def value(text: str) -> float:
    """Read a number as the page writes it, such as −1.5 × 10⁻⁵."""
    digits = str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789")
    return float(text.translate(digits).replace(" × 10", "e"))


def bare(text: str) -> str:
    """Without the marks that set a name apart from what is around it."""
    return re.sub("[\u2066-\u2069]", "", text)
