"""Help pages: options in groups, examples as they are typed, in 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from typer.core import TyperCommand, TyperGroup

from kntrace.cli.options import HOW, OUTPUT, WHAT

__all__ = ["Command", "Group", "epilog_of", "examples", "first_sentences", "grouped", "written"]

Function = TypeVar("Function", bound=Callable[..., None])

_ARGUMENTS, _OTHER = "Arguments", "Other"
_WIDEST = 24
_ORDER = (_ARGUMENTS, WHAT, HOW, OUTPUT)


def examples(*lines: str) -> Callable[[Function], Function]:
    """Give a command's help these lines, each a whole command that works as it stands."""

    def keep(command: Function) -> Function:
        command.__dict__["examples"] = lines
        return command

    return keep


def epilog_of(command: Callable[..., None]) -> str | None:
    """What stands under the options of a command with `examples`."""
    lines = command.__dict__.get("examples")
    return written(*lines) if lines else None


def written(*lines: str) -> str:
    """Examples under a heading; a code block too where the page is Markdown."""
    return "\n".join(["Examples:", "", *(f"    {line}" for line in lines)])


class Command(TyperCommand):
    """A command whose help shows its options by what they are about."""

    # Context and formatter are of classes that typer keeps to itself.
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, a section for every group."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are: wrapped, they could not be copied."""
        _write_epilog(self.epilog, formatter)


class Group(TyperGroup):
    """Several commands, with the same kind of help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, whatever their length in full, then the options."""
        told = [
            (name, first_sentences(command))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(told)
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are."""
        _write_epilog(self.epilog, formatter)


def grouped(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """What a command takes, as (name, help) by the title of its group; no group is empty."""
    groups: dict[str, list[tuple[str, str]]] = {title: [] for title in _ORDER}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        argument = parameter.param_type_name == "argument"
        title = parameter.rich_help_panel or (_ARGUMENTS if argument else _OTHER)
        if record is not None:
            # Of an argument its name is enough: what kind of text it is says its help.
            name = record[0].partition(" <")[0] if argument else record[0]
            groups.setdefault(title, []).append((name, record[1]))
    return {title: records for title, records in groups.items() if records}


def first_sentences(command: Any) -> str:
    """The first paragraph of a command's help, in one line."""
    return " ".join((command.help or "").partition("\n\n")[0].split())


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    for title, records in grouped(command, ctx).items():
        with formatter.section(title):
            formatter.write_dl(records, col_max=_WIDEST)


def _write_epilog(epilog: str | None, formatter: Any) -> None:
    if epilog:
        formatter.write_paragraph()
        formatter.write(f"{epilog}\n")
