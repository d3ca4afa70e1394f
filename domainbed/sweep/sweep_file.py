"""Sweep files: the flags of `sweep` in TOML.

    datasets = ["EmojiStyles"]        # any flag of `sweep launch`, by its name
    n_trials = 6
    selection = ["iccv2021"]          # default selection methods of its reports

    [hparams]                         # becomes --hparams
    lr = 0.001
    PCGrad = { order = "shared" }     # only in runs of this algorithm

    [presets.fast]                    # overrides the rest with --preset fast
    steps = 10

Flags on the command line win over the file.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError, misspelt
from domainbed.training.settings import Flag, InSweep, Setting


def read_sweep_file(path: Path, preset: str | None, flags: Mapping[str, Flag]) -> dict[str, Any]:
    """Values of flags in a sweep file, by name, with `hparams` as JSON text.

    Args:
        path: the file.
        preset: name of the preset that overrides the rest; None: the file's own `preset`, if it names one.
        flags: flags that a sweep file may set.

    Raises: UsageError if the file cannot be read, names an unknown flag or preset, or has an invalid value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read sweep file {path}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"sweep file {path} is nested too deep") from None
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
        if name not in flags:
            raise misspelt(f"sweep file {path} has an unknown key {name!r}", name, flags)
    hparams = content.pop("hparams", {})
    if hparams:
        content["hparams"] = json.dumps(hparams, sort_keys=True, default=_refuse)
    return {name: _value(path, flags[name], value) for name, value in content.items()}


def _value(path: Path, flag: Flag, value: object) -> object:
    """`value` of a sweep file, if `flag` takes it."""
    subject = f"sweep file {path}: {flag.name}"
    several = isinstance(flag, Setting) and flag.in_sweep is InSweep.SEVERAL
    converted = (dataclasses.replace(flag, is_list=True) if several else flag).converted(value, subject)
    if converted == []:
        raise UsageError(f"{subject} must not be empty")
    flag.check(converted, subject)
    return converted


def _check_tables(path: Path, tables: dict[str, object]) -> None:
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise UsageError(f"sweep file {path}: {name} must be a table ([{name}]), not {value!r}")


def _refuse(value: datetime.date | datetime.time) -> object:
    raise UsageError(f"hparams in a sweep file must be numbers, texts, booleans or tables, not {value}")
