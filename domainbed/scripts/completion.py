"""Print a script that completes the command `domainbed` in a shell.

domainbed completion bash > ~/.local/share/bash-completion/completions/domainbed
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.console import program_name
from domainbed.errors import UsageError, run_script
from domainbed.scripts import command

SHELLS = ("bash", "zsh", "tcsh")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all flags."""
    parser = argparse.ArgumentParser(
        prog=program_name("domainbed.scripts.completion"),
        description="Print a script that completes the command domainbed, its flags and their choices.",
        epilog="For bash: domainbed completion bash > ~/.local/share/bash-completion/completions/domainbed",
    )
    parser.add_argument("shell", choices=SHELLS)
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
        of_commands.add_parser(name, help=each.about, parents=[own], add_help=False)
    script: str = shtab.complete(parser, shell=shell)
    return script


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script; returns the exit status."""
    print(completion_script(build_parser().parse_args(argv).shell))
    return 0


if __name__ == "__main__":
    run_script(main)
