"""docs/settings.md, from the declarations: `python -m domainbed.sweep.settings_page > docs/settings.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from domainbed.sweep.flags import SweepFlags
from domainbed.sweep.launchers import LaunchOptions
from domainbed.training.config import LARGEST_SEED, SETTINGS
from domainbed.training.settings import Flag, Setting, flags_of

_INTRODUCTION = """\
# Settings

This page is made from the declarations in `domainbed/training/config.py`, `domainbed/sweep/flags.py` and
`domainbed/sweep/launchers.py` by `python -m domainbed.sweep.settings_page > docs/settings.md`.

## Of a run

Each is a flag of `domainbed.scripts.train` and a keyword of `domainbed.train`. The first sixteen are
upstream's.

- *Kind*: **design** defines the experiment, **searched** is drawn by the hyper-parameter search, **seed**
  distinguishes repetitions, **incidental** changes no number that matters.
- *In records*: whether the value is in `args` of each record. A run directory also belongs to one value of
  each of these, except of `output_dir`.
- *In sweeps*: how the runs of a sweep get the value: from a flag of the same name (**yes**: part of a run's
  arguments, and of its name, if it is given; **always written**: in any case), or from the grid.
- *Before*: the value in records and run directories that are older than the setting, if not the default.
"""


_OF_SWEEPS = """
## Of a sweep

Flags of `domainbed.scripts.sweep` and keys of sweep files, beside the settings of runs above.
"""

_OF_LAUNCHERS = """
## Of launchers

Also flags of `domainbed.scripts.sweep` and keys of sweep files. Each launcher uses some of them.
"""


def page() -> str:
    """The text of docs/settings.md."""
    titles = ("Flag", "Default", "Values", "Meaning", "Kind", "In records", "In sweeps", "Before")
    lines = [_INTRODUCTION, *_table(titles, map(_setting_row, SETTINGS.values()))]
    for introduction, declaring_class in ((_OF_SWEEPS, SweepFlags), (_OF_LAUNCHERS, LaunchOptions)):
        lines += [introduction, *_table(titles[:4], map(_row, flags_of(declaring_class).values()))]
    return "\n".join(lines) + "\n"


def _table(titles: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    for cells in (titles, ["---"] * len(titles), *rows):
        yield f"| {' | '.join(cells)} |"


def _row(flag: Flag) -> list[str]:
    default = " ".join(map(str, flag.default)) if isinstance(flag.default, list) else str(flag.default)
    return [
        f"`{flag.name}`",
        "" if flag.default is None else f"`{default}`",
        _values(flag),
        flag.help.replace("|", "\\|"),
    ]


def _setting_row(setting: Setting) -> list[str]:
    before = "" if setting.value_before == setting.default else f"`{setting.value_before}`"
    recorded = "yes" if setting.recorded else "no"
    return [*_row(setting), setting.kind.value, recorded, setting.in_sweep.value, before]


def _values(flag: Flag) -> str:
    """Type and limits, such as "int, at least 1"."""
    if flag.choices:
        return ", ".join(f"`{each}`" for each in flag.choices)
    name = f"list of {flag.type_name}" if flag.is_list else flag.type_name
    bounds = {"at least": flag.at_least, "above": flag.above, "at most": flag.at_most, "below": flag.below}
    given = [f"{words} {bound}" for words, bound in bounds.items() if bound not in (None, LARGEST_SEED)]
    return ", ".join([name, *given])


if __name__ == "__main__":
    sys.stdout.write(page())
