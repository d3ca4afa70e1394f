"""sweep.json: all runs that were launched into a sweep directory, so that reports can list missing ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbed.errors import RunError, UsageError
from domainbed.escaping import shortened
from domainbed.files import file_lock, write_atomic
from domainbed.json_input import parse_json
from domainbed.records.checks import problem_of_args
from domainbed.records.target_sets import TargetSets

NAME = "sweep.json"


@dataclass(frozen=True)
class Manifest:
    """All runs that were launched into one sweep directory.

    Attributes:
        jobs: arguments of `train` by the name of the run's directory.
        selection: default selection methods for reports of the sweep; may be empty.
        commands: command lines of the launches. Empty for launches by older versions.
        folder: where the sweep was launched; relative paths in the arguments start there. None for launches
            by older versions.
        defaults: today's defaults of settings, at the first launch; None for one by an older version.
        target_sets: dataset -> the sets of targets that its runs hold out at once. Datasets are left out
            whose runs hold out each environment, and pairs for leave-one-domain-out selection.
    """

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    selection: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    folder: Path | None = None
    defaults: dict[str, Any] | None = None
    target_sets: Mapping[str, TargetSets] = field(default_factory=dict)


def read_manifest(sweep_dir: Path) -> Manifest | None:
    """The manifest of `sweep_dir`, or None if it has none, as in sweeps of upstream.

    Raises: RunError if the file cannot be read or is damaged.
    """
    path = sweep_dir / NAME
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        jobs, selection = dict(content["jobs"]), tuple(content["selection"])
        _check_kinds(jobs, selection, content.get("commands", ()))
        folder = Path(content["folder"]) if "folder" in content else None
        defaults = dict(content["defaults"]) if "defaults" in content else None
        sets = _target_sets(content.get("target_sets", {}))
        return Manifest(jobs, selection, tuple(content.get("commands", ())), folder, defaults, sets)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({error}); delete it and launch the sweep again") from None


def _check_kinds(jobs: dict[str, Any], *texts: Iterable[object]) -> None:
    """Raise TypeError for a job whose arguments are not those of a run, or for an item that is no text."""
    for name, args in jobs.items():
        problem = problem_of_args(args, may_lack=True) if isinstance(args, dict) else "no object"
        if problem:
            raise TypeError(f"job {shortened(name)}: {problem}")
    if not all(isinstance(each, str) for items in texts for each in items):
        raise TypeError("a selection method or command is no text")


def _target_sets(content: Any) -> dict[str, TargetSets]:  # noqa: ANN401 - whatever the file has
    """The sets of targets in sweep.json. Raises TypeError or AttributeError if they are something else."""
    sets: dict[str, TargetSets] = {
        name: tuple(tuple(each) for each in of_dataset) for name, of_dataset in content.items()
    }
    if not all(type(i) is int for of_dataset in sets.values() for each in of_dataset for i in each):
        raise TypeError("a target is no index")
    return sets


def manifest_of(sweep_dir: Path) -> Manifest:
    """The manifest of `sweep_dir`. Raises UsageError if it has none, RunError if the file is damaged."""
    manifest = read_manifest(sweep_dir)
    if manifest is None:
        raise UsageError(
            f"{sweep_dir} contains no sweep (no sweep.json); use the --output_dir of `sweep launch`"
        )
    return manifest


def add_to_manifest(
    sweep_dir: Path,
    jobs: dict[str, dict[str, Any]],
    selection: tuple[str, ...],
    command: str | None = None,
    folder: Path | None = None,
    defaults: dict[str, Any] | None = None,
    target_sets: Mapping[str, TargetSets] | None = None,
) -> None:
    """Add a launch to the manifest of `sweep_dir`. Concurrent launches into one directory are all kept.

    Args:
        sweep_dir: an existing directory.
        jobs: arguments of `train` by the name of the run's directory.
        selection: default selection methods for reports; empty: those of earlier launches.
        command: command line of the launch.
        folder: where the launch is made. That of the first launch is kept, as long as it exists.
        defaults: today's defaults of settings. Those of the first launch are kept.
        target_sets: dataset -> the sets of targets of the launch. Those of earlier launches are kept.

    Raises:
        RunError: the existing manifest is damaged.
        OSError: the manifest cannot be written.
    """
    with file_lock(sweep_dir / f".{NAME}.lock"):
        before = read_manifest(sweep_dir) or Manifest(defaults=defaults)
        commands = dict.fromkeys((*before.commands, *([command] if command else ())))
        if before.folder is not None and before.folder.is_dir():
            folder = before.folder
        sets: dict[str, list[list[int]]] = {
            name: [[*each] for each in of_dataset] for name, of_dataset in before.target_sets.items()
        }
        for name, of_dataset in (target_sets or {}).items():
            known = sets.setdefault(name, [])
            known += [[*each] for each in of_dataset if [*each] not in known]
        content = {
            "jobs": before.jobs | jobs,
            "selection": list(selection or before.selection),
            **({"commands": list(commands)} if commands else {}),
            **({"folder": str(folder)} if folder else {}),
            **({"defaults": before.defaults} if before.defaults is not None else {}),
            **({"target_sets": sets} if sets else {}),
            "version": 1,
        }
        write_atomic(sweep_dir / NAME, json.dumps(content, indent=1, sort_keys=True) + "\n")
