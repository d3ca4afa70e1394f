"""Report section `budget`: expected best accuracy of a search by the number of settings that it tries.

python -m domainbed.scripts.collect_results --input_dir DIR --budget
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import shown_datasets
from domainbed.results.hparam_search import ranked_candidates
from domainbed.results.plots import INK, PALETTE, have_matplotlib, plain_axes
from domainbed.results.printing import print_panels, print_paragraphs, print_section_table
from domainbed.results.report import ReportContext
from domainbed.results.search_budget import FEWEST_SETTINGS, BudgetCurve, BudgetPoint, budget_curves
from domainbed_gs.report.paired import selection_name
from domainbed_gs.report.paired_tables import NOTHING, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"

_CAPTION = (
    "Expected target accuracy of the setting with the best validation accuracy, by the number of settings "
    "that a search tries. Mean over trials and targets."
)


class BudgetSection:
    """`--budget`; implements `domainbed.results.report.PageSection`."""

    title = "Accuracy by search budget"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("hyper-parameter search (domainbed_gs)")
        group.add_argument(
            "--budget",
            action="store_true",
            help="expected best accuracy by the number of hyper-parameter settings tried (Dodge et al. 2019)",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the table is requested."""
        return bool(args.budget)

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep has several settings of the hyper-parameters."""
        return len(set(context.records.select("args.hparams_seed"))) >= FEWEST_SETTINGS

    def write(self, context: ReportContext) -> None:
        """Print a table for each dataset, and the meaning of its numbers. A page also has a figure for each.

        Raises:
            UsageError: no algorithm has two settings with a result in any trial.
            UnknownName: --paired_selection is unknown.
        """
        method = METHODS[selection_name(context)]
        curves = budget_curves(ranked_candidates(context.records, method))
        if not curves:
            raise UsageError(
                "--budget needs a random search, two or more seeds of hyper-parameters with results in a "
                "trial; launch a sweep with --n_hparams"
            )
        if context.format == "csv":
            table = _csv_table(curves)
            print_section_table("Expected best accuracy by search budget", table.columns, table.rows, "csv")
        else:
            for dataset in dict.fromkeys(curve.dataset for curve in curves):
                of_dataset = [curve for curve in curves if curve.dataset == dataset]
                table = _table(of_dataset)
                title = f"Dataset: {dataset}, expected best accuracy by search budget (%)"
                print_section_table(title, table.columns, table.rows, context.format)
                if context.format == "html" and have_matplotlib():
                    title = f"Dataset: {dataset}, target accuracy by search budget"
                    print_panels(title, [("all algorithms", _figure(of_dataset))], _CAPTION)
        targets = {dataset.name: dataset.targets for dataset in shown_datasets(context.records)}
        print_paragraphs([*describe(method.name), *_left_out(curves, targets)], context.format)


SECTION = BudgetSection()


def describe(selection: str) -> list[str]:
    """Meaning of the numbers."""
    return [
        f"Model selection: {selection}.",
        "Settings: number n of hyper-parameter settings that a search tries, drawn with replacement from "
        "those of the sweep (Dodge et al. 2019). The default values can be one of those.",
        "Validation, target: expected accuracy of the setting that has the best validation accuracy of n on "
        "its target, averaged over targets and trials, in %.",
        "SD of search: standard deviation of the target accuracy between searches of n settings within a "
        "trial. SD of trials: standard deviation of its expected value between trials (ddof=1); trials also "
        "differ in the settings they tried.",
        "Trials: number of trials that have all targets. Only settings that all targets share count.",
    ]


def _left_out(curves: Sequence[BudgetCurve], environments: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence on each dataset with targets that some algorithms lack."""
    lacking = {curve.dataset: curve.left_out for curve in curves if curve.left_out}
    return [
        f"Note: {dataset}: averaged without "
        f"{', '.join(environments[dataset][target] for target in targets)}, which some algorithms lack."
        for dataset, targets in lacking.items()
    ]


def _table(curves: Sequence[BudgetCurve]) -> Table:
    columns = ["Algorithm", "Settings", "Validation", "Target", "SD of search", "SD of trials", "Trials"]
    rows = [
        [curve.algorithm, str(point.settings), *_texts(point), str(curve.trials)]
        for curve in curves
        for point in curve.points
    ]
    return Table(columns, rows)


def _texts(point: BudgetPoint) -> list[str]:
    values = (point.validation, point.target, point.search, point.trials)
    return [NOTHING if value is None else f"{100 * value:.2f}" for value in values]


def _csv_table(curves: Sequence[BudgetCurve]) -> Table:
    """All numbers at full precision; missing values are empty."""
    columns = [
        *("dataset", "algorithm", "settings", "validation_percent", "target_percent"),
        *("sd_search_points", "sd_trials_points", "trials", "targets"),
    ]
    rows = []
    for curve in curves:
        targets = " ".join(map(str, curve.targets))
        for point in curve.points:
            values = (point.validation, point.target, point.search, point.trials)
            texts = ["" if value is None else str(100 * value) for value in values]
            row = [curve.dataset, curve.algorithm, str(point.settings), *texts, str(curve.trials), targets]
            rows.append(row)
    return Table(columns, rows)


def _figure(curves: Sequence[BudgetCurve]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    for i, curve in enumerate(curves):
        axis.plot(
            [point.settings for point in curve.points],
            [100 * point.target for point in curve.points],
            color=PALETTE[i % len(PALETTE)],
            linestyle=("solid", "dashed", "dotted")[i // len(PALETTE) % 3],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=curve.algorithm,
        )
    axis.set_xlabel("settings tried", color=INK)
    axis.set_ylabel("target accuracy (%)", color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
