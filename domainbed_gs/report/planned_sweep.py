"""Write a sweep file that repeats a pilot with another number of trials, each with a split of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainbed.errors import RunError
from domainbed.hparams import parse_overrides
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run
from domainbed.records.target_sets import TargetSets, sets_by_dataset
from domainbed.results.method_names import algorithm_and_condition
from domainbed.results.sweep_from_records import Part, shared_flags, shared_value, write_sweep
from domainbed.training.config import SETTINGS
from domainbed.training.splits import parse_scheme, varies_by_trial

OPTION = "--write"
"""Flag of the command line that asks for the sweep file."""


def write_planned_sweep(
    path: Path, records: Q[Record], *, trials: int, selection: Sequence[str], sweep_dir: Path, about: str
) -> list[str]:
    """Write a sweep file that runs what the pilot ran, on `trials` trials; return the commands to launch it.

    Datasets, conditions (`--grouping`) and methods with other settings become presets of the file.

    Args:
        path: the sweep file (.toml).
        records: records of the pilot, whose `args["algorithm"]` is the name of a method.
        trials: number of trials.
        selection: selection methods that reports of the sweep use by default.
        sweep_dir: directory of the pilot.
        about: a sentence on the plan, for the head of the file.

    Raises: RunError if runs of one method differ in their settings, or if the file cannot be written.
    """
    parts = _parts(records)
    shared = sorted(
        {str(part.flags["splits"]) for part in parts if varies_by_trial(_splits(part.flags)) is False}
    )
    comment = [about, "Trials begin with seed 0 again; those of the pilot are run anew."]
    if shared:
        comment.append(
            f"All trials share one split (splits = {', '.join(shared)}): results hold for it alone."
        )
    return write_sweep(
        path,
        parts,
        comment=comment,
        flags={
            "output_dir": f"{sweep_dir}-planned",
            "n_trials": trials,
            "seed_scheme": "paired",
            "selection": list(selection),
        },
        option=OPTION,
    )


def own_splits(splits: str) -> str:
    """`splits` with a split for each trial, where its scheme has an option for that."""
    name, options = parse_scheme(splits)
    if varies_by_trial(splits) is not False or name != "stratified":
        return splits
    return f"{splits}:per_trial" if options else "stratified:70/10/20:per_trial"


def _splits(args: Mapping[str, Any]) -> str:
    return str(args.get("splits") or SETTINGS["splits"].default)


def _parts(records: Q[Record]) -> list[Part]:
    """The pilot's runs, in parts with equal flags."""
    of_method: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for args, _ in by_run(records):
        of_method[args["dataset"], args["algorithm"]].append(args)
    sets = sets_by_dataset(records)
    parts: list[Part] = []
    for dataset, method in sorted(of_method, key=_rank):
        part = _part(dataset, method, of_method[dataset, method], sets.get(dataset, ()))
        equal = [i for i, other in enumerate(parts) if _settings(other) == _settings(part)]
        if equal:
            parts[equal[0]] = _joined(parts[equal[0]], part)
        else:
            parts.append(part)
    return parts


def _settings(part: Part) -> tuple[object, ...]:
    return part.dataset, part.condition, part.flags


def _joined(one: Part, other: Part) -> Part:
    """The methods of two parts with equal settings, on the targets of both."""
    return replace(
        one,
        targets=sorted({*one.targets, *other.targets}),
        pairs=one.pairs or other.pairs,
        hparams={**one.hparams, **other.hparams},
    )


def _rank(key: tuple[str, str]) -> tuple[str, bool, str, str]:
    """Sort key of (dataset, method): methods with real environments come before controls."""
    algorithm, condition = algorithm_and_condition(key[1])
    return key[0], condition != "domain", condition, algorithm


def _part(dataset: str, method: str, args_of_runs: Sequence[Mapping[str, Any]], sets: TargetSets) -> Part:
    """The runs of one method on one dataset."""
    place = f"{dataset} by {method}"
    algorithm, condition = algorithm_and_condition(method)
    flags = shared_flags(args_of_runs, place, OPTION)
    flags["splits"] = own_splits(_splits(flags))
    seeds = {args["hparams_seed"] for args in args_of_runs}
    if len(seeds) <= max(seeds) - min(seeds):
        listed = ", ".join(map(str, sorted(seeds)))
        raise RunError(f"{OPTION} needs consecutive hparams seeds, but those on {place} are {listed}")
    overrides = shared_value(args_of_runs, "hparams", place, OPTION)
    return Part(
        dataset=dataset,
        condition=condition,
        targets=sorted({target for args in args_of_runs for target in args["test_envs"]}),
        pairs=any(len(args["test_envs"]) > 1 for args in args_of_runs),
        flags=flags | ({"n_hparams_from": min(seeds)} if min(seeds) else {}) | {"n_hparams": max(seeds) + 1},
        hparams={algorithm: parse_overrides(None if overrides is None else str(overrides))},
        target_sets=sets,
    )
