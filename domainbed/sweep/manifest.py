"""sweep.json: what a sweep directory was asked to hold, so that a report can say what is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbed.errors import RunError, UsageError
from domainbed.files import locked, write_whole

NAME = "sweep.json"


@dataclass(frozen=True)
class Manifest:
    """All runs that launches into one directory asked for.

    Attributes:
        jobs: name of the run's directory -> the arguments of `train`.
        selection: names of the selection methods that the sweep is meant to be read with; may be empty.
        commands: the command lines of the launches, as far as they were noted.
    """

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    selection: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def read_manifest(sweep_dir: Path) -> Manifest | None:
    """The manifest of `sweep_dir`, or None where there is none (a sweep of upstream's).

    Raises: RunError if the file is damaged.
    """
    path = sweep_dir / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs, selection = dict(content["jobs"]), tuple(content["selection"])
        return Manifest(jobs, selection, tuple(content.get("commands", ())))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); delete it and launch the sweep again") from None


def manifest_of(sweep_dir: Path) -> Manifest:
    """The manifest of `sweep_dir`; raises UsageError where no sweep is, RunError if it is damaged."""
    manifest = read_manifest(sweep_dir)
    if manifest is None:
        raise UsageError(f"{sweep_dir} holds no sweep (no sweep.json); give --output_dir of `sweep launch`")
    return manifest


def add_to_manifest(
    sweep_dir: Path, jobs: dict[str, dict[str, Any]], selection: tuple[str, ...], command: str | None = None
) -> None:
    """Write `jobs`, and the command that launches them, into the manifest of `sweep_dir`, beside what it has.

    Launches into one directory at the same time lose none of each other's.

    Raises: RunError if the manifest that is there is damaged, OSError if it can't be written.
    """
    with locked(sweep_dir / f".{NAME}.lock"):
        before = read_manifest(sweep_dir) or Manifest()
        commands = dict.fromkeys((*before.commands, *([command] if command else ())))
        content = {
            "jobs": before.jobs | jobs,
            "selection": list(selection or before.selection),
            **({"commands": list(commands)} if commands else {}),
            "version": 1,
        }
        write_whole(sweep_dir / NAME, json.dumps(content, indent=1, sort_keys=True) + "\n")
