"""The section of `collect_results` that ranks algorithms over datasets.

python -m domainbed.scripts.collect_results --input_dir DIR --ranks --ranks_figure ranks.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from domainbed.errors import RunError
from domainbed.files import write_whole
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute
from domainbed.results.plots import have_matplotlib, png, require_matplotlib
from domainbed.results.report import ReportContext
from domainbed.results.writing import print_figure_names, print_panels, print_paragraphs, print_table
from domainbed_gs.report.paired import default_selection
from domainbed_gs.report.rank_diagram import diagram
from domainbed_gs.report.ranks import ALGORITHMS, DATASETS, Ranking, rank
from domainbed_gs.report.statistics import ALPHA

TITLE = "Average ranks over datasets"


class RanksSection:
    """`--ranks` and `--ranks_figure`; a `domainbed.results.report.PageSection`."""

    title = "Ranks over datasets"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this section."""
        group = parser.add_argument_group("ranks over datasets (domainbed_gs)")
        group.add_argument(
            "--ranks", action="store_true", help="average ranks over datasets, Friedman's test"
        )
        group.add_argument(
            "--ranks_figure", type=Path, metavar="FILE", help="write the critical-difference diagram (.png)"
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether the table or the diagram is asked for."""
        return bool(args.ranks or args.ranks_figure)

    def belongs(self, context: ReportContext) -> bool:
        """Whether there are datasets and algorithms enough."""
        datasets, algorithms = ({*context.records.select(f"args.{it}")} for it in ("dataset", "algorithm"))
        return len(datasets) >= DATASETS and len(algorithms) >= ALGORITHMS

    def write(self, context: ReportContext) -> None:
        """Print a table with a row for each algorithm, and what its numbers are.

        Raises:
            UsageError: there are too few datasets or algorithms, or matplotlib is missing.
            UnknownName: of --paired_selection.
            RunError: the diagram can't be written.
        """
        args = context.args
        method = METHODS[args.paired_selection or default_selection(context)]
        ranking = rank(compute(context.records, method))
        page = context.format == "html"
        if args.ranks or page:
            print_table(TITLE, *_table(ranking, full=context.format == "csv"), context.format)
            print_paragraphs(_about(ranking, method.name), context.format)
        if page and have_matplotlib():
            print_panels("Critical-difference diagram", [("ranks", diagram(ranking))], _caption())
        elif args.ranks_figure and not page:
            _draw(ranking, args.ranks_figure)
            print_figure_names([args.ranks_figure], context.format)


SECTION = RanksSection()


def _table(ranking: Ranking, full: bool) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, in full precision if `full`."""
    rows = [
        [name, *(str(it) if full else f"{it:g}" for it in ranks), _short(ranking.average(name), full)]
        for name, ranks in ranking.ranks.items()
    ]
    return ["Algorithm", *ranking.datasets, "Average rank"], rows


def _short(number: float, full: bool) -> str:
    return str(number) if full else f"{number:.2f}"


def _about(ranking: Ranking, selection: str) -> list[str]:
    count, number = len(ranking.ranks), len(ranking.datasets)
    lines = [
        f"Model selection: {selection}.",
        "Rank: by the accuracy averaged over targets and trials, 1 is best; ties share their mean rank.",
        f"Friedman's test of {count} algorithms on {number} datasets: chi-squared {ranking.statistic:.2f}, "
        f"{count - 1} degrees of freedom, p = {ranking.p:.4g}; an approximation, rough with few datasets.",
        f"Nemenyi's critical difference at {ALPHA}: {ranking.critical_difference:.2f}. Average ranks that "
        "are closer are not told apart (Demsar 2006).",
    ]
    if ranking.critical_difference >= count - 1:
        lines.append(
            f"Note: no two of {count} algorithms can differ by that much on {number} datasets; take more."
        )
    if ranking.left_out:
        lines.append(f"Note: without a result on some dataset: {', '.join(ranking.left_out)}.")
    return lines


def _caption() -> str:
    return (
        "Average ranks, the best on the left. Bars join algorithms whose ranks differ by less than the "
        f"critical difference (Nemenyi's test at {ALPHA})."
    )


def _draw(ranking: Ranking, path: Path) -> None:
    require_matplotlib()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, png(diagram(ranking)))
    except OSError as error:
        raise RunError(f"the diagram can't be written to {path}: {error.strerror or error}") from None
