"""Write a sweep file (.toml) that repeats runs, from the `args` of their records."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbed.algorithms import REGISTRY
from domainbed.errors import RunError
from domainbed.escaping import toml_key, toml_value, visible
from domainbed.files import write_atomic
from domainbed.hparams import Value
from domainbed.records.target_sets import TargetSets
from domainbed.sweep.flags import PASSED_ON
from domainbed.training.settings import InSweep

SHARED_FLAGS = {name: each for name, each in PASSED_ON.items() if each.in_sweep is not InSweep.SEVERAL}
"""Flags of `sweep` that the new runs take over from the old ones."""


@dataclass(frozen=True)
class Part:
    """Runs that share all flags; a preset of the file if there are several.

    Attributes:
        dataset: name of the dataset.
        condition: value of `--grouping`.
        targets: indices of the target environments.
        pairs: whether pairs of targets are held out too.
        flags: further flags of `sweep` by name.
        hparams: hyper-parameters of each algorithm.
        comments: a line above the hyper-parameters of an algorithm.
        target_sets: the sets of targets that runs hold out at once, instead of `targets` and `pairs`.
    """

    dataset: str
    condition: str
    targets: Sequence[int]
    pairs: bool
    flags: Mapping[str, object]
    hparams: Mapping[str, Mapping[str, object]]
    comments: Mapping[str, str] = field(default_factory=dict)
    target_sets: TargetSets = ()


def shared_flags(args_of_runs: Sequence[Mapping[str, Any]], place: str, option: str) -> dict[str, object]:
    """Flags that all runs have in common, as far as they differ from the defaults.

    Args:
        args_of_runs: the `args` of each run.
        place: what the runs are of, for messages.
        option: flag of the command line that asked for the sweep file, for messages.

    Raises: RunError if the runs differ in a flag.
    """
    values = {name: shared_value(args_of_runs, name, place, option) for name in SHARED_FLAGS}
    return {
        name: value
        for name, value in values.items()
        if value is not None and value != SHARED_FLAGS[name].default
    }


def shared_value(
    args_of_runs: Sequence[Mapping[str, Any]], name: str, place: str, option: str
) -> Value | None:
    """The value of one argument that all runs have in common; the arguments are those of `shared_flags`."""
    values = {args.get(name) for args in args_of_runs}
    if len(values) > 1:
        listed = ", ".join(map(str, values))
        raise RunError(
            f"{option} needs runs with equal settings, but {name} on {place} is one of {listed}; "
            f"choose one with --where {name}=VALUE"
        )
    return values.pop() if values else None


def write_sweep(
    path: Path, parts: Sequence[Part], *, comment: Sequence[str], flags: Mapping[str, object], option: str
) -> list[str]:
    """Write the sweep file; return the commands that launch it, one for each part.

    Args:
        path: the file.
        parts: at least one.
        comment: paragraphs at the top of the file.
        flags: flags of all parts.
        option: flag of the command line that asked for the file, for messages.

    Raises: RunError if the file cannot be written.
    """
    presets: list[str | None] = [*_names(parts)] if len(parts) > 1 else [None]
    launch = f"python -m domainbed.scripts.sweep launch --config {shlex.quote(str(path))}"
    commands = [launch if name is None else f"{launch} --preset {shlex.quote(name)}" for name in presets]
    lines = [
        *(f"# {line}" for paragraph in comment for line in textwrap.wrap(visible(paragraph), 108)),
        "#",
        *(f"#     {visible(command)}" for command in commands),
        "",
        *([] if presets == [None] else [f"preset = {toml_value(presets[0])}"]),
        *(f"{name} = {toml_value(value)}" for name, value in flags.items()),
    ]
    for preset, part in zip(presets, parts, strict=True):
        lines += _lines(preset, part)
    try:
        write_atomic(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise RunError(f"cannot write {path} ({option}): {error.strerror or error}") from None
    return commands


def _names(parts: Sequence[Part]) -> Iterator[str]:
    """A name for each part: the dataset, "dataset/condition", or these with a number from 2 on."""
    seen: Counter[str] = Counter()
    for part in parts:
        name = part.dataset if part.condition == "domain" else f"{part.dataset}/{part.condition}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


def _lines(preset: str | None, part: Part) -> Iterator[str]:
    table = "" if preset is None else f"presets.{toml_key(preset)}."
    if preset is not None:
        yield ""
        yield f"[{table.removesuffix('.')}]"
    flags: dict[str, object] = {
        "datasets": [part.dataset],
        "algorithms": REGISTRY.order(part.hparams),
    }
    if part.target_sets:
        flags["target_sets"] = [" ".join(map(str, each)) for each in part.target_sets]
    else:
        flags |= {"test_envs": sorted(part.targets), "single_test_envs": not part.pairs}
    if part.condition != "domain":
        flags["grouping"] = [part.condition]
    yield from (f"{name} = {toml_value(value)}" for name, value in (flags | {**part.flags}).items())
    for algorithm, hparams in part.hparams.items():
        if not hparams:
            continue
        yield ""
        if algorithm in part.comments:
            yield f"# {part.comments[algorithm]}"
        yield f"[{table}hparams.{toml_key(algorithm)}]"
        yield from (f"{toml_key(name)} = {toml_value(value)}" for name, value in hparams.items())
