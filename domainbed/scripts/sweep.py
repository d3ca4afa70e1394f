"""Run a sweep: many runs in one directory.

python -m domainbed.scripts.sweep launch --algorithms AgrSum
python -m domainbed.scripts.sweep status --output_dir DIR
python -m domainbed.scripts.sweep work --output_dir DIR     # join a launched sweep, from any host
python -m domainbed.scripts.sweep delete_incomplete --algorithms AgrSum
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from domainbed.errors import run_script
from domainbed.sweep.actions import run_action
from domainbed.sweep.announcements import ask_for_confirmation
from domainbed.sweep.flags import build_parser, parse
from domainbed.sweep.grid import all_test_env_combinations, make_args_list
from domainbed.sweep.job import Job

if TYPE_CHECKING:
    DATASETS: list[str]

# All but `main` and `build_parser` are upstream's names, some of which live elsewhere here.
__all__ = [
    "DATASETS",
    "Job",
    "all_test_env_combinations",
    "ask_for_confirmation",
    "build_parser",
    "main",
    "make_args_list",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and run the command; returns the exit status."""
    return run_action(parse(argv), sys.argv[1:] if argv is None else argv)


def __getattr__(name: str) -> object:
    if name == "DATASETS":  # not imported before it is needed
        from domainbed.datasets import DATASETS as ALL_DATASETS

        return [dataset for dataset in ALL_DATASETS if "Debug" not in dataset]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    run_script(main)
