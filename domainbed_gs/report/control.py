"""Report section `control`: the control experiment of the ICCV 2021 paper (figure 4).

A condition (`--grouping`) determines what an update sees as environments: `domain`, `single_domain` or
`pooled` (see `domainbed.training.grouping`). Conditions of one algorithm are compared as methods are, on the
same trials.

python -m domainbed.scripts.collect_results --input_dir DIR --control --control_figures DIR/figures
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.accuracies import compute_accuracies, shown_datasets
from domainbed.results.loading import algorithm_and_condition
from domainbed.results.report import ReportContext
from domainbed.sweep.manifest import Manifest
from domainbed.training.config import SETTINGS
from domainbed_gs.report.cautions import cautions
from domainbed_gs.report.comparison import PairedReport, compare_all
from domainbed_gs.report.paired import print_figures, print_notes, print_tables, selection_name

GROUPING = tuple(map(str, SETTINGS["grouping"].choices))
BASELINE = GROUPING[0]
"""The condition with real environments, `domain`."""

INTRODUCTION = (
    "Methods in these tables are conditions (--grouping) of the algorithm named beside the dataset. They "
    "determine the environments of an update. domain: one minibatch from each source; single_domain: all "
    "minibatches from one source, drawn at random for each update; pooled: the samples of domain, dealt out "
    "at random."
)


class ControlSection:
    """`--control` and `--control_figures`; implements `domainbed.results.report.PageSection`."""

    title = "Control experiment"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this section."""
        group = parser.add_argument_group("control experiment (domainbed_gs)")
        group.add_argument(
            "--control", action="store_true", help="compare the runs of each algorithm by their --grouping"
        )
        group.add_argument(
            "--control_figures",
            type=Path,
            metavar="DIR",
            help="write a box plot for each dataset and algorithm to DIR/DATASET_ALGORITHM.png",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether tables or figures are requested."""
        return bool(args.control or args.control_figures)

    def belongs(self, context: ReportContext) -> bool:
        """Whether an algorithm has runs under several conditions."""
        return bool(algorithms_with_control(context.records))

    def write(self, context: ReportContext) -> None:
        """Print the tables, the meaning of their numbers, and cautions.

        Raises:
            UnknownName: --paired_selection is unknown.
            UsageError: no algorithm has runs under two conditions, or matplotlib is missing.
            RunError: a figure cannot be written.
        """
        args = context.args
        selection = selection_name(context)
        report, warnings = compare_conditions(context.records, context.manifest, METHODS[selection])
        if args.control or context.format == "html":
            heading = f"Control experiment: conditions compared with {BASELINE}"
            print_tables(report, selection, context.format, heading)
            print_notes(
                report, selection, args.bootstrap_seed, warnings, context.format, introduction=[INTRODUCTION]
            )
        print_figures(report, args.control_figures, context.format)


SECTION = ControlSection()


def compare_conditions(
    records: Q[Record], manifest: Manifest | None, selection: type[SelectionMethod]
) -> tuple[PairedReport, list[str]]:
    """Compare each algorithm under a control condition with the same algorithm under `domain`.

    Args:
        records: records of a sweep, with method names such as "AgrSum/pooled" as `algorithm`
            (`domainbed.results.loading`).
        manifest: jobs that the sweep launched, with the same names; None if unknown.
        selection: selection method.

    Returns: a report whose datasets are pairs such as "PACS, AgrSum" and whose methods are conditions, with
        one family for Holm's correction; and its cautions.

    Raises: UsageError if no algorithm has runs under `domain` and another condition.
    """
    compared = algorithms_with_control(records)
    if not compared:
        raise UsageError(
            f"--control compares conditions, but no algorithm has runs under `{BASELINE}` and another "
            f"condition; launch a sweep with --grouping {' '.join(GROUPING)}"
        )
    own = Q(
        [
            record | {"args": _by_condition(record["args"])}
            for record in records
            if _algorithm(record["args"]) in compared
        ]
    )
    accuracies = compute_accuracies(own, selection)
    accuracies.algorithms = [name for name in GROUPING if name in accuracies.algorithms]
    environments = {columns.name: columns.environments for columns in shown_datasets(records)}
    accuracies.datasets = [
        replace(columns, environments=environments[columns.name.rpartition(", ")[0]])
        for columns in accuracies.datasets
    ]
    report = compare_all(accuracies, BASELINE)
    if manifest is not None:
        jobs = {name: job for name, job in manifest.jobs.items() if _algorithm(job) in compared}
        manifest = replace(manifest, jobs={name: _by_condition(job) for name, job in jobs.items()})
    return report, cautions(report, own, manifest)


def algorithms_with_control(records: Q[Record]) -> set[str]:
    """Names of the algorithms with runs under `domain` and another condition."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        algorithm, condition = algorithm_and_condition(record["args"]["algorithm"])
        found[algorithm].add(condition)
    return {
        algorithm for algorithm, conditions in found.items() if BASELINE in conditions and len(conditions) > 1
    }


def _algorithm(args: Mapping[str, Any]) -> str:
    return algorithm_and_condition(args["algorithm"])[0]


def _by_condition(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a run with the algorithm moved into `dataset`, and the condition as `algorithm`."""
    algorithm, condition = algorithm_and_condition(args["algorithm"])
    return {**args, "dataset": f"{args['dataset']}, {algorithm}", "algorithm": condition}
