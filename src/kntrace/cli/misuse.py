"""What is said where the command line itself was mistyped."""

from __future__ import annotations

import sys
from typing import NoReturn

from typer.exceptions import TyperException

from kntrace.cli.printing import fail
from kntrace.errors import InputError

__all__ = ["misused"]

_GUESS = "Did you mean "


def misused(error: TyperException) -> NoReturn:
    """End with one line that says what is wrong, and which name may have been meant."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)  # which is the help
        sys.exit(error.exit_code)
    near = getattr(error, "possibilities", None)
    if near is None:
        # Of a command typer says in its message what may have been meant.
        found, _, guess = error.format_message().partition(f" {_GUESS}")
    else:
        found, guess = error.message, f"{near[0]!r}?" if near else ""
    context = getattr(error, "ctx", None)
    where = None if context is None else context.command_path
    advice = [_GUESS + guess] if guess else []
    advice += [f"See {where} --help."] if where else []
    found = found.rstrip(".")
    fail(InputError(found[:1].lower() + found[1:], where=where, fix=" ".join(advice) or None))
