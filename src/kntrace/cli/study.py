"""`kntrace study`: begin a study, or make one from files of another make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kntrace.cli import values
from kntrace.cli.helping import Command, Group, epilog_of, examples
from kntrace.cli.options import AsJson, Force, Quiet, output, what
from kntrace.cli.printing import print_json, say, tell
from kntrace.errors import StudyError

__all__ = ["study_app"]

Name = Annotated[str | None, what(metavar="TEXT", help="The study's name.")]


@examples("kntrace study new words.yaml", "kntrace study new words.yaml --name sea-animals")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    name: Name = "my-words",
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented study to fill in; it loads as it is."""
    from kntrace.study.template import new_study

    _write(file, new_study(name or "my-words"), force)
    if as_json:
        print_json({"study": file})
        return
    say(f"Wrote {file}. Fill it in, then: kntrace check {file}")


@examples(
    "kntrace study import words.csv --out words.yaml",
    "kntrace study import P36.jsonl P37.jsonl --format pararel --out facts.yaml",
    "kntrace study import counterfact.json --prompts 4 --out facts.yaml",
)
def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files of one format.")],
    out_file: Annotated[
        Path,
        output("--out", metavar="STUDY", help="The study to write, a YAML file."),
    ],
    format_name: Annotated[
        str | None,
        what(
            "--format",
            metavar="NAME",
            help="csv, jsonl, lre, pararel or counterfact; needed where the files do not show it.",
            autocompletion=values.study_formats,
        ),
    ] = None,
    name: Name = None,
    template: Annotated[
        str | None,
        what(metavar="TEXT", help="Text around every prompt, with {question} in it."),
    ] = None,
    answer_form: Annotated[
        str,
        what(
            metavar="FORM",
            help="as_follows, space or no_space.",
            autocompletion=values.of(values.ANSWER_FORMS),
        ),
    ] = "as_follows",
    mask: Annotated[
        str | None,
        what(metavar="TEXT", help="ParaRel: how a masked model's mask is written."),
    ] = None,
    shared: Annotated[
        str,
        what(
            metavar="HOW",
            help="Words of two groups: refuse, drop or rename.",
            autocompletion=values.of(values.SHARED),
        ),
    ] = "refuse",
    prompts: Annotated[
        int | None,
        what(metavar="N", min=1, help="Prompts of a word to keep; all unless given."),
    ] = None,
    min_prompts: Annotated[
        int,
        what(metavar="N", min=1, help="Leave out words with fewer prompts."),
    ] = 1,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
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
    words, groups = len(found.study.words), len(found.study.groups)
    if as_json:
        print_json({"study": out_file, "words": words, "groups": groups, "notes": found.notes})
        return
    for note in found.notes:
        tell(note)
    say(f"{words} words in {groups} groups. Next: kntrace check {out_file}")


def _write(file: Path, text: str, force: bool) -> None:
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise StudyError("the file is there already", where=file, fix="Add --force.") from None
    except OSError as error:
        raise StudyError(f"cannot be written: {error.strerror}", where=file) from None


study_app = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode=None, help="Begin a study, or import one."
)
study_app.command("new", cls=Command, epilog=epilog_of(new))(new)
study_app.command("import", cls=Command, epilog=epilog_of(import_files))(import_files)
