"""Every example in README and docs runs, or says why it does not."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kntrace.cli import main
from kntrace.demo import demo
from kntrace.figures import FIGURES
from test_cli_manners import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("[!_]*.md"))]
FENCE = re.compile(
    r"(?P<why><!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    code: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    return [
        Block(page, found["language"], found["code"], found["reason"])
        for found in FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which `kntrace demo` was run, in small."""
    home = tmp_path_factory.mktemp("docs")
    small = {"layers": 1, "hidden": 32, "heads": 2, "steps": 4, "batch": 8, "checkpoints": 3}
    demo(home / "demo", tell=lambda _: None, **small)
    return home


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.reason:
            continue
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.code, str(page), "exec"), names)
        elif block.language == "bash":
            for line in block.code.splitlines():
                command = shlex.split(line, comments=True)
                if command and command[0] == "kntrace":
                    run(command, monkeypatch)
                elif command:
                    pytest.fail(f"{page.name}: nobody runs {line!r}; say why in a comment")


def run(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", command)
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_has_every_option_of_every_command(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from command_pages import pages

    sections = dict(re.findall(r"^## `kntrace ([\w ]+)`\n(.*?)(?=^\(|\Z)", pages(), re.M | re.S))
    for path, command in COMMANDS.items():
        told = sections.pop(" ".join(path))
        assert " ".join(command.help.split()) in " ".join(told.replace("`", "").split())
        assert f"\n    kntrace {' '.join(path)}" in told
        for parameter in command.params:
            for name in parameter.opts:
                shown = name if name.startswith("-") else parameter.metavar
                assert f"`{shown}" in told or f", {shown}" in told, (path, name)
    assert sections == {}


def test_the_readme_has_examples_to_run():
    languages = [block.language for block in blocks(ROOT / "README.md") if not block.reason]
    assert languages.count("python") >= 2
    assert "bash" in languages


def test_the_readme_pictures_a_figure_that_exists():
    pictured = re.findall(
        r"!\[[^\]]+\]\(docs/images/(\w+)\.png\)", (ROOT / "README.md").read_text()
    )
    assert pictured
    assert set(pictured) <= set(FIGURES)
