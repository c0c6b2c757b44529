"""The whole study in one go, on a model pretrained in front of the reader."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kntrace.analysis import Analysis, analyse
from kntrace.errors import SuiteError
from kntrace.figures import draw_all
from kntrace.grow import grow
from kntrace.progress import Progress, silent
from kntrace.report import write_report
from kntrace.study import load_study
from kntrace.suite import load_suite
from kntrace.sweep import run as sweep
from kntrace.views import compute_views, find_views

__all__ = ["DemoResult", "demo"]


_PARTS = {"suite", "run"}
# Those that take a second or two.
_VIEWS = ("acquisition", "turnover", "threshold_sets", "agreement")


@dataclass(frozen=True)
class DemoResult:
    """Where the demonstration's results lie, and how long each part took in seconds."""

    suite: Path
    run: Path
    report: Path
    figures: tuple[Path, ...]
    analysis: Analysis = field(repr=False)
    seconds: dict[str, float]


def demo(
    out: Path | str,
    *,
    world: str = "structured",
    seed: int = 0,
    tell: Callable[[str], None] = print,
    progress: Progress = silent,
    **recipe: Any,
) -> DemoResult:
    """Grow a suite, score its neurons, analyse, draw and report.

    Parameters
    ----------
    out
        A folder; the suite goes to `out/suite`, the run to `out/run`. What is already there
        and finished is kept, so a demonstration that was stopped goes on.
    world, seed
        The world of facts (`kntrace.grow.WORLDS`) and the seed of its pretraining.
    tell
        Called with one sentence before each part.
    progress
        Told how far each part has come.
    recipe
        Further fields of `kntrace.grow.Recipe`, for a smaller or larger model.

    Raises
    ------
    KntraceError
        If `out` holds something else, or a part fails.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or {part.name for part in out.iterdir()} - _PARTS):
        raise SuiteError(
            "exists and is not a demonstration's folder", where=out, fix="Give another --out."
        )
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def done(part: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[part], started = now - started, now

    tell(f"Pretraining a small GPT-NeoX on the world {world!r}, keeping 20 checkpoints")
    grow(out / "suite", world=world, seed=seed, progress=progress, **recipe)
    done("grow")

    study, suite = load_study(out / "suite" / "study.yaml"), load_suite(out / "suite")
    prompts = sum(text is not None for word in study.words for text in study.rendered(word))
    tell(
        f"Scoring every neuron of {len(suite)} checkpoints for {len(study.words)} words "
        f"({prompts} prompts) by integrated gradients"
    )
    # Products this small gain nothing from a second thread and lose much on a busy machine.
    run = sweep(study, suite, out / "run", threads=1, progress=progress)
    done("run")

    tell("Knowledge neurons, formation processes, distances, permutation tests")
    analysis = analyse(run, progress=progress)
    done("analyse")

    tell("Other views of the same run, figures and report")
    compute_views(run, find_views(_VIEWS), progress=progress)
    done("views")

    figures = draw_all(analysis, run.path / "figures", progress=progress)
    report = write_report(run, analysis)
    done("draw")
    return DemoResult(out / "suite", run.path, report, tuple(figures), analysis, seconds)
