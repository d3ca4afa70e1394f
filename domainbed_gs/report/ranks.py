"""Report section `ranks`: ranks algorithms over several datasets, and tests which of them differ.

python -m domainbed.scripts.collect_results --input_dir DIR --ranks --ranks_figure ranks.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import RunError
from domainbed.files import write_atomic
from domainbed.metrics import Metric
from domainbed.results.plots import have_matplotlib, png, require_matplotlib
from domainbed.results.printing import print_figure_names, print_panels, print_paragraphs, print_section_table
from domainbed.results.report import ReportContext
from domainbed_gs.report.friedman import datasets_for_friedman
from domainbed_gs.report.paired import selection_name
from domainbed_gs.report.paired_tables import Table, points
from domainbed_gs.report.rank_diagram import diagram
from domainbed_gs.report.ranking import (
    MIN_ALGORITHMS,
    MIN_DATASETS,
    NEMENYI,
    RANK_TESTS,
    SIGNED_RANK,
    RankedPair,
    Ranking,
    rank,
)
from domainbed_gs.report.statistics import ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CAPTION = "Average ranks, the best on the left. A bar joins algorithms of which no two differ significantly"


class RanksSection:
    """`--ranks` and `--ranks_figure`; implements `domainbed.results.report.PageSection`."""

    title = "Ranks over datasets"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this section."""
        group = parser.add_argument_group("ranks over datasets (domainbed_gs)")
        group.add_argument(
            "--ranks", action="store_true", help="average ranks over datasets, with Friedman's test"
        )
        group.add_argument(
            "--ranks_figure", type=Path, metavar="FILE", help="write the diagram of average ranks (.png)"
        )
        group.add_argument(
            "--rank_test",
            choices=RANK_TESTS,
            default=SIGNED_RANK,
            help="test of each pair of algorithms: exact signed-rank tests over datasets with Holm's "
            "correction, or Nemenyi's critical difference (default: signed_rank)",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the table or the diagram is requested."""
        return bool(args.ranks or args.ranks_figure)

    def belongs(self, context: ReportContext) -> bool:
        """Whether there are enough datasets and algorithms to rank."""
        datasets = set(context.records.select("args.dataset"))
        algorithms = set(context.records.select("args.algorithm"))
        return len(datasets) >= MIN_DATASETS and len(algorithms) >= MIN_ALGORITHMS

    def write(self, context: ReportContext) -> None:
        """Print the ranks of each algorithm, the pairs if any can differ, and the meaning of the numbers.

        Raises:
            UsageError: there are too few datasets or algorithms, or matplotlib is missing.
            UnknownName: --paired_selection is unknown.
            RunError: the diagram cannot be written.
        """
        args = context.args
        selection = selection_name(context)
        method, ranking = context.method(selection), rank(context.accuracies(selection), args.rank_test)
        page = context.format == "html"
        if args.ranks or page:
            full_precision = context.format == "csv"
            table = average_table(ranking, full_precision)
            print_section_table("Average ranks over datasets", table.columns, table.rows, context.format)
            if can_decide(ranking):
                table = pair_table(ranking, full_precision)
                print_section_table("Pairs of algorithms", table.columns, table.rows, context.format)
            print_paragraphs(describe(ranking, method.name), context.format)
        if page and have_matplotlib():
            test = (
                "Nemenyi's test"
                if ranking.rank_test == NEMENYI
                else "signed-rank tests with Holm's correction"
            )
            panels = [("ranks", _diagram(ranking))]
            print_panels("Diagram of average ranks", panels, f"{_CAPTION} ({test}, level {ALPHA}).")
        elif args.ranks_figure and not page:
            _write_diagram(ranking, args.ranks_figure)
            print_figure_names([args.ranks_figure], context.format)


SECTION = RanksSection()


def can_decide(ranking: Ranking) -> bool:
    """Whether there are enough datasets for any pair of algorithms to differ significantly."""
    return len(ranking.datasets) >= ranking.datasets_needed


def average_table(ranking: Ranking, full_precision: bool) -> Table:
    """A row for each algorithm: its rank on each dataset, and their average."""
    averages = ranking.averages
    rows = []
    for name, ranks in ranking.ranks.items():
        if full_precision:
            rows.append([name, *map(str, ranks), str(averages[name])])
        else:
            rows.append([name, *(f"{number:g}" for number in ranks), f"{averages[name]:.2f}"])
    return Table(["Algorithm", *ranking.datasets, "Average rank"], rows)


def pair_table(ranking: Ranking, full_precision: bool) -> Table:
    """A row for each pair of algorithms: their difference, and whether it is significant."""
    p_columns = ["Nemenyi p"] if ranking.rank_test == NEMENYI else ["p", "Holm p"]
    columns = ["Algorithm", "Compared with", "Difference", "Rank difference", "W/T/L", *p_columns]
    return Table(columns, [_pair_row(pair, ranking.metric, full_precision) for pair in ranking.pairs])


def _pair_row(pair: RankedPair, metric: Metric, full_precision: bool) -> list[str]:
    p_values = [p for p in (pair.p, pair.corrected_p) if p is not None]
    record = f"{pair.wins}/{pair.ties}/{pair.losses}"
    difference = metric.scale * pair.difference
    if full_precision:
        numbers = [str(difference), str(pair.rank_difference)]
        return [pair.better, pair.worse, *numbers, record, *map(str, p_values)]
    texts = [f"{p:.4f}" if p >= 0.001 else f"{p:.1e}" for p in p_values]
    texts[-1] += " *" if pair.significant else ""
    numbers = [points(difference, metric), f"{pair.rank_difference:.2f}"]
    return [pair.better, pair.worse, *numbers, record, *texts]


def describe(ranking: Ranking, selection: str) -> list[str]:
    """Meaning of the numbers, and what limits them."""
    algorithms, datasets = len(ranking.ranks), len(ranking.datasets)
    test = ranking.friedman
    worst = ranking.over_targets == "worst"
    over = (
        "on each trial's worst target, averaged over trials" if worst else "averaged over targets and trials"
    )
    lines = [
        f"Model selection: {selection}.",
        f"Rank: by the {ranking.metric.title} {over}, on the cells that all algorithms have; 1 is best, and "
        "ties share their mean rank.",
        f"Friedman's test of {algorithms} algorithms on {datasets} datasets: chi-squared "
        f"{test.statistic:.2f}, p = {test.p:.4g} ({test.method}).",
    ]
    needed = datasets_for_friedman(algorithms)
    if datasets < needed:
        lines.append(
            f"Note: Friedman's p cannot be below {ALPHA} with {algorithms} algorithms on {datasets} "
            f"datasets; at least {needed} datasets are needed."
        )
    lines += _describe_pairs(ranking)
    return lines + [f"Note: {remark}" for remark in ranking.remarks]


def _describe_pairs(ranking: Ranking) -> list[str]:
    algorithms, datasets = len(ranking.ranks), len(ranking.datasets)
    if ranking.rank_test == NEMENYI:
        lines = [
            f"Nemenyi's critical difference at level {ALPHA}: {ranking.critical_difference:.2f}. Average "
            "ranks that differ by less are not significantly different (Demsar 2006)."
        ]
    else:
        lines = [
            "Pairs of algorithms: two-sided exact signed-rank tests of the results on the datasets, with "
            f"Holm's correction for all {len(ranking.pairs)} pairs."
        ]
    if can_decide(ranking):
        lines.append(
            f"Difference: {_difference(ranking.metric)}. "
            "W/T/L: numbers of datasets on which the first is better than, equal to, worse than the second. "
            f"A star marks a corrected p < {ALPHA}."
        )
    else:
        lines.append(
            f"Note: no two of {algorithms} algorithms can differ significantly on {datasets} datasets, so "
            f"the pairs are not listed. At least {ranking.datasets_needed} datasets are needed."
        )
    return lines


def _difference(metric: Metric) -> str:
    order = "the first minus the second" if metric.larger_is_better else "the second minus the first"
    return f"mean over datasets of {order} algorithm, in {metric.points}"


def _diagram(ranking: Ranking) -> Figure:
    return diagram(ranking.averages, ranking.cliques(), ranking.critical_difference)


def _write_diagram(ranking: Ranking, path: Path) -> None:
    require_matplotlib()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, png(_diagram(ranking)))
    except OSError as error:
        raise RunError(f"cannot write the diagram to {path}: {error.strerror or error}") from None
