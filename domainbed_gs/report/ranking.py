"""Report section `ranks`: ranks algorithms over several datasets.

After Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).

python -m domainbed.scripts.collect_results --input_dir DIR --ranks --ranks_figure ranks.png
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from domainbed.errors import RunError, UsageError
from domainbed.files import write_atomic
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import Accuracies, compute_accuracies
from domainbed.results.plots import have_matplotlib, png, require_matplotlib
from domainbed.results.printing import print_figure_names, print_panels, print_paragraphs, print_section_table
from domainbed.results.report import ReportContext
from domainbed_gs.report.paired import Table, selection_name
from domainbed_gs.report.rank_diagram import diagram
from domainbed_gs.report.signed_rank import Floats
from domainbed_gs.report.statistics import ALPHA, critical_difference, friedman

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_DATASETS = 2
MIN_ALGORITHMS = 3
"""Smallest numbers for which ranks can be tested."""


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
            "--ranks_figure", type=Path, metavar="FILE", help="write the critical-difference diagram (.png)"
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
        """Print a table with a row for each algorithm, and the meaning of its numbers.

        Raises:
            UsageError: there are too few datasets or algorithms, or matplotlib is missing.
            UnknownName: --paired_selection is unknown.
            RunError: the diagram cannot be written.
        """
        args = context.args
        method = METHODS[selection_name(context)]
        ranking = rank(compute_accuracies(context.records, method))
        page = context.format == "html"
        if args.ranks or page:
            table = _table(ranking, full_precision=context.format == "csv")
            print_section_table("Average ranks over datasets", table.columns, table.rows, context.format)
            print_paragraphs(_describe(ranking, method.name), context.format)
        if page and have_matplotlib():
            caption = (
                "Average ranks, the best on the left. Bars join algorithms whose average ranks differ by "
                f"less than the critical difference (Nemenyi's test at level {ALPHA})."
            )
            print_panels("Critical-difference diagram", [("ranks", _diagram(ranking))], caption)
        elif args.ranks_figure and not page:
            _write_diagram(ranking, args.ranks_figure)
            print_figure_names([args.ranks_figure], context.format)


SECTION = RanksSection()


@dataclass(frozen=True)
class Ranking:
    """Ranks of k algorithms on N datasets; rank 1 is the best.

    Attributes:
        datasets: names of the N datasets.
        ranks: algorithm -> its rank on each dataset, best average first. Ties share their mean rank.
        left_out: algorithms without results on some dataset.
        statistic: Friedman's chi-squared statistic, corrected for ties.
        p: p-value of Friedman's test.
        critical_difference: Nemenyi's critical difference of two average ranks.
    """

    datasets: list[str]
    ranks: dict[str, list[float]]
    left_out: list[str]
    statistic: float
    p: float
    critical_difference: float

    @property
    def averages(self) -> dict[str, float]:
        """Algorithm -> average rank over the datasets, between 1 and k; best first."""
        return {name: float(np.mean(ranks)) for name, ranks in self.ranks.items()}

    def cliques(self) -> list[list[str]]:
        """Maximal groups of algorithms whose average ranks differ by less than the critical difference."""
        averages = self.averages
        names = list(averages)
        groups: list[list[str]] = []
        for i, first in enumerate(names):
            group = [
                name for name in names[i:] if averages[name] - averages[first] < self.critical_difference
            ]
            if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
                groups.append(group)
        return groups


def rank(accuracies: Accuracies) -> Ranking:
    """Rank the algorithms by their mean accuracy on each dataset.

    The accuracy on a dataset is the mean over trials of the mean over targets, as in the table of averages.
    Datasets without results are ignored; algorithms without results on one of the others are left out.

    Raises: UsageError with fewer than two datasets or three algorithms.
    """
    means: dict[tuple[str, str], float] = {}
    for dataset in accuracies.datasets:
        for algorithm in accuracies.algorithms:
            trials = accuracies.averages(dataset.name, algorithm)
            if trials and not math.isnan(mean := float(np.mean(trials))):
                means[dataset.name, algorithm] = mean
    with_results = {dataset for dataset, _ in means}
    datasets = [dataset.name for dataset in accuracies.datasets if dataset.name in with_results]
    complete = [
        name for name in accuracies.algorithms if all((dataset, name) in means for dataset in datasets)
    ]
    if len(datasets) < MIN_DATASETS or len(complete) < MIN_ALGORITHMS:
        raise UsageError(
            f"ranks need at least {MIN_DATASETS} datasets, and at least {MIN_ALGORITHMS} algorithms with "
            f"results on all of them; found {len(datasets)} and {len(complete)}"
        )
    table = np.array([[means[dataset, name] for name in complete] for dataset in datasets])
    left_out = [name for name in accuracies.algorithms if name not in complete]
    return rank_table(table, datasets=datasets, algorithms=complete, left_out=left_out)


def rank_table(
    accuracies: Floats, *, datasets: list[str], algorithms: Sequence[str], left_out: list[str]
) -> Ranking:
    """Ranking of `accuracies` (N, k), a row for each dataset and a column for each algorithm."""
    from scipy.stats import rankdata

    # Means of the same trials in another order may differ in the last bits; they are tied.
    ranks = rankdata(-accuracies.round(12), axis=1)
    statistic, p = friedman(ranks)
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    return Ranking(
        datasets=datasets,
        ranks={algorithms[i]: ranks[:, i].tolist() for i in order},
        left_out=left_out,
        statistic=statistic,
        p=p,
        critical_difference=critical_difference(len(algorithms), len(datasets)),
    )


def _table(ranking: Ranking, full_precision: bool) -> Table:
    averages = ranking.averages
    rows = []
    for name, ranks in ranking.ranks.items():
        if full_precision:
            rows.append([name, *map(str, ranks), str(averages[name])])
        else:
            rows.append([name, *(f"{number:g}" for number in ranks), f"{averages[name]:.2f}"])
    return Table(["Algorithm", *ranking.datasets, "Average rank"], rows)


def _describe(ranking: Ranking, selection: str) -> list[str]:
    """Meaning of the numbers, and what limits them."""
    algorithms, datasets = len(ranking.ranks), len(ranking.datasets)
    lines = [
        f"Model selection: {selection}.",
        "Rank: by the accuracy averaged over targets and trials; 1 is best, and ties share their mean rank.",
        f"Friedman's test of {algorithms} algorithms on {datasets} datasets: chi-squared "
        f"{ranking.statistic:.2f}, {algorithms - 1} degrees of freedom, p = {ranking.p:.4g}. The p-value is "
        "an approximation, and a rough one with few datasets.",
        f"Nemenyi's critical difference at level {ALPHA}: {ranking.critical_difference:.2f}. Average ranks "
        "that differ by less are not significantly different (Demsar 2006).",
    ]
    if ranking.critical_difference >= algorithms - 1:
        lines.append(
            f"Note: average ranks of {algorithms} algorithms on {datasets} datasets cannot differ by the "
            "critical difference. More datasets are needed."
        )
    if ranking.left_out:
        lines.append(f"Note: left out for lack of results on some dataset: {', '.join(ranking.left_out)}.")
    return lines


def _diagram(ranking: Ranking) -> Figure:
    return diagram(ranking.averages, ranking.cliques(), ranking.critical_difference)


def _write_diagram(ranking: Ranking, path: Path) -> None:
    require_matplotlib()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, png(_diagram(ranking)))
    except OSError as error:
        raise RunError(f"cannot write the diagram to {path}: {error.strerror or error}") from None
