"""A sweep file that runs the best setting of each algorithm again, on more trials."""

from __future__ import annotations

import json
import math
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from domainbed.algorithms import REGISTRY
from domainbed.errors import RunError
from domainbed.files import write_whole
from domainbed.hparams import Value
from domainbed.model_selection import LeaveOneOutSelectionMethod, SelectionMethod
from domainbed.results.conditions import algorithm_and_condition
from domainbed.results.settings import Candidate, Setting, settings
from domainbed.sweep.flags import PASSED_ON
from domainbed.training.config import TrainConfig

TRIALS = 20
"""As many as stand behind each number of the ICCV 2021 paper's tables."""

KEPT = ("steps", "data_dir", "task", "holdout_fraction", *PASSED_ON)
"""Flags of `sweep` that the new runs share with the old ones."""


def best(of_algorithm: Sequence[Setting]) -> Setting | None:
    """The setting with the best mean `val_acc` among those tried on all targets; None if none has one."""
    targets = {target for setting in of_algorithm for target in setting.targets}
    complete = [it for it in of_algorithm if {*it.targets} == targets and not math.isnan(it.val_acc)]
    return max(complete, key=lambda it: it.val_acc, default=None)


def write(
    path: Path, groups: Iterable[list[Candidate]], selection: str, method: type[SelectionMethod], about: Path
) -> list[str]:
    """Write the sweep file; returns the commands that launch it.

    Several datasets, or several conditions (`--grouping`), become presets, since each has its own best.

    Args:
        path: what is written (.toml).
        groups: of `settings.candidates`.
        selection: short name of the method behind them.
        method: that method.
        about: the sweep's directory.

    Raises: RunError if the runs of a dataset were not made alike, or the file can't be written.
    """
    parts: dict[tuple[str, str], dict[str, Setting]] = {}
    for (dataset, name), found in settings(groups).items():
        algorithm, condition = algorithm_and_condition(name)
        setting = best(found)
        if setting is not None:
            parts.setdefault((dataset, condition), {})[algorithm] = setting
    if not parts:
        raise RunError(f"no setting in {about} has a result on all targets: there is no best one to relaunch")
    names = [dataset if condition == "domain" else f"{dataset}/{condition}" for dataset, condition in parts]
    presets = names if len(names) > 1 else [None]
    launch = f"python -m domainbed.scripts.sweep launch --config {shlex.quote(str(path))}"
    commands = [launch if name is None else f"{launch} --preset {shlex.quote(name)}" for name in presets]
    comment = f"The best setting of each algorithm in {about}, on {TRIALS} trials each. {method.about()}."
    lines = [
        *(f"# {line}" for line in textwrap.wrap(comment, 108)),
        *("#", *(f"#     {command}" for command in commands), ""),
        *([] if presets == [None] else [f"preset = {json.dumps(presets[0])}"]),
        f"output_dir = {json.dumps(f'{about}-best')}",
        *(f"n_trials = {TRIALS}", "n_hparams = 1", 'seed_scheme = "paired"'),
        f"selection = {json.dumps([selection])}",
    ]
    for preset, ((dataset, condition), own) in zip(presets, parts.items(), strict=True):
        lines += _part(preset, dataset, condition, own, issubclass(method, LeaveOneOutSelectionMethod))
    try:
        write_whole(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise RunError(f"--relaunch_best {path} can't be written: {error.strerror or error}") from None
    return commands


def _part(
    preset: str | None, dataset: str, condition: str, own: Mapping[str, Setting], pairs: bool
) -> Iterator[str]:
    """The lines of one dataset under one condition; with `pairs` of targets where selection needs them."""
    table = "" if preset is None else f"presets.{_key(preset)}."
    if preset is not None:
        yield from ("", f"[{table.removesuffix('.')}]")
    every = [record["args"] for it in own.values() for each in it.candidates for record in each.records]
    flags: dict[str, object] = {
        "datasets": [dataset],
        "algorithms": REGISTRY.order(list(own)),
        "test_envs": sorted({target for it in own.values() for target in it.targets}),
        "single_test_envs": not pairs,
    }
    if condition != "domain":
        flags["grouping"] = [condition]
    for name in KEPT:
        value = _shared(name, dataset, every)
        if value is not None and value != getattr(TrainConfig, name):
            flags[name] = value
    yield from (f"{name} = {json.dumps(value)}" for name, value in flags.items())
    for algorithm, setting in own.items():
        yield ""
        yield (
            f"# Validation {100 * setting.val_acc:.2f} %, target {100 * setting.test_acc:.2f} %, "
            f"means of {len(setting.candidates)} runs."
        )
        yield f"[{table}hparams.{_key(algorithm)}]"
        yield from (f"{_key(name)} = {json.dumps(value)}" for name, value in setting.hparams.items())


def _key(name: str) -> str:
    """A key of TOML, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _shared(name: str, dataset: str, every: Sequence[Mapping[str, Value | None]]) -> Value | None:
    """The value that all runs have for a flag."""
    values = {args.get(name) for args in every}
    if len(values) > 1:
        listed = ", ".join(map(str, values))
        raise RunError(f"--relaunch_best needs runs made alike; {name} on {dataset} is one of {listed}")
    return values.pop() if values else None
