"""Report section `aggregate`: one number for each algorithm over all cells, with its interval.

python -m domainbed.scripts.collect_results --input_dir DIR --aggregate
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
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
        method = METHODS[selection_name(context)]
        shared = shared_cells(compute_accuracies(context.records, method))
        if not shared.algorithms:
            raise UsageError("--aggregate needs an algorithm with results on all datasets of the sweep")
        found = aggregates(shared, args.baseline, args.bootstrap_seed)
        table = _csv_table(found) if context.format == "csv" else _table(found, args.baseline)
        print_section_table("Aggregates over all cells", table.columns, table.rows, context.format)
        print_paragraphs(_describe(shared, method.name, args.baseline, args.bootstrap_seed), context.format)


SECTION = AggregateSection()


def _table(found: Sequence[Aggregate], baseline: str) -> Table:
    interval = "95 % interval"
    columns = ["Algorithm", "Mean", interval, "IQM", interval, f"P(better than {baseline})", interval]
    rows = [
        [
            each.algorithm,
            *_percent(each.mean),
            *_percent(each.interquartile_mean),
            *([NOTHING, NOTHING] if each.improvement is None else _percent(each.improvement)),
        ]
        for each in found
    ]
    return Table(columns, rows)


def _percent(estimate: Estimate) -> list[str]:
    return [f"{100 * estimate.value:.2f}", f"[{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"]


def _csv_table(found: Sequence[Aggregate]) -> Table:
    """All numbers at full precision; missing values are empty."""
    columns = ["algorithm"]
    for name in ("mean_percent", "iqm_percent", "probability_of_improvement"):
        columns += [name, f"{name}_low", f"{name}_high"]
    rows = []
    for each in found:
        percents = [_texts(estimate, 100) for estimate in (each.mean, each.interquartile_mean)]
        improvement = [""] * 3 if each.improvement is None else _texts(each.improvement, 1)
        rows.append([each.algorithm, *percents[0], *percents[1], *improvement])
    return Table(columns, rows)


def _texts(estimate: Estimate, factor: int) -> list[str]:
    return [str(factor * value) for value in (estimate.value, estimate.low, estimate.high)]


def _describe(shared: SharedCells, selection: str, baseline: str, seed: int) -> list[str]:
    cells, accuracies = len(shared.trials), sum(map(len, shared.trials.values()))
    lines = [
        f"Model selection: {selection}.",
        f"All numbers are in %, over {cells} {'cell' if cells == 1 else 'cells'} (dataset and target) with "
        f"{accuracies} accuracies of each algorithm, those that all algorithms have.",
        "IQM: interquartile mean, the mean of the middle half of all accuracies. It says little about the "
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
