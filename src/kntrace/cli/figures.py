"""`kntrace figures`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import kntrace
from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import AsJson, FigureSize, Formats, Quiet, RunFolder, output, what
from kntrace.cli.printing import bars, print_json, say
from kntrace.errors import SettingsError

__all__ = ["draw_figures"]


@examples(
    "kntrace figures demo/run",
    "kntrace figures demo/run forest clusters --size slide --formats png,svg",
    "kntrace figures demo/run formation --word Dog --size column",
)
def draw_figures(
    run: RunFolder,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Figures to draw, such as clusters or dose; none: all but dose.",
            autocompletion=values.figures,
        ),
    ] = None,
    word: Annotated[
        str | None, what(metavar="WORD", help="The word of the figures that show one word.")
    ] = None,
    size: FigureSize = "paper",
    formats: Formats = "png,pdf",
    out: Annotated[
        Path | None,
        output(metavar="FOLDER", help="By default RUN/figures, or RUN/figures-SIZE."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Draw figures of an analysed run for a paper's column or page, or for slides.

    Beside each picture lies a text that says what it shows, for readers who cannot see it.
    """
    from kntrace.analysis import load_analysis
    from kntrace.effects import load_ablation
    from kntrace.figures import DOSE, draw_ablation, draw_all, figures_folder, find_figures

    opened, asked = kntrace.open_run(run), names or []
    chosen: dict[str, Any] = dict(find_figures([name for name in asked if name != DOSE.name]))
    of_a_word = [name for name, figure in chosen.items() if hasattr(figure, "word")]
    if word is not None:
        if not of_a_word:
            raise SettingsError(
                "--word", expected="a figure that shows one word, such as formation"
            )
        chosen |= {name: replace(chosen[name], word=word) for name in of_a_word}
    folder = out or figures_folder(opened.path, size)
    how: dict[str, Any] = {"formats": formats.split(","), "size": size}
    written = []
    with bars(quiet) as progress:
        if asked != [DOSE.name]:
            analysis = load_analysis(opened)
            written += draw_all(analysis, folder, figures=chosen, progress=progress, **how)
        if DOSE.name in asked:
            written += draw_ablation(load_ablation(opened), folder, **how)
    if as_json:
        drawn: dict[str, dict[str, Path]] = {}
        for path in written:
            drawn.setdefault(path.stem, {})[path.suffix.removeprefix(".")] = path
        print_json({"run": opened.path, "folder": folder, "size": size, "figures": drawn})
        return
    say("\n".join(map(str, written)))
