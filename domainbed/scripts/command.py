"""The command `domainbed COMMAND ...`, a face over the modules in `domainbed.scripts` and those of plugins.

    domainbed train --dataset EmojiStyles --algorithm AgrSum
    domainbed sweep launch --algorithms AgrSum

`domainbed NAME ...` does what `python -m MODULE ...` does. A plugin adds a command of its own:

    from domainbed.scripts.command import COMMANDS, Command

    COMMANDS["mine"] = Command("my_package.mine", "what it does, in a few words")
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domainbed.errors import run_script
from domainbed.registry import Registry
from domainbed.version import __version__

COMMANDS: Registry[Command] = Registry.of_module("Command")
"""The commands by name."""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        module: its module, which has a function `main(argv)` that returns the exit status, and a function
            `build_parser()`.
        about: what it does, in a few words.
    """

    module: str
    about: str

    def main(self, argv: Sequence[str]) -> int:
        """Run the command; returns the exit status."""
        run: Callable[[Sequence[str]], int] = importlib.import_module(self.module).main
        return run(argv)

    def build_parser(self) -> argparse.ArgumentParser:
        """The parser of its flags."""
        build: Callable[[], argparse.ArgumentParser] = importlib.import_module(self.module).build_parser
        return build()


COMMANDS["train"] = Command("domainbed.scripts.train", "train one run")
COMMANDS["sweep"] = Command("domainbed.scripts.sweep", "train many runs: launch, status, retry, work, ...")
COMMANDS["collect"] = Command(
    "domainbed.scripts.collect_results", "tables, tests and a page of a sweep's results"
)
COMMANDS["top"] = Command("domainbed.scripts.list_top_hparams", "best hyper-parameters of a sweep")
COMMANDS["predict"] = Command("domainbed.scripts.predict", "classes of images, by models of finished runs")
COMMANDS["list"] = Command("domainbed.scripts.list", "algorithms, datasets, featurizers and so on by name")
COMMANDS["download"] = Command("domainbed.scripts.download", "download datasets, and verify them")
COMMANDS["doctor"] = Command("domainbed.scripts.doctor", "what this machine has, and what it lacks")
COMMANDS["completion"] = Command("domainbed.scripts.completion", "completion of this command in your shell")


def build_parser() -> argparse.ArgumentParser:
    """The parser of what precedes a command; its help lists all commands."""
    width = max(map(len, COMMANDS)) + 2
    parser = argparse.ArgumentParser(
        prog="domainbed",
        usage="domainbed COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Domain generalization: train on some environments, test on another.\n\n"
        "commands:\n" + "\n".join(f"  {name:{width}}{each.about}" for name, each in COMMANDS.items()),
        epilog="domainbed COMMAND --help shows the flags of a command. First steps:\n"
        "  domainbed train --dataset EmojiStyles --algorithm AgrSum --test_envs 2\n"
        "  domainbed sweep launch --algorithms AgrSum",
    )
    parser.add_argument("--version", action="version", version=f"domainbed-gs {__version__}")
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names first; returns its exit status.

    Raises: UnknownName if there is no such command.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0].startswith("-"):
        parser = build_parser()
        if not argv:
            parser.print_help()
            return 2
        parser.parse_args(argv)
    name, *rest = argv
    command = COMMANDS[name]
    sys.argv = [f"domainbed {name}", *rest]  # what parsers call this program
    return command.main(rest)


def run() -> None:
    """The entry point of the installed command."""
    run_script(main)


if __name__ == "__main__":
    run()
