"""The `train` command: parse its flags and train in this process."""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Sequence

from domainbed.console import program_name
from domainbed.training.config import SETTINGS
from domainbed.training.config_checks import from_settings

N_UPSTREAM = 16
"""Number of flags that upstream's script has."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt's parameters in glibc's <malloc.h>


def keep_freed_memory() -> None:
    """Make this process reuse the memory that it frees instead of returning it to the system.

    By default the C library returns large blocks at once. Getting new ones, zeroed page by page, can take
    longer than the computation that uses them. Only glibc has this setting; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def build_parser() -> argparse.ArgumentParser:
    """The parser of what `from_settings` takes; upstream's sixteen flags come first."""
    parser = argparse.ArgumentParser(
        prog=program_name("domainbed.scripts.train"),
        description="Train one model and append its records to results.jsonl.",
        epilog="Example: --dataset EmojiStyles --algorithm AgrSum --test_envs 2 --output_dir runs/first",
    )
    for declared in SETTINGS.values():
        declared.add_to(parser)
    for short, flag in kept_abbreviations(list(SETTINGS)).items():
        hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        SETTINGS[flag].add_to(parser, name=short, dest=flag, **hidden)
    return parser


def kept_abbreviations(flags: Sequence[str]) -> dict[str, str]:
    """Abbreviations of upstream's flags that the other flags make ambiguous -> the flags they stand for.

    `flags` are all flags, upstream's first.
    """
    upstream, ours = [*flags[:N_UPSTREAM], "help"], flags[N_UPSTREAM:]
    kept = {}
    for flag in upstream:
        for short in (flag[:end] for end in range(1, len(flag))):
            was_unique = [each for each in upstream if each.startswith(short)] == [flag]
            if was_unique and short not in flags and any(each.startswith(short) for each in ours):
                kept[short] = flag
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags `argv` (by default those of this process) and train; returns the exit status."""
    config = from_settings(vars(build_parser().parse_args(argv)))
    from domainbed.training.api import launched_by_torchrun, train

    train(config)
    if launched_by_torchrun():
        from domainbed.training.torchrun import exit_immediately

        exit_immediately()
    return 0
