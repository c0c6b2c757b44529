"""The command line: parse, call one public function, print.

A command is a module with one function, and a line in `COMMANDS`. What the function needs is
imported when it runs, so that `kntrace --help` costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from typer.exceptions import TyperException

import kntrace
from kntrace.cli.ablate import ablate
from kntrace.cli.analyse import analyse
from kntrace.cli.check import check
from kntrace.cli.compact import compact
from kntrace.cli.compare import compare
from kntrace.cli.demo import demo
from kntrace.cli.export import export
from kntrace.cli.figures import draw_figures
from kntrace.cli.grow import grow
from kntrace.cli.helping import Command, Group, epilog_of, written
from kntrace.cli.misuse import misused
from kntrace.cli.plan import plan
from kntrace.cli.printing import fail
from kntrace.cli.report import report
from kntrace.cli.run import run_sweep
from kntrace.cli.status import status
from kntrace.cli.study import study_app
from kntrace.cli.suite import show_suite
from kntrace.cli.view import view
from kntrace.errors import KntraceError
from kntrace.heap import return_large_blocks

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "grow": grow,
    "check": check,
    "suite": show_suite,
    "plan": plan,
    "run": run_sweep,
    "status": status,
    "compact": compact,
    "analyse": analyse,
    "compare": compare,
    "ablate": ablate,
    "view": view,
    "figures": draw_figures,
    "report": report,
    "export": export,
}
"""Every command by name, in the order in which the help lists them."""

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How a language model comes to know a word.\n\n"
    "Scores every feed-forward neuron of every checkpoint of a pretraining run, follows each "
    "word's knowledge neurons through training, and says with honest statistics whether words "
    "of one group form alike.",
    epilog=written(
        "kntrace demo",
        "kntrace run words.yaml checkpoints/ --out my-run",
        "kntrace analyse my-run",
    ),
)
for _name, _command in COMMANDS.items():
    app.command(_name, cls=Command, epilog=epilog_of(_command))(_command)
app.add_typer(study_app, name="study")


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
    return_large_blocks()
    try:
        code = app(prog_name="kntrace", standalone_mode=False)
    except TyperException as error:
        misused(error)
    except KntraceError as error:
        fail(error)
    sys.exit(code or 0)
