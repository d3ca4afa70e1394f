"""Run again: a run as a command line, and the best setting of each algorithm as a sweep file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from domainbed.errors import RunError
from domainbed.model_selection import SelectionMethod
from domainbed.records.target_sets import TARGET_SETS
from domainbed.results.hparam_search import Candidate, HparamSetting, hparam_settings
from domainbed.results.method_names import algorithm_and_condition
from domainbed.results.sweep_from_records import Part, shared_flags, write_sweep
from domainbed.sweep.job import command

TRIALS = 20
"""Number of trials behind each number in the tables of the ICCV 2021 paper (arXiv 2108.01621)."""

OPTION = "--relaunch_best"
"""Flag of `collect_results` that asks for the sweep file."""


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
    trials_from: int | None = None,
) -> list[str]:
    """Write a sweep file that runs the best setting of each algorithm; return the commands that launch it.

    Several datasets, or several conditions (`--grouping`), become presets of the file.

    Args:
        path: the sweep file (.toml).
        groups: the candidates (`ranked_candidates`).
        selection: short name of the selection method of the candidates.
        method: that selection method.
        sweep_dir: directory of the sweep that the candidates come from.
        trials_from: number of the first trial; None: the one after those of the search, so that no trial is
            tested on the split that its setting was chosen on.

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
    comment = f"The best setting of each algorithm in {sweep_dir}, on {TRIALS} trials each. {method.about()}."
    return write_sweep(
        path,
        [_part(dataset, condition, settings, method) for (dataset, condition), settings in parts.items()],
        comment=[comment],
        flags={
            "output_dir": f"{sweep_dir}-best",
            "n_trials": TRIALS,
            "trials_from": _trials_after(parts) if trials_from is None else trials_from,
            "n_hparams": 1,
            "seed_scheme": "paired",
            "selection": [selection],
        },
        option=OPTION,
    )


def _validation(setting: HparamSetting, method: type[SelectionMethod]) -> str:
    criterion = method.criterion
    number = f"{method.criterion_in_unit(setting.val_acc):.{2 + criterion.extra_digits}f}"
    return f"{number} {criterion.unit}".strip()


def _trials_after(parts: Mapping[tuple[str, str], Mapping[str, HparamSetting]]) -> int:
    """The number after those of all trials in the search."""
    settings = (setting for of_part in parts.values() for setting in of_part.values())
    records = (record for setting in settings for each in setting.candidates for record in each.records)
    return 1 + max(int(record["args"]["trial_seed"]) for record in records)


def _part(
    dataset: str, condition: str, settings: Mapping[str, HparamSetting], method: type[SelectionMethod]
) -> Part:
    """One dataset and condition."""
    records = [
        record
        for setting in settings.values()
        for candidate in setting.candidates
        for record in candidate.records
    ]
    return Part(
        dataset=dataset,
        condition=condition,
        targets=sorted({target for setting in settings.values() for target in setting.targets}),
        pairs=method.reads_pairs,
        flags=shared_flags([record["args"] for record in records], dataset, OPTION),
        hparams={algorithm: setting.hparams for algorithm, setting in settings.items()},
        comments={
            algorithm: f"Validation {_validation(setting, method)}, target {100 * setting.test_acc:.2f} %, "
            f"means of {len(setting.candidates)} runs."
            for algorithm, setting in settings.items()
        },
        target_sets=records[0].get(TARGET_SETS, ()),
    )
