"""Importing kntrace, and asking it for help, costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kntrace

HEAVY = ("torch", "transformers", "zarr", "matplotlib", "plotly", "pandas", "xarray", "scipy")
FORBIDDEN = ("torch", "zarr", "matplotlib", "plotly")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_loads_nothing_heavy():
    assert loaded_after("import kntrace") == set()


def test_help_loads_nothing_heavy():
    code = "from kntrace.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass"
    assert not loaded_after(code) & set(FORBIDDEN)


def test_loading_a_study_loads_no_torch():
    assert not loaded_after("import kntrace; kntrace.load_study('similar-words')") & set(FORBIDDEN)


def test_the_tests_of_scikit_bio_load_no_torch():
    code = (
        "from kntrace.contrasts import matrix_tests\n"
        "import xarray as xr\n"
        "words = ['a', 'b', 'c', 'd']\n"
        "values = [[abs(i - j) for i in range(4)] for j in range(4)]\n"
        "dims = ('word', 'other_word')\n"
        "matrix = xr.DataArray(values, dict.fromkeys(dims, words), dims)\n"
        "matrix_tests(matrix, {'A': words[:2], 'B': words[2:]}, permutations=9)\n"
        "assert 'skbio' in sys.modules"
    )
    assert not loaded_after(code) & set(FORBIDDEN)


@pytest.mark.parametrize("name", kntrace.__all__)
def test_every_public_name_is_there_and_described(name):
    assert getattr(kntrace, name).__doc__


@pytest.mark.slow
def test_public_names_are_functions_even_after_their_modules_are_loaded():
    code = (
        "import kntrace, kntrace.contrasts, kntrace.analysis, kntrace.sweep\n"
        "assert all(callable(getattr(kntrace, name)) for name in kntrace.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_modules_stay_small():
    source = Path(kntrace.__file__).parent
    long = [
        f"{path.relative_to(source)}: {lines}"
        for path in (*source.rglob("*.py"), *source.rglob("*.js"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    ]
    assert not long
