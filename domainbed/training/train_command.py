"""The `train` command: parse its flags and train in this process."""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Mapping, Sequence

from domainbed.command_line import CommandParser
from domainbed.training.config import SETTINGS
from domainbed.training.config_checks import from_settings, hparam_called
from domainbed.training.settings import Group

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


_DESCRIPTION = "Train one model and append its records to results.jsonl."
_EXAMPLES = {
    "--dataset EmojiStyles --algorithm AgrSum --test_envs 2": "hold out environment 2",
    "--dataset path/to/root --test_envs 0 --output_dir runs/mine": "your own images",
    """--dataset EmojiStyles --steps 100 --hparams '{"lr": 0.01}'""": "fewer updates, another learning rate",
}


def build_parser(
    module: str = "domainbed.scripts.train",
    description: str = _DESCRIPTION,
    examples: Mapping[str, str] = _EXAMPLES,
    meanings: Mapping[str, str] | None = None,
) -> CommandParser:
    """The parser of what `from_settings` takes.

    Args:
        module: the script whose parser it is: `train`, or one that takes its flags too.
        description, examples: as in `CommandParser`.
        meanings: help of the flags, by name, that mean more in the script than in `train`.
    """
    parser = CommandParser(module, description, examples=examples, meant=as_hparams_flag)
    for group in Group:
        section = parser.add_argument_group(group.value)
        for declared in SETTINGS.values():
            if declared.group is group:
                help_text = (meanings or {}).get(declared.name, declared.argparse_help())
                declared.add_to(section, help=help_text)
    for short, flag in kept_abbreviations(list(SETTINGS)).items():
        hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        SETTINGS[flag].add_to(parser, name=short, dest=flag, **hidden)
    return parser


def as_hparams_flag(name: str) -> str | None:
    """How the hyper-parameter that is called `name` is given on a command line; None if there is none."""
    found = hparam_called(name)
    return None if found is None else f"""--hparams '{{"{found}": ...}}'"""


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
