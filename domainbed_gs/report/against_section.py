"""The section of `collect_results` that puts published numbers beside ours.

python -m domainbed.scripts.collect_results --input_dir DIR --against iccv2021
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute
from domainbed.results.report import ReportContext
from domainbed.results.writing import print_paragraphs, print_table
from domainbed_gs.report.against import Beside, beside, other_settings
from domainbed_gs.report.paired import default_selection
from domainbed_gs.report.paired_tables import NOTHING, Table
from domainbed_gs.report.published import Published, load


class AgainstSection:
    """`--against`; a `domainbed.results.report.ReportSection`."""

    title = "Beside published numbers"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag of this section."""
        group = parser.add_argument_group("published numbers (domainbed_gs)")
        group.add_argument(
            "--against",
            metavar="NAME",
            help="iccv2021 (the paper's Table 1), or a CSV file with columns dataset,target,method,mean,std",
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether numbers are named."""
        return args.against is not None

    def write(self, context: ReportContext) -> None:
        """Print a table for each dataset, then what the numbers are and how the settings differ.

        Raises: UsageError if there are no such numbers, or none for this sweep; UnknownName.
        """
        published = load(context.args.against)
        selection = context.args.paired_selection or default_selection(context)
        method = METHODS[selection]
        cells = beside(compute(context.records, method), published)
        if context.format == "csv":
            print_table("Beside published numbers", *_table(cells, full=True), "csv")
        else:
            for dataset in dict.fromkeys(cell.dataset for cell in cells):
                table = _table([cell for cell in cells if cell.dataset == dataset])
                title = f"Dataset: {dataset}, beside published numbers (%)"
                print_table(title, *table, context.format)
        differ = other_settings(context.records, cells, published)
        if published.selection and selection not in published.selection:
            differ.insert(0, f"selection is {selection}, published with {published.selection[0]}")
        print_paragraphs(_about(cells, published, method.name, differ), context.format)


SECTION = AgainstSection()


def _table(cells: Sequence[Beside], full: bool = False) -> Table:
    """Columns and rows; in full precision, and with the dataset, if `full`."""
    columns = ["Target", "Method", "Ours", "Trials", "Published", "Difference", "In standard errors"]
    if not full:
        return Table(columns, [_row(cell) for cell in cells])
    names = (
        "dataset",
        "target",
        "algorithm",
        "mean_percent",
        "std_percent",
        "trials",
        "published_mean_percent",
    )
    more = ("published_std_percent", "difference_points", "difference_in_standard_errors", "note")
    return Table([*names, *more], [_full_row(cell) for cell in cells])


def _row(cell: Beside) -> list[str]:
    errors = cell.standard_errors
    return [
        *(cell.target, cell.algorithm, _mean_and_std(cell.mean, cell.std), str(len(cell.accuracies))),
        _mean_and_std(cell.published.mean, cell.published.std) + "?" * bool(cell.published.note),
        f"{cell.difference:+.2f}",
        NOTHING if errors is None else f"{errors:+.1f}",
    ]


def _full_row(cell: Beside) -> list[str]:
    values = [
        *(cell.dataset, cell.target, cell.algorithm, cell.mean, cell.std, len(cell.accuracies)),
        *(
            cell.published.mean,
            cell.published.std,
            cell.difference,
            cell.standard_errors,
            cell.published.note,
        ),
    ]
    return ["" if value is None else str(value) for value in values]


def _mean_and_std(mean: float, std: float | None) -> str:
    return f"{mean:.2f} ({NOTHING if std is None else f'{std:.2f}'})"


def _about(cells: Sequence[Beside], published: Published, selection: str, differ: list[str]) -> list[str]:
    trials = "an unknown number of trials" if published.trials is None else f"{published.trials} trials"
    lines = [
        f"Published: {published.title}; mean (standard deviation) over {trials}, in %.",
        f"Ours: mean (standard deviation, ddof=1) over trials. Model selection: {selection}.",
        "Difference: ours - published, in percentage points; and divided by the standard error of the "
        "difference of the two means.",
    ]
    if published.args or published.hparams:
        same = "The setting is the published one, as far as runs record it."
        lines.append(f"Note: not the published setting: {'; '.join(differ)}." if differ else same)
    notes = dict.fromkeys((f"{it.dataset}, {it.target}, {it.algorithm}", it.published.note) for it in cells)
    return lines + [f"?: {where}: {note}." for where, note in notes if note]
