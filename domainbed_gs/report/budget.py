"""Report section `budget`: expected best accuracy of a search by the number of settings that it tries.

python -m domainbed.scripts.collect_results --input_dir DIR --budget
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from domainbed.errors import UsageError
from domainbed.metrics import Metric
from domainbed.model_selection import SelectionMethod
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
    "Expected target {} of the setting with the best validation result, by the number of settings "
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
        method = context.method(selection_name(context))
        metric = method.metric
        curves = budget_curves(ranked_candidates(context.records, method))
        if not curves:
            raise UsageError(
                "--budget needs a random search, two or more seeds of hyper-parameters with results in a "
                "trial; launch a sweep with --n_hparams"
            )
        if context.format == "csv":
            table = _csv_table(curves, method)
            title = f"Expected best {metric.title} by search budget"
            print_section_table(title, table.columns, table.rows, "csv")
        else:
            for dataset in dict.fromkeys(curve.dataset for curve in curves):
                of_dataset = [curve for curve in curves if curve.dataset == dataset]
                table = _table(of_dataset, method)
                unit = f" ({metric.unit})" if metric.unit else ""
                title = f"Dataset: {dataset}, expected best {metric.title} by search budget{unit}"
                print_section_table(title, table.columns, table.rows, context.format)
                if context.format == "html" and have_matplotlib():
                    title = f"Dataset: {dataset}, target {metric.title} by search budget"
                    caption = _CAPTION.format(metric.title)
                    print_panels(title, [("all algorithms", _figure(of_dataset, metric))], caption)
        targets = {dataset.name: dataset.targets for dataset in shown_datasets(context.records)}
        print_paragraphs([*describe(method), *_left_out(curves, targets)], context.format)


SECTION = BudgetSection()


def describe(method: type[SelectionMethod]) -> list[str]:
    """Meaning of the numbers."""
    metric, criterion = method.metric, method.criterion
    if metric is criterion:
        units = f", in {metric.unit}" if metric.unit else ""
    else:
        units = f": {criterion.heading} and {metric.heading}"
    return [
        f"Model selection: {method.name}.",
        "Settings: number n of hyper-parameter settings that a search tries, drawn with replacement from "
        "those of the sweep (Dodge et al. 2019). The default values can be one of those.",
        f"Validation, target: expected {_result(method)} of the setting that has the best validation "
        f"{_result(method)} of n on its target, averaged over targets and trials{units}.",
        f"SD of search: standard deviation of the target {metric.title} between searches of n settings "
        "within a trial. SD of trials: standard deviation of its expected value between trials (ddof=1); "
        "trials also differ in the settings they tried.",
        "Trials: number of trials that have all targets. Only settings that all targets share count.",
    ]


def _result(method: type[SelectionMethod]) -> str:
    return method.metric.title if method.metric is method.criterion else "result"


def _left_out(curves: Sequence[BudgetCurve], environments: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence on each dataset with targets that some algorithms lack."""
    lacking = {curve.dataset: curve.left_out for curve in curves if curve.left_out}
    return [
        f"Note: {dataset}: averaged without "
        f"{', '.join(environments[dataset][target] for target in targets)}, which some algorithms lack."
        for dataset, targets in lacking.items()
    ]


def _table(curves: Sequence[BudgetCurve], method: type[SelectionMethod]) -> Table:
    columns = ["Algorithm", "Settings", "Validation", "Target", "SD of search", "SD of trials", "Trials"]
    rows = [
        [curve.algorithm, str(point.settings), *_texts(point, method), str(curve.trials)]
        for curve in curves
        for point in curve.points
    ]
    return Table(columns, rows)


def _texts(point: BudgetPoint, method: type[SelectionMethod]) -> list[str]:
    validation = f"{method.criterion_in_unit(point.validation):.{2 + method.criterion.extra_digits}f}"
    values = (point.target, point.search, point.trials)
    return [validation, *(NOTHING if value is None else method.metric.text(value, 2) for value in values)]


def _csv_table(curves: Sequence[BudgetCurve], method: type[SelectionMethod]) -> Table:
    """All numbers at full precision; missing values are empty."""
    percent, points = ("_percent", "_points") if method.metric.unit == "%" else ("", "")
    columns = [
        *("dataset", "algorithm", "settings"),
        *("validation_percent" if method.criterion.unit == "%" else "validation", f"target{percent}"),
        *(f"sd_search{points}", f"sd_trials{points}", "trials", "targets"),
    ]
    rows = []
    for curve in curves:
        targets = " ".join(map(str, curve.targets))
        for point in curve.points:
            values = (point.target, point.search, point.trials)
            texts = [str(method.criterion_in_unit(point.validation))]
            texts += ["" if value is None else str(method.metric.scale * value) for value in values]
            row = [curve.dataset, curve.algorithm, str(point.settings), *texts, str(curve.trials), targets]
            rows.append(row)
    return Table(columns, rows)


def _figure(curves: Sequence[BudgetCurve], metric: Metric) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    for i, curve in enumerate(curves):
        axis.plot(
            [point.settings for point in curve.points],
            [metric.scale * point.target for point in curve.points],
            color=PALETTE[i % len(PALETTE)],
            linestyle=("solid", "dashed", "dotted")[i // len(PALETTE) % 3],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=curve.algorithm,
        )
    axis.set_xlabel("settings tried", color=INK)
    axis.set_ylabel(f"target {metric.heading}", color=INK)
    plain_axes(axis)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
