"""Parsers of command lines: help with a short usage, groups and examples, and errors of one line."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import NoReturn

from domainbed.console import program_name
from domainbed.errors import nearest

_WIDTH = 78
_USAGE = " " * len("usage: ")
_UNKNOWN = re.compile(r"unrecognized arguments: .*?--([\w-]+)")
"""An error of argparse, with the first flag that no parser knows."""


class CommandParser(argparse.ArgumentParser):
    """A parser for one command.

    Args:
        module: module of the command, which gives the program its name (see `program_name`).
        description: what the command does, in a sentence.
        usage: the arguments that it cannot do without, such as "--input_dir DIR".
        examples: arguments -> what the command does with them. They follow the list of flags.
        meant: for the name of an unknown flag, what to give in its place; None if that is not known.
    """

    def __init__(
        self,
        module: str,
        description: str,
        usage: str = "",
        examples: Mapping[str, str] | None = None,
        meant: Callable[[str], str | None] = lambda name: None,
    ) -> None:
        prog = program_name(module)
        words = " ".join(filter(None, (prog, usage, "[options]")))
        super().__init__(
            prog=prog,
            usage=textwrap.fill(words, _WIDTH, initial_indent=_USAGE, subsequent_indent=_USAGE).lstrip(),
            description=textwrap.fill(description, _WIDTH),
            formatter_class=_Help,
        )
        lines = (f"  {about}:\n    {self.prog} {words}" for words, about in (examples or {}).items())
        self.epilog = "\n".join(["examples:", *lines]) if examples else None
        self._meant = meant

    def error(self, message: str) -> NoReturn:
        """Print the message and what to do, in one line, and exit with status 2."""
        self.exit(2, f"error: {message.rstrip('.')}. {self._advice(message)}\n")

    def _advice(self, message: str) -> str:
        unknown = _UNKNOWN.search(message)
        if unknown:
            name = unknown[1]
            shown = {
                option.removeprefix("--")
                for option, action in self._option_string_actions.items()
                if option.startswith("--") and action.help != argparse.SUPPRESS
            }
            meant = self._meant(name) or " or ".join(f"--{each}" for each in nearest(name, sorted(shown)))
            if meant:
                return f"Did you mean {meant}?"
        return f"{self.prog} --help shows what it takes."


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help that shows a list as "NAME ...", and both forms of a switch as "--[no-]NAME"."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == argparse.ONE_OR_MORE:
            return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."
        return super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        return super()._format_action_invocation(action)
