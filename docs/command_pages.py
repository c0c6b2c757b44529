"""What `--help` says of every command, as Markdown for the page that includes it."""

from __future__ import annotations

import re
from typing import Any

from typer import Context
from typer.main import get_command

from kntrace.cli import app
from kntrace.cli.helping import first_sentences, grouped

__all__ = ["pages"]

_OPTION = re.compile(r"(?<![`\w])--[a-z][\w-]*")


def pages() -> str:
    """A section for every command, after a list of all of them."""
    tree = get_command(app)
    named = list(_commands(tree, "kntrace"))
    listed = [
        f"- [`{name}`](#{_anchor(name)}): {first_sentences(command)}" for name, command in named
    ]
    options = grouped(tree, Context(tree, info_name="kntrace"))
    return "\n".join([*listed, "", *_groups(options), *(_section(*one) for one in named)])


def _commands(group: Any, prefix: str) -> Any:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _section(name: str, command: Any) -> str:
    context = Context(command, info_name=name)
    usage = f"{name} {' '.join(command.collect_usage_pieces(context))}"
    return "\n".join(
        [
            *(f"({_anchor(name)})=", f"## `{name}`", "", _coded(command.help), ""),
            *("```text", usage, "```", ""),
            *_groups(grouped(command, context)),
            *(command.epilog, ""),
        ]
    )


def _groups(groups: dict[str, list[tuple[str, str]]]) -> list[str]:
    lines = []
    for title, records in groups.items():
        lines += [f"**{title}**", ""]
        lines += [f"- `{name}`: {_coded(told)}" for name, told in records] + [""]
    return lines


def _coded(text: str) -> str:
    """Options in a text as code, or two hyphens would become a dash."""
    return "\n\n".join(
        _OPTION.sub(r"`\g<0>`", " ".join(part.split())) for part in text.split("\n\n")
    )


def _anchor(name: str) -> str:
    return f"command-{name.replace(' ', '-')}"
