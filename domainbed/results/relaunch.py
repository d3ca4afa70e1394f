"""Run again: a run as a command line, and the best setting of each algorithm as a sweep file."""

from __future__ import annotations

import json
import math
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from domainbed.algorithms import REGISTRY
from domainbed.errors import RunError
from domainbed.files import write_atomic
from domainbed.hparams import Value
from domainbed.model_selection import LeaveOneOutSelectionMethod, SelectionMethod
from domainbed.results.hparam_search import Candidate, HparamSetting, hparam_settings
from domainbed.results.loading import algorithm_and_condition
from domainbed.sweep.flags import PASSED_ON
from domainbed.sweep.job import command
from domainbed.training.settings import InSweep

TRIALS = 20
"""Number of trials behind each number in the tables of the ICCV 2021 paper (arXiv 2108.01621)."""

SHARED_FLAGS = {name: each for name, each in PASSED_ON.items() if each.in_sweep is not InSweep.SEVERAL}
"""Flags of `sweep` that the new runs take over from the old ones."""


def train_command_line(args: Mapping[str, Any], **changes: object) -> str:
    """The command line of a run, from the `args` of its records.

    Args:
        args: the arguments. `algorithm` may be the name of a method such as "AgrSum/pooled".
        changes: arguments to replace. A dict is written as JSON.
    """
    algorithm, condition = algorithm_and_condition(args["algorithm"])
    train_args = {**args, "algorithm": algorithm}
    if condition != "domain":
        train_args["grouping"] = condition
    for name, value in changes.items():
        train_args[name] = json.dumps(value) if isinstance(value, dict) else value
    return command(train_args)


def best_setting(settings: Sequence[HparamSetting]) -> HparamSetting | None:
    """The setting with the largest mean `val_acc` among those tried on all targets; None if there is none."""
    targets = {target for setting in settings for target in setting.targets}
    complete = [
        setting for setting in settings if {*setting.targets} == targets and not math.isnan(setting.val_acc)
    ]
    return max(complete, key=lambda setting: setting.val_acc, default=None)


def write_sweep_of_best(
    path: Path,
    groups: Iterable[list[Candidate]],
    *,
    selection: str,
    method: type[SelectionMethod],
    sweep_dir: Path,
) -> list[str]:
    """Write a sweep file that runs the best setting of each algorithm; return the commands that launch it.

    Several datasets, or several conditions (`--grouping`), become presets of the file.

    Args:
        path: the sweep file (.toml).
        groups: the candidates (`ranked_candidates`).
        selection: short name of the selection method of the candidates.
        method: that selection method.
        sweep_dir: directory of the sweep that the candidates come from.

    Raises: RunError if no setting has results on all targets, if runs of a dataset differ in a shared flag,
        or if the file cannot be written.
    """
    parts: dict[tuple[str, str], dict[str, HparamSetting]] = {}
    for (dataset, name), settings in hparam_settings(groups).items():
        algorithm, condition = algorithm_and_condition(name)
        setting = best_setting(settings)
        if setting is not None:
            parts.setdefault((dataset, condition), {})[algorithm] = setting
    if not parts:
        raise RunError(f"no setting in {sweep_dir} has results on all targets; finish its runs first")
    names = [dataset if condition == "domain" else f"{dataset}/{condition}" for dataset, condition in parts]
    presets = names if len(names) > 1 else [None]
    launch = f"python -m domainbed.scripts.sweep launch --config {shlex.quote(str(path))}"
    commands = [launch if name is None else f"{launch} --preset {shlex.quote(name)}" for name in presets]
    comment = f"The best setting of each algorithm in {sweep_dir}, on {TRIALS} trials each. {method.about()}."
    lines = [
        *(f"# {line}" for line in textwrap.wrap(comment, 108)),
        "#",
        *(f"#     {command}" for command in commands),
        "",
        *([] if presets == [None] else [f"preset = {json.dumps(presets[0])}"]),
        f"output_dir = {json.dumps(f'{sweep_dir}-best')}",
        f"n_trials = {TRIALS}",
        "n_hparams = 1",
        'seed_scheme = "paired"',
        f"selection = {json.dumps([selection])}",
    ]
    pairs = issubclass(method, LeaveOneOutSelectionMethod)
    for preset, ((dataset, condition), settings_of_part) in zip(presets, parts.items(), strict=True):
        lines += _part(preset, dataset, condition, settings_of_part, pairs)
    try:
        write_atomic(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise RunError(f"cannot write {path} (--relaunch_best): {error.strerror or error}") from None
    return commands


def _part(
    preset: str | None, dataset: str, condition: str, settings: Mapping[str, HparamSetting], pairs: bool
) -> Iterator[str]:
    """The lines of one dataset and condition. `pairs`: whether selection needs pairs of targets."""
    table = "" if preset is None else f"presets.{_toml_key(preset)}."
    if preset is not None:
        yield ""
        yield f"[{table.removesuffix('.')}]"
    args_of_runs = [
        record["args"]
        for setting in settings.values()
        for candidate in setting.candidates
        for record in candidate.records
    ]
    flags: dict[str, object] = {
        "datasets": [dataset],
        "algorithms": REGISTRY.order(list(settings)),
        "test_envs": sorted({target for setting in settings.values() for target in setting.targets}),
        "single_test_envs": not pairs,
    }
    if condition != "domain":
        flags["grouping"] = [condition]
    for name, declared in SHARED_FLAGS.items():
        value = _shared_value(name, dataset, args_of_runs)
        if value is not None and value != declared.default:
            flags[name] = value
    yield from (f"{name} = {json.dumps(value)}" for name, value in flags.items())
    for algorithm, setting in settings.items():
        yield ""
        yield (
            f"# Validation {100 * setting.val_acc:.2f} %, target {100 * setting.test_acc:.2f} %, "
            f"means of {len(setting.candidates)} runs."
        )
        yield f"[{table}hparams.{_toml_key(algorithm)}]"
        yield from (f"{_toml_key(name)} = {json.dumps(value)}" for name, value in setting.hparams.items())


def _toml_key(name: str) -> str:
    """`name` as a key of TOML, in quotes if necessary."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _shared_value(
    name: str, dataset: str, args_of_runs: Sequence[Mapping[str, Value | None]]
) -> Value | None:
    """The value of a flag that all runs have in common."""
    values = {args.get(name) for args in args_of_runs}
    if len(values) > 1:
        listed = ", ".join(map(str, values))
        raise RunError(
            f"--relaunch_best needs runs with equal settings, but {name} on {dataset} is one of {listed}"
        )
    return values.pop() if values else None
