"""The DomainBed tables: what they contain, and how each format prints them to `sys.stdout`.

Each dataset has a table of algorithms by target environments. A table of averages by datasets follows.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed.results.printing import print_footer, print_lines
from domainbed.results.tables import format_mean, latex_escape, latex_width, print_table, render_table

_ERROR = "mean +/- standard error over trials (ddof=0)"


@dataclass(frozen=True)
class DomainBedTable:
    """One table, as text.

    Attributes:
        subject: name of the dataset, or "Averages".
        title: the line above the table.
        columns: labels of all columns, including that of the row labels.
        rows: labels of the rows.
        cells: one list of texts for each row.
        colwidth: width of a column in plain text.
        footer: one sentence on the selection method and the meaning of the numbers.
        incomplete: a sentence on averages over fewer targets than the dataset has; empty if there are none.
    """

    subject: str
    title: str
    columns: list[str]
    rows: list[str]
    cells: list[list[str]]
    colwidth: int
    footer: str
    incomplete: str = ""


def domainbed_tables(accuracies: Accuracies, latex: bool = False, mark: str = "") -> Iterator[DomainBedTable]:
    """The table of each dataset, then the table of averages.

    Args:
        accuracies: results by one selection method.
        latex: write plus-minus signs for LaTeX.
        mark: written behind averages over fewer targets than the dataset has.
    """
    selection = f"model selection method: {accuracies.method}"
    for dataset in accuracies.datasets:
        yield DomainBedTable(
            subject=dataset.name,
            title=f"Dataset: {dataset.name}, {selection}",
            columns=["Algorithm", *dataset.environments, "Avg"],
            rows=accuracies.algorithms,
            cells=[
                _cells(_by_target(accuracies, dataset, algorithm), latex)
                for algorithm in accuracies.algorithms
            ],
            colwidth=20,
            footer=f"{accuracies.about} in %, {_ERROR}.",
        )
    yield DomainBedTable(
        subject="Averages",
        title=f"Averages, {selection}",
        columns=["Algorithm", *(dataset.name for dataset in accuracies.datasets), "Avg"],
        rows=accuracies.algorithms,
        cells=[_average_cells(accuracies, algorithm, latex, mark) for algorithm in accuracies.algorithms],
        colwidth=25,
        footer=f"{accuracies.about} in %, averaged over the targets in each trial, {_ERROR}.",
        incomplete=_incomplete(accuracies),
    )


def _by_target(accuracies: Accuracies, dataset: ShownDataset, algorithm: str) -> list[list[float]]:
    targets = range(len(dataset.environments))
    return [accuracies.trials(dataset.name, algorithm, target) for target in targets]


def _by_dataset(accuracies: Accuracies, algorithm: str) -> list[list[float]]:
    return [accuracies.averages(dataset.name, algorithm) for dataset in accuracies.datasets]


def _cells(columns: Sequence[list[float]], latex: bool) -> list[str]:
    """Mean and error of each column, then the mean of the means, or X if a column has no accuracies."""
    formatted = [format_mean(trials, latex) for trials in columns]
    means = [mean for mean, _, _ in formatted if mean is not None]
    complete = bool(means) and len(means) == len(columns)
    return [text for _, _, text in formatted] + [f"{sum(means) / len(means):.1f}" if complete else "X"]


def _average_cells(accuracies: Accuracies, algorithm: str, latex: bool, mark: str) -> list[str]:
    """Cells of a row in the table of averages; those over fewer targets than the dataset has are marked."""
    texts = _cells(_by_dataset(accuracies, algorithm), latex)
    marked = [bool(accuracies.missing_targets(dataset, algorithm)) for dataset in accuracies.datasets]
    marked.append(any(marked) and texts[-1] != "X")
    return [text + mark if incomplete else text for text, incomplete in zip(texts, marked, strict=True)]


def _incomplete(accuracies: Accuracies) -> str:
    """Which averages lack which targets; empty if all are complete."""
    lacking: dict[str, list[str]] = {}
    for dataset in accuracies.datasets:
        for algorithm in accuracies.algorithms:
            if missing := missing_environments(accuracies, dataset, algorithm):
                lacking.setdefault(f"{dataset.name} without {', '.join(missing)}", []).append(algorithm)
    if not lacking:
        return ""
    listed = "; ".join(f"{what}: {', '.join(algorithms)}" for what, algorithms in lacking.items())
    return (
        "Averaged over fewer targets than the dataset has; compare only averages over the same targets. "
        f"{listed}."
    )


def missing_environments(accuracies: Accuracies, dataset: ShownDataset, algorithm: str) -> list[str]:
    """Names of the targets that an average lacks, with the number of trials if some trials have them."""
    trials = len(accuracies.averages(dataset.name, algorithm))
    return [
        dataset.environments[target] + ("" if count == trials else f" ({count} of {trials} trials)")
        for target, count in accuracies.missing_targets(dataset, algorithm).items()
    ]


@dataclass(frozen=True)
class ReportFormat:
    """How a report is printed in one format.

    Attributes:
        suffix: suffix of the report's file.
        print_head: prints what comes first, given the number of records.
        print_tables: prints the tables of one selection method, given its short name and its accuracies.
        print_end: prints what comes last.
    """

    suffix: str
    print_head: Callable[[int], None]
    print_tables: Callable[[str, Accuracies], None]
    print_end: Callable[[], None]


def print_upstream_tables(accuracies: Accuracies, latex: bool) -> None:
    """Print the tables of one selection method as upstream does, in text or LaTeX.

    In LaTeX, columns are widened where `print_table` would cut off the closing brace of a label, and
    incomplete averages are marked. Footers follow each table.
    """
    for table in domainbed_tables(accuracies, latex, mark="$^\\dag$" if latex else ""):
        width = table.colwidth
        if latex:
            print_lines("", f"\\subsubsection{{{latex_escape(table.subject)}}}")
            width = latex_width(width, table.rows, table.columns)
        print_table(table.cells, table.title, table.rows, table.columns, width, latex)
        _print_footers(table, "latex" if latex else "text")


def print_rendered_tables(accuracies: Accuracies, format: str) -> None:
    """Print the tables of one selection method as "markdown" or "html"."""
    for table in domainbed_tables(accuracies, mark="†"):
        rows = [[label, *cells] for label, cells in zip(table.rows, table.cells, strict=True)]
        print_lines(render_table(table.title, table.columns, rows, format))
        _print_footers(table, format)


def _print_footers(table: DomainBedTable, format: str) -> None:
    """Print the sentences under a table. In text the table itself has no marks, as in upstream."""
    print_footer(table.footer, format)
    if table.incomplete:
        print_footer(table.incomplete if format == "text" else f"† {table.incomplete}", format)


def print_csv_rows(short_name: str, accuracies: Accuracies) -> None:
    """Print one line for each cell, in percent at full precision. Mean and stderr are empty where n is 0.

    `missing` has the targets that an average lacks in some or all trials.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for dataset, algorithm, environment, trials, missing in _tidy_rows(accuracies):
        mean, err, _ = format_mean(trials, latex=False)
        writer.writerow([short_name, dataset, algorithm, environment, mean, err, len(trials), missing])
    tables = list(domainbed_tables(accuracies))
    footers = [table.footer for table in tables] + [table.incomplete for table in tables]
    for footer in dict.fromkeys(filter(None, footers)):
        print_footer(f"{short_name}: {footer}", "csv")


def _tidy_rows(accuracies: Accuracies) -> Iterator[tuple[str, str, str, list[float], str]]:
    """(dataset, algorithm, environment, accuracies of the trials, missing targets) of each cell.

    Environment "Avg" is a cell of the table of averages.
    """
    for dataset in accuracies.datasets:
        for algorithm in accuracies.algorithms:
            by_target = _by_target(accuracies, dataset, algorithm)
            for environment, trials in zip(dataset.environments, by_target, strict=True):
                yield dataset.name, algorithm, environment, trials, ""
            missing = "; ".join(missing_environments(accuracies, dataset, algorithm))
            yield dataset.name, algorithm, "Avg", accuracies.averages(dataset.name, algorithm), missing


def _print_latex_head(records: int) -> None:
    print_lines(
        "\\documentclass{article}",
        "\\usepackage{booktabs}",
        "\\usepackage{adjustbox}",
        "\\begin{document}",
        "\\section{Full DomainBed results}",
        f"% Total records: {records}",
    )


def _print_latex_tables(short_name: str, accuracies: Accuracies) -> None:
    print_lines("", f"\\subsection{{Model selection: {latex_escape(accuracies.method)}}}")
    print_upstream_tables(accuracies, latex=True)


FORMATS = {
    "text": ReportFormat(
        suffix=".txt",
        print_head=lambda records: print_lines(f"Total records: {records}"),
        print_tables=lambda short_name, accuracies: print_upstream_tables(accuracies, latex=False),
        print_end=lambda: None,
    ),
    "latex": ReportFormat(
        suffix=".tex",
        print_head=_print_latex_head,
        print_tables=_print_latex_tables,
        print_end=lambda: print_lines("\\end{document}"),
    ),
    "markdown": ReportFormat(
        suffix=".md",
        print_head=lambda records: print_lines(f"Total records: {records}"),
        print_tables=lambda short_name, accuracies: print_rendered_tables(accuracies, "markdown"),
        print_end=lambda: None,
    ),
    "csv": ReportFormat(
        suffix=".csv",
        print_head=lambda records: print_lines(
            "selection,dataset,algorithm,environment,mean,stderr,n,missing"
        ),
        print_tables=print_csv_rows,
        print_end=lambda: None,
    ),
}
"""Formats of a report by name."""
