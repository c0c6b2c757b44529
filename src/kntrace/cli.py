"""The command line: parse, call one public function, print."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table

import kntrace
from kntrace.errors import InputError, KntraceError, StoppedError
from kntrace.progress import Progress, silent

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How a language model comes to know a word.\n\n"
    "Scores every feed-forward neuron of every checkpoint of a pretraining run, follows each "
    "word's knowledge neurons through training, and says with honest statistics whether words "
    "of one group form alike. Begin with: kntrace demo",
)
# Results go to standard output, everything said on the way to standard error, so that
# `kntrace status RUN --json | jq` works.
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for the model's arithmetic.")]
World = Annotated[
    str, typer.Option(help="A world of facts: structured, flat, confounded and others.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Steps = Annotated[
    str | None,
    typer.Option(help='Which checkpoints: "paper", "all", or steps such as 0,512,1000.'),
]


@contextlib.contextmanager
def _bars(quiet: bool) -> Iterator[Progress]:
    """Draw progress with an estimate on standard error, if a person is looking.

    Ctrl-C inside becomes an error of kntrace, which typer does not swallow.
    """
    try:
        if quiet or not err.is_terminal:
            yield silent
        else:
            with RichProgress(*_COLUMNS, console=err) as bars:
                yield _Tasks(bars)
    except KeyboardInterrupt as stop:
        said = str(stop) or "Stopped. The same command goes on where it was."
        raise StoppedError(said) from None


_COLUMNS = (
    TextColumn("{task.description:<9}"),
    BarColumn(bar_width=24),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
    TextColumn("{task.fields[detail]}", markup=False),
)


class _Tasks:
    """A `Progress` that gives every stage a bar of its own."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(
                stage, total=total, completed=done, detail=detail
            )
        self._bars.update(self._tasks[stage], completed=done, total=total, detail=detail)


def _say(result: object) -> None:
    """Print a result as it describes itself; words of a study are text, never markup."""
    out.print(str(result), markup=False, soft_wrap=True)


def _tell(text: str) -> None:
    """Say on standard error what is being done."""
    err.print(text, markup=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Where to put everything.")] = Path("demo"),
    world: World = "structured",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pretraining.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Do everything once, on a model pretrained in front of you (2 to 5 minutes)."""
    from kntrace.demo import demo as run_demo

    with _bars(quiet) as progress:
        result = run_demo(out_dir, world=world, seed=seed, tell=_tell, progress=progress)
    analysis, took = result.analysis, result.seconds
    _say(analysis)
    out.print()
    parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in took.items())
    _say(f"Took {sum(took.values()):.0f} s ({parts}).")
    _say(f"Run folder  {result.run}")
    _say(f"Figures     {result.run / 'figures'}")
    _say(f"Report      {result.report}")


@app.command()
def grow(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    world: World = "structured",
    seed: Annotated[int, typer.Option(min=0, help="Of corpus and initial weights.")] = 0,
    world_seed: Annotated[
        int | None, typer.Option(min=0, help="Of the world's dealing; as --seed unless given.")
    ] = None,
    layers: Annotated[int, typer.Option(min=1)] = 4,
    hidden: Annotated[int, typer.Option(min=2, help="Width of the residual stream.")] = 128,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 600,
    batch: Annotated[int, typer.Option(min=1, help="Sentences in a step.")] = 64,
    checkpoints: Annotated[int, typer.Option(min=2, help="States to keep.")] = 20,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = 1e-3,
    quiet: Quiet = False,
) -> None:
    """Pretrain a tiny GPT-NeoX and keep its checkpoints, one Hugging Face folder each."""
    from kntrace.grow import grow as run_grow

    with _bars(quiet) as progress:
        suite = run_grow(
            folder,
            world=world,
            seed=seed,
            world_seed=world_seed,
            layers=layers,
            hidden=hidden,
            heads=heads,
            steps=steps,
            batch=batch,
            checkpoints=checkpoints,
            learning_rate=learning_rate,
            progress=progress,
        )
    _say(f"{len(suite)} checkpoints, study.yaml and suite.yaml in {folder}")


@app.command("suite")
def show_suite(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Folder, suite.yaml or hub id.")],
    steps: Steps = None,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a series."""
    series = kntrace.load_suite(suite, steps=steps)
    series.check_present()
    rows = [
        {
            "label": checkpoint.label,
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
            "source": checkpoint.source,
            "revision": checkpoint.revision,
        }
        for checkpoint in series
    ]
    if as_json:
        _print_json({"name": series.name, "checkpoints": rows})
        return
    table = Table("label", "step", "tokens seen", "revision", title=series.name, box=None)
    for row in rows:
        shown = (row["label"], row["step"], row["tokens"], row["revision"])
        table.add_row(*("" if value is None else str(value) for value in shown))
    out.print(table)


@app.command("run")
def run_sweep(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study file, or similar-words.")],
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Folder, suite.yaml or hub id.")],
    folder: Annotated[Path, typer.Option("--out", help="The run folder; resumed if it exists.")],
    steps: Steps = None,
    groups: Annotated[
        Path | None, typer.Option(help="Groups file, for a plain {word: [questions]} study.")
    ] = None,
    rule: Annotated[str, typer.Option(help="Integration rule.")] = "adaptive",
    nodes: Annotated[int, typer.Option(min=1, help="Points of a fixed rule.")] = 8,
    tolerance: Annotated[
        float, typer.Option(help="Relative error at which the rule `adaptive` stops.")
    ] = 1e-3,
    site: Annotated[str, typer.Option(help="Which tensor is the neuron.")] = "post_activation",
    objective: Annotated[
        str,
        typer.Option(help="What is attributed: probability, log_probability or logit_difference."),
    ] = "probability",
    baseline: Annotated[
        str, typer.Option(help="Where paths start: zero, mean, or FILE.npy (layer, neuron).")
    ] = "zero",
    answer_tokens: Annotated[
        str, typer.Option(help="Answers of several tokens: error, first, mean or joint.")
    ] = "error",
    dtype: Annotated[
        str,
        typer.Option(
            help="Number format: float32, float64; on a GPU also tf32, bfloat16, float16."
        ),
    ] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")] = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score every neuron of every checkpoint for every word. Run again to resume."""
    from kntrace.archive import convergence

    named = baseline in ("zero", "mean")
    settings = kntrace.Settings.of(
        rule=rule,
        nodes=nodes,
        tolerance=tolerance,
        site=site,
        objective=objective,
        answer_tokens=answer_tokens,
        baseline=baseline if named else "zero",
        dtype=dtype,
    )
    loaded = kntrace.load_study(study, groups=groups)
    series = kntrace.load_suite(suite, steps=steps)
    _tell(f"{len(loaded.words)} words x {len(series)} checkpoints into {folder}")
    with _bars(quiet) as progress:
        finished = kntrace.run(
            loaded,
            series,
            folder,
            settings=settings,
            baseline=None if named else baseline,
            device=device,
            threads=threads,
            progress=progress,
        )
        paths = convergence(finished, progress=progress)
    if as_json:
        missing = len(finished.missing())
        _print_json({"run": finished.path, "missing": missing, "unconverged": paths.missed})
        return
    if paths.missed:
        _say(f"Careful: {paths.warning}")
    _say(f"Done: {finished.path}. Next: kntrace analyse {finished.path}")


@app.command()
def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Say what a run has, lacks, and has damaged, and how well its integrals converged."""
    from kntrace.sweep import status as read_status

    found = read_status(run)
    if as_json:
        _print_json(found.to_dict())
        return
    _say(found)


@app.command()
def analyse(
    run: RunFolder,
    k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Knowledge neurons a word; by default 1000, but never more than one in forty.",
        ),
    ] = None,
    distance: Annotated[
        list[str] | None, typer.Option(help="A distance by name; may be given again.")
    ] = None,
    permutations: Annotated[int, typer.Option(min=1)] = 999,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    figures: Annotated[bool, typer.Option(help="Draw the figures too.")] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose knowledge neurons, follow their formation, compare words, test the groups."""
    from kntrace.analysis import analyse as run_analysis
    from kntrace.archive import convergence

    opened = kntrace.open_run(run)
    with _bars(quiet) as progress:
        found = run_analysis(
            opened,
            k=k,
            distances=tuple(distance) if distance else None,
            permutations=permutations,
            seed=seed,
            progress=progress,
        )
        if figures:
            from kntrace.figures import draw_all

            draw_all(found, opened.path / "figures", progress=progress)
        paths = convergence(opened, progress=progress)
    if paths.missed:
        _tell(f"Careful: {paths.warning}")
    if as_json:
        print((opened.path / "analysis" / "contrast.json").read_text(encoding="utf-8"))
        return
    _say(found)


@app.command()
def report(run: RunFolder) -> None:
    """Write report.html, one page that works offline."""
    from kntrace.analysis import load_analysis
    from kntrace.report import write_report

    opened = kntrace.open_run(run)
    _say(write_report(opened, load_analysis(opened)))


def _version(show: bool) -> None:
    if show:
        print(kntrace.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; wrong input ends in one line and exit code 2."""
    try:
        app()
    except KntraceError as error:
        kinds = {InputError: "input: ", StoppedError: ""}
        kind = next((said for of, said in kinds.items() if isinstance(error, of)), "failure: ")
        print(f"kntrace: {kind}{error}", file=sys.stderr)
        sys.exit(error.exit_code)
