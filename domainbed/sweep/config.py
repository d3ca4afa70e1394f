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

import json
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError, hint


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
    preset = preset if preset is not None else content.pop("preset", None)
    content.pop("preset", None)
    if preset is not None:
        if preset not in presets:
            unknown = UsageError(f"sweep file {path} has no preset {preset!r}")
            unknown.add_note(hint(preset, presets))
            raise unknown
        chosen = presets[preset]
        content = content | chosen | {"hparams": content.get("hparams", {}) | chosen.get("hparams", {})}
    for name in content:
        if name not in known:
            unknown = UsageError(f"sweep file {path} has an unknown key {name!r}")
            unknown.add_note(hint(name, known))
            raise unknown
    if not content.get("hparams"):
        return {name: value for name, value in content.items() if name != "hparams"}
    return content | {"hparams": json.dumps(content["hparams"], sort_keys=True)}
