"""Print a script that completes the command `domainbed` in a shell.

domainbed completion bash >> ~/.bash_completion
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.command_line import CommandParser
from domainbed.errors import UsageError, run_script
from domainbed.scripts import command

SHELLS = ("bash", "zsh", "tcsh")


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed.scripts.completion",
        "Print a script that completes the command domainbed, its flags and their choices.",
        "SHELL",
        {
            "bash >> ~/.bash_completion": "for bash",
            'zsh > "${fpath[1]}/_domainbed"': "for zsh",
        },
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    return parser


def completion_script(shell: str) -> str:
    """The script for a shell, one of `SHELLS`. Raises UsageError if shtab is not installed."""
    try:
        import shtab
    except ImportError:
        raise UsageError('completion needs shtab: pip install "domainbed-gs[completion]"') from None
    parser = argparse.ArgumentParser(prog="domainbed", description="Domain generalization.")
    parser.add_argument("--version", action="store_true", help="print the version")
    of_commands = parser.add_subparsers()
    for name, each in command.COMMANDS.items():
        own = each.build_parser()
        for action in own._actions:
            if isinstance(action.metavar, str) and action.metavar.startswith("{"):
                action.choices = action.metavar.strip("{}").split(",")  # those that `Flag.check` accepts
        of_commands.add_parser(name, help=each.about, parents=[own], add_help=False)
    script: str = shtab.complete(parser, shell=shell)
    return script


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script; returns the exit status."""
    print(completion_script(build_parser().parse_args(argv).shell))
    return 0


if __name__ == "__main__":
    run_script(main)
