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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.accuracies import shown_datasets
from domainbed.results.method_names import algorithm_and_condition
from domainbed.results.report import ReportContext
from domainbed.sweep.manifest import Manifest
from domainbed.training.config import SETTINGS
from domainbed_gs.report.cautions import cautions
from domainbed_gs.report.cells import PairedReport
from domainbed_gs.report.paired import PairedOptions, print_figures, print_notes, print_tables
from domainbed_gs.report.target_parts import accuracies_by_part
from domainbed_gs.report.trial_splits import TrialSplits, trial_splits

GROUPING = tuple(map(str, SETTINGS["grouping"].choices))
BASELINE = GROUPING[0]
"""The condition with real environments, `domain`."""

INTRODUCTION = (
    "Methods in these tables are conditions (--grouping) of the algorithm named beside the dataset: where "
    "the minibatches of an update come from. domain: one from each source; single_domain: all from one "
    "source, drawn at random for each update; pooled: the samples of domain, divided at random."
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
            help="write a plot of the trials of each dataset and algorithm to DIR/DATASET_ALGORITHM.png",
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
            UsageError: no algorithm has runs under two conditions, an option is invalid, or matplotlib is
                missing.
            RunError: a figure cannot be written.
        """
        args = context.args
        options = PairedOptions.of(context)
        conditions = compare_conditions(context.records, context.manifest, options)
        reports = conditions.reports
        if args.control or context.format == "html":
            title = f"Control experiment: conditions compared with {BASELINE}"
            print_tables(reports, options.selection, context.format, title)
            print_notes(
                reports,
                options.selection,
                conditions.splits,
                conditions.warnings,
                context.format,
                introduction=[INTRODUCTION],
            )
        print_figures(next(iter(reports.values())), args.control_figures, context.format)


SECTION = ControlSection()


@dataclass(frozen=True)
class Conditions:
    """Each algorithm under the control conditions, compared with itself under `domain`.

    Attributes:
        reports: comparisons by part of the target. Their datasets are pairs such as "PACS, AgrSum", their
            methods conditions.
        splits: how the trials of these algorithms were split.
        warnings: cautions.
    """

    reports: dict[str, PairedReport]
    splits: TrialSplits
    warnings: list[str]


def compare_conditions(records: Q[Record], manifest: Manifest | None, options: PairedOptions) -> Conditions:
    """Compare each algorithm under a control condition with the same algorithm under `domain`.

    Args:
        records: records of a sweep, with method names such as "AgrSum/pooled" as `algorithm`
            (`domainbed.results.loading`).
        manifest: jobs that the sweep launched, with the same names; None if unknown.
        options: selection method, rope, correction and part of the target.

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
    environments = {columns.name: columns.environments for columns in shown_datasets(records)}
    parts = accuracies_by_part(own, options.method, options.target_part, over_targets=options.over_targets)
    for accuracies in parts.values():
        accuracies.algorithms = [name for name in GROUPING if name in accuracies.algorithms]
        accuracies.datasets = [
            replace(columns, environments=environments[columns.name.rpartition(", ")[0]])
            for columns in accuracies.datasets
        ]
    splits = trial_splits(own)
    reports = options.compare(parts, BASELINE, splits)
    if manifest is not None:
        jobs = {name: job for name, job in manifest.jobs.items() if _algorithm(job) in compared}
        manifest = replace(manifest, jobs={name: _by_condition(job) for name, job in jobs.items()})
    return Conditions(reports, splits, cautions(next(iter(reports.values())), own, manifest))


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
