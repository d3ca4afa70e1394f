"""Train one model: `python -m domainbed.scripts.train --dataset EmojiStyles --algorithm AgrSum`."""

from collections.abc import Sequence

from domainbed.errors import run_script
from domainbed.training import train_command
from domainbed.training.train_command import build_parser

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Train in this process; returns the exit status. Memory that is freed stays with the process."""
    train_command.keep_freed_memory()
    return train_command.main(argv)


if __name__ == "__main__":
    run_script(main)
