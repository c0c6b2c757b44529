"""`kntrace analyse`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import kntrace
from kntrace.cli.options import (
    AsJson,
    PresetName,
    Quiet,
    RunFolder,
    Workers,
    given,
    usable_processors,
)
from kntrace.cli.printing import bars, say, tell

__all__ = ["analyse"]


def analyse(
    context: typer.Context,
    run: RunFolder,
    preset: PresetName = None,
    k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Knowledge neurons a word; by default 1000, but never more than one in forty.",
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="Another choice of neurons than the k strongest: threshold:T:MIN (at least T "
            "times a prompt's largest score, in MIN prompts or more)."
        ),
    ] = None,
    distance: Annotated[
        list[str] | None,
        typer.Option(
            help="A distance by name; may be given again. There are emd, emd_euclidean (w1), w2, "
            "emd_public_code, emd_over_probability, sliced, jaccard, identity, cosine, "
            "probability_curve."
        ),
    ] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE[:COLUMN]",
            help="Take out of every distance what this explains: word_length, answer_tokens, "
            "token_id, learning_time, or a csv file with a number for every word or pair of "
            "words; may be given again.",
        ),
    ] = None,
    averaging: Annotated[
        str, typer.Option(help="How prompts make one score: every_prompt or public_code.")
    ] = "every_prompt",
    permutations: Annotated[int, typer.Option(min=1)] = 999,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    figures: Annotated[bool, typer.Option(help="Draw the figures too.")] = True,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose knowledge neurons, follow their formation, compare words, test the groups."""
    from kntrace.analysis import analyse as run_analysis
    from kntrace.archive import convergence

    opened = kntrace.open_run(run)
    options: dict[str, Any] = {
        "k": k,
        "distances": tuple(distance) if distance else None,
        "averaging": averaging.replace("-", "_"),
    }
    if preset is not None:
        if "averaging" not in given(context, ["averaging"]):
            del options["averaging"]
        options = kntrace.find_preset(preset).analysis(opened, **options)
    with bars(quiet) as progress:
        found = run_analysis(
            opened,
            **options,
            select=select,
            covariates=tuple(covariate or ()),
            permutations=permutations,
            seed=seed,
            workers=workers or usable_processors(),
            progress=progress,
        )
        if figures:
            from kntrace.figures import draw_all

            draw_all(found, opened.path / "figures", progress=progress)
        paths = convergence(opened, progress=progress)
    if paths.missed:
        tell(f"Careful: {paths.warning}")
    if as_json:
        print((opened.path / "analysis" / "contrast.json").read_text(encoding="utf-8"))
        return
    say(found)
