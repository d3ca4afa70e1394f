"""The control experiment of the ICCV 2021 paper (figure 4): one method under several conditions.

A condition is what an update sees as environments: `domain`, `single_domain` or `pooled` (see
`domainbed.training.grouping`). Conditions are compared as methods are, on the same trials.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from domainbed.errors import UsageError
from domainbed.model_selection import SelectionMethod
from domainbed.records.jsonl import Record
from domainbed.records.query import Q
from domainbed.results.accuracies import compute, shown_datasets
from domainbed.results.conditions import algorithm_and_condition
from domainbed.sweep.manifest import Manifest
from domainbed.training.config import GROUPING
from domainbed_gs.report.cautions import notes
from domainbed_gs.report.comparison import PairedReport, compare_all

BASELINE = GROUPING[0]


def compare_conditions(
    records: Q[Record], manifest: Manifest | None, selection: type[SelectionMethod], seed: int
) -> tuple[PairedReport, list[str]]:
    """Each method against itself with the environments as they are.

    Args:
        records: of a sweep, under the names of methods (`domainbed.results.conditions`).
        manifest: what it was asked to hold, likewise.
        selection: what reads accuracies off the records.
        seed: of the bootstrap.

    Returns: a report in which "PACS, AgrSum" is a dataset and a condition a method, with one family for
        Holm's correction; and what to know before believing it.

    Raises: UsageError if no method has runs under `domain` and another condition.
    """
    wanted = with_conditions(records)
    if not wanted:
        raise UsageError(
            "--control compares conditions, and no algorithm has runs under `domain` and another one; launch "
            f"a sweep with --grouping {' '.join(GROUPING)}"
        )
    own = Q([it | {"args": _by_condition(it["args"])} for it in records if _algorithm(it["args"]) in wanted])
    accuracies = compute(own, selection)
    accuracies.algorithms = [name for name in GROUPING if name in accuracies.algorithms]
    environments = {columns.name: columns.environments for columns in shown_datasets(records)}
    accuracies.datasets = [
        replace(columns, environments=environments[columns.name.rpartition(", ")[0]])
        for columns in accuracies.datasets
    ]
    report = compare_all(accuracies, BASELINE, seed)
    if manifest is not None:
        jobs = {name: job for name, job in manifest.jobs.items() if _algorithm(job) in wanted}
        manifest = replace(manifest, jobs={name: _by_condition(job) for name, job in jobs.items()})
    return report, notes(report, own, manifest)


def with_conditions(records: Q[Record]) -> set[str]:
    """The algorithms with runs under `domain` and another condition."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        algorithm, condition = algorithm_and_condition(record["args"]["algorithm"])
        found[algorithm].add(condition)
    return {algorithm for algorithm, own in found.items() if BASELINE in own and len(own) > 1}


def _algorithm(args: Mapping[str, Any]) -> str:
    return algorithm_and_condition(args["algorithm"])[0]


def _by_condition(args: Mapping[str, Any]) -> dict[str, Any]:
    algorithm, condition = algorithm_and_condition(args["algorithm"])
    return {**args, "dataset": f"{args['dataset']}, {algorithm}", "algorithm": condition}
