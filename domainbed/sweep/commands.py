"""The commands of `sweep`: what each does, and which flags it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domainbed.sweep.launchers import LAUNCHER_FLAGS

_SWEEP = ("config", "preset", "output_dir")
"""Flags that say which sweep is meant."""
_LAUNCH = ("skip_confirmation", "quiet", "verbose", "dry_run")
_STATUS = ("json", "watch")


@dataclass(frozen=True)
class SweepCommand:
    """A command of `sweep`.

    Attributes:
        about: what it does, in a sentence.
        examples: arguments after "sweep" -> what the command does with them.
        only: the flags that it takes; empty: all but `without`.
        without: flags that it does not take.
    """

    about: str
    examples: Mapping[str, str]
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def takes(self, flag: str) -> bool:
        """Whether the flag has an effect on this command."""
        return flag in self.only if self.only else flag not in self.without


COMMANDS = {
    "launch": SweepCommand(
        "Train the runs of a grid that are not done.",
        {
            "launch --algorithms ERM AgrSum --datasets EmojiStyles": "two methods on one dataset",
            "launch --config quickstart": "a sweep file of the package, or the path of your own",
            "launch --config quickstart --dry_run": "what would be launched, and how long it would take",
        },
        without=_STATUS,
    ),
    "status": SweepCommand(
        "Show the progress of a sweep, when it will end, and what failed.",
        {"status --output_dir runs/quickstart --watch": "follow a sweep, from any terminal"},
        only=(*_SWEEP, *_STATUS),
    ),
    "retry": SweepCommand(
        "Launch the failed runs of a sweep again.",
        {"retry --output_dir runs/quickstart": "launch what failed"},
        only=(*_SWEEP, *_LAUNCH, "estimate_seconds", "command_launcher", *LAUNCHER_FLAGS),
    ),
    "work": SweepCommand(
        "Join a launched sweep, from any host that has its directory.",
        {"work --output_dir runs/quickstart --workers 2": "help with two runs at a time"},
        only=(*_SWEEP, "workers", "retries", "time_limit"),
    ),
    "delete_incomplete": SweepCommand(
        "Delete the directories of runs that are not done, unless they are running.",
        {
            "delete_incomplete --output_dir runs/quickstart": "all that sweep.json lists",
            "delete_incomplete --algorithms ERM --output_dir SWEEP_DIR": "those of a grid, as upstream",
        },
        without=(*_STATUS, "estimate_seconds", "selection", "command_launcher", *LAUNCHER_FLAGS),
    ),
}
"""The commands by name."""
