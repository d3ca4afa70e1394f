"""Report section `aggregate`: one number for each algorithm over all cells, with its interval.

python -m domainbed.scripts.collect_results --input_dir DIR --aggregate
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.errors import UsageError
from domainbed.metrics import ACCURACY, Metric
from domainbed.model_selection import SelectionMethod
from domainbed.results.printing import print_paragraphs, print_section_table
from domainbed.results.report import ReportContext
from domainbed_gs.report.cell_aggregates import RESAMPLES, Aggregate, Estimate, aggregates
from domainbed_gs.report.paired import selection_name
from domainbed_gs.report.paired_tables import NOTHING, Table
from domainbed_gs.report.shared_cells import SharedCells, shared_cells


class AggregateSection:
    """`--aggregate`; implements `domainbed.results.report.ReportSection`.

    `title` is its heading on a page.
    """

    title = "Over all cells"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("aggregates over cells (domainbed_gs)")
        group.add_argument(
            "--aggregate",
            action="store_true",
            help="interquartile mean and probability of improvement over all targets (Agarwal et al. 2021)",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the table is requested."""
        return bool(args.aggregate)

    def write(self, context: ReportContext) -> None:
        """Print a row for each algorithm, and the meaning of the numbers.

        Raises:
            UsageError: no algorithm has results on all datasets.
            UnknownName: --paired_selection is unknown.
        """
        args = context.args
        selection = selection_name(context)
        method = context.method(selection)
        metric = method.metric
        shared = shared_cells(context.accuracies(selection))
        if not shared.algorithms:
            raise UsageError("--aggregate needs an algorithm with results on all datasets of the sweep")
        found = aggregates(shared, args.baseline, args.bootstrap_seed, metric.sign)
        in_csv = context.format == "csv"
        table = _csv_table(found, metric) if in_csv else _table(found, args.baseline, metric)
        print_section_table("Aggregates over all cells", table.columns, table.rows, context.format)
        print_paragraphs(_describe(shared, method, args.baseline, args.bootstrap_seed), context.format)


SECTION = AggregateSection()


def _table(found: Sequence[Aggregate], baseline: str, metric: Metric) -> Table:
    interval = "95 % interval"
    columns = ["Algorithm", "Mean", interval, "IQM", interval, f"P(better than {baseline})", interval]
    rows = [
        [
            each.algorithm,
            *_estimate(each.mean, metric),
            *_estimate(each.interquartile_mean, metric),
            *([NOTHING, NOTHING] if each.improvement is None else _estimate(each.improvement, ACCURACY)),
        ]
        for each in found
    ]
    return Table(columns, rows)


def _estimate(estimate: Estimate, metric: Metric) -> list[str]:
    value, low, high = (metric.text(each, 2) for each in (estimate.value, estimate.low, estimate.high))
    return [value, f"[{low}, {high}]"]


def _csv_table(found: Sequence[Aggregate], metric: Metric) -> Table:
    """All numbers at full precision; missing values are empty."""
    columns = ["algorithm"]
    percent = "_percent" if metric.unit == "%" else ""
    for name in (f"mean{percent}", f"iqm{percent}", "probability_of_improvement"):
        columns += [name, f"{name}_low", f"{name}_high"]
    rows = []
    for each in found:
        means = [_texts(estimate, metric.scale) for estimate in (each.mean, each.interquartile_mean)]
        improvement = [""] * 3 if each.improvement is None else _texts(each.improvement, 1)
        rows.append([each.algorithm, *means[0], *means[1], *improvement])
    return Table(columns, rows)


def _texts(estimate: Estimate, factor: float) -> list[str]:
    return [str(factor * value) for value in (estimate.value, estimate.low, estimate.high)]


def _describe(shared: SharedCells, method: type[SelectionMethod], baseline: str, seed: int) -> list[str]:
    cells, accuracies = len(shared.trials), sum(map(len, shared.trials.values()))
    where = f"over {cells} {'cell' if cells == 1 else 'cells'} (dataset and target)"
    what = (
        f"All numbers are in %, {where} with {accuracies} accuracies of each algorithm, those that all "
        "algorithms have."
        if method.metric is ACCURACY
        else f"Means are of {method.metric.described}, {where} with {accuracies} results of each algorithm, "
        "those that all algorithms have; probabilities are in %."
    )
    results = "accuracies" if method.metric is ACCURACY else "results"
    lines = [
        f"Model selection: {method.name}.",
        what,
        f"IQM: interquartile mean, the mean of the middle half of all {results}. It says little about the "
        "easiest and the hardest targets.",
        f"P(better than {baseline}): probability that a trial is better than an independent trial of "
        f"{baseline}, with half of the ties; mean over cells. It does not say by how much, and ignores that "
        "trials are paired. At 50 the two are alike.",
        f"95 % interval: percentile bootstrap of the trials in each cell ({RESAMPLES:,} resamples, seed "
        f"{seed}), not corrected for the number of algorithms; too narrow with few trials. The cells "
        "themselves are not resampled: the intervals hold for these targets.",
    ]
    if baseline not in shared.algorithms:
        lines.append(f"Note: no algorithm is compared, since {baseline} (--baseline) has no shared results.")
    return lines + [f"Note: {remark}" for remark in shared.remarks]
