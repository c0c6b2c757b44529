"""`kntrace analyse`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

import kntrace
from kntrace.cli import values
from kntrace.cli.helping import examples
from kntrace.cli.options import (
    AsJson,
    Figures,
    Permutations,
    PresetName,
    Quiet,
    RunFolder,
    Seed,
    Select,
    Workers,
    given,
    usable_processors,
    what,
)
from kntrace.cli.printing import bars, print_json, say, tell, warn

__all__ = ["analyse"]


@examples(
    "kntrace analyse demo/run",
    "kntrace analyse demo/run --distance identity --distance w2 --k 50",
    "kntrace analyse demo/run --covariate word_length --no-figures --json",
)
def analyse(
    context: typer.Context,
    run: RunFolder,
    preset: PresetName = None,
    k: Annotated[
        int | None,
        what(
            metavar="N",
            min=1,
            help="Knowledge neurons a word; by default 1000, but never more than one in forty.",
        ),
    ] = None,
    select: Select = None,
    distance: Annotated[
        list[str] | None,
        what(
            metavar="NAME",
            help="A distance by name; may be given again. There are emd, emd_euclidean (w1), w2, "
            "emd_public_code, emd_over_probability, emd_bound, sliced, jaccard, identity, "
            "cosine, probability_curve.",
            autocompletion=values.of(values.DISTANCES),
        ),
    ] = None,
    covariate: Annotated[
        list[str] | None,
        what(
            metavar="NAME|FILE[:COLUMN]",
            help="Take out of every distance what this explains: word_length, answer_tokens, "
            "token_id, learning_time, or a csv file with a number for every word or pair of "
            "words; may be given again.",
            autocompletion=values.of(values.COVARIATES),
        ),
    ] = None,
    averaging: Annotated[
        str,
        what(
            metavar="HOW",
            help="How prompts make one score: every_prompt or public_code.",
            autocompletion=values.of(values.AVERAGINGS),
        ),
    ] = "every_prompt",
    permutations: Permutations = 999,
    seed: Seed = 0,
    workers: Workers = None,
    figures: Figures = True,
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
    checkpoints, words = opened.shape
    tell(
        f"Comparing {words} words ({words * (words - 1) // 2:,} pairs) over {checkpoints} "
        f"checkpoints, with {permutations} permutations a test, into {opened.path / 'analysis'}"
    )
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
            tell=tell,
        )
        if figures:
            from kntrace.figures import draw_all

            draw_all(found, opened.path / "figures", progress=progress)
        paths = convergence(opened, progress=progress)
    if paths.missed:
        warn(paths.warning)
    if as_json:
        file = opened.path / "analysis" / "contrast.json"
        print_json(json.loads(file.read_text(encoding="utf-8")))
        return
    say(found)
