"""The scripts in `examples/` run as they are, on the tiny suite instead of the demonstration's."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
PAGES = [*(Path(__file__).parents[1] / "docs").rglob("*.md")]


@pytest.fixture(scope="module")
def place(tiny_suite, tiny_run, tmp_path_factory):
    """A folder that looks as if `kntrace demo` had been there."""
    home = tmp_path_factory.mktemp("examples")
    shutil.copytree(tiny_suite.folder, home / "demo" / "suite")
    shutil.copy(tiny_suite.study_file, home / "demo" / "suite" / "study.yaml")
    shutil.copytree(tiny_run.path, home / "demo" / "run")
    return home


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(script, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), {})


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_it_opens_as_a_notebook(script):
    """In the percent format, which Jupytext, VS Code and others read: cells, each some code."""
    text = script.read_text(encoding="utf-8")
    head, *cells = text.split("\n# %%")
    assert "formats: py:percent" in head
    kinds = [cell.partition("\n")[0].strip() for cell in cells]
    assert set(kinds) == {"", "[markdown]"}
    assert kinds[0] == "[markdown]"
    for kind, cell in zip(kinds, cells, strict=True):
        body = cell.partition("\n")[2]
        if kind:
            assert all(line.startswith("#") for line in body.strip().splitlines())
        else:
            assert ast.parse(body).body, cell


def test_there_are_three_and_the_docs_lead_to_each():
    assert len(EXAMPLES) == 3
    linked = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for script in EXAMPLES:
        assert f"examples/{script.name}" in linked
