"""Sweep files: the flags of `sweep` in TOML.

    datasets = ["EmojiStyles"]        # any flag of `sweep launch`, by its name
    n_trials = 6
    selection = ["iccv2021"]          # how a report reads the sweep by default

    [hparams]                         # becomes --hparams
    lr = 0.001
    PCGrad = { order = "shared" }     # for the runs of one algorithm

    [presets.fast]                    # laid over the rest with --preset fast
    steps = 10

Flags on the command line win over the file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError, check_choice, misspelt


def read_config(path: Path, preset: str | None, known: Collection[str]) -> dict[str, Any]:
    """Flags by name from a sweep file, with `hparams` as JSON text.

    Args:
        path: the file.
        preset: name of the preset to lay over it; None: the file's own `preset`, if it names one.
        known: names of flags.

    Raises: UsageError if the file can't be read, or names an unknown flag or preset.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"sweep file {path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"sweep file {path} is not valid TOML: {error}") from None
    presets = content.pop("presets", {})
    own_preset = content.pop("preset", None)
    preset = preset if preset is not None else own_preset
    _check_tables(path, {"presets": presets, "hparams": content.get("hparams", {})})
    _check_tables(path, {f"presets.{name}": table for name, table in presets.items()})
    if preset is not None:
        if preset not in presets:
            raise misspelt(f"sweep file {path} has no preset {preset!r}", preset, presets)
        chosen = presets[preset]
        _check_tables(path, {f"presets.{preset}.hparams": chosen.get("hparams", {})})
        content = content | chosen | {"hparams": content.get("hparams", {}) | chosen.get("hparams", {})}
    for name in content:
        if name not in known:
            raise misspelt(f"sweep file {path} has an unknown key {name!r}", name, known)
    if not content.get("hparams"):
        return {name: value for name, value in content.items() if name != "hparams"}
    return content | {"hparams": json.dumps(content["hparams"], sort_keys=True, default=_refuse)}


def check_value(path: Path, action: argparse.Action, value: object) -> None:
    """Raise UsageError for a value in the sweep file `path` that the flag `action` would not take."""
    if action.nargs == "+" and (not isinstance(value, list) or not value):
        raise UsageError(f"sweep file {path}: {action.dest} takes a list of one or more, not {value!r}")
    values = value if isinstance(value, list) and action.nargs == "+" else [value]
    wanted = action.type if isinstance(action.type, type) else str if action.choices else bool
    for each in values:
        right = isinstance(each, int | float if wanted is float else wanted)
        if not right or (isinstance(each, bool) and wanted is not bool):
            raise UsageError(f"sweep file {path}: {action.dest} takes {wanted.__name__}, not {each!r}")
        if action.choices is not None:
            check_choice(f"sweep file {path}: {action.dest} is", each, action.choices)


def _check_tables(path: Path, tables: dict[str, object]) -> None:
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise UsageError(f"sweep file {path}: {name} is a table ([{name}]), not {value!r}")


def _refuse(value: datetime.date | datetime.time) -> object:
    raise UsageError(f"a sweep file's hparams are numbers, texts, booleans and tables, not {value}")
