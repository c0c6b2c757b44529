"""`kntrace study`: begin a study, or make one from files of another make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kntrace.cli.printing import say, tell
from kntrace.errors import StudyError

__all__ = ["study_app"]

study_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Begin a study, or import one."
)

Force = Annotated[bool, typer.Option("--force", help="Write over a file that is there.")]


@study_app.command("new")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    name: Annotated[str, typer.Option(help="The study's name.")] = "my-words",
    force: Force = False,
) -> None:
    """Write a commented study to fill in; it loads as it is."""
    from kntrace.study.template import new_study

    _write(file, new_study(name), force)
    say(f"Wrote {file}. Fill it in, then: kntrace check {file}")


@study_app.command("import")
def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of one format.")],
    out_file: Annotated[
        Path, typer.Option("--out", help="The study to write, a YAML file.", metavar="STUDY")
    ],
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="csv, jsonl, lre, pararel or counterfact; needed where the files do not show it.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The study's name.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Text around every prompt, with {question} in it.")
    ] = None,
    answer_form: Annotated[str, typer.Option(help="as_follows, space or no_space.")] = "as_follows",
    mask: Annotated[
        str | None, typer.Option(help="ParaRel: how a masked model's mask is written.")
    ] = None,
    shared: Annotated[
        str, typer.Option(help="Words of two groups: refuse, drop or rename.")
    ] = "refuse",
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Prompts of a word to keep; all unless given.")
    ] = None,
    min_prompts: Annotated[
        int, typer.Option(min=1, help="Leave out words with fewer prompts.")
    ] = 1,
    force: Force = False,
) -> None:
    """Make a study from a table, or from a data set of facts."""
    from kntrace.study.importing import import_study

    found = import_study(
        files,
        format_name,
        name=name,
        template=template,
        answer_form=answer_form,  # type: ignore[arg-type]  # the study refuses an unknown one
        mask=mask,
        shared=shared,  # type: ignore[arg-type]
        prompts=prompts,
        min_prompts=min_prompts,
    )
    _write(out_file, found.study.to_yaml(), force)
    for note in found.notes:
        tell(note)
    groups = len(found.study.groups)
    say(f"{len(found.study.words)} words in {groups} groups. Next: kntrace check {out_file}")


def _write(file: Path, text: str, force: bool) -> None:
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise StudyError("the file is there already", where=file, fix="Add --force.") from None
    except OSError as error:
        raise StudyError(f"cannot be written: {error.strerror}", where=file) from None
